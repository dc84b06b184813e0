"""Features from numpy are float64, weights are float32."""

import numpy as np
import torch
from torch import nn


class Regression(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(4, 16)
        self.out = nn.Linear(16, 1)

    def forward(self, x):
        return self.out(torch.relu(self.hidden(x)))


features = torch.from_numpy(np.linspace(0, 1, 20).reshape(5, 4))
Regression()(features)
