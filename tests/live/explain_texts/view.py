"""Heads split with a head count that does not divide the width."""

import torch
from torch import nn


class Heads(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        batch, seq, dim = x.shape
        h = self.proj(x)
        return h.view(batch, seq, self.heads, dim // self.heads)


Heads(100, 8)(torch.randn(2, 10, 100))
