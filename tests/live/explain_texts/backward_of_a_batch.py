"""One loss a sample, and backward of all of them."""

import torch
from torch import nn

model = nn.Linear(10, 3)
criterion = nn.CrossEntropyLoss(reduction="none")
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
inputs, labels = torch.randn(16, 10), torch.randint(0, 3, (16,))
for _ in range(2):
    optimizer.zero_grad()
    loss = criterion(model(inputs), labels)
    loss.backward()
    optimizer.step()
