"""Counting the floating-point operations of a forward: products and sums of matrix products and convolutions.

A multiplication and the addition after it are two. What works element by element (activations, norms, biases) counts
nothing, as everywhere in the field.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import flop_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_aten = torch.ops.aten


def flops_of(func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> int:
    """What one operation counts, 0 if it counts nothing."""
    packet = func.overloadpacket
    if (own := _OWN.get(packet)) is not None:
        return own(args, result)
    formula = flop_registry.get(packet)
    return int(formula(*args, **kwargs, out_val=result)) if formula is not None else 0


def recurrent_flops(steps: int, weights: Sequence[torch.Tensor]) -> int:
    """What a recurrent layer counts: every weight matrix is multiplied with every step of every sequence.

    Args:
        steps: steps × sequences.
        weights: all weights; biases are skipped.
    """
    # W_ih x_t + W_hh h_{t-1}, for each layer and direction
    return sum(2 * steps * weight.numel() for weight in weights if weight.ndim == 2)


def _attention(args: Sequence[Any], result: Any) -> int:
    # scores q kᵀ, then weights v
    *batch, queries, dim = map(int, args[0].shape)
    keys, out = int(args[1].shape[-2]), int(args[2].shape[-1])
    return 2 * math.prod(batch) * queries * keys * (dim + out)


def _matrix_vector(place: int) -> Callable[[Sequence[Any], Any], int]:
    return lambda args, result: 2 * int(args[place].numel())


def _trilinear(args: Sequence[Any], result: Any) -> int:
    # y[b, o] = Σ_i x[b, i] Σ_j W[o, i, j] z[b, j]
    out, left, right = map(int, args[1].shape)
    return 2 * int(args[0].shape[0]) * out * left * (right + 1)


def _sum_of_products(args: Sequence[Any], result: Any) -> int:
    return 2 * int(args[1].numel()) * int(args[2].shape[-1])


_OWN: dict[Any, Callable[[Sequence[Any], Any], int]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_fused_attention_overrideable: _attention,
    _aten._scaled_dot_product_attention_math: _attention,
    _aten.mv: _matrix_vector(0),
    _aten.addmv: _matrix_vector(1),
    _aten.dot: _matrix_vector(0),
    _aten.vdot: _matrix_vector(0),
    _aten.addbmm: _sum_of_products,
    _aten._trilinear: _trilinear,
}
