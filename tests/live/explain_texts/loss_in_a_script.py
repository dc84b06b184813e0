"""A regression loss in the training loop: the last batch's targets are for another batch."""

import torch
from torch import nn

model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 2))
inputs = torch.randn(64, 10)
targets = torch.randn(64, 3)
predictions = model(inputs)
loss = ((predictions - targets) ** 2).mean()
loss.backward()
