"""Q-values picked with an index that lacks an axis."""

import torch
from torch import nn


class QNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, states, actions):
        values = self.net(states)
        return values.gather(1, actions)


states = torch.randn(16, 8)
actions = torch.randint(0, 4, (16,))
QNetwork()(states, actions)
