"""Kinds of tensors that do not go together: dtypes, devices, scalars, empty tensors."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from shape_programs.record import case


class Tabular(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(7, 12), nn.ReLU(), nn.Linear(12, 1))

    def forward(self, x):
        return self.net(x)


@case(
    module="net.0",
    op="linear",
    line="self.net(x)",
    operands=((4, 7), (12, 7)),
    origin="x",
    fix=("float()", "float32", "double()"),
    verified=True,
    fixed=("np.random.rand(4, 7)", "np.random.rand(4, 7).astype(np.float32)"),
    ids="X8",
)
def numpy_doubles():
    return Tabular(), (torch.from_numpy(np.random.rand(4, 7)),)


@case(
    module="net.0",
    op="linear",
    line="self.net(x)",
    operands=((4, 7), (12, 7)),
    origin="x",
    fix=("float()", "float32"),
    verified=True,
    fixed=("torch.randint(0, 9, (4, 7))", "torch.randint(0, 9, (4, 7)).float()"),
    ids="X8",
)
def integer_features():
    return Tabular(), (torch.randint(0, 9, (4, 7)),)


class ByteImage(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image):
        return self.conv(image)


@case(
    module="conv",
    op="conv2d",
    line="self.conv(image)",
    operands=((1, 3, 8, 8), (4, 3, 3, 3)),
    origin="image",
    fix=("float()", "float32", "255"),
    verified=True,
    fixed=("dtype=torch.uint8)", "dtype=torch.uint8).float()"),
    ids="X8",
)
def byte_images():
    return ByteImage(), (torch.ones(1, 3, 8, 8, dtype=torch.uint8),)


class HalfTrunk(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(6, 8).to(torch.bfloat16)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        h = torch.relu(self.trunk(x.to(torch.bfloat16)))
        return self.head(h)


@case(
    module="head",
    op="linear",
    line="self.head(h)",
    operands=((3, 8), (2, 8)),
    origin="trunk",
    fix=("float()", "float32", "bfloat16"),
    verified=True,
    fixed=("self.head(h)", "self.head(h.float())"),
    ids="X8",
)
def half_into_full_precision():
    return HalfTrunk(), (torch.randn(3, 6),)


class Inverted(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(5))

    def forward(self, x, mask):
        drop = 1 - mask
        return (x * drop * self.w).sum()


@case(
    op=("sub", "rsub"),
    line="drop = 1 - mask",
    operands=((3, 5),),
    origin="mask",
    fix=("~mask", "logical_not", "float()"),
    verified=True,
    fixed=("1 - mask", "~mask"),
    ids="X8",
)
def minus_on_booleans():
    return Inverted(), (torch.randn(3, 5), torch.zeros(3, 5, dtype=torch.bool))


class Fourier(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(9, 9)

    def forward(self, x):
        spectrum = torch.fft.rfft(x)
        return self.mix(spectrum)


@case(
    module="mix",
    op="linear",
    line="self.mix(spectrum)",
    operands=((2, 9), (9, 9)),
    origin=("rfft", "fft_rfft", "x"),
    fix=("real", "abs", "view_as_real", "complex"),
    fixed=("self.mix(spectrum)", "self.mix(spectrum.abs())"),
    ids="X8",
)
def complex_into_real():
    return Fourier(), (torch.randn(2, 16),)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(4, 4)

    def forward(self, x, steps):
        return torch.addmm(x, self.proj(x), steps)


@case(
    op=("addmm", "mm"),
    line="torch.addmm(x, self.proj(x), steps)",
    operands=((3, 4), (4, 4)),
    origin=("steps", "proj"),
    fix=("float()", "float32"),
    verified=True,
    fixed=("torch.eye(4).long()", "torch.eye(4)"),
    ids="X8",
)
def addmm_with_integers():
    return Gated(), (torch.randn(3, 4), torch.eye(4).long())


class Elsewhere(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(5, 5)
        self.offset = torch.zeros(5, device="meta")

    def forward(self, x):
        return self.proj(x) + self.offset


class Placed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Elsewhere()

    def forward(self, x):
        return self.inner(x)


@case(
    module="inner",
    op="add",
    line="self.proj(x) + self.offset",
    operands=((2, 5), (5,)),
    origin=("offset", "proj"),
    fix=("device", "register_buffer", ".to("),
    fixed=('torch.zeros(5, device="meta")', "torch.zeros(5)"),
    ids="X8",
)
def tensor_left_on_another_device():
    return Placed(), (torch.randn(2, 5),)


@case(
    module="net.0",
    op="linear",
    line="self.net(x)",
    operands=((2, 7), (12, 7)),
    origin="x",
    fix=("meta", "device", ".to("),
    fixed=('torch.randn(2, 7, device="meta")', "torch.randn(2, 7)"),
    ids="X8",
)
def input_on_another_device():
    return Tabular(), (torch.randn(2, 7, device="meta"),)


class MetaNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 10)
        self.b = nn.Linear(12, 2)

    def forward(self, x):
        return self.b(F.gelu(self.a(x)))


@case(
    module="b",
    op="linear",
    line="self.b(F.gelu(self.a(x)))",
    operands=((3, 10), (2, 12)),
    origin="a",
    fix=("10", "12"),
    verified=True,
    fixed=("nn.Linear(12, 2)", "nn.Linear(10, 2)"),
    ids="S1e",
)
def model_on_meta():
    return MetaNet().to("meta"), (torch.randn(3, 6, device="meta"),)


class Logging(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        total = self.fc(x).sum()
        return [float(value) for value in total]


@case(
    op=("iter", "__iter__", "unbind"),
    line="for value in total",
    operands=((),),
    origin=("sum", "fc"),
    fix=("sum(", "dim", "unsqueeze"),
    fixed=("self.fc(x).sum()", "self.fc(x).sum(-1)"),
    ids="S3",
)
def iterating_a_scalar():
    return Logging(), (torch.randn(2, 3),)


def first_loss(net, x):
    loss = net(x).pow(2).mean()
    return loss[0]


@case(
    op=("getitem", "__getitem__", "index", "select"),
    line="return loss[0]",
    operands=((),),
    origin=("mean", "net"),
    fix=("item()", "loss", "unsqueeze"),
    fixed=("loss[0]", "loss.item()"),
    ids="S4",
)
def indexing_a_scalar():
    return first_loss, (nn.Linear(2, 2), torch.randn(3, 2))


def join_losses(net, batches):
    losses = [net(x).mean() for x in batches]
    return torch.cat(losses)


@case(
    op="cat",
    line="torch.cat(losses)",
    operands=((),),
    origin=("mean", "net", "batches"),
    fix="stack",
    verified=True,
    fixed=("torch.cat(losses)", "torch.stack(losses)"),
    ids="S6",
)
def cat_of_scalars():
    return join_losses, (nn.Linear(2, 2), [torch.randn(3, 2), torch.randn(3, 2)])


class MaxPoolOverTime(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 6)

    def forward(self, x, keep):
        kept = self.fc(x)[keep]
        return kept.max(dim=0).values


@case(
    op=("max", "amax"),
    line="kept.max(dim=0)",
    operands=((0, 6),),
    origin=("keep", "fc", "getitem", "index"),
    fix=("empty", "keep", "numel"),
    fixed=("torch.zeros(5, dtype=torch.bool)", "torch.ones(5, dtype=torch.bool)"),
    ids="S3",
)
def maximum_of_nothing():
    return MaxPoolOverTime(), (torch.randn(5, 4), torch.zeros(5, dtype=torch.bool))


def branch(net, x):
    score = net(x)
    if score > 0:
        return score
    return -score


@case(
    op=("bool", "__bool__"),
    line="if score > 0:",
    operands=((3, 1),),
    origin=("net", "gt", "linear", "addmm"),
    fix=("any()", "all()", "item()", "where"),
    fixed=("if score > 0:", "if (score > 0).all():"),
    ids="S3",
)
def truth_of_a_batch():
    return branch, (nn.Linear(2, 1), torch.randn(3, 2))


def report(net, x):
    return {"loss": net(x).item()}


@case(
    op=("item", "_local_scalar_dense"),
    line="net(x).item()",
    operands=((3, 1),),
    origin="net",
    fix=("mean()", "sum()", "tolist"),
    fixed=("net(x).item()", "net(x).mean().item()"),
    ids="S3",
)
def item_of_a_batch():
    return report, (nn.Linear(2, 1), torch.randn(3, 2))
