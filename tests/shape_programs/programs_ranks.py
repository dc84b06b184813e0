"""Axes that are missing, dropped or too many: squeezes, unpacking, permutes, splits."""

import torch
from torch import nn

from shape_programs.record import case


class LastStep(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(6, 8)
        self.pool = nn.AdaptiveAvgPool1d(4)

    def forward(self, x):
        h = self.encoder(x).squeeze()
        batch, seq, dim = h.shape
        return h.sum(1) / (batch * seq * dim)


@case(
    op=("unpack", "shape", "unpacking"),
    line="batch, seq, dim = h.shape",
    operands=((7, 8),),
    origin="squeeze",
    fix=("squeeze", "unsqueeze"),
    fixed=("self.encoder(x).squeeze()", "self.encoder(x)"),
    ids=("S3c", "P2"),
)
def squeeze_drops_a_batch_of_one():
    return LastStep(), (torch.randn(1, 7, 6),)


class ScanStep(nn.Module):
    def __init__(self, dim, state):
        super().__init__()
        self.A = nn.Parameter(-torch.rand(dim, state))
        self.project = nn.Linear(dim, 2 * state)

    def forward(self, x):
        batch, dim = x.shape
        state = torch.zeros(batch, dim, 1)
        B, C = self.project(x).chunk(2, dim=-1)
        h = torch.exp(self.A) * state + x.unsqueeze(-1) * B.unsqueeze(1)
        return (h * C.unsqueeze(1)).sum(-1)


class ScanLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.step = ScanStep(6, 3)

    def forward(self, tokens):
        outputs = [self.step(tokens[:, t : t + 1]) for t in range(tokens.shape[1])]
        return torch.stack(outputs, dim=1)


@case(
    module="step",
    op=("unpack", "shape", "unpacking"),
    line="batch, dim = x.shape",
    operands=((2, 1, 6),),
    origin=("tokens", "x", "getitem"),
    fix="squeeze",
    fixed=("tokens[:, t : t + 1]", "tokens[:, t]"),
    ids=("S3c", "P2"),
)
def scan_step_with_three_axes():
    return ScanLayer(), (torch.randn(2, 4, 6),)


class ImageOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        n, c, h, w = x.shape
        return self.conv(x / c).reshape(n, 4, h * w)


@case(
    op=("unpack", "shape", "unpacking"),
    line="n, c, h, w = x.shape",
    operands=((3, 9, 9),),
    origin="x",
    fix="unsqueeze",
    fixed=("torch.randn(3, 9, 9)", "torch.randn(1, 3, 9, 9)"),
    ids="P2",
)
def unpacking_four_of_three():
    return ImageOnly(), (torch.randn(3, 9, 9),)


class Permuted(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 12)

    def forward(self, ids):
        h = self.embed(ids)
        return h.permute(0, 3, 1, 2)


@case(
    op="permute",
    line="h.permute(0, 3, 1, 2)",
    operands=((2, 5, 12),),
    origin="embed",
    fix=("permute(0, 2, 1)", "unsqueeze", "3 "),
    fixed=("h.permute(0, 3, 1, 2)", "h.permute(0, 2, 1)"),
    ids="S3",
)
def permute_of_another_rank():
    return Permuted(), (torch.randint(0, 20, (2, 5)),)


class Prompted(nn.Module):
    def __init__(self):
        super().__init__()
        self.prompt = nn.Parameter(torch.randn(1, 4, 8))
        self.proj = nn.Linear(8, 8)

    def forward(self, x):
        prompt = self.prompt.expand(x.shape[0], x.shape[1], -1)
        return self.proj(x) + prompt


@case(
    op="expand",
    line="self.prompt.expand(",
    operands=((1, 4, 8),),
    origin="prompt",
    fix=("4", "repeat", "-1"),
    fixed=("expand(x.shape[0], x.shape[1], -1)", "repeat(1, 2, 1)[:, : x.shape[1]]"),
    ids="S2",
)
def expand_of_a_real_axis():
    return Prompted(), (torch.randn(2, 6, 8),)


class Windowed(nn.Module):
    def __init__(self):
        super().__init__()
        self.x_proj = nn.Linear(16, 12)
        self.dt_rank, self.d_state = 2, 4

    def forward(self, x):
        dt, B, C = torch.split(self.x_proj(x), [self.dt_rank, self.d_state, self.d_state], dim=-1)
        return dt.sum() + (B * C).sum()


class MambaBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.in_proj = nn.Linear(8, 16)
        self.ssm = Windowed()

    def forward(self, x):
        return self.ssm(self.in_proj(x))


@case(
    module="ssm",
    op=("split", "split_with_sizes"),
    line="torch.split(self.x_proj(x)",
    operands=((2, 5, 12),),
    origin="ssm.x_proj",
    fix=("10", "12"),
    verified=True,
    fixed=("nn.Linear(16, 12)", "nn.Linear(16, 10)"),
    ids="X7",
)
def split_widths():
    return MambaBlock(), (torch.randn(2, 5, 8),)


class ChunkedGate(nn.Module):
    def __init__(self):
        super().__init__()
        self.gates = nn.Linear(6, 20)

    def forward(self, x):
        i, f, g, o = self.gates(x).split(8, dim=-1)
        return torch.sigmoid(i) * torch.tanh(g) + f * o


@case(
    op=("unpack", "split", "unpacking"),
    line="i, f, g, o = self.gates(x).split(8, dim=-1)",
    operands=((3, 20),),
    origin="gates",
    fix=("32", "5", "chunk"),
    fixed=("nn.Linear(6, 20)", "nn.Linear(6, 32)"),
    ids="X7",
)
def too_few_gates():
    return ChunkedGate(), (torch.randn(3, 6),)


class Narrowed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 20)

    def forward(self, x):
        return self.fc(x).narrow(1, 15, 10)


