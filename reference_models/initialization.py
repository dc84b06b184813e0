"""Chapter 10: what weights start from.

Glossary
    fan_in     how many numbers flow into one output
    fan_out    how many outputs one input flows into
    a          slope of the rectifier left of 0

Source: He et al., Delving Deep into Rectifiers (2015), equation 15; PyTorch's layers use it with a = √5.

Differs from the book: fan_in is counted over the axes after the first, since weights are (out, in, …); the book's
helper takes the first axis (erratum E-16).

Does not handle: Xavier, normal variants, transposed convolutions.
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
    """A weight drawn uniformly such that a rectifier of slope `a` keeps the variance of what passes through.

    Args:
        shape: (out, in, …).
        a: slope of the rectifier left of 0; √5 gives the range ±1/√fan_in.
        generator: where randomness comes from; torch's own by default.
    """
    # bound = √(6 / ((1 + a²) · fan_in))
    return uniform(*shape, bound=math.sqrt(6 / ((1 + a * a) * max(fan_in_out(shape)[0], 1))), generator=generator)


def uniform(*shape: int, bound: float, generator: torch.Generator | None = None) -> Tensor:
    """A tensor drawn uniformly from ±bound.

    Args:
        shape: sizes.
        bound: the largest magnitude.
        generator: where randomness comes from; torch's own by default.
    """
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
