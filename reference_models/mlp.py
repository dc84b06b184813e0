"""Chapters 3 to 7: layers of weighted sums.

Glossary
    W          weight (outputs, inputs)
    b          bias (outputs)
    fan_in     how many numbers flow into one output, here `inputs`

Source: chapters 3, 4 and 7 of the book.

Differs from the book: one class builds all of its networks.
Does not handle: activations other than ReLU, dropout (not here yet).
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

from reference_models.activations import ReLU
from reference_models.initialization import kaiming_uniform, uniform
from tensorscope import shapes


class Linear(nn.Module):
    """Weighted sums: y = x Wᵀ + b.

    Args:
        inputs: numbers in.
        outputs: numbers out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(kaiming_uniform(outputs, inputs))
        self.bias = nn.Parameter(uniform(outputs, bound=1 / math.sqrt(inputs)))

    @shapes("*batch inputs -> *batch outputs")
    def forward(self, x: Tensor) -> Tensor:
        """Sum up.

        Args:
            x: (..., inputs) float tensor.
        """
        return x @ self.weight.T + self.bias

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        outputs, inputs = self.weight.shape
        return f"{inputs}, {outputs}"


class MLP(nn.Module):
    """Linear layers with rectifiers between them.

    Args:
        sizes: numbers in, those of each hidden layer, numbers out: `MLP(4, 32, 3)` is the book's iris classifier.
    """

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [ReLU(), Linear(inputs, outputs)]
        self.layers = nn.ModuleList(layers[1:])

    @shapes("batch inputs -> batch outputs")
    def forward(self, x: Tensor) -> Tensor:
        """Classify, or whatever the sizes are for.

        Args:
            x: (batch, inputs) float tensor.
        """
        for layer in self.layers:
            x = layer(x)
        return x