@case(
    op="narrow",
    line="self.fc(x).narrow(1, 15, 10)",
    operands=((10, 20),),
    origin="fc",
    fix=("5", "10", "25"),
    fixed=("narrow(1, 15, 10)", "narrow(1, 10, 10)"),
    ids="S4c",
)
def narrow_past_the_end():
    return Narrowed(), (torch.randn(10, 4),)


class WrongDim(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Linear(5, 7)

    def forward(self, x):
        return self.score(x).softmax(dim=2)


@case(
    op="softmax",
    line="self.score(x).softmax(dim=2)",
    operands=((3, 7),),
    origin="score",
    fix=("dim=1", "dim=-1", "softmax(-1)", "softmax(1)"),
    verified=True,
    fixed=("softmax(dim=2)", "softmax(dim=-1)"),
    ids="S3",
)
def softmax_over_a_missing_axis():
    return WrongDim(), (torch.randn(3, 5),)


class Repeated(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 4, 8))
        self.cross = nn.Linear(8, 8)

    def forward(self, x):
        q = self.query.repeat(x.shape[0], 1)
        return self.cross(q) @ x.mT


@case(
    op="repeat",
    line="self.query.repeat(x.shape[0], 1)",
    operands=((1, 4, 8),),
    origin="query",
    fix=("repeat(x.shape[0], 1, 1)", "1, 1"),
    fixed=("repeat(x.shape[0], 1)", "repeat(x.shape[0], 1, 1)"),
    ids="S3",
)
def repeat_of_too_few_axes():
    return Repeated(), (torch.randn(3, 6, 8),)


class TwoAxes(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 4)

    def forward(self, x):
        return self.fc(x).transpose(1, 2)


@case(
    op="transpose",
    line="self.fc(x).transpose(1, 2)",
    operands=((3, 4),),
    origin="fc",
    fix=("transpose(0, 1)", "unsqueeze"),
    fixed=("transpose(1, 2)", "transpose(0, 1)"),
    ids="S3",
)
def transpose_of_a_missing_axis():
    return TwoAxes(), (torch.randn(3, 5),)
