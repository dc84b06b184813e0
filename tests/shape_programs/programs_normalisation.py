"""Normalisation layers: features, groups, ranks, normalised shapes."""

import torch
import torch.nn.functional as F
from torch import nn

from shape_programs.record import case


def conv_bn(inp, out, norm_width=None):
    return nn.Sequential(
        nn.Conv2d(inp, out, 3, padding=1, bias=False),
        nn.BatchNorm2d(norm_width or out),
        nn.ReLU(inplace=True),
    )


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.stages = nn.ModuleList([conv_bn(8, 16), conv_bn(16, 32, norm_width=16), conv_bn(32, 32)])

    def forward(self, x):
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x.mean((2, 3))


@case(
    module="stages.1.1",
    op="batch_norm",
    line="x = stage(x)",
    operands=((2, 32, 16, 16), (16,)),
    origin="stages.1.0",
    fix="32",
    verified=True,
    fixed=("conv_bn(16, 32, norm_width=16)", "conv_bn(16, 32)"),
    ids="S2",
)
def batch_norm_features():
    return Backbone(), (torch.randn(2, 3, 16, 16),)


class NormedMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 20)
        self.bn = nn.BatchNorm2d(20)

    def forward(self, x):
        return F.relu(self.bn(self.fc(x)))


@case(
    module="bn",
    op="batch_norm",
    line="self.bn(self.fc(x))",
    operands=((6, 20),),
    origin="fc",
    fix="BatchNorm1d",
    verified=True,
    fixed=("nn.BatchNorm2d(20)", "nn.BatchNorm1d(20)"),
    ids="S3",
)
def batch_norm_2d_on_rows():
    return NormedMLP(), (torch.randn(6, 12),)


class FrameNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(10, 24)
        self.norm = nn.BatchNorm1d(24)

    def forward(self, frames):
        h = self.proj(frames)
        return self.norm(h)


@case(
    module="norm",
    op="batch_norm",
    line="self.norm(h)",
    operands=((4, 15, 24), (24,)),
    origin="proj",
    fix=("transpose", "mT", "permute"),
    verified=True,
    fixed=("self.norm(h)", "self.norm(h.transpose(1, 2)).transpose(1, 2)"),
    ids="P3",
)
def batch_norm_1d_on_sequences():
    return FrameNet(), (torch.randn(4, 15, 10),)


class VideoNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm3d(8)

    def forward(self, x):
        return self.bn(self.conv(x))


@case(
    module="bn",
    op="batch_norm",
    line="self.bn(self.conv(x))",
    operands=((2, 8, 8, 8),),
    origin="conv",
    fix="BatchNorm2d",
    verified=True,
    fixed=("BatchNorm3d", "BatchNorm2d"),
    ids="S3",
)
def batch_norm_3d_on_images():
    return VideoNet(), (torch.randn(2, 3, 10, 10),)


class OneSample(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 8)
        self.bn = nn.BatchNorm1d(8)

    def forward(self, x):
        return self.bn(self.fc(x))


@case(
    module="bn",
    op="batch_norm",
    line="self.bn(self.fc(x))",
    operands=((1, 8),),
    origin=("x", "fc"),
    fix=("eval", "2", "more than"),
    fixed=("torch.randn(1, 4)", "torch.randn(2, 4)"),
    ids="S3",
)
def batch_norm_of_one_sample():
    return OneSample(), (torch.randn(1, 4),)


class ResUnit(nn.Module):
    def __init__(self, channels, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, 24)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.conv(F.silu(self.norm(x)))


