"""Chapters 3 to 7, 11 and 28: layers of weighted sums.

Glossary
    W          weight (outputs, inputs)
    b          bias (outputs)
    fan_in     how many numbers flow into one output, here `inputs`

Source: chapters 3, 4, 7, 11 and 28 of the book, and its chapter on Python.

Differs from the book: one class builds all of its networks; dropout follows the mode that the model is in, where the
book's is always on (erratum E-41); weights start from torch's range, not from zero (E-40).
Does not handle: layers without a bias.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Self

from torch import Tensor, nn

from reference_models.activations import activation
from reference_models.initialization import kaiming_uniform, uniform
from reference_models.regularization import Dropout
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
    """Linear layers with an activation between them, and dropout after each of those.

    Args:
        sizes: numbers in, those of each hidden layer, numbers out.
        nonlinearity: name of the activation, as `reference_models.activations.activation` knows it.
        dropout: share of the hidden numbers that are left out in training; one number, or one for each hidden layer.
    """

    def __init__(self, *sizes: int, nonlinearity: str = "relu", dropout: float | tuple[float, ...] = 0.0) -> None:
        super().__init__()
        left_out = iter(dropout if isinstance(dropout, tuple) else (dropout,) * len(sizes))
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            if layers:
                share = next(left_out)
                layers += [activation(nonlinearity), Dropout(share)] if share else [activation(nonlinearity)]
            layers.append(Linear(inputs, outputs))
        self.layers = nn.ModuleList(layers)

    @classmethod
    def addition(cls) -> Self:
        """Chapter 3's network, which adds two numbers: 65 parameters."""
        return cls(2, 16, 1)

    @classmethod
    def simple(cls) -> Self:
        """Chapter 4's network: 652 parameters."""
        return cls(10, 50, 2)

    @classmethod
    def iris(cls) -> Self:
        """Chapter 7's network, which tells flowers apart: 259 parameters."""
        return cls(4, 32, 3)

    @classmethod
    def mnist(cls) -> Self:
        """Chapter 28's network for 28×28 images: 109 386 parameters."""
        return cls(784, 128, 64, 10, dropout=0.2)

    @classmethod
    def regularized(cls) -> Self:
        """The network of "Learning optimization": 235 146 parameters."""
        return cls(784, 256, 128, 10, dropout=(0.5, 0.3))

    @classmethod
    def digits(cls) -> Self:
        """The best of chapter 28's search, for 8×8 images."""
        return cls(64, 256, 128, 10, nonlinearity="gelu", dropout=0.3)

    @shapes("batch inputs -> batch outputs")
    def forward(self, x: Tensor) -> Tensor:
        """Classify, or whatever the sizes are for.

        Args:
            x: (batch, inputs) float tensor.
        """
        for layer in self.layers:
            x = layer(x)
        return x
