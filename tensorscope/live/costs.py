"""What a call of a torch function costs, from its arguments: floating-point operations of products and convolutions.

Counted is as in `rehearsal.flops`: a multiplication and the addition after it are two, what works element by element
counts nothing. There whole forwards are imagined, aten operation by operation; here a call that ran for real is judged
by its shapes alone, so that it costs next to nothing to do so while a program runs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tensorscope.live.rehearsal.flops import recurrent_flops
from tensorscope.live.tensors import leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor


def call_flops(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: object) -> int:
    """What one call counts; 0 if it counts nothing, or cannot be understood.

    Args:
        name: of the torch function, as `transcript.name_of` tells it.
        args: its positional arguments.
        kwargs: its keyword arguments.
        result: what it returned.
    """
    found = _FORMULAS.get(name.rstrip("_"))
    if found is None:
        return 0
    formula, names = found
    try:
        given = [args[place] if place < len(args) else kwargs[key] for place, key in enumerate(names)]
        return formula(next(leaves(result)), *given, *args[len(names) :])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, StopIteration):
        return 0  # an overload that nobody has told us of: the program is not to suffer for it


# The formulas take the first tensor of the result, then the arguments.


def _product(out: Tensor, left: Tensor, *_: Any) -> int:
    # out[…, m, n] = Σ_k left[…, m, k] right[…, k, n]
    if left.is_sparse or left.is_sparse_csr:
        return 2 * left._nnz() * int(out.shape[-1])
    return 2 * out.numel() * int(left.shape[-1])


def _added_product(out: Tensor, _: Tensor, left: Tensor, *rest: Any) -> int:
    return _product(out, left, *rest)


def _summed_products(_: Tensor, __: Tensor, left: Tensor, right: Tensor, *___: Any) -> int:
    # out[m, n] = Σ_b Σ_k left[b, m, k] right[b, k, n]
    return 2 * left.numel() * int(right.shape[-1])


def _grouped_product(_: Tensor, left: Tensor, right: Tensor, *__: Any) -> int:
    # Every row of the left goes through one of the groups.
    return 2 * left.numel() * int(right.shape[-1])


def _tensordot(out: Tensor, left: Tensor, right: Tensor, *_: Any) -> int:
    # |left| |right| = |out| K², where K is what is summed over
    return 2 * out.numel() * math.isqrt(left.numel() * right.numel() // out.numel()) if out.numel() else 0


def _bilinear(out: Tensor, _: Tensor, __: Tensor, weight: Tensor, *___: Any) -> int:
    # out[b, o] = Σ_i x[b, i] Σ_j weight[o, i, j] z[b, j]
    left, right = weight.shape[1:]
    return 2 * out.numel() * left * (right + 1)


def _convolution(out: Tensor, _: Tensor, weight: Tensor, *__: Any) -> int:
    # Every number of the output is a sum over channels (of its group) × window.
    return 2 * out.numel() * math.prod(weight.shape[1:])


def _transposed_convolution(_: Tensor, x: Tensor, weight: Tensor, *__: Any) -> int:
    # Every number of the input goes to channels (of its group) × window.
    return 2 * x.numel() * math.prod(weight.shape[1:])


def _any_convolution(out: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> int:
    transposed = rest[4]  # after bias, stride, padding, dilation
    return (_transposed_convolution if transposed else _convolution)(out, x, weight)


def _attention(_: Tensor, query: Tensor, key: Tensor, value: Tensor, *__: Any) -> int:
    # scores q kᵀ, then weights v
    *around, dim = query.shape
    return 2 * math.prod(around) * int(key.shape[-2]) * (dim + int(value.shape[-1]))


def _attention_layer(_: Tensor, query: Tensor, key: Tensor, value: Tensor, dim: int, *rest: Any) -> int:
    _heads, _weight, _bias, bias_k, _bias_v, zeros = rest[:6]
    keys = int(key.shape[0]) + (bias_k is not None) + bool(zeros)
    # the projections in, then scores and weighted sum over all heads, and the projection out
    projections = query.numel() + key.numel() + value.numel() + query.numel()
    return 2 * projections * int(dim) + 2 * 2 * query.numel() * keys


def _recurrent(_: Tensor, x: Tensor, *rest: Any) -> int:
    # hidden state, weights, …; with packed sequences their batch sizes before
    weights = rest[2] if isinstance(rest[2], list | tuple) else rest[1]
    return recurrent_flops(math.prod(x.shape[:-1]), list(weights))


def _cell(_: Tensor, x: Tensor, __: Any, inner: Tensor, outer: Tensor, *___: Any) -> int:
    return recurrent_flops(math.prod(x.shape[:-1]), (inner, outer))


def _einsum(_: Tensor, equation: str, *given: Any) -> int:
    """Operands are contracted one after the other, from the left."""
    operands: list[Tensor] = list(leaves(given))
    before, arrow, after = equation.replace(" ", "").partition("->")
    sizes = [_labelled(term, operand.shape) for term, operand in zip(before.split(","), operands, strict=True)]
    kept = {*after} if arrow else {label for label in before if before.count(label) == 1}
    if "..." in after or not arrow:
        kept |= {label for operand in sizes for label in operand if label.startswith("…")}
    total, left = 0, sizes[0]
    for place, right in enumerate(sizes[1:], 2):
        needed = {*kept, *(label for later in sizes[place:] for label in later)}
        flops, left = _contraction(left, right, needed)
        total += flops
    return total


def _contraction(left: Mapping[str, int], right: Mapping[str, int], needed: set[str]) -> tuple[int, dict[str, int]]:
    """What the product of two operands counts, and the sizes of what comes out."""
    largest = {label: max(left.get(label, 1), right.get(label, 1)) for label in {*left, *right}}
    out = {label: size for label, size in largest.items() if label in needed}
    # What only one of them has is summed before they meet.
    summed = [s for label, s in largest.items() if label not in out and left.get(label, 1) == right.get(label, 1) > 1]
    return (2 * math.prod(out.values()) * math.prod(summed) if summed else 0), out


def _labelled(term: str, shape: Sequence[int]) -> dict[str, int]:
    """Label → size; the axes of an ellipsis are counted from its end, since they broadcast."""
    first, dots, last = term.partition("...")
    hidden = len(shape) - len(first) - len(last)
    ellipsis = [f"…{place}" for place in range(hidden, 0, -1)] if dots else []
    return dict(zip([*first, *ellipsis, *last], map(int, shape), strict=True))


_Formula = tuple["Callable[..., int]", tuple[str, ...]]

# Function → formula, and the names of the arguments that it needs, in their order.
_FORMULAS: dict[str, _Formula] = {
    "linear": (_product, ("input", "weight")),
    "bilinear": (_bilinear, ("input1", "input2", "weight")),
    "matmul": (_product, ("input", "other")),
    "linalg_matmul": (_product, ("input", "other")),
    "mm": (_product, ("input", "mat2")),
    "bmm": (_product, ("input", "mat2")),
    "_sparse_mm": (_product, ("sparse", "dense")),
    "mv": (_product, ("input", "vec")),
    "dot": (_product, ("input", "tensor")),
    "vdot": (_product, ("input", "other")),
    "inner": (_product, ("input", "other")),
    "addmm": (_added_product, ("input", "mat1", "mat2")),
    "addmv": (_added_product, ("input", "mat", "vec")),
    "baddbmm": (_added_product, ("input", "batch1", "batch2")),
    "addbmm": (_summed_products, ("input", "batch1", "batch2")),
    "grouped_mm": (_grouped_product, ("mat_a", "mat_b")),
    "_grouped_mm": (_grouped_product, ("self", "mat2")),
    "_scaled_mm": (_product, ("input", "mat2")),
    "tensordot": (_tensordot, ("a", "b")),
    "einsum": (_einsum, ("equation",)),
    "convolution": (_any_convolution, ("input", "weight")),
    "_convolution": (_any_convolution, ("input", "weight")),
    "scaled_dot_product_attention": (_attention, ("query", "key", "value")),
    "multi_head_attention_forward": (_attention_layer, ("query", "key", "value", "embed_dim_to_check")),
}
_FORMULAS |= {f"conv{n}d": (_convolution, ("input", "weight")) for n in (1, 2, 3)}
_FORMULAS |= {f"conv_transpose{n}d": (_transposed_convolution, ("input", "weight")) for n in (1, 2, 3)}
_FORMULAS |= dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), (_recurrent, ("input",)))
_FORMULAS |= {
    f"{name}_cell": (_cell, ("input", "hx", "w_ih", "w_hh")) for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")
}
