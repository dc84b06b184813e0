"""A U-Net given images whose size is no multiple of four."""

import torch
from torch import nn


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc1 = nn.Conv2d(1, 16, 3, padding=1)
        self.enc2 = nn.Conv2d(16, 32, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.bottom = nn.Conv2d(32, 64, 3, padding=1)
        self.up2 = nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.dec2 = nn.Conv2d(64, 32, 3, padding=1)

    def forward(self, x):
        first = torch.relu(self.enc1(x))
        second = torch.relu(self.enc2(self.pool(first)))
        bottom = torch.relu(self.bottom(self.pool(second)))
        up = self.up2(bottom)
        return self.dec2(torch.cat([up, second], dim=1))


UNet()(torch.randn(2, 1, 50, 50))
