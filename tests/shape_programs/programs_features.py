"""Features that come from elsewhere: another model, two towers, a shared layer."""

import torch
import torch.nn.functional as F
from torch import nn

from shape_programs.record import case


class Features(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d((2, 2)))

    def forward(self, x):
        return self.net(x)


class TransferModel(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(24, 7)

    def forward(self, x):
        h = self.dropout(self.backbone(x).flatten(1))
        return self.classifier(h)


@case(
    module="classifier",
    op="linear",
    line="self.classifier(h)",
    operands=((2, 96), (7, 24)),
    origin="backbone.net",
    fix="96",
    verified=True,
    fixed=("nn.Linear(24, 7)", "nn.Linear(24 * 2 * 2, 7)"),
    ids="S1b",
)
def adaptive_pool_not_to_one():
    return TransferModel(Features(24)), (torch.randn(2, 3, 20, 20),)


class ConcatHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.text = nn.Linear(10, 32)
        self.image = nn.Linear(20, 16)
        self.fuse = nn.Linear(64, 4)

    def forward(self, text, image):
        t, i = self.text(text), self.image(image)
        joined = torch.cat([t, i], dim=-1)
        return self.fuse(joined)


@case(
    module="fuse",
    op="linear",
    line="self.fuse(joined)",
    operands=((3, 48), (4, 64)),
    origin=("image", "text"),
    fix=("48", "32"),
    verified=True,
    fixed=("nn.Linear(20, 16)", "nn.Linear(20, 32)"),
    ids="S1",
)
def fused_towers():
    return ConcatHead(), (torch.randn(3, 10), torch.randn(3, 20))


class BilinearScore(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.Linear(6, 8)
        self.right = nn.Linear(6, 10)
        self.score = nn.Bilinear(8, 8, 1)

    def forward(self, a, b):
        return self.score(self.left(a), self.right(b))


@case(
    module="score",
    op="bilinear",
    line="self.score(",
    operands=((4, 8), (4, 10), (1, 8, 8)),
    origin="right",
    fix=("10", "8"),
    verified=True,
    fixed=("nn.Linear(6, 10)", "nn.Linear(6, 8)"),
    ids="S1",
)
def bilinear_second_input():
    return BilinearScore(), (torch.randn(4, 6), torch.randn(4, 6))


class SharedTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(16, 24)
        self.head = nn.Linear(24, 2)

    def forward(self, x):
        h = F.relu(self.shared(x))
        h = F.relu(self.shared(h))
        return self.head(h)


@case(
    module="shared",
    op="linear",
    line="h = F.relu(self.shared(h))",
    operands=((3, 24), (24, 16)),
    origin="shared",
    fix=("16", "24"),
    fixed=(
        "self.shared = nn.Linear(16, 24)",
        "self.shared = nn.Linear(16, 16)",
        "nn.Linear(24, 2)",
        "nn.Linear(16, 2)",
    ),
    ids="S1",
)
def shared_layer_second_call():
    return SharedTwice(), (torch.randn(3, 16),)
