"""Images that shrink to nothing, and what is built around convolutions: pixels, patches, grids, padding."""

import torch
import torch.nn.functional as F
from torch import nn

from shape_programs.record import case


class VanishingNet(nn.Module):
    def __init__(self):
        super().__init__()
        layers, channels = [], 1
        for width in (4, 8, 16, 32):
            layers += [nn.Conv2d(channels, width, 3), nn.ReLU(), nn.MaxPool2d(2)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        return self.fc(self.features(x).flatten(1))


@case(
    module=("features.9", "features.11"),
    op=("conv2d", "max_pool2d"),
    line="self.features(x)",
    operands=((2, 16, 1, 1),),
    origin=("features.8", "features.6"),
    fix=("padding", "46", "larger"),
    fixed=("torch.randn(2, 1, 28, 28)", "torch.randn(2, 1, 46, 46)"),
    ids="S3",
)
def kernel_larger_than_image():
    return VanishingNet(), (torch.randn(2, 1, 28, 28),)


class PoolsAway(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x):
        h = self.conv(x)
        for _ in range(4):
            h = self.pool(h)
        return h.mean((2, 3))


@case(
    module="pool",
    op="avg_pool2d",
    line="h = self.pool(h)",
    operands=((1, 6, 1, 1),),
    origin=("pool", "conv"),
    fix=("16", "8", "larger", "size", "kernel"),
    fixed=("torch.randn(1, 3, 8, 8)", "torch.randn(1, 3, 16, 16)"),
    ids="S3",
)
def pooled_to_nothing():
    return PoolsAway(), (torch.randn(1, 3, 8, 8),)


class WaveBlock(nn.Module):
    def __init__(self, channels, dilation):
        super().__init__()
        self.filter = nn.Conv1d(channels, channels, 2, dilation=dilation)
        self.gate = nn.Conv1d(channels, channels, 2, dilation=dilation, padding=dilation)
        self.mix = nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        h = torch.tanh(self.filter(x)) * torch.sigmoid(self.gate(x))
        return x + self.mix(h)


class WaveNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.start = nn.Conv1d(1, 8, 1)
        self.blocks = nn.ModuleList([WaveBlock(8, 2**i) for i in range(4)])

    def forward(self, audio):
        h = self.start(audio)
        for block in self.blocks:
            h = block(h)
        return h


@case(
    module="blocks.0",
    op="mul",
    line="torch.tanh(self.filter(x)) * torch.sigmoid(self.gate(x))",
    operands=((2, 8, 63), (2, 8, 65)),
    origin=("blocks.0.filter", "blocks.0.gate"),
    fix=("padding", "[..., :63]", "[:, :, :63]", "63"),
    fixed=(
        "channels, 2, dilation=dilation)",
        "channels, 2, dilation=dilation, padding=dilation)",
        "return x + self.mix(h)",
        "return x + self.mix(h)[..., : x.shape[-1]]",
    ),
    ids="S2",
)
def wavenet_padding():
    return WaveNet(), (torch.randn(2, 1, 64),)


class SuperResolution(nn.Module):
    def __init__(self, scale=3):
        super().__init__()
        self.body = nn.Conv2d(3, 16, 3, padding=1)
        self.to_subpixels = nn.Conv2d(16, 3 * scale, 3, padding=1)
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, low):
        return self.shuffle(self.to_subpixels(F.relu(self.body(low))))


@case(
    module="shuffle",
    op="pixel_shuffle",
    line="self.shuffle(",
    operands=((1, 6, 10, 10),),
    origin="to_subpixels",
    fix=("4", "8", "scale", "upscale"),
    fixed=("3 * scale, 3", "2 * scale * scale, 3"),
    ids="S5",
)
def pixel_shuffle_channels():
    return SuperResolution(scale=2), (torch.randn(1, 3, 10, 10),)


class PatchFold(nn.Module):
    def __init__(self):
        super().__init__()
        self.unfold = nn.Unfold(4, stride=4)
        self.mlp = nn.Linear(48, 48)
        self.fold = nn.Fold(output_size=(16, 16), kernel_size=4, stride=4)

    def forward(self, x):
        patches = self.unfold(x).transpose(1, 2)
        return self.fold(self.mlp(patches))


@case(
    module="fold",
    op="fold",
    line="self.fold(self.mlp(patches))",
    operands=((2, 16, 48),),
    origin=("mlp", "unfold"),
    fix=("transpose", "permute", "mT"),
    verified=True,
    fixed=("self.fold(self.mlp(patches))", "self.fold(self.mlp(patches).transpose(1, 2))"),
    ids="R2",
)
def fold_of_untransposed_patches():
    return PatchFold(), (torch.randn(2, 3, 16, 16),)


class Upsampler(nn.Module):
    def __init__(self):
        super().__init__()
        self.reduce = nn.Linear(6, 6)

    def forward(self, x):
        return F.interpolate(self.reduce(x), scale_factor=2, mode="bilinear")


@case(
    op="interpolate",
    line="F.interpolate(",
    operands=((2, 5, 6),),
    origin=("reduce", "x"),
    fix=("unsqueeze", "linear"),
    fixed=('mode="bilinear"', 'mode="linear"'),
    ids="S3",
)
def interpolate_rank():
    return Upsampler(), (torch.randn(2, 5, 6),)


class SpatialTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.locate = nn.Linear(3 * 8 * 8, 6)

    def forward(self, x):
        theta = self.locate(x.flatten(1)).view(-1, 2, 3)
        grid = F.affine_grid(theta, x.shape, align_corners=False)
        grid = grid.permute(0, 3, 1, 2)
        return F.grid_sample(x, grid, align_corners=False)


@case(
    op="grid_sample",
    line="F.grid_sample(x, grid",
    operands=((2, 3, 8, 8), (2, 2, 8, 8)),
    origin=("permute", "locate"),
    fix=("permute", "movedim"),
    verified=True,
    fixed=("grid = grid.permute(0, 3, 1, 2)", "grid = grid"),
    ids="P3",
)
def grid_in_the_wrong_layout():
    return SpatialTransformer(), (torch.randn(2, 3, 8, 8),)


class PaddedConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)

    def forward(self, x):
        x = F.pad(x, (9, 9, 1, 1), mode="reflect")
        return self.conv(x)


@case(
    op="pad",
    line='F.pad(x, (9, 9, 1, 1), mode="reflect")',
    operands=((1, 2, 8, 8),),
    origin="x",
    fix=("7", "smaller", "mode", "8"),
    fixed=("(9, 9, 1, 1)", "(7, 7, 1, 1)"),
    ids="S4",
)
def reflect_padding_too_wide():
    return PaddedConv(), (torch.randn(1, 2, 8, 8),)
