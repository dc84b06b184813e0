"""A language model's loss with logits (batch, seq, vocab)."""

import torch
from torch import nn
from torch.nn import functional as F


class Bigram(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.embed = nn.Embedding(vocab, 32)
        self.head = nn.Linear(32, vocab)

    def forward(self, tokens):
        return self.head(self.embed(tokens))


model = Bigram(65)
tokens = torch.randint(0, 65, (4, 9))
logits = model(tokens[:, :-1])
loss = F.cross_entropy(logits, tokens[:, 1:])
