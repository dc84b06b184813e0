"""Convolutions: channels, groups, ranks, layouts, transposed ones."""

import torch
import torch.nn.functional as F
from torch import nn

from shape_programs.record import case


class GrayNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 32, 3)

    def forward(self, image):
        return F.relu(self.conv(image))


@case(
    module="conv",
    op="conv2d",
    line="self.conv(image)",
    operands=((28, 28), (32, 1, 3, 3)),
    origin="image",
    fix=("unsqueeze", "[None, None]"),
    verified=True,
    fixed=("torch.randn(28, 28)", "torch.randn(1, 1, 28, 28)"),
    ids="S3",
)
def conv_on_a_bare_image():
    return GrayNet(), (torch.randn(28, 28),)


@case(
    module="conv",
    op="conv2d",
    line="self.conv(image)",
    operands=((16, 28, 28), (32, 1, 3, 3)),
    origin="image",
    fix="unsqueeze(1)",
    verified=True,
    fixed=("torch.randn(16, 28, 28)", "torch.randn(16, 1, 28, 28)"),
    ids="S3b",
)
def batch_without_channels():
    return GrayNet(), (torch.randn(16, 28, 28),)


class ColourNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())

    def forward(self, image):
        return self.body(F.relu(self.stem(image)))


@case(
    module="stem",
    op="conv2d",
    line="self.stem(image)",
    operands=((2, 24, 32, 3), (8, 3, 3, 3)),
    origin="image",
    fix=("permute(0, 3, 1, 2)", "movedim(-1, 1)"),
    verified=True,
    fixed=("torch.randn(2, 24, 32, 3)", "torch.randn(2, 3, 24, 32)"),
    ids="P3",
)
def channels_last_image():
    return ColourNet(), (torch.randn(2, 24, 32, 3),)


@case(
    module="stem",
    op="conv2d",
    line="self.stem(image)",
    operands=((2, 1, 24, 24), (8, 3, 3, 3)),
    origin="image",
    fix=("Conv2d(1", "expand", "repeat"),
    verified=True,
    fixed=("torch.randn(2, 1, 24, 24)", "torch.randn(2, 3, 24, 24)"),
    ids="S1",
)
def gray_image_into_colour_net():
    return ColourNet(), (torch.randn(2, 1, 24, 24),)


class DepthwiseBlock(nn.Module):
    def __init__(self, channels, out):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.pointwise = nn.Conv2d(channels, out, 1)

    def forward(self, x):
        return F.relu(self.pointwise(self.depthwise(x)))


class MobileNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(DepthwiseBlock(12, 20), DepthwiseBlock(24, 32))

    def forward(self, x):
        return self.blocks(self.first(x))


@case(
    module="blocks.1.depthwise",
    op="conv2d",
    line="self.depthwise(x)",
    operands=((2, 20, 8, 8), (24, 1, 3, 3)),
    origin="blocks.0.pointwise",
    fix=("20", "24"),
    verified=True,
    fixed=("DepthwiseBlock(12, 20)", "DepthwiseBlock(12, 24)"),
    ids="S1",
)
def depthwise_channels():
    return MobileNet(), (torch.randn(2, 3, 16, 16),)


class Generator(nn.Module):
    def __init__(self, latent=16):
        super().__init__()
        self.project = nn.Linear(latent, 64 * 4 * 4)
        self.up1 = nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1)
        self.up2 = nn.ConvTranspose2d(16, 3, 4, stride=2, padding=1)

    def forward(self, z):
        h = self.project(z).view(-1, 64, 4, 4)
        h = F.relu(self.up1(h))
        return torch.tanh(self.up2(h))


@case(
    module="up2",
    op="conv_transpose2d",
    line="self.up2(h)",
    operands=((2, 32, 8, 8), (16, 3, 4, 4)),
    origin="up1",
    fix=("32", "16"),
    verified=True,
    fixed=("nn.ConvTranspose2d(16, 3", "nn.ConvTranspose2d(32, 3"),
    ids="S1",
)
def transposed_conv_channels():
    return Generator(), (torch.randn(2, 16),)


class AutoEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.decoder = nn.ConvTranspose2d(8, 1, 3, stride=2, padding=1)

    def forward(self, x):
        recon = self.decoder(self.encoder(x))
        return ((recon - x) ** 2).mean()


@case(
    op="sub",
    line="recon - x",
    operands=((2, 1, 27, 27), (2, 1, 28, 28)),
    origin="decoder",
    fix=("output_padding", "27", "28"),
    fixed=(
        "1, 3, stride=2, padding=1)\n\n    def forward",
        "1, 3, stride=2, padding=1, output_padding=1)\n\n    def forward",
    ),
    ids="S2",
)
def transposed_conv_output_size():
    return AutoEncoder(), (torch.randn(2, 1, 28, 28),)


class TextCNN(nn.Module):
    def __init__(self, vocab=100, dim=24):
        super().__init__()
        self.embedding = nn.Embedding(vocab, dim)
        self.conv = nn.Conv1d(dim, 32, 3)
        self.fc = nn.Linear(32, 2)

    def forward(self, tokens):
        h = self.embedding(tokens)
        h = F.relu(self.conv(h))
        return self.fc(h.max(dim=2).values)


@case(
    module="conv",
    op="conv1d",
    line="self.conv(h)",
    operands=((4, 15, 24), (32, 24, 3)),
    origin="embedding",
    fix=("transpose", "permute", "mT"),
    verified=True,
    fixed=("self.conv(h)", "self.conv(h.transpose(1, 2))"),
    ids="P3",
)
def text_conv_without_transpose():
    return TextCNN(), (torch.randint(0, 100, (4, 15)),)
