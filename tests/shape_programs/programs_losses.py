"""Losses: logits and targets whose shapes, kinds or ranges disagree."""

import torch
import torch.nn.functional as F
from torch import nn

from shape_programs.record import case


class LanguageModel(nn.Module):
    def __init__(self, vocab=11, dim=8):
        super().__init__()
        self.emb = nn.Embedding(vocab, dim)
        self.head = nn.Linear(dim, vocab)

    def forward(self, ids, targets=None):
        logits = self.head(self.emb(ids))
        if targets is None:
            return logits, None
        loss = F.cross_entropy(logits, targets)
        return logits, loss


@case(
    op="cross_entropy",
    line="F.cross_entropy(logits, targets)",
    operands=((4, 7, 11), (4, 7)),
    origin=("head", "targets"),
    fix=("transpose(1, 2)", "view(-1", "flatten", "reshape(-1", "mT"),
    verified=True,
    fixed=("F.cross_entropy(logits, targets)", "F.cross_entropy(logits.flatten(0, 1), targets.flatten())"),
    ids="X2",
)
def language_model_loss():
    return LanguageModel(), (torch.randint(0, 11, (4, 7)), torch.randint(0, 11, (4, 7)))


class Iris(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 3))

    def forward(self, x):
        return self.layers(x)


def train_step(model, criterion, x, y):
    prediction = model(x)
    loss = criterion(prediction, y)
    loss.backward()
    return loss.item()


@case(
    module=("", "criterion"),
    op="cross_entropy",
    line="criterion(prediction, y)",
    operands=((5, 3), (5, 3)),
    origin=("y", "model", "layers.2"),
    fix=("argmax", "float"),
    verified=True,
    fixed=("torch.eye(3).long()", "torch.eye(3)"),
    ids="X3",
)
def one_hot_integers():
    return train_step, (Iris(), nn.CrossEntropyLoss(), torch.randn(5, 4), torch.eye(3).long()[[0, 1, 2, 0, 1]])


@case(
    module=("", "criterion"),
    op=("cross_entropy", "nll_loss"),
    line="criterion(prediction, y)",
    operands=((5, 3), (5,)),
    origin=("y", "model", "layers.2"),
    fix=("4", "3", "- 1"),
    fixed=("torch.tensor([1, 2, 3, 1, 2])", "torch.tensor([0, 1, 2, 0, 1])"),
    ids="X5",
)
def classes_counted_from_one():
    return train_step, (Iris(), nn.CrossEntropyLoss(), torch.randn(5, 4), torch.tensor([1, 2, 3, 1, 2]))


@case(
    module=("", "criterion"),
    op="cross_entropy",
    line="criterion(prediction, y)",
    operands=((5, 3), (5,)),
    origin=("y", "model", "layers.2"),
    fix=("long", "int64"),
    verified=True,
    fixed=("torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0])", "torch.tensor([0, 1, 2, 0, 1])"),
    ids="X3",
)
def float_class_labels():
    return train_step, (Iris(), nn.CrossEntropyLoss(), torch.randn(5, 4), torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0]))


@case(
    module=("", "criterion"),
    op=("cross_entropy", "nll_loss"),
    line="criterion(prediction, y)",
    operands=((5, 3), (4,)),
    origin=("y", "model", "layers.2", "x"),
    fix=("4", "5"),
    fixed=("torch.tensor([0, 1, 2, 0])", "torch.tensor([0, 1, 2, 0, 1])"),
    ids="X2",
)
def targets_of_another_batch():
    return train_step, (Iris(), nn.CrossEntropyLoss(), torch.randn(5, 4), torch.tensor([0, 1, 2, 0]))


@case(
    module=("", "criterion"),
    op=("cross_entropy", "nll_loss"),
    line="criterion(prediction, y)",
    operands=((5, 3), (5, 1)),
    origin=("y", "model", "layers.2"),
    fix=("squeeze", "flatten", "view(-1)"),
    verified=True,
    fixed=("torch.randint(0, 3, (5, 1))", "torch.randint(0, 3, (5,))"),
    ids="X2",
)
def targets_in_a_column():
    return train_step, (Iris(), nn.CrossEntropyLoss(), torch.randn(5, 4), torch.randint(0, 3, (5, 1)))


class Binary(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 1))
        self.criterion = nn.BCEWithLogitsLoss()

    def forward(self, x, y):
        return self.criterion(self.net(x), y)


@case(
    module="criterion",
    op="binary_cross_entropy_with_logits",
    line="self.criterion(self.net(x), y)",
    operands=((8, 1), (8,)),
    origin=("net.0", "y"),
    fix=("squeeze", "unsqueeze", "view", "flatten"),
    verified=True,
    fixed=("self.net(x), y)", "self.net(x).squeeze(-1), y)"),
    ids=("X1", "X12"),
)
def binary_targets_without_the_axis():
    return Binary(), (torch.randn(8, 6), torch.ones(8))


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4, 2, 1), nn.Flatten(), nn.Sigmoid()
        )

    def forward(self, image):
        return self.net(image)


