"""Chapter 10: activation functions.

Glossary
    x          the number an activation bends
    e          Euler's number; expm1(x) = eˣ - 1 and log1p(x) = log(1 + x), without loss near 0
    σ          sigmoid, 1 / (1 + e⁻ˣ)
    Φ          share of a standard normal distribution left of x
    erf        error function, Φ(x) = (1 + erf(x / √2)) / 2
    slope, α   what is left of 0 of a rectifier that leaks

Source: chapter 10 of the book; softmax and its logarithm after Goodfellow, Bengio and Courville, Deep Learning, 4.1
(the largest logit is subtracted, so that no exponential overflows); Hendrycks and Gimpel, Gaussian Error Linear Units
(2016); Klambauer et al., Self-Normalizing Neural Networks (2017); Misra, Mish (2019).

Differs from the book: the step is 0 at 0 (E-01, the perceptron's); softplus and tanh are finite wherever x is, in value
and slope, where the book's overflow (E-55). The slopes by formula are in `derivatives.py`.

Does not handle: an axis for softmax other than the last; a softmax over no classes at all; writing over the input;
activations with learned slopes (PReLU).
"""

from __future__ import annotations

import math
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tensorscope import shapes

if TYPE_CHECKING:
    from collections.abc import Callable

# The α and scale for which a mean of 0 and a variance of 1 are a fixed point of layer after layer.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


@shapes("... -> ...")
def step(x: Tensor) -> Tensor:
    """1 right of 0, else 0; no gradient passes it.

    Args:
        x: (...) float tensor.
    """
    return (x > 0).to(x.dtype)


@shapes("... -> ...")
def sigmoid(x: Tensor) -> Tensor:
    """A number between 0 and 1.

    Args:
        x: (...) float tensor.
    """
    # σ(x) = 1 / (1 + e⁻ˣ); written so, the slope would be 0 · ∞ for large negative x.
    return torch.sigmoid(x)


@shapes("... -> ...")
def tanh(x: Tensor) -> Tensor:
    """A number between -1 and 1, 2σ(2x) - 1.

    Args:
        x: (...) float tensor.
    """
    # tanh(x) = (eˣ - e⁻ˣ) / (eˣ + e⁻ˣ); written so, it would be ∞ / ∞ from |x| ≈ 89 on.
    return torch.tanh(x)


@shapes("... -> ...")
def relu(x: Tensor) -> Tensor:
    """The rectifier, max(x, 0); its slope at 0 is 0, and NaN stays NaN.

    Args:
        x: (...) float tensor.
    """
    return torch.where(x <= 0, 0, x)


@shapes("... -> ...")
def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """A rectifier that lets a little of what is negative through, so that no unit is dead for good.

    Args:
        x: (...) float tensor.
        slope: how much.
    """
    return torch.where(x > 0, x, slope * x)


@shapes("... -> ...")
def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """A rectifier that bends smoothly to -α.

    Args:
        x: (...) float tensor.
        alpha: α.
    """
    # x, or α (eˣ - 1) left of 0; the exponential never sees the right side, where it overflows.
    return torch.where(x <= 0, alpha * torch.expm1(x.clamp(max=0)), x)


@shapes("... -> ...")
def selu(x: Tensor) -> Tensor:
    """An ELU that keeps mean 0 and variance 1 from layer to layer.

    Args:
        x: (...) float tensor.
    """
    return SELU_SCALE * elu(x, SELU_ALPHA)


@shapes("... -> ...")
def softplus(x: Tensor) -> Tensor:
    """The smooth rectifier log(1 + eˣ), whose slope is σ(x).

    Args:
        x: (...) float tensor.
    """
    # log(1 + eˣ) = max(x, 0) + log(1 + e⁻ˡˣˡ); at 0, `maximum` shares the slope between x and 0: ½ = σ(0).
    return torch.maximum(x, x.new_zeros(())) + torch.log1p(torch.exp(-x.abs()))


@shapes("... -> ...")
def gelu(x: Tensor, approximate: bool = False) -> Tensor:
    """x, weighted by how likely a normal number is smaller.

    Args:
        x: (...) float tensor.
        approximate: by tanh, as GPT-2 and chapter 28 do, instead of erf.
    """
    if approximate:
        # x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))); beyond ±10 tanh is ±1, and x³ need not overflow to say so.
        near = x.clamp(-10, 10)
        return 0.5 * x * (1 + tanh(math.sqrt(2 / math.pi) * (near + 0.044715 * near**3)))
    # x · Φ(x)
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


@shapes("... -> ...")
def silu(x: Tensor) -> Tensor:
    """Swish: x, weighted by its sigmoid.

    Args:
        x: (...) float tensor.
    """
    # x · σ(x)
    return x * sigmoid(x)


