"""Joining tensors: cat, stack, skip connections, residuals."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from shape_programs.record import case


class Late(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 20)
        self.b = nn.Linear(6, 25)

    def forward(self, x):
        return torch.cat([self.a(x), self.b(x)], dim=0)


@case(
    op="cat",
    line="torch.cat([self.a(x), self.b(x)], dim=0)",
    operands=((10, 20), (10, 25)),
    origin=("b", "a"),
    fix=("dim=1", "dim=-1"),
    verified=True,
    fixed=("dim=0", "dim=1"),
    ids="S6",
)
def cat_along_the_wrong_axis():
    return Late(), (torch.randn(10, 6),)


class Collected(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(4, 8)

    def forward(self, sequences):
        encoded = [self.proj(s) for s in sequences]
        return torch.stack(encoded)


@case(
    op="stack",
    line="torch.stack(encoded)",
    operands=((5, 8), (7, 8)),
    origin=("sequences", "proj"),
    fix=("pad_sequence", "pad"),
    fixed=("torch.stack(encoded)", "nn.utils.rnn.pad_sequence(encoded, batch_first=True)"),
    ids=("S6b", "R3"),
)
def stack_of_unequal_lengths():
    return Collected(), ([torch.randn(5, 4), torch.randn(7, 4), torch.randn(5, 4)],)


def collate(batch):
    xs = torch.stack([x for x, _ in batch])
    ys = torch.tensor([y for _, y in batch])
    return xs, ys


@case(
    op="stack",
    line="torch.stack([x for x, _ in batch])",
    operands=((3, 8), (4, 8)),
    fix="pad",
    ids=("S6b", "R3"),
    fixed=("torch.randn(4, 8)", "torch.randn(3, 8)"),
)
def collate_without_padding():
    return collate, ([(torch.randn(3, 8), 0), (torch.randn(4, 8), 1)],)


class MixedRanks(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 6)
        self.out = nn.Linear(12, 3)

    def forward(self, ids, state):
        h = self.embed(ids)
        return self.out(torch.cat([h, state], dim=-1))


@case(
    op="cat",
    line="torch.cat([h, state], dim=-1)",
    operands=((2, 5, 6), (2, 6)),
    origin=("state", "embed"),
    fix=("unsqueeze", "expand"),
    fixed=("[h, state]", "[h, state.unsqueeze(1).expand(-1, 5, -1)]"),
    ids=("S6", "S3"),
)
def cat_of_different_ranks():
    return MixedRanks(), (torch.randint(0, 10, (2, 5)), torch.randn(2, 6))


class DoubleConv(nn.Module):
    def __init__(self, inp, out):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(inp, out, 3, padding=1),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, x):
        return self.net(x)


class UpStep(nn.Module):
    def __init__(self, inp, out):
        super().__init__()
        self.up = nn.ConvTranspose2d(inp, out, 2, stride=2)
        self.conv = DoubleConv(inp, out)

    def forward(self, x, skip):
        x = self.up(x)
        x = torch.cat((skip, x), 1)
        return self.conv(x)


class FourLevelUNet(nn.Module):
    def __init__(self, widths=(4, 8, 16, 32)):
        super().__init__()
        self.first = DoubleConv(1, widths[0])
        self.downs = nn.ModuleList([DoubleConv(a, b) for a, b in pairwise(widths)])
        self.ups = nn.ModuleList([UpStep(b, a) for a, b in reversed(list(pairwise(widths)))])
        self.last = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x):
        skips = [self.first(x)]
        for down in self.downs:
            skips.append(down(F.max_pool2d(skips[-1], 2)))
        h = skips.pop()
        for up in self.ups:
            h = up(h, skips.pop())
        return self.last(h)


@case(
    module="ups.1",
    op="cat",
    line="torch.cat((skip, x), 1)",
    operands=((1, 8, 25, 25), (1, 8, 24, 24)),
    origin=("ups.1.up", "max_pool2d", "downs"),
    fix=("48", "56", "interpolate", "pad", "multiple", "divisible"),
    fixed=("torch.randn(1, 1, 50, 50)", "torch.randn(1, 1, 48, 48)"),
    ids="S6",
)
def unet_odd_size():
    return FourLevelUNet(), (torch.randn(1, 1, 50, 50),)


class Bottleneck(nn.Module):
    def __init__(self, inp, width, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inp, width, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.conv3 = nn.Conv2d(width, width * 4, 1, bias=False)
        self.bn = nn.BatchNorm2d(width * 4)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Conv2d(inp, width * 4, 1, stride)

    def forward(self, x):
        identity = x
        out = self.bn(self.conv3(F.relu(self.conv2(F.relu(self.conv1(x))))))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return F.relu(out)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 7, 2, 3)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Bottleneck(16, 8), Bottleneck(32, 8))
        self.layer2 = nn.Sequential(Bottleneck(32, 16, 2), Bottleneck(64, 16))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = self.maxpool(F.relu(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


@case(
    module="layer1.0",
    op=("add", "add_"),
    line="out += identity",
    operands=((2, 32, 8, 8), (2, 16, 8, 8)),
    origin=("layer1.0.bn", "layer1.0.conv3", "conv1"),
    fix=("Conv2d(16, 32, 1", "32", "16"),
    fixed=("if stride != 1:", "if stride != 1 or inp != width * 4:"),
    ids="S2",
)
def resnet_first_bottleneck():
    return ResNet(), (torch.randn(2, 3, 32, 32),)
