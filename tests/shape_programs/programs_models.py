"""Larger models of images whose mistake lies far upstream of the line that raises."""

import torch
import torch.nn.functional as F
from torch import nn

from shape_programs.record import case


class DenseLayer(nn.Module):
    def __init__(self, inp, growth):
        super().__init__()
        self.norm = nn.BatchNorm2d(inp)
        self.conv = nn.Conv2d(inp, growth, 3, padding=1)

    def forward(self, x):
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], dim=1)


class DenseNet(nn.Module):
    def __init__(self, growth=6, depth=4):
        super().__init__()
        self.stem = nn.Conv2d(3, 10, 3, padding=1)
        self.dense = nn.Sequential(*[DenseLayer(10 + i * growth, growth) for i in range(depth)])
        self.transition = nn.Conv2d(10 + (depth - 1) * growth, 16, 1)

    def forward(self, x):
        h = self.dense(self.stem(x))
        h = F.avg_pool2d(F.relu(h), 2)
        return self.transition(h)


@case(
    module="transition",
    op="conv2d",
    line="self.transition(h)",
    operands=((2, 34, 8, 8), (16, 28, 1, 1)),
    origin="dense.3",
    fix="34",
    verified=True,
    fixed=("(depth - 1) * growth", "depth * growth"),
    ids="S1",
)
def dense_block_growth():
    return DenseNet(), (torch.randn(2, 3, 16, 16),)


class Inception(nn.Module):
    def __init__(self, inp):
        super().__init__()
        self.one = nn.Conv2d(inp, 8, 1)
        self.three = nn.Sequential(nn.Conv2d(inp, 6, 1), nn.ReLU(), nn.Conv2d(6, 12, 3, padding=1))
        self.five = nn.Sequential(nn.Conv2d(inp, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 5, padding=1))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(inp, 4, 1))

    def forward(self, x):
        return torch.cat([branch(x) for branch in (self.one, self.three, self.five, self.pool)], 1)


class GoogLeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.inception = Inception(16)

    def forward(self, x):
        return self.inception(self.stem(x))


@case(
    module="inception",
    op="cat",
    line="torch.cat([branch(x) for branch in",
    operands=((1, 8, 16, 16), (1, 8, 14, 14)),
    origin="inception.five.2",
    fix=("padding=2", "F.interpolate("),
    verified=True,
    fixed=("nn.Conv2d(4, 8, 5, padding=1)", "nn.Conv2d(4, 8, 5, padding=2)"),
    ids="S6",
)
def inception_branch_padding():
    return GoogLeNet(), (torch.randn(1, 3, 32, 32),)


class FeaturePyramid(nn.Module):
    def __init__(self, widths, out):
        super().__init__()
        self.lateral = nn.ModuleList([nn.Conv2d(w, out, 1) for w in widths])

    def forward(self, maps):
        top = self.lateral[-1](maps[-1])
        merged = [top]
        for conv, feature in zip(self.lateral[:-1][::-1], maps[:-1][::-1], strict=True):
            top = F.interpolate(top, scale_factor=2) + conv(feature)
            merged.append(top)
        return merged


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.c2 = nn.Conv2d(8, 16, 3, 2, 1)
        self.c3 = nn.Conv2d(16, 32, 3, 2, 1)
        self.fpn = FeaturePyramid((8, 16, 32), 12)

    def forward(self, image):
        a = F.relu(self.c1(image))
        b = F.relu(self.c2(a))
        c = F.relu(self.c3(b))
        return self.fpn([a, b, c])


@case(
    module="fpn",
    op="add",
    line="F.interpolate(top, scale_factor=2) + conv(feature)",
    operands=((1, 12, 14, 14), (1, 12, 13, 13)),
    origin=("interpolate", "c3", "fpn.lateral"),
    fix=("size=", "13", "shape[-2:]", "104", "96"),
    fixed=("torch.randn(1, 3, 50, 50)", "torch.randn(1, 3, 48, 48)"),
    ids="S2",
)
def pyramid_of_odd_images():
    return Detector(), (torch.randn(1, 3, 50, 50),)