@shapes("... -> ...")
def mish(x: Tensor) -> Tensor:
    """Like Swish, weighted by a tanh that sees no negative number.

    Args:
        x: (...) float tensor.
    """
    # x · tanh(log(1 + eˣ))
    return x * tanh(softplus(x))


@shapes("*batch classes -> *batch classes")
def log_softmax(logits: Tensor) -> Tensor:
    """The logarithm of softmax over the last axis.

    Args:
        logits: (..., classes) float tensor.
    """
    # log σ(x)ᵢ = xᵢ - m - log Σⱼ exp(xⱼ - m), for any m; m cancels, so it needs no gradient.
    shifted = logits - logits.detach().amax(-1, keepdim=True)
    return shifted - shifted.exp().sum(-1, keepdim=True).log()


@shapes("*batch classes -> *batch classes")
def softmax(logits: Tensor) -> Tensor:
    """Probabilities over the last axis, from numbers of any size.

    Args:
        logits: (..., classes) float tensor.
    """
    # σ(x)ᵢ = exp(xᵢ - m) / Σⱼ exp(xⱼ - m)
    raised = (logits - logits.detach().amax(-1, keepdim=True)).exp()
    return raised / raised.sum(-1, keepdim=True)


class Activation(nn.Module):
    """An activation function as a module, so that its output is a place to look at.

    Args:
        settings: of the function, by name; `print(model)` shows them.
    """

    def __init__(self, **settings: float) -> None:
        super().__init__()
        self.settings = settings

    def bend(self, x: Tensor) -> Tensor:
        """The function; each activation has its own.

        Args:
            x: (...) float tensor.
        """
        raise NotImplementedError(f"`{type(self).__name__}` has no `bend`")

    @shapes("... -> ...")
    def forward(self, x: Tensor) -> Tensor:
        """Bend every number.

        Args:
            x: (...) float tensor.
        """
        return self.bend(x)

    def extra_repr(self) -> str:
        """Settings, for `print(model)`."""
        return ", ".join(f"{name}={value}" for name, value in self.settings.items())


class Sigmoid(Activation):
    """1 / (1 + e⁻ˣ)."""

    bend = staticmethod(sigmoid)


class Tanh(Activation):
    """(eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)."""

    bend = staticmethod(tanh)


class ReLU(Activation):
    """max(x, 0)."""

    bend = staticmethod(relu)


class LeakyReLU(Activation):
    """max(x, slope · x).

    Args:
        slope: how much of what is negative is left.
    """

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__(slope=slope)

    def bend(self, x: Tensor) -> Tensor:
        """Rectify, with a leak.

        Args:
            x: (...) float tensor.
        """
        return leaky_relu(x, self.settings["slope"])


class ELU(Activation):
    """x, or α (eˣ - 1) left of 0.

    Args:
        alpha: α.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(alpha=alpha)

    def bend(self, x: Tensor) -> Tensor:
        """Rectify smoothly.

        Args:
            x: (...) float tensor.
        """
        return elu(x, self.settings["alpha"])


class SELU(Activation):
    """An ELU that keeps mean 0 and variance 1."""

    bend = staticmethod(selu)


class Softplus(Activation):
    """log(1 + eˣ)."""

    bend = staticmethod(softplus)


class GELU(Activation):
    """x · Φ(x).

    Args:
        approximate: by tanh instead of erf.
    """

    def __init__(self, approximate: bool = False) -> None:
        super().__init__(approximate=approximate)

    def bend(self, x: Tensor) -> Tensor:
        """Weigh by Φ.

        Args:
            x: (...) float tensor.
        """
        return gelu(x, bool(self.settings["approximate"]))


class SiLU(Activation):
    """x · σ(x)."""

    bend = staticmethod(silu)


class Mish(Activation):
    """x · tanh(softplus(x))."""

    bend = staticmethod(mish)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "elu": ELU,
    "selu": SELU,
    "softplus": Softplus,
    "gelu": GELU,
    "gelu_tanh": partial(GELU, approximate=True),
    "silu": SiLU,
    "mish": Mish,
}


def activation(name: str) -> nn.Module:
    """An activation by its name, so that it can be a setting of a network.

    Args:
        name: one of `MODULES`, such as `relu`, `gelu` (by erf) or `gelu_tanh`.

    Raises:
        ValueError: there is no such activation.
    """
    if name not in MODULES:
        close = get_close_matches(str(name), MODULES, n=1)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        raise ValueError(f"expected `name` among {', '.join(MODULES)}, got {name!r}{hint}")
    return MODULES[name]()
