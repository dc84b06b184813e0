"""Record your own training, and watch it from another terminal while it runs.

python examples/watch_your_training.py
tensorscope watch runs/mine
"""

import torch
from torch import nn

import tensorscope

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

with tensorscope.trace(model, "runs/mine") as trace:
    for _ in range(500):
        numbers = torch.rand(64, 2)
        loss = nn.functional.mse_loss(model(numbers), numbers.sum(1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trace.log(loss=loss)
    print(f"loss {loss.item():.5f}, recorded in {trace.path}")
