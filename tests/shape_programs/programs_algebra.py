"""Linear algebra written out: einsum, bmm, mm, mv, dot, solve, distances."""

import torch
from torch import nn

from shape_programs.record import case


class Head(nn.Module):
    def __init__(self, dim, width):
        super().__init__()
        self.query = nn.Linear(dim, width)
        self.key = nn.Linear(dim, width * 2)

    def forward(self, x):
        q, k = self.query(x), self.key(x)
        return torch.einsum("bid,bjd->bij", q, k)


class Pairs(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList([Head(6, 4), Head(6, 4)])

    def forward(self, x):
        return sum(head(x) for head in self.heads)


@case(
    module="heads.0",
    op="einsum",
    line='torch.einsum("bid,bjd->bij", q, k)',
    operands=((2, 5, 4), (2, 5, 8)),
    origin=("heads.0.key", "heads.0.query"),
    fix=("4", "8"),
    fixed=("width * 2", "width"),
    ids="S1",
)
def einsum_sizes():
    return Pairs(), (torch.randn(2, 5, 6),)


class TooManyLetters(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(6, 8)

    def forward(self, x):
        h = self.proj(x)
        return torch.einsum("bhid,bhjd->bhij", h, h)


@case(
    op="einsum",
    line='torch.einsum("bhid,bhjd->bhij", h, h)',
    operands=((2, 5, 8),),
    origin="proj",
    fix=("bid", "3", "unsqueeze", "letters", "subscripts"),
    fixed=('"bhid,bhjd->bhij"', '"bid,bjd->bij"'),
    ids="S3",
)
def einsum_rank():
    return TooManyLetters(), (torch.randn(2, 5, 6),)


class Batched(nn.Module):
    def __init__(self):
        super().__init__()
        self.lift = nn.Linear(4, 6)

    def forward(self, x, weights):
        return torch.bmm(self.lift(x), weights)


@case(
    op="bmm",
    line="torch.bmm(self.lift(x), weights)",
    operands=((3, 6), (3, 6, 2)),
    origin=("lift", "x"),
    fix=("unsqueeze(1)", "[:, None]"),
    verified=True,
    fixed=("self.lift(x)", "self.lift(x).unsqueeze(1)"),
    ids="S3",
)
def bmm_of_rows():
    return Batched(), (torch.randn(3, 4), torch.randn(3, 6, 2))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.mix = nn.Linear(8, 8)

    def forward(self, ids):
        h = self.mix(self.embed(ids))
        return torch.mm(h, self.embed.weight.t())


@case(
    op="mm",
    line="torch.mm(h, self.embed.weight.t())",
    operands=((2, 5, 8), (8, 20)),
    origin=("mix", "embed"),
    fix=("matmul", "@"),
    verified=True,
    fixed=("torch.mm(", "torch.matmul("),
    ids="S3",
)
def mm_of_a_batch():
    return Tied(), (torch.randint(0, 20, (2, 5)),)


class LowRank(nn.Module):
    def __init__(self, dim, rank):
        super().__init__()
        self.down = nn.Parameter(torch.randn(dim, rank))
        self.up = nn.Parameter(torch.randn(dim, rank))

    def forward(self, x):
        return x @ self.down @ self.up


class Adapter(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(10, 12)
        self.lora = LowRank(12, 3)

    def forward(self, x):
        h = self.base(x)
        return h + self.lora(h)


@case(
    module="lora",
    op="matmul",
    line="x @ self.down @ self.up",
    operands=((4, 3), (12, 3)),
    origin=("down", "up", "lora"),
    fix=("up.t()", "up.T", "up.mT", "transpose", "(3, 12)"),
    verified=True,
    fixed=("@ self.up", "@ self.up.t()"),
    ids="S1",
)
def second_of_two_products():
    return Adapter(), (torch.randn(4, 10),)


class Readout(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Linear(5, 7)
        self.direction = nn.Parameter(torch.randn(5))

    def forward(self, x):
        return torch.mv(self.features(x), self.direction)


@case(
    op="mv",
    line="torch.mv(self.features(x), self.direction)",
    operands=((3, 7), (5,)),
    origin=("features", "direction"),
    fix=("7", "5"),
    verified=True,
    fixed=("nn.Linear(5, 7)", "nn.Linear(5, 5)"),
    ids="S1",
)
def readout_direction():
    return Readout(), (torch.randn(3, 5),)


def similarity(net, a, b):
    return torch.dot(net(a), net(b))


@case(
    op="dot",
    line="torch.dot(net(a), net(b))",
    operands=((1, 4),),
    origin=("net", "a"),
    fix=("squeeze", "flatten", "sum", "matmul"),
    fixed=("torch.dot(net(a), net(b))", "torch.dot(net(a).flatten(), net(b).flatten())"),
    ids="S3",
)
def dot_of_rows():
    return similarity, (nn.Linear(3, 4), torch.randn(1, 3), torch.randn(1, 3))


def kernel(x, centres):
    return torch.exp(-(torch.cdist(x, centres) ** 2))


@case(
    op="cdist",
    line="torch.cdist(x, centres)",
    operands=((6, 3), (4, 2)),
    origin=("x", "centres"),
    fix=("3", "2"),
    fixed=("torch.randn(4, 2)", "torch.randn(4, 3)"),
    ids="S1",
)
def distances_between_spaces():
    return kernel, (torch.randn(6, 3), torch.randn(4, 2))


def ridge(x, y):
    gram = x.T @ x + 0.1 * torch.eye(x.shape[0])
    return torch.linalg.solve(gram, x.T @ y)


@case(
    op="add",
    line="x.T @ x + 0.1 * torch.eye(x.shape[0])",
    operands=((3, 3), (8, 8)),
    origin=("x", "eye", "matmul"),
    fix=("shape[1]", "3"),
    fixed=("torch.eye(x.shape[0])", "torch.eye(x.shape[1])"),
    ids="S2",
)
def ridge_identity():
    return ridge, (torch.randn(8, 3), torch.randn(8))


class Bound(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.a = nn.Linear(dim, dim)

    def forward(self, x):
        gram = self.a(x)
        return torch.linalg.cholesky(gram)


@case(
    op=("cholesky", "linalg_cholesky"),
    line="torch.linalg.cholesky(gram)",
    operands=((3, 4),),
    origin="a",
    fix=("square", "mT", "4"),
    fixed=("gram = self.a(x)", "gram = self.a(x)\n        gram = gram @ gram.mT + torch.eye(3)"),
    ids="S3",
)
def cholesky_of_a_rectangle():
    return Bound(4), (torch.randn(3, 4),)


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return torch.outer(self.left(x), self.right(x))


@case(
    op="outer",
    line="torch.outer(self.left(x), self.right(x))",
    operands=((2, 3),),
    origin="left",
    fix=("einsum", "unsqueeze", "squeeze", "1-D"),
    fixed=("torch.outer(self.left(x), self.right(x))", 'torch.einsum("bi,bj->bij", self.left(x), self.right(x))'),
    ids="S3",
)
def outer_of_batches():
    return Outer(), (torch.randn(2, 4),)
