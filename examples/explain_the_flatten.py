"""A linear layer behind two convolutions expects 64 · 8 · 8 features and gets another number: why, and what to change.

The layer's size was worked out by hand, as if the convolutions were padded.

    python examples/explain_the_flatten.py

It says: `fc1` got 1600 features and takes 4096, 1600 = 64 · 5 · 5, make `fc1` `nn.Linear(1600, 128)`.
Any script's error is explained without a change to it by `tensorscope run script.py`.
"""

import torch
from torch import Tensor, nn

import tensorscope


class SimpleCNN(nn.Module):
    """Digits, 28 × 28."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(64 * 8 * 8, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.conv1(x)))
        x = self.pool(torch.relu(self.conv2(x)))
        x = self.fc1(x.flatten(1))
        return self.fc2(torch.relu(x))


def main() -> None:
    try:
        SimpleCNN()(torch.rand(4, 1, 28, 28))
    except RuntimeError as error:
        print(tensorscope.explain(error))


if __name__ == "__main__":
    main()
