"""Chapter 10: how steep each activation function is, by its formula.

Glossary
    f′         derivative of f
    σ          sigmoid, 1 / (1 + e⁻ˣ)
    Φ, φ       share of a standard normal distribution left of x, and its density e^(-x²/2) / √(2π)
    slope, α   what is left of 0 of a rectifier that leaks

Source: chapter 10 of the book, which derives the first five; the others follow by the product and chain rules.

Networks do not need these, since autograd differentiates the functions themselves; they are what it should come to.
A signal that passes ten sigmoids shrinks to at most 0.25¹⁰ ≈ 9.5e-7 on its way back: gradients vanish.

Does not handle: the step, whose derivative is 0 wherever it has one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reference_models.activations import SELU_ALPHA, SELU_SCALE, sigmoid, softplus, tanh
from tensorscope import shapes

if TYPE_CHECKING:
    from collections.abc import Callable


@shapes("... -> ...")
def relu_derivative(x: Tensor) -> Tensor:
    """1 where the rectifier is open; 0 at 0, where it has a corner.

    Args:
        x: (...) float tensor.
    """
    return leaky_relu_derivative(x, 0.0)


@shapes("... -> ...")
def leaky_relu_derivative(x: Tensor, slope: float = 0.01) -> Tensor:
    """1 right of 0, else the slope.

    Args:
        x: (...) float tensor.
        slope: how much of what is negative is left.
    """
    return torch.where(x > 0, torch.ones_like(x), slope)


@shapes("... -> ...")
def sigmoid_derivative(x: Tensor) -> Tensor:
    """At most ¼, at 0.

    Args:
        x: (...) float tensor.
    """
    # σ′ = σ (1 - σ)
    y = sigmoid(x)
    return y * (1 - y)


@shapes("... -> ...")
def tanh_derivative(x: Tensor) -> Tensor:
    """At most 1, at 0.

    Args:
        x: (...) float tensor.
    """
    # tanh′ = 1 - tanh²
    return 1 - tanh(x) ** 2


@shapes("... -> ...")
def elu_derivative(x: Tensor, alpha: float = 1.0) -> Tensor:
    """1, or α eˣ left of 0.

    Args:
        x: (...) float tensor.
        alpha: α.
    """
    return torch.where(x > 0, torch.ones_like(x), alpha * torch.exp(x.clamp(max=0)))


@shapes("... -> ...")
def selu_derivative(x: Tensor) -> Tensor:
    """That of the ELU inside, scaled.

    Args:
        x: (...) float tensor.
    """
    return SELU_SCALE * elu_derivative(x, SELU_ALPHA)


@shapes("... -> ...")
def softplus_derivative(x: Tensor) -> Tensor:
    """The sigmoid.

    Args:
        x: (...) float tensor.
    """
    # (log(1 + eˣ))′ = eˣ / (1 + eˣ) = σ
    return sigmoid(x)


@shapes("... -> ...")
def gelu_derivative(x: Tensor) -> Tensor:
    """Between -0.13 and 1.13: GELU is not monotone.

    Args:
        x: (...) float tensor.
    """
    # (x Φ)′ = Φ + x φ
    below = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return below + x * torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


@shapes("... -> ...")
def gelu_tanh_derivative(x: Tensor) -> Tensor:
    """Nearly `gelu_derivative`.

    Args:
        x: (...) float tensor.
    """
    # With t = tanh(u), u = c (x + k x³): (x/2 · (1 + t))′ = (1 + t) / 2 + x/2 · (1 - t²) u′, u′ = c (1 + 3 k x²)
    c, k, near = math.sqrt(2 / math.pi), 0.044715, x.clamp(-10, 10)
    t = tanh(c * (near + k * near**3))
    return (1 + t) / 2 + near / 2 * (1 - t * t) * c * (1 + 3 * k * near * near)


@shapes("... -> ...")
def silu_derivative(x: Tensor) -> Tensor:
    """Between -0.10 and 1.10: SiLU is not monotone.

    Args:
        x: (...) float tensor.
    """
    # (x σ)′ = σ + x σ (1 - σ)
    y = sigmoid(x)
    return y + x * y * (1 - y)


@shapes("... -> ...")
def mish_derivative(x: Tensor) -> Tensor:
    """Between -0.12 and 1.09: Mish is not monotone.

    Args:
        x: (...) float tensor.
    """
    # With t = tanh(softplus(x)): (x t)′ = t + x (1 - t²) σ
    t = tanh(softplus(x))
    return t + x * (1 - t * t) * sigmoid(x)


# Name of an activation, as in `activations.MODULES` → its derivative.
DERIVATIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": relu_derivative,
    "leaky_relu": leaky_relu_derivative,
    "sigmoid": sigmoid_derivative,
    "tanh": tanh_derivative,
    "elu": elu_derivative,
    "selu": selu_derivative,
    "softplus": softplus_derivative,
    "gelu": gelu_derivative,
    "gelu_tanh": gelu_tanh_derivative,
    "silu": silu_derivative,
    "mish": mish_derivative,
}