def gan_loss(discriminator, real):
    scores = discriminator(real)
    ones = torch.ones(real.size(0), 1)
    return F.binary_cross_entropy(scores, ones)


@case(
    op="binary_cross_entropy",
    line="F.binary_cross_entropy(scores, ones)",
    operands=((3, 49), (3, 1)),
    origin=("net", "ones"),
    fix=("49", "ones_like", "mean", "expand"),
    fixed=("torch.ones(real.size(0), 1)", "torch.ones_like(scores)"),
    ids="X1",
)
def discriminator_scores_patches():
    return gan_loss, (Discriminator(), torch.randn(3, 1, 28, 28))


class Speech(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(6, 8, batch_first=True)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        h, _ = self.rnn(x)
        return self.fc(h).log_softmax(-1)


def ctc_step(model, audio, targets, lengths):
    log_probs = model(audio)
    frames = torch.full((audio.shape[0],), audio.shape[1])
    return F.ctc_loss(log_probs, targets, frames, lengths)


@case(
    op="ctc_loss",
    line="F.ctc_loss(log_probs, targets, frames, lengths)",
    operands=((2, 12, 5), (2, 4), (2,)),
    origin=("fc", "model", "log_softmax", "lengths"),
    fix=("transpose(0, 1)", "permute(1, 0, 2)"),
    verified=True,
    fixed=("F.ctc_loss(log_probs,", "F.ctc_loss(log_probs.transpose(0, 1),"),
    ids="X2",
)
def ctc_wants_time_first():
    return ctc_step, (Speech(), torch.randn(2, 12, 6), torch.randint(1, 5, (2, 4)), torch.tensor([4, 3]))


class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.loss = nn.NLLLoss()

    def forward(self, image, mask):
        return self.loss(self.conv(image).log_softmax(1), mask)


@case(
    module="loss",
    op="nll_loss",
    line="self.loss(self.conv(image).log_softmax(1), mask)",
    operands=((2, 5, 10, 10), (2, 12, 12)),
    origin=("conv", "mask"),
    fix=("padding", "12", "10"),
    verified=True,
    fixed=("nn.Conv2d(3, 5, 3)", "nn.Conv2d(3, 5, 3, padding=1)"),
    ids="X2",
)
def segmentation_mask_size():
    return Segmenter(), (torch.randn(2, 3, 12, 12), torch.randint(0, 5, (2, 12, 12)))


def distill(student, teacher, x):
    return F.kl_div(F.log_softmax(student(x), -1), F.softmax(teacher(x), -1), reduction="batchmean")


@case(
    op="kl_div",
    line="F.kl_div(",
    operands=((4, 10), (4, 12)),
    origin=("student", "teacher", "softmax"),
    fix=("10", "12"),
    fixed=("nn.Linear(6, 12)", "nn.Linear(6, 10)"),
    ids="X2",
)
def student_and_teacher_classes():
    return distill, (nn.Linear(6, 10), nn.Linear(6, 12), torch.randn(4, 6))


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
        self.loss = nn.CosineEmbeddingLoss()

    def forward(self, a, b, same):
        return self.loss(self.tower(a), self.tower(b), same)


@case(
    module="loss",
    op="cosine_embedding_loss",
    line="self.loss(self.tower(a), self.tower(b), same)",
    operands=((5, 4), (5, 1)),
    origin=("same", "tower"),
    fix=("squeeze", "flatten", "view(-1)"),
    verified=True,
    fixed=("torch.ones(5, 1)", "torch.ones(5)"),
    ids="X2",
)
def siamese_targets():
    return Siamese(), (torch.randn(5, 8), torch.randn(5, 8), torch.ones(5, 1))


def triplet(net, anchor, positive, negative):
    return F.triplet_margin_loss(net(anchor), net(positive), negative)


@case(
    op="triplet_margin_loss",
    line="F.triplet_margin_loss(",
    operands=((3, 5), (3, 9)),
    origin=("negative", "net"),
    fix=("5", "9", "net(negative)"),
    fixed=("net(positive), negative)", "net(positive), net(negative))"),
    ids="X2",
)
def triplet_without_embedding():
    return triplet, (nn.Linear(9, 5), torch.randn(3, 9), torch.randn(3, 9), torch.randn(3, 9))


class Regressor(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(5, 2)

    def forward(self, x, y):
        return F.mse_loss(self.net(x), y)


@case(
    op="mse_loss",
    line="F.mse_loss(self.net(x), y)",
    operands=((6, 2), (6, 3)),
    origin=("net", "y"),
    fix=("3", "2"),
    verified=True,
    fixed=("nn.Linear(5, 2)", "nn.Linear(5, 3)"),
    ids=("S2", "X1"),
)
def regression_targets():
    return Regressor(), (torch.randn(6, 5), torch.randn(6, 3))
