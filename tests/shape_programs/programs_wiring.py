"""How programs are wired: hooks, functional calls, checkpoints, autocast, structured inputs, state, compiled code."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, vmap
from torch.utils.checkpoint import checkpoint

from shape_programs.record import case


class Encoder(nn.Module):
    def __init__(self, dim=6, hidden=9):
        super().__init__()
        self.inner = nn.Linear(dim, hidden)
        self.outer = nn.Linear(8, dim)

    def forward(self, x):
        return self.outer(torch.tanh(self.inner(x)))


class Hooked(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.second = nn.Linear(6, 3)
        self.scale = torch.ones(4)
        self.first.register_forward_hook(self.rescale)

    def rescale(self, module, inputs, output):
        return output * self.scale

    def forward(self, x):
        return self.second(self.first(x))


@case(
    module="first",
    op="mul",
    line="output * self.scale",
    operands=((2, 6), (4,)),
    origin=("first", "scale"),
    fix=("6", "4"),
    fixed=("torch.ones(4)", "torch.ones(6)"),
    ids="S2",
)
def error_in_a_forward_hook():
    return Hooked(), (torch.randn(2, 4),)


def centre(module, inputs):
    (x,) = inputs
    return x - x.mean(dim=1).unsqueeze(0)


@case(
    module=("outer", ""),
    op="sub",
    line="x - x.mean(dim=1).unsqueeze(0)",
    operands=((4, 8), (1, 4)),
    origin=("mean", "inner", "outer"),
    fix=("keepdim=True", "unsqueeze(1)", "unsqueeze(-1)", "transpose(0, 1)"),
    verified=True,
    fixed=("unsqueeze(0)", "unsqueeze(1)"),
    ids="S2",
)
def error_in_a_pre_hook():
    model = Encoder(hidden=8)
    model.outer.register_forward_pre_hook(centre)
    return model, (torch.randn(4, 6),)


def ensemble(model, parameters, x):
    return functional_call(model, parameters, (x,))


@case(
    module="outer",
    op="linear",
    line="self.outer(torch.tanh(self.inner(x)))",
    operands=((5, 9), (6, 8)),
    origin="inner",
    fix=("9", "8"),
    verified=True,
    fixed=("Encoder()", "Encoder(hidden=8)"),
    ids="S1e",
)
def functional_parameters():
    model = Encoder()
    return ensemble, (model, {name: p.detach() * 2 for name, p in model.named_parameters()}, torch.randn(5, 6))


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Encoder(6, 8), Encoder(6, 10)])

    def forward(self, x):
        for block in self.blocks:
            x = x + checkpoint(block, x, use_reentrant=False)
        return x


@case(
    module="blocks.1.outer",
    op="linear",
    line="self.outer(torch.tanh(self.inner(x)))",
    operands=((3, 10), (6, 8)),
    origin="blocks.1.inner",
    fix=("10", "8"),
    verified=True,
    fixed=("Encoder(6, 10)", "Encoder(6, 8)"),
    ids="S1e",
)
def inside_a_checkpoint():
    return Checkpointed(), (torch.randn(3, 6, requires_grad=True),)


def per_sample(model, xs):
    return vmap(lambda x: (model(x) - x[:3]).pow(2).sum())(xs)


@case(
    module=("outer", "", "encoder"),
    op="linear",
    line="self.outer(torch.tanh(self.inner(x)))",
    operands=((6, 8),),
    origin="inner",
    fix=("9", "8"),
    fixed=("Encoder(), torch.randn(5, 6)", "Encoder(hidden=8), torch.randn(5, 6)", "x[:3]", "x"),
    ids="S1e",
)
def under_vmap():
    return per_sample, (Encoder(), torch.randn(5, 6))


def evaluate(model, x):
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        return model(x).argmax(-1)


@case(
    module="outer",
    op="linear",
    line="self.outer(torch.tanh(self.inner(x)))",
    operands=((2, 9), (6, 8)),
    origin="inner",
    fix=("9", "8"),
    verified=True,
    fixed=("Encoder()", "Encoder(hidden=8)"),
    ids="S1e",
)
def under_autocast():
    return evaluate, (Encoder(), torch.randn(2, 6))


@dataclass
class Batch:
    tokens: torch.Tensor
    weights: torch.Tensor


class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(15, 6)

    def forward(self, batch):
        return (self.embed(batch.tokens) * batch.weights).sum(1)


@case(
    op="mul",
    line="self.embed(batch.tokens) * batch.weights",
    operands=((2, 5, 6), (2, 5)),
    origin=("weights", "embed"),
    fix=("unsqueeze(-1)", "[..., None]", "[:, :, None]", "unsqueeze(2)"),
    verified=True,
    fixed=("* batch.weights", "* batch.weights.unsqueeze(-1)"),
    ids="S2",
)
def dataclass_input():
    return Weighted(), (Batch(torch.randint(0, 15, (2, 5)), torch.rand(2, 5)),)


class KeywordOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(8, 4)
        self.cond = nn.Linear(3, 5)

    def forward(self, x, *, condition, scale=1.0):
        return self.proj(x) * scale + self.cond(condition["features"])


@case(
    op="add",
    line="self.proj(x) * scale + self.cond(",
    operands=((2, 4), (2, 5)),
    origin=("cond", "proj"),
    fix=("4", "5"),
    verified=True,
    fixed=("nn.Linear(3, 5)", "nn.Linear(3, 4)"),
    ids="S2",
)
def keyword_and_dict_inputs():
    return KeywordOnly(), (torch.randn(2, 8),), {"condition": {"features": torch.randn(2, 3)}}


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0
        self.history = []
        self.mix = nn.Linear(4, 4)
        self.read = nn.Linear(8, 2)

    def forward(self, x):
        self.calls += 1
        self.history.append(self.mix(x))
        return self.read(torch.cat(self.history, dim=-1))


def loop(model, x):
    outputs = []
    for _ in range(3):
        outputs.append(model(x))
    return outputs


@case(
    module="read",
    op="linear",
    line="self.read(torch.cat(self.history, dim=-1))",
    operands=((2, 4), (2, 8)),
    origin=("mix", "cat"),
    fix=("4", "8"),
    fixed=("nn.Linear(8, 2)", "nn.LazyLinear(2)", "range(3)", "range(1)"),
    ids="S6c",
)
def model_that_counts():
    return loop, (Counting(), torch.randn(2, 4))


class Depth(nn.Module):
    def __init__(self):
        super().__init__()
        self.grow = nn.Linear(4, 4)
        self.small = nn.Linear(4, 2)
        self.large = nn.Linear(6, 2)

    def forward(self, x):
        h = self.grow(x)
        if h.abs().mean().item() >= 0:
            return self.large(h)
        return self.small(h)


@case(
    module="large",
    op="linear",
    line="return self.large(h)",
    operands=((3, 4), (2, 6)),
    origin="grow",
    fix=("4", "6"),
    verified=True,
    fixed=("nn.Linear(6, 2)", "nn.Linear(4, 2)  # large"),
    ids="S1e",
)
def branch_on_the_data():
    return Depth(), (torch.randn(3, 4),)


@case(
    module="outer",
    op="linear",
    line="self.outer(torch.tanh(self.inner(x)))",
    operands=((2, 9), (6, 8)),
    origin="inner",
    fix=("9", "8"),
    fixed=("Encoder()", "Encoder(hidden=8)"),
    ids="S1e",
    slow=True,
)
def compiled_model():
    return torch.compile(Encoder(), backend="eager"), (torch.randn(2, 6),)


class Trainer:
    def __init__(self, model):
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def fit(self, batches):
        for x, y in batches:
            self.optimizer.zero_grad()
            F.mse_loss(self.model(x), y).backward()
            self.optimizer.step()


def fit(model, batches):
    Trainer(model).fit(batches)


@case(
    module="outer",
    op="linear",
    line="self.outer(torch.tanh(self.inner(x)))",
    operands=((4, 9), (6, 8)),
    origin="inner",
    fix=("9", "8"),
    verified=True,
    fixed=("Encoder()", "Encoder(hidden=8)"),
    ids="S1e",
)
def inside_a_trainer():
    return fit, (Encoder(), [(torch.randn(4, 6), torch.randn(4, 6))])


class LastBatch(nn.Module):
    def __init__(self, batch=8):
        super().__init__()
        self.proj = nn.Linear(3, 5)
        self.noise = nn.Parameter(torch.randn(batch, 5))

    def forward(self, x):
        return self.proj(x) + self.noise


def epoch(model, data):
    for batch in data.split(8):
        model(batch)


@case(
    op="add",
    line="self.proj(x) + self.noise",
    operands=((4, 5), (8, 5)),
    origin=("noise", "x", "proj"),
    fix=("drop_last", "4", "1", "8"),
    fixed=("torch.randn(20, 3)", "torch.randn(24, 3)"),
    ids="S2",
)
def smaller_last_batch():
    return epoch, (LastBatch(), torch.randn(20, 3))
