"""A batch norm made for another number of channels than the convolution before it makes."""

import torch
from torch import nn

model = nn.Sequential(
    nn.Conv2d(3, 32, 3),
    nn.BatchNorm2d(64),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(32, 10),
)
model(torch.randn(4, 3, 16, 16))
