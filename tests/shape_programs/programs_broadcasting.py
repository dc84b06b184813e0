"""Elementwise operations on tensors that do not broadcast, in place and out of place."""

import torch
import torch.nn.functional as F
from torch import nn

from shape_programs.record import case


class Combine(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.Linear(10, 64)
        self.right = nn.Linear(10, 128)

    def forward(self, x):
        return self.left(x) + self.right(x)


@case(
    op="add",
    line="self.left(x) + self.right(x)",
    operands=((32, 64), (32, 128)),
    origin=("right", "left"),
    fix=("64", "128"),
    verified=True,
    fixed=("nn.Linear(10, 128)", "nn.Linear(10, 64)"),
    ids="S2",
)
def sum_of_unequal_widths():
    return Combine(), (torch.randn(32, 10),)


class ChannelBias(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, 3, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return F.conv2d(x, self.weight, padding=1) + self.bias


class BiasNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.ModuleDict({"first": ChannelBias(16)})

    def forward(self, x):
        return self.body["first"](x)


@case(
    module="body.first",
    op="add",
    line="F.conv2d(x, self.weight, padding=1) + self.bias",
    operands=((8, 16, 5, 12), (16,)),
    origin=("bias", "conv2d"),
    fix=("[:, None, None]", "view(-1, 1, 1)", "reshape", "unsqueeze", "(16, 1, 1)"),
    verified=True,
    fixed=("+ self.bias", "+ self.bias[:, None, None]"),
    ids="S2b",
)
def conv_bias_not_reshaped():
    return BiasNet(), (torch.randn(8, 3, 5, 12),)


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(channels, 4), nn.ReLU(), nn.Linear(4, channels), nn.Sigmoid())

    def forward(self, x):
        scale = self.fc(x.mean((2, 3)))
        return x * scale


class SENet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3)
        self.se = SqueezeExcite(12)

    def forward(self, x):
        return self.se(self.conv(x))


@case(
    module="se",
    op="mul",
    line="x * scale",
    operands=((2, 12, 8, 8), (2, 12)),
    origin=("se.fc", "mean"),
    fix=("[:, :, None, None]", "view(", "unsqueeze", "reshape", "[..., None, None]"),
    verified=True,
    fixed=("x * scale", "x * scale[:, :, None, None]"),
    ids="S2",
)
def squeeze_excite_scale():
    return SENet(), (torch.randn(2, 3, 10, 10),)


class FilmConditioner(nn.Module):
    def __init__(self, time_dim, channels):
        super().__init__()
        self.mlp = nn.Linear(time_dim, channels)

    def forward(self, h, t):
        return h + self.mlp(t)


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 10, 3, padding=1)
        self.film = FilmConditioner(6, 10)

    def forward(self, x, t):
        return self.film(self.conv(x), t)


@case(
    module="film",
    op="add",
    line="h + self.mlp(t)",
    operands=((4, 10, 16), (4, 10)),
    origin=("film.mlp", "t"),
    fix=("unsqueeze(-1)", "[..., None]", "[:, :, None]", "unsqueeze(2)"),
    verified=True,
    fixed=("self.mlp(t)", "self.mlp(t).unsqueeze(-1)"),
    ids="S2",
)
def time_embedding_not_broadcast():
    return Denoiser(), (torch.randn(4, 2, 16), torch.randn(4, 6))


class Running(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(3, 6)

    def forward(self, steps):
        total = torch.zeros(6)
        for step in steps.unbind(1):
            total += self.proj(step)
        return total


@case(
    op=("add", "add_"),
    line="total += self.proj(step)",
    operands=((6,), (2, 6)),
    origin=("proj", "zeros"),
    fix=("total = total +", "zeros(2, 6)", "(2, 6)", "out of place"),
    fixed=("torch.zeros(6)", "torch.zeros(steps.shape[0], 6)"),
    ids="S2",
)
def in_place_into_a_smaller_tensor():
    return Running(), (torch.randn(2, 4, 3),)


class Selected(nn.Module):
    def __init__(self):
        super().__init__()
        self.good = nn.Linear(4, 9)
        self.bad = nn.Linear(4, 9)

    def forward(self, x, keep):
        return torch.where(keep, self.good(x), self.bad(x))


@case(
    op="where",
    line="torch.where(keep, self.good(x), self.bad(x))",
    operands=((5,), (5, 9)),
    origin=("keep", "good"),
    fix=("unsqueeze", "[:, None]"),
    verified=True,
    fixed=("torch.where(keep,", "torch.where(keep[:, None],"),
    ids="S2",
)
def where_condition_per_sample():
    return Selected(), (torch.randn(5, 4), torch.rand(5) > 0.5)


class SlicesMeet(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        early = x[0, :, 0:10]
        late = x[1, :, 0:15]
        return (early + late) * self.scale


@case(
    op="add",
    line="early + late",
    operands=((20, 10), (20, 15)),
    origin="x",
    fix=("10", "15"),
    verified=True,
    fixed=("0:15", "0:10"),
    ids="S4b",
)
def slices_of_unequal_size():
    return SlicesMeet(), (torch.randn(10, 20, 30),)


class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(5, 8)

    def forward(self, nodes, adjacency):
        return torch.relu(adjacency @ self.lin(nodes))


class GNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Graph()])

    def forward(self, nodes, adjacency):
        for layer in self.layers:
            nodes = layer(nodes, adjacency)
        return nodes


@case(
    module="layers.0",
    op="matmul",
    line="adjacency @ self.lin(nodes)",
    operands=((7, 7), (6, 8)),
    origin=("nodes", "layers.0.lin", "adjacency"),
    fix=("6", "7"),
    fixed=("torch.eye(7)", "torch.eye(6)"),
    ids="S1",
)
def adjacency_of_another_graph():
    return GNN(), (torch.randn(6, 5), torch.eye(7))
