"""A forward that takes batches, given one image."""

import torch
from torch import nn


class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(3 * 4 * 4, 32)

    def forward(self, image):
        batch, channels, height, width = image.shape
        tiles = image.view(batch, channels, height // 4, 4, width // 4, 4)
        return self.proj(tiles.permute(0, 2, 4, 1, 3, 5).flatten(3))


Patches()(torch.randn(3, 32, 32))
