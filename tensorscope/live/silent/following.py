"""The axes of what an operation returns, from those of what it takes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from tensorscope.live.silent import moving
from tensorscope.live.silent.axes import Axis, Kind
from tensorscope.live.silent.ledger import Event, Place, Seen, Soft, fresh

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REDUCTIONS = frozenset(
    [
        "sum",
        "mean",
        "max",
        "min",
        "amax",
        "amin",
        "prod",
        "std",
        "var",
        "median",
        "logsumexp",
        "norm",
        "argmax",
        "argmin",
        "all",
        "any",
        "nanmean",
        "nansum",
        "std_mean",
        "var_mean",
        "mode",
        "aminmax",
        "count_nonzero",
    ]
)
POINTWISE = frozenset(
    [
        "add",
        "sub",
        "rsub",
        "mul",
        "div",
        "pow",
        "maximum",
        "minimum",
        "where",
        "masked_fill",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "lerp",
        "fmod",
        "remainder",
        "atan2",
        "logical_and",
        "logical_or",
        "logical_xor",
        "bitwise_and",
        "bitwise_or",
        "bitwise_xor",
        "floor_divide",
        "true_divide",
        "addcmul",
        "addcdiv",
        "subtract",
        "multiply",
        "divide",
        "greater",
        "less",
        "hypot",
        "copysign",
    ]
)
_KEEPS_MARKS = POINTWISE | frozenset(
    ["dropout", "relu", "clamp", "clone", "contiguous", "to", "float", "half", "double", "bfloat16", "type"]
)
_CONTRACTS = frozenset({"matmul", "bmm", "mm", "linear", "einsum", "baddbmm", "addmm"})


def follow(event: Event) -> None:
    """Note what is known of an operation's results."""
    special = _RULES.get(event.name)
    for index, tensor in enumerate(event.results):
        if tensor.is_nested or tensor.layout != torch.strided:
            event.ledger.note(tensor, Seen(fresh(tensor.shape) if not tensor.is_nested else ()))
            continue
        found = special(event, index) if special is not None else None
        if found is None or found.sizes != tuple(tensor.shape):
            found = _default(event, tensor)
        live = found.live or any(event.seen(t).live for t in event.tensors())
        event.ledger.note(
            tensor,
            replace(
                found,
                axes=_distinct(found.axes),
                live=live,
                outside=not live and found.outside,
                maker=event.name,
                output=False,
                outer=_outer(event, found),
            ),
        )


def _outer(event: Event, found: Seen) -> Place | None:
    """What is computed element by element of an outer product is one too."""
    seen = (event.seen(tensor) for tensor in event.tensors())
    return next((s.outer for s in seen if s.outer is not None and s.sizes == found.sizes), None)


