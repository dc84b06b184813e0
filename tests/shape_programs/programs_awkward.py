"""Code that is awkward to read back: helpers, comprehensions, long expressions, decorators, loaders, constructors."""

import functools

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.data import DataLoader

from shape_programs.record import case


def rotate_half(x):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((-b, a), dim=-1)


def apply_rotary(x, cos, sin):
    return x * cos + rotate_half(x) * sin


class RotaryAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qk = nn.Linear(dim, 2 * dim)
        angles = torch.outer(torch.arange(32), 1 / 10000 ** torch.linspace(0, 1, dim // 2))
        self.register_buffer("cos", angles.cos().repeat(1, 2))
        self.register_buffer("sin", angles.sin().repeat(1, 2))

    def forward(self, x):
        q, k = self.qk(x).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        T = x.shape[1]
        q, k = (apply_rotary(t, self.cos[:T], self.sin[:T]) for t in (q, k))
        return (q @ k.mT).softmax(-1)


class RotaryNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([RotaryAttention(24, 4)])

    def forward(self, x):
        return self.blocks[0](x)


@case(
    module="blocks.0",
    op="mul",
    line="x * cos + rotate_half(x) * sin",
    operands=((2, 4, 9, 6), (9, 24)),
    origin=("cos", "blocks.0.qk"),
    fix=("6", "24", "heads"),
    fixed=("torch.linspace(0, 1, dim // 2)", "torch.linspace(0, 1, dim // heads // 2)"),
    ids="S2",
)
def rotary_angles_of_the_whole_width():
    return RotaryNet(), (torch.randn(2, 9, 24),)


class LongExpression(nn.Module):
    def __init__(self):
        super().__init__()
        self.text, self.image, self.audio = nn.Linear(5, 8), nn.Linear(6, 8), nn.Linear(7, 8)
        self.fuse = nn.Linear(16, 3)

    def forward(self, text, image, audio):
        return self.fuse(
            torch.cat(
                [
                    F.relu(self.text(text)),
                    F.relu(self.image(image)),
                    F.relu(self.audio(audio)),
                ],
                dim=-1,
            )
        )


@case(
    module="fuse",
    op="linear",
    line="self.fuse(",
    operands=((2, 24), (3, 16)),
    origin=("cat", "text", "image", "audio"),
    fix="24",
    verified=True,
    fixed=("nn.Linear(16, 3)", "nn.Linear(24, 3)"),
    ids="S1",
)
def expression_over_many_lines():
    return LongExpression(), (torch.randn(2, 5), torch.randn(2, 6), torch.randn(2, 7))


class MultiScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv1d(4, 6, k, padding=k // 2) for k in (3, 4, 5)])

    def forward(self, x):
        return torch.stack([F.relu(conv(x)) for conv in self.convs]).sum(0)


@case(
    op="stack",
    line="torch.stack([F.relu(conv(x)) for conv in self.convs])",
    operands=((2, 6, 20), (2, 6, 21)),
    origin=("convs.1", "convs.0"),
    fix=("padding", "5", "3"),
    fixed=("(3, 4, 5)", "(3, 5, 7)"),
    ids="S6b",
)
def even_kernels_in_a_comprehension():
    return MultiScale(), (torch.randn(2, 4, 20),)


def logged(forward):
    @functools.wraps(forward)
    def wrapper(self, *args, **kwargs):
        return forward(self, *args, **kwargs)

    return wrapper


class Decorated(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 10), nn.ReLU())
        self.head = nn.Linear(12, 2)

    @logged
    @torch.no_grad()
    def forward(self, x):
        return self.head(self.body(x))


@case(
    module="head",
    op="linear",
    line="self.head(self.body(x))",
    operands=((3, 10), (2, 12)),
    origin="body.0",
    fix=("10", "12"),
    verified=True,
    fixed=("nn.Linear(12, 2)", "nn.Linear(10, 2)"),
    ids="S1e",
)
def decorated_forward():
    return Decorated(), (torch.randn(3, 6),)


def average_loss(model, dataset):
    loader = DataLoader(dataset, batch_size=3)
    total = 0.0
    for x, y in loader:
        total += F.mse_loss(model(x).squeeze(-1), y).item()
    return total


@case(
    op=("stack", "default_collate"),
    line="for x, y in loader:",
    operands=((4,), (5,)),
    fix=("pad", "collate_fn"),
    fixed=("torch.randn(5), torch.tensor(1.0)", "torch.randn(4), torch.tensor(1.0)"),
    ids=("S6b", "R3"),
)
def loader_cannot_collate():
    dataset = [(torch.randn(4), torch.tensor(0.0)), (torch.randn(5), torch.tensor(1.0))]
    return average_loss, (nn.Linear(4, 1), dataset)


class Probing(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3))
        width = self.features(torch.zeros(1, 3, size, size)).numel()
        self.fc = nn.Linear(width, 4)

    def forward(self, x):
        return self.fc(self.features(x).flatten(1))


@case(
    module=("features.2", "2"),
    op="conv2d",
    line="self.features(torch.zeros(1, 3, size, size)).numel()",
    operands=((1, 6, 7, 7), (12, 8, 3, 3)),
    origin=("features.0", "0"),
    fix=("6", "8"),
    fixed=("nn.Conv2d(8, 12, 3)", "nn.Conv2d(6, 12, 3)"),
    ids="S1",
)
def error_while_constructing():
    return Probing, (16,)


class Vocoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.pre = weight_norm(nn.Conv1d(20, 16, 3, padding=1))
        self.post = weight_norm(nn.Conv1d(12, 1, 3, padding=1))

    def forward(self, mel):
        return torch.tanh(self.post(F.leaky_relu(self.pre(mel))))


@case(
    module="post",
    op="conv1d",
    line="self.post(F.leaky_relu(self.pre(mel)))",
    operands=((2, 16, 30), (1, 12, 3)),
    origin="pre",
    fix=("16", "12"),
    verified=True,
    fixed=("nn.Conv1d(12, 1,", "nn.Conv1d(16, 1,"),
    ids="S1",
)
def weight_normed_convolutions():
    return Vocoder(), (torch.randn(2, 20, 30),)


class TiedModel(nn.Module):
    def __init__(self, vocab=30, dim=12, hidden=16):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.mix = nn.Linear(dim, hidden)
        self.decoder = nn.Linear(dim, vocab, bias=False)
        self.decoder.weight = self.embed.weight

    def forward(self, ids):
        return self.decoder(torch.tanh(self.mix(self.embed(ids))))


@case(
    module="decoder",
    op="linear",
    line="self.decoder(torch.tanh(",
    operands=((2, 5, 16), (30, 12)),
    origin="mix",
    fix=("12", "16"),
    verified=True,
    fixed=("hidden=16", "hidden=12"),
    ids="S1e",
)
def tied_decoder():
    return TiedModel(), (torch.randint(0, 30, (2, 5)),)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(5, 7)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.stem(x).relu())


