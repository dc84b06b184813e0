"""A convolution that expects another number of channels than the one before it makes."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, into, out):
        super().__init__()
        self.conv = nn.Conv2d(into, out, 3, padding=1)
        self.norm = nn.BatchNorm2d(out)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = Block(3, 16)
        self.blocks = nn.ModuleList([Block(16, 32), Block(64, 64)])

    def forward(self, images):
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return x


Encoder()(torch.randn(8, 3, 32, 32))