def _distinct(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Let an axis that a tensor has twice (the queries and keys of scores) be two occurrences."""
    met: set[int] = set()
    found = []
    for axis in axes:
        found.append(axis.again() if id(axis) in met else axis)
        met.add(id(axis))
    return tuple(found)


def _default(event: Event, tensor: torch.Tensor) -> Seen:
    """Operands that broadcast to the result hand on their axes; else nothing is known of them."""
    operands = [event.seen(operand) for operand in event.tensors()]
    fitting = [seen for seen in operands if _broadcasts(seen.sizes, tensor.shape)]
    if not fitting:
        kind = Kind.DERIVED if operands else Kind.MADE
        return Seen(fresh(tensor.shape, kind), outside=any(seen.outside for seen in operands))
    main = max(fitting, key=lambda seen: (seen.sizes == tuple(tensor.shape), seen.soft is not None, seen.live))
    axes = tuple(_aligned(main, fitting, tensor.shape, position) for position in range(tensor.ndim))
    if event.name not in _KEEPS_MARKS or main.sizes != tuple(tensor.shape):
        return Seen(axes, outside=all(seen.outside for seen in operands))
    masks = tuple(mask for seen in fitting if seen.scores or seen is main for mask in seen.masks)
    soft = main.soft or next((s.soft for s in fitting if s.soft and any(a is s.soft.axis for a in axes)), None)
    return replace(main, axes=axes, soft=soft, masks=masks, weight="" if len(operands) > 1 else main.weight)


def _broadcasts(sizes: Sequence[int], shape: Sequence[int]) -> bool:
    rank = len(sizes)
    return rank <= len(shape) and all(
        mine in (1, theirs) for mine, theirs in zip(sizes, shape[len(shape) - rank :], strict=True)
    )


def _aligned(main: Seen, operands: list[Seen], shape: Sequence[int], position: int) -> Axis:
    """The axis of a broadcast result: that of the main operand where it has one, else of another."""
    back = position - len(shape)
    ordered = (main, *(seen for seen in operands if seen is not main))
    candidates = [seen.axes[back] for seen in ordered if len(seen.axes) >= -back]
    sized = [axis for axis in candidates if axis.size == shape[position]]
    return sized[0] if sized else Axis(int(shape[position]), Kind.DERIVED)


# -- operations with weights, products --------------------------------------------------------------------------------


def _linear(event: Event, _: int) -> Seen | None:
    x, weight = event.operand(0, "input"), event.operand(1, "weight")
    if x is None or weight is None:
        return None
    return Seen((*event.seen(x).axes[:-1], *event.seen(weight).axes[:1]))


def _matmul(event: Event, _: int) -> Seen | None:
    left, right = event.operand(0, "input"), event.operand(1, "other")
    if left is None or right is None or left.ndim < 2 or right.ndim < 2:
        return None
    a, b = event.seen(left), event.seen(right)
    lead = _default_lead(a.axes[:-2], b.axes[:-2], event.results[0].shape[:-2])
    query, key = a.axes[-2], b.axes[-1]
    return Seen((*lead, query, key), scores=a.live and b.live and query.is_position() and key.is_position())


def _default_lead(a: tuple[Axis, ...], b: tuple[Axis, ...], shape: Sequence[int]) -> tuple[Axis, ...]:
    main, other = Seen(a), Seen(b)
    return tuple(_aligned(main, [main, other], shape, position) for position in range(len(shape)))


def _einsum(event: Event, _: int) -> Seen | None:
    equation = event.args[0] if event.args else None
    operands = event.tensors()
    if not isinstance(equation, str) or "->" not in equation or "." in equation:
        return None
    given, result = equation.replace(" ", "").split("->")
    letters: dict[str, Axis] = {}
    for names, tensor in zip(given.split(","), operands, strict=True):
        for letter, axis in zip(names, event.seen(tensor).axes, strict=True):
            letters.setdefault(letter, axis)
    axes = tuple(letters[letter] for letter in result)
    live = len(operands) > 1 and all(event.seen(tensor).live for tensor in operands)
    return Seen(axes, scores=live and len(axes) > 1 and all(axis.is_position() for axis in axes[-2:]))


def _attention(event: Event, _: int) -> Seen | None:
    query, value = event.operand(0, "query"), event.operand(2, "value")
    if query is None or value is None:
        return None
    return Seen((*event.seen(query).axes[:-1], event.seen(value).axes[-1]))


def _multi_head(event: Event, index: int) -> Seen | None:
    query, key, weight = event.operand(0, "query"), event.operand(1, "key"), event.operand(11, "out_proj_weight")
    if query is None or key is None or weight is None or index > 1:
        return None
    axes = event.seen(query).axes
    if index == 0:
        return Seen((*axes[:-1], event.seen(weight).axes[0]))
    batch = axes[1:2] if query.ndim == 3 else ()
    return Seen((*batch, axes[0], event.seen(key).axes[0])) if event.results[1].ndim == len(batch) + 2 else None


def _embedding(event: Event, _: int) -> Seen | None:
    ids, weight = event.operand(0, "input"), event.operand(1, "weight")
    if ids is None or weight is None:
        return None
    return Seen((*event.seen(ids).axes, event.seen(weight).axes[1]))


def _convolution(event: Event, _: int) -> Seen | None:
    x, weight = event.operand(0, "input"), event.operand(1, "weight")
    if x is None or weight is None or x.ndim != weight.ndim:
        return None
    transposed = "transpose" in event.name
    channels = event.seen(weight).axes[1 if transposed else 0]
    axes = event.seen(x).axes
    shape = event.results[0].shape
    if channels.size != shape[1]:
        channels = Axis(int(shape[1]), Kind.WEIGHT)
    return Seen((axes[0], channels, *(a.resized(int(s)) for a, s in zip(axes[2:], shape[2:], strict=True))))


def _pooling(event: Event, index: int) -> Seen | None:
    x = event.operand(0, "input")
    if x is None or x.ndim != event.results[index].ndim:
        return None
    shape = event.results[index].shape
    return Seen(tuple(a.resized(int(s)) for a, s in zip(event.seen(x).axes, shape, strict=True)))


def _recurrent(event: Event, index: int) -> Seen | None:
    x = event.operand(0)
    if x is None or x.ndim != 3 or not is_padded(event):
        return None
    axes, first = event.seen(x).axes, bool(event.args[-1])
    last = Axis(int(event.results[index].shape[-1]), Kind.WEIGHT)
    if index == 0:
        return Seen((axes[0], axes[1], last))
    layers = Axis(int(event.results[index].shape[0]), Kind.DERIVED)
    return Seen((layers, axes[0] if first else axes[1], last))


def _cell(event: Event, index: int) -> Seen | None:
    x = event.operand(0)
    last = Axis(int(event.results[index].shape[-1]), Kind.WEIGHT)
    return Seen((*event.seen(x).axes[:-1], last)) if x is not None else None


def is_padded(event: Event) -> bool:
    """Whether a recurrent layer took a plain tensor, not packed sequences."""
    return len(event.args) == 9 and isinstance(event.args[2], list | tuple)


# -- reductions -------------------------------------------------------------------------------------------------------


def reduced_axes(event: Event) -> tuple[int, ...]:
    """The positions that a reduction takes away; all of them if none is named."""
    x = event.operand(0, "input")
    if x is None:
        return ()
    dim = event.argument(2 if event.name == "norm" else 1, "dim", event.kwargs.get("axis"))
    if isinstance(dim, bool) or dim is None or isinstance(dim, torch.Tensor | float):
        return tuple(range(x.ndim))
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    return tuple(sorted(d % x.ndim for d in dims if x.ndim))


def _reduction(event: Event, index: int) -> Seen | None:
    x = event.operand(0, "input")
    if x is None:
        return None
    gone = reduced_axes(event)
    seen, result = event.seen(x), event.results[index]
    kept = [axis for position, axis in enumerate(seen.axes) if position not in gone]
    if result.ndim == x.ndim and x.ndim:
        axes = [Axis(1, Kind.INSERTED) if p in gone else axis for p, axis in enumerate(seen.axes)]
        return Seen(tuple(axes), outside=seen.outside)
    return Seen(tuple(kept), outside=seen.outside)


def _softmax(event: Event, _: int) -> Seen | None:
    x = event.operand(0, "input")
    dim = softmax_axis(event)
    if x is None or dim is None:
        return None
    seen = event.seen(x)
    return replace(seen, soft=Soft(seen.axes[dim], event.place), masks=())


def softmax_axis(event: Event) -> int | None:
    """The position that a softmax runs over; where none is given, torch's old choice."""
    x = event.operand(0, "input")
    if x is None or not x.ndim:
        return None
    dim = event.argument(1, "dim")
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1
    return int(dim) % x.ndim


_RULES: dict[str, Callable[[Event, int], Seen | None]] = {
    "linear": _linear,
    "matmul": _matmul,
    "bmm": _matmul,
    "mm": _matmul,
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _multi_head,
    "embedding": _embedding,
    **{f"conv{n}d": _convolution for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _convolution for n in (1, 2, 3)},
    **{f"{kind}_pool{n}d": _pooling for n in (1, 2, 3) for kind in ("max", "avg", "adaptive_avg", "adaptive_max")},
    **dict.fromkeys(("interpolate", "upsample", "pad"), _pooling),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _cell),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(REDUCTIONS, _reduction),
    **dict.fromkeys(("softmax", "log_softmax", "gumbel_softmax"), _softmax),
    **moving.RULES,
}