@case(
    module="module.head",
    op="linear",
    line="self.head(self.stem(x).relu())",
    operands=((4, 7), (2, 8)),
    origin="stem",
    fix=("7", "8"),
    verified=True,
    fixed=(
        "nn.Linear(8, 2)\n\n    def forward(self, x):\n        return self.head(self.stem",
        "nn.Linear(7, 2)\n\n    def forward(self, x):\n        return self.head(self.stem",
    ),
    ids="S1e",
)
def wrapped_in_data_parallel():
    return nn.DataParallel(Inner()), (torch.randn(4, 5),)


class Lambdas(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(6, 9)
        self.merge = lambda a, b: a * b.unsqueeze(-1)

    def forward(self, x, weight):
        return self.merge(self.proj(x), weight)


@case(
    op="mul",
    line="a * b.unsqueeze(-1)",
    operands=((3, 9), (4, 1)),
    origin=("weight", "unsqueeze", "proj"),
    fix=("3", "4"),
    fixed=("torch.rand(4)", "torch.rand(3)"),
    ids="S2",
)
def lambda_in_an_attribute():
    return Lambdas(), (torch.randn(3, 6), torch.rand(4))


class Recursive(nn.Module):
    def __init__(self):
        super().__init__()
        self.leaf = nn.Linear(3, 6)
        self.join = nn.Linear(10, 6)

    def forward(self, tree):
        if isinstance(tree, torch.Tensor):
            return self.leaf(tree)
        left, right = (self(child) for child in tree)
        return self.join(torch.cat([left, right], dim=-1))


@case(
    module="join",
    op="linear",
    line="self.join(torch.cat([left, right], dim=-1))",
    operands=((12,), (6, 10)),
    origin=("leaf", "cat"),
    fix="12",
    verified=True,
    fixed=("nn.Linear(10, 6)", "nn.Linear(12, 6)"),
    ids="S1e",
)
def recursive_trees():
    x = torch.randn(3)
    return Recursive(), ((x, (x, x)),)


class MessagePassing(nn.Module):
    def __init__(self):
        super().__init__()
        self.message = nn.Linear(4, 6)

    def forward(self, nodes, edges):
        source, target = edges
        messages = self.message(nodes)[source]
        out = torch.zeros(nodes.shape)
        return out.index_add(0, target, messages)


@case(
    op="index_add",
    line="out.index_add(0, target, messages)",
    operands=((5, 4), (7, 6), (7,)),
    origin=("message", "zeros"),
    fix=("6", "4"),
    fixed=("torch.zeros(nodes.shape)", "torch.zeros(nodes.shape[0], 6)"),
    ids="S4",
)
def messages_wider_than_nodes():
    return MessagePassing(), (torch.randn(5, 4), torch.randint(0, 5, (2, 7)))


class Residual(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.layers(x)


@case(
    module="1.layers.3",
    op="linear",
    line="x + self.layers(x)",
    operands=((2, 16), (8, 12)),
    origin="1.layers.1",
    fix=("16", "12"),
    verified=True,
    fixed=("nn.Linear(12, 8)", "nn.Linear(16, 8)"),
    ids="S1e",
)
def residual_inside_a_sequential():
    block = Residual(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(12, 8))
    return nn.Sequential(nn.Linear(4, 8), block, nn.Linear(8, 2)), (torch.randn(2, 4),)
