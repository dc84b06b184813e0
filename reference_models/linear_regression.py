"""Chapter 8: a line through points, found step by step and at once.

Glossary
    x, y       inputs (batch, inputs) and targets (batch, outputs)
    ŷ          what the model says
    n          how many targets there are
    W, b       weight (outputs, inputs) and bias (outputs)
    L          mean squared error, over samples and outputs
    η          learning rate, `lr`
    x̄, ȳ       means over the samples
    x⁺         pseudoinverse: (xᵀx)⁻¹xᵀ where that exists

Source: chapter 8 of the book; least squares after Hastie, Tibshirani and Friedman, The Elements of Statistical
Learning, 3.2.

Differs from the book: it stops after 200 steps of AdamW with learning rate 0.01, long before the line it says it finds;
3 000 find it from every seed tried, as do 400 with 0.1 (erratum E-14). Least squares are not in the book: they say what
the steps should come to.
Does not handle: weighted samples, regularisation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reference_models.data import Samples
from reference_models.initialization import uniform
from reference_models.losses import mse
from reference_models.mlp import Linear
from tensorscope import shapes

if TYPE_CHECKING:
    from collections.abc import Iterator


def line(generator: torch.Generator | None = None) -> Samples:
    """The book's points: x = 0, 0.1, …, 9.9 and y = 2x + 1, up to 0.1 too low or too high, (100, 1) each.

    Args:
        generator: where the noise comes from; torch's own by default.
    """
    x = torch.arange(100).unsqueeze(1) / 10
    return Samples(x, 2 * x + 1 + uniform(100, 1, bound=0.1, generator=generator))


class LinearRegression(Linear):
    """One layer of weighted sums and nothing else: 2 parameters in the book.

    Args:
        inputs: numbers in.
        outputs: numbers out.
    """

    def __init__(self, inputs: int = 1, outputs: int = 1) -> None:
        super().__init__(inputs, outputs)

    @torch.no_grad()
    @shapes("batch inputs, batch outputs")
    def solve(self, x: Tensor, y: Tensor) -> None:
        """Set the parameters to those of least squares.

        Args:
            x: (batch, inputs) float tensor.
            y: (batch, outputs) float tensor.

        Raises:
            ValueError: there is no sample, or `y` has other outputs than the model.
        """
        if y.shape[1] != len(self.bias):  # a single one would be copied to all of them
            raise ValueError(f"`y`: expected {len(self.bias)} outputs, got {y.shape[1]}")
        weight, bias = least_squares(x, y)
        self.weight.copy_(weight)
        self.bias.copy_(bias)

    @shapes("batch inputs, batch outputs")
    def descend(self, x: Tensor, y: Tensor, *, lr: float = 0.01, steps: int = 2000) -> Iterator[Tensor]:
        """Take steps of gradient descent over all samples at once; each is taken when it is asked for.

        Args:
            x: (batch, inputs) float tensor.
            y: (batch, outputs) float tensor.
            lr: η. The book's points need less than 0.029, or the steps grow (erratum E-15).
            steps: how many.

        Yields:
            0-d loss before each step.
        """
        for _ in range(steps):
            with torch.no_grad():
                outputs = self(x)
                loss = mse(outputs, y)
                # ∂L/∂ŷ = 2/n (ŷ - y), where n counts every output of every sample
                slope = 2 / max(y.numel(), 1) * (outputs - y)
                # θ ← θ - η ∂L/∂θ with ∂L/∂W = (∂L/∂ŷ)ᵀ x and ∂L/∂b = Σᵢ ∂L/∂ŷᵢ
                self.weight.sub_(lr * (slope.T @ x))
                self.bias.sub_(lr * slope.sum(0))
            yield loss


@shapes("batch inputs, batch outputs -> outputs inputs, outputs")
def least_squares(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias whose mean squared error is the least; of several such, those with the smallest weight.

    Args:
        x: (batch, inputs) float tensor.
        y: (batch, outputs) float tensor.

    Returns:
        Weight (outputs, inputs) and bias (outputs).

    Raises:
        ValueError: there is no sample.
    """
    if not len(x):
        raise ValueError("`x`: expected at least 1 sample, got 0")
    x_mean, y_mean = x.mean(0), y.mean(0)
    # Wᵀ = (x - x̄)⁺ (y - ȳ): the bias drops out of what is centred.
    # An input that does not vary leaves nothing but rounding errors, which count as 0.
    least = max(x.shape) * torch.finfo(x.dtype).eps
    weight = (torch.linalg.pinv(x - x_mean, rtol=least, atol=least * float(x.abs().max())) @ (y - y_mean)).T
    # b = ȳ - W x̄
    return weight, y_mean - weight @ x_mean
