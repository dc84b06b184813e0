"""Multi-head attention made for another width than the embedding has."""

import torch
from torch import nn


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(1000, 128)
        self.attn = nn.MultiheadAttention(embed_dim=256, num_heads=8, batch_first=True)

    def forward(self, tokens):
        x = self.embed(tokens)
        attended, _ = self.attn(x, x, x)
        return x + attended


Layer()(torch.randint(0, 1000, (4, 20)))
