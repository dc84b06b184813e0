"""A sequence longer than the positions that the model knows."""

import torch
from torch import nn


class GPT(nn.Module):
    def __init__(self, vocab=50, dim=32, longest=16):
        super().__init__()
        self.tokens = nn.Embedding(vocab, dim)
        self.positions = nn.Embedding(longest, dim)

    def forward(self, ids):
        places = torch.arange(ids.shape[1])
        return self.tokens(ids) + self.positions(places)


GPT()(torch.randint(0, 50, (2, 20)))
