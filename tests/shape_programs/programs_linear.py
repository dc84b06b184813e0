"""Linear layers with the wrong number of features: after a flatten, deep inside, in a chain."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from shape_programs.record import case


class DigitNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(64 * 8 * 8, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.flatten(1)
        x = F.relu(self.fc1(x))
        return self.fc2(x)


@case(
    module="fc1",
    op="linear",
    line="self.fc1(x)",
    operands=((4, 1600), (128, 4096)),
    origin="conv2",
    fix="1600",
    verified=True,
    fixed=("64 * 8 * 8", "64 * 5 * 5"),
    ids="S1b",
)
def digits_flatten():
    return DigitNet(), (torch.randn(4, 1, 28, 28),)


class AudioClassifier(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv1d(1, 16, 9, stride=4),
            nn.ReLU(),
            nn.Conv1d(16, 32, 9, stride=4),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(32 * 62, 64), nn.ReLU(), nn.Linear(64, classes))

    def forward(self, waveform):
        features = self.encoder(waveform)
        return self.head(features)


@case(
    module="head.1",
    op="linear",
    line="self.head(features)",
    operands=((2, 1920), (64, 1984)),
    origin="encoder.2",
    fix="1920",
    verified=True,
    fixed=("32 * 62", "32 * 60"),
    ids="S1b",
)
def audio_flatten():
    return AudioClassifier(), (torch.randn(2, 1, 1000),)


class VoxelNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(1, 4, 3, padding=1)
        self.down = nn.MaxPool3d(2)
        self.regressor = nn.Linear(4 * 8 * 8, 3)

    def forward(self, volume):
        h = self.down(torch.relu(self.stem(volume)))
        return self.regressor(torch.flatten(h, start_dim=1))


@case(
    module="regressor",
    op="linear",
    line="self.regressor(",
    operands=((2, 2048), (3, 256)),
    origin="stem",
    fix="2048",
    verified=True,
    fixed=("4 * 8 * 8", "4 * 8 * 8 * 8"),
    ids="S1b",
)
def voxel_flatten():
    return VoxelNet(), (torch.randn(2, 1, 16, 16, 16),)


class Mixer(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.net = nn.Sequential(
            OrderedDict(
                expand=nn.Linear(dim, hidden),
                act=nn.GELU(),
                shrink=nn.Linear(dim * 2, dim),
            )
        )

    def forward(self, x):
        return x + self.net(x)


class Stage(nn.Module):
    def __init__(self, dim, expansion):
        super().__init__()
        self.layers = nn.ModuleDict({"norm": nn.LayerNorm(dim), "mixer": Mixer(dim, dim * expansion)})

    def forward(self, x):
        return self.layers["mixer"](self.layers["norm"](x))


class DeepContainers(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([nn.ModuleList([Stage(16, 2), Stage(16, 4 if i == 2 else 2)]) for i in range(3)])

    def forward(self, x):
        for pair in self.stages:
            for stage in pair:
                x = stage(x)
        return x


@case(
    module="stages.2.1.layers.mixer.net.shrink",
    op="linear",
    line="self.net(x)",
    operands=((2, 5, 64), (16, 32)),
    origin="stages.2.1.layers.mixer.net.expand",
    fix=("64", "32"),
    verified=True,
    fixed=("4 if i == 2 else 2", "2"),
    ids="S1e",
)
def linear_in_nested_containers():
    return DeepContainers(), (torch.randn(2, 5, 16),)


@case(
    module="2",
    op="linear",
    operands=((32, 64), (10, 128)),
    origin="0",
    fix=("64", "128"),
    verified=True,
    fixed=("nn.Linear(128, 10)", "nn.Linear(64, 10)"),
    ids=("S1e", "X11"),
)
def sequential_mlp():
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(128, 10))
    return model, (torch.randn(32, 20),)


class RowScore(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(784, 784)

    def forward(self, left, right):
        a, b = self.embed(left), self.embed(right)
        return torch.matmul(a, b)


@case(
    op=("matmul", "mm"),
    line="torch.matmul(a, b)",
    operands=((1, 784),),
    origin=("embed", "right", "left"),
    fix=("transpose", ".t()", ".T", ".mT"),
    verified=True,
    fixed=("torch.matmul(a, b)", "torch.matmul(a, b.t())"),
    ids="S1d",
)
def matmul_of_two_rows():
    return RowScore(), (torch.randn(1, 784), torch.randn(1, 784))


class ResidualMLP(nn.Module):
    def __init__(self, width=48, depth=4):
        super().__init__()
        self.inp = nn.Linear(12, width)
        self.hidden = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.out = nn.Linear(12, 2)

    def forward(self, x):
        h = self.inp(x)
        for layer in self.hidden:
            h = h + torch.tanh(layer(h))
        return self.out(h)


@case(
    module="out",
    op="linear",
    line="return self.out(h)",
    operands=((6, 48), (2, 12)),
    origin=("hidden", "inp"),
    fix="48",
    verified=True,
    fixed=("self.out = nn.Linear(12, 2)", "self.out = nn.Linear(width, 2)"),
    ids="X11",
)
def residual_mlp_output():
    return ResidualMLP(), (torch.randn(6, 12),)


class Projector(nn.Module):
    def __init__(self, d_in, d_out):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d_in, d_out))
        self.bias = nn.Parameter(torch.zeros(d_out))

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class TwoTowers(nn.Module):
    def __init__(self):
        super().__init__()
        self.user = nn.Sequential(nn.Linear(30, 24), nn.ReLU())
        self.project = Projector(24, 8)

    def forward(self, x):
        return self.project(self.user(x))


@case(
    module="project",
    op="linear",
    line="F.linear(x, self.weight, self.bias)",
    operands=((5, 24), (24, 8)),
    origin=("user.0", "weight"),
    fix=("weight.t()", "weight.T", "weight.mT", "transpose", "(8, 24)", "torch.randn(8, 24)"),
    verified=True,
    fixed=("F.linear(x, self.weight, self.bias)", "F.linear(x, self.weight.t(), self.bias)"),
    ids="S1",
)
def functional_linear_weight_untransposed():
    return TwoTowers(), (torch.randn(5, 30),)


class KeepsBatchOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.flatten = nn.Flatten(start_dim=2)
        self.fc = nn.Linear(8 * 16 * 16, 5)

    def forward(self, image):
        h = self.conv(image)
        h = self.flatten(h)
        return self.fc(h)


@case(
    module="fc",
    op="linear",
    line="self.fc(h)",
    operands=((2, 8, 256), (5, 2048)),
    origin=("flatten", "conv"),
    fix=("start_dim", "Flatten(1)", "Flatten()", "256", "flatten"),
    verified=True,
    fixed=("start_dim=2", "start_dim=1"),
    ids="S1b",
)
def flatten_starts_too_late():
    return KeepsBatchOnly(), (torch.randn(2, 3, 32, 32),)


class FlattensBatchToo(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 8 * 8, 5)

    def forward(self, image):
        h = self.conv(image)
        return self.fc(torch.flatten(h))


@case(
    module="fc",
    op="linear",
    line="self.fc(torch.flatten(h))",
    operands=((1536,), (5, 256)),
    origin=("flatten", "conv"),
    fix=("flatten(1)", "flatten(h, 1)", "start_dim=1", "h.flatten(1)"),
    verified=True,
    fixed=("torch.flatten(h)", "torch.flatten(h, 1)"),
    ids="S1b",
)
def flatten_takes_the_batch_too():
    return FlattensBatchToo(), (torch.randn(6, 1, 8, 8),)


class ScalarHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(8, 8)
        self.gate = nn.Linear(1, 4)

    def forward(self, x):
        level = self.body(x).mean()
        return self.gate(level)


@case(
    module="gate",
    op="linear",
    line="self.gate(level)",
    operands=((), (4, 1)),
    origin=("mean", "body"),
    fix=("unsqueeze", "view(1)", "reshape(1)", "keepdim"),
    verified=True,
    fixed=("self.gate(level)", "self.gate(level.unsqueeze(0))"),
    ids="S3",
)
def linear_on_a_scalar():
    return ScalarHead(), (torch.randn(3, 8),)
