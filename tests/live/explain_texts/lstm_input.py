"""An LSTM made for another input size than the embedding has."""

import torch
from torch import nn


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(500, 50)
        self.lstm = nn.LSTM(64, 128, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(256, 7)

    def forward(self, words):
        out, _ = self.lstm(self.embed(words))
        return self.head(out)


Tagger()(torch.randint(0, 500, (3, 12)))