class Diffusion(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(1, 32, 3, padding=1)
        self.middle = nn.ModuleDict({"res": ResUnit(32, 8)})

    def forward(self, x, t):
        h = self.enter(x)
        return self.middle["res"](h)


@case(
    module="middle.res.norm",
    op="group_norm",
    line="self.conv(F.silu(self.norm(x)))",
    operands=((2, 32, 8, 8), (24,)),
    origin="enter",
    fix="32",
    verified=True,
    fixed=("nn.GroupNorm(groups, 24)", "nn.GroupNorm(groups, channels)"),
    ids="S2",
)
def group_norm_channels():
    return Diffusion(), (torch.randn(2, 1, 8, 8), torch.tensor([1, 2]))


@case(
    module="1",
    op="group_norm",
    operands=((2, 20, 8, 8),),
    origin="0",
    fix=("groups", "4", "5", "10"),
    fixed=("F.group_norm(y, 8)", "F.group_norm(y, 4)"),
    ids="S2",
)
def group_norm_groups():
    class Divide(nn.Module):
        def forward(self, y):
            return F.group_norm(y, 8)

    return nn.Sequential(nn.Conv2d(1, 20, 3, padding=1), Divide()), (torch.randn(2, 1, 8, 8),)


class Projected(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(16, 40)
        self.norm = nn.LayerNorm(16)

    def forward(self, x):
        return self.norm(self.up(x))


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), Projected())

    def forward(self, x):
        return self.blocks(x)


@case(
    module="blocks.2.norm",
    op="layer_norm",
    line="self.norm(self.up(x))",
    operands=((3, 5, 40), (16,)),
    origin="blocks.2.up",
    fix="40",
    verified=True,
    fixed=("nn.LayerNorm(16)", "nn.LayerNorm(40)"),
    ids="S2",
)
def layer_norm_width():
    return Tower(), (torch.randn(3, 5, 8),)


class ConvNeXtBlock(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.pwconv = nn.Linear(dim, dim)

    def forward(self, x):
        h = self.dwconv(x)
        h = self.norm(h)
        h = self.pwconv(h)
        return x + h.permute(0, 3, 1, 2)


@case(
    module="norm",
    op="layer_norm",
    line="h = self.norm(h)",
    operands=((2, 12, 9, 7), (12,)),
    origin="dwconv",
    fix=("permute(0, 2, 3, 1)", "movedim"),
    verified=True,
    fixed=("self.norm(h)", "self.norm(h.permute(0, 2, 3, 1))"),
    ids="P3",
)
def layer_norm_channels_first():
    return ConvNeXtBlock(12), (torch.randn(2, 12, 9, 7),)


class SpatialNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.norm = nn.LayerNorm([6, 16, 16])

    def forward(self, x):
        return self.norm(self.conv(x))


@case(
    module="norm",
    op="layer_norm",
    line="self.norm(self.conv(x))",
    operands=((2, 6, 14, 14), (6, 16, 16)),
    origin="conv",
    fix=("14", "padding"),
    verified=True,
    fixed=("[6, 16, 16]", "[6, 14, 14]"),
    ids="S2",
)
def layer_norm_over_images():
    return SpatialNorm(), (torch.randn(2, 1, 16, 16),)


class LlamaLayer(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.input_norm = nn.RMSNorm(dim * 2)
        self.gate = nn.Linear(dim, dim * 2)

    def forward(self, x):
        return self.gate(self.input_norm(x))


@case(
    module="input_norm",
    op="rms_norm",
    line="self.input_norm(x)",
    operands=((2, 7, 12),),
    origin="x",
    fix="12",
    verified=True,
    fixed=("nn.RMSNorm(dim * 2)", "nn.RMSNorm(dim)"),
    ids="S2",
)
def rms_norm_width():
    return LlamaLayer(12), (torch.randn(2, 7, 12),)


class StyleNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 3)
        self.norm = nn.InstanceNorm2d(16, affine=True)

    def forward(self, x):
        return self.norm(self.conv(x))


@case(
    module="norm",
    op="instance_norm",
    line="self.norm(self.conv(x))",
    operands=((2, 10, 8, 8),),
    origin="conv",
    fix="10",
    verified=True,
    fixed=("nn.InstanceNorm2d(16", "nn.InstanceNorm2d(10"),
    ids="S2",
)
def instance_norm_channels():
    return StyleNet(), (torch.randn(2, 3, 10, 10),)
