"""Chapter 10: what weights start from.

Glossary
    fan_in     how many numbers flow into one output
    fan_out    how many outputs one input flows into
    a          slope of the rectifier left of 0
    std        standard deviation
    gain       by how much an activation shrinks what passes it, made up for: 1 for tanh in the book, 5/3 in PyTorch

Source: chapter 10 of the book; Glorot and Bengio, Understanding the difficulty of training deep feedforward neural
networks (2010), equation 16; He et al., Delving Deep into Rectifiers (2015), equation 15; PyTorch's layers use the
latter with a = √5.

Differs from the book: fan_in is counted over the axes after the first, since weights are (out, in, …); the book's
helper takes the first axis (erratum E-16).

Why not zeros: all units of a layer get the same gradient, or none (E-40). Why not N(0, 1): each layer multiplies the
variance by fan_in / 2.

Does not handle: transposed convolutions, He's fan_out mode, orthogonal weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def fan_in_out(shape: tuple[int, ...]) -> tuple[int, int]:
    """Count fan_in and fan_out of a weight (out, in, …), where … is a kernel.

    Raises:
        ValueError: the weight has fewer than 2 axes.
    """
    if len(shape) < 2:
        raise ValueError(f"a weight of shape {shape} has no fan: it takes (out, in, …)")
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def kaiming_uniform(*shape: int, a: float = math.sqrt(5), generator: torch.Generator | None = None) -> Tensor:
    """He's weight, drawn uniformly such that a rectifier of slope `a` keeps the variance of what passes through.

    Args:
        shape: (out, in, …).
        a: slope of the rectifier left of 0; √5 gives the range ±1/√fan_in, 0 is for ReLU.
        generator: where randomness comes from; torch's own by default.
    """
    # bound = √(6 / ((1 + a²) · fan_in)) = √3 · std
    return uniform(*shape, bound=math.sqrt(6 / ((1 + a * a) * max(fan_in_out(shape)[0], 1))), generator=generator)


def kaiming_normal(*shape: int, a: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
    """He's weight, drawn from a normal distribution.

    Args:
        shape: (out, in, …).
        a: slope of the rectifier left of 0.
        generator: where randomness comes from; torch's own by default.
    """
    # std = √(2 / ((1 + a²) · fan_in)), for a = 0 the book's √(2 / fan_in)
    return normal(*shape, std=math.sqrt(2 / ((1 + a * a) * max(fan_in_out(shape)[0], 1))), generator=generator)


def xavier_uniform(*shape: int, gain: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """Glorot's weight, drawn uniformly such that variance is kept on the way there and (nearly) back.

    Args:
        shape: (out, in, …).
        gain: how many times larger.
        generator: where randomness comes from; torch's own by default.
    """
    # bound = gain · √(6 / (fan_in + fan_out)) = √3 · std
    return uniform(*shape, bound=gain * math.sqrt(6 / max(sum(fan_in_out(shape)), 1)), generator=generator)


def xavier_normal(*shape: int, gain: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """Glorot's weight, drawn from a normal distribution.

    Args:
        shape: (out, in, …).
        gain: how many times larger.
        generator: where randomness comes from; torch's own by default.
    """
    # std = gain · √(2 / (fan_in + fan_out))
    return normal(*shape, std=gain * math.sqrt(2 / max(sum(fan_in_out(shape)), 1)), generator=generator)


def uniform(*shape: int, bound: float, generator: torch.Generator | None = None) -> Tensor:
    """A tensor drawn uniformly from ±bound.

    Args:
        shape: sizes.
        bound: the largest magnitude.
        generator: where randomness comes from; torch's own by default.

    Raises:
        ValueError: the bound is negative.
    """
    if not bound >= 0:
        raise ValueError(f"expected `bound` of at least 0, got {bound}")
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def normal(*shape: int, std: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """A tensor drawn from a normal distribution around 0.

    Args:
        shape: sizes.
        std: standard deviation; BERT's is 0.02.
        generator: where randomness comes from; torch's own by default.

    Raises:
        ValueError: the standard deviation is negative.
    """
    if not std >= 0:
        raise ValueError(f"expected `std` of at least 0, got {std}")
    return torch.empty(shape).normal_(0, std, generator=generator)


def zeros(*shape: int) -> Tensor:
    """What biases start from, and weights never should (E-40).

    Args:
        shape: sizes.
    """
    return torch.zeros(shape)
