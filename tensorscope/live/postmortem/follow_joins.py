"""Axes through joining tensors, taking them apart, and choosing entries of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from tensorscope.live.postmortem.axes import Axes, Axis, Kind, Rule, alike, preferred
from tensorscope.live.postmortem.follow_elementwise import broadcast, sizes
from tensorscope.live.postmortem.follow_operation import (
    SUM,
    Operation,
    is_number,
    position,
    quotient,
    replaced,
    without,
)

if TYPE_CHECKING:
    from tensorscope.live.postmortem.follow_operation import Follow

# -- joining ---------------------------------------------------------------------------------------------------------


def _joined(call: Operation) -> list[Axes]:
    operands = call.operands()
    if call.op in {"hstack", "vstack", "dstack", "row_stack", "column_stack"}:
        operands, dim = _stacking(call, operands)
    else:
        if len({len(axes) for axes in operands}) > 1:  # `torch.cat` leaves out what has no entries
            operands = [axes for axes in operands if sizes(axes) != (0,)]
        dim = call.kwargs.get("axis", call.value(1, "dim", 0))
    dim = position(dim, len(operands[0]))
    end = _one_after_other(call, [axes[dim] for axes in operands])
    others = zip(*operands, strict=True)
    return [tuple(end if index == dim else preferred(same) for index, same in enumerate(others))]


def _stacking(call: Operation, operands: list[Axes]) -> tuple[list[Axes], int]:
    """Operands with as many axes as `hstack` and the like give them, and the axis they join."""
    one, rank = call.fixed(1), max(map(len, operands))
    if call.op == "hstack":
        return [axes or (one,) for axes in operands], min(1, max(rank, 1) - 1)
    if call.op == "column_stack":
        return [(*axes, one, one)[:2] if len(axes) < 2 else axes for axes in operands], 1
    if call.op == "dstack":
        flat = [axes if len(axes) > 1 else (one, *(axes or (one,))) for axes in operands]
        return [axes if len(axes) > 2 else (*axes, one) for axes in flat], 2
    return [axes if len(axes) > 1 else (one, *(axes or (one,))) for axes in operands], 0


def _one_after_other(call: Operation, axes: list[Axis]) -> Axis:
    if whole := _together_again(axes):
        return whole
    if len(axes) == 1:
        return axes[0]
    if all(axis.size == 1 and not axis.varies for axis in axes):
        times = call.literal(len(axes))
        if times.kind is not Kind.LITERAL:  # made in a loop over an axis
            return times
    return call.made(Kind.SUM, tuple(axes), SUM)


def _together_again(axes: list[Axis]) -> Axis | None:
    """The axis that all these are the pieces of, if they are all of them."""
    first = axes[0]
    if first.kind not in {Kind.PART, Kind.SLICE} or first.cut is not None or len(set(axes)) < len(axes):
        return None
    whole = first.parts[0]  # both kinds have one
    same = all(axis.step == first.step and axis.parts and alike(axis.parts[0], whole) for axis in axes)
    return whole if same and sum(axis.size for axis in axes) == whole.size else None


def _stacked(call: Operation) -> list[Axes]:
    operands = call.operands()
    dim = position(call.value(1, "dim", 0), len(operands[0]) + 1)
    axes = tuple(preferred(same) for same in zip(*operands, strict=True))
    return [(*axes[:dim], call.literal(len(operands), dim), *axes[dim:])]


def _block_diagonal(call: Operation) -> list[Axes]:
    operands = [axes if len(axes) == 2 else (call.fixed(1), *(axes or (call.fixed(1),))) for axes in call.operands()]
    return [tuple(call.made(Kind.SUM, tuple(same), SUM) for same in zip(*operands, strict=True))]


# -- taking apart ----------------------------------------------------------------------------------------------------

_SPLIT_DIMS = {"hsplit": 1, "vsplit": 0, "dsplit": 2}


def _pieces(call: Operation) -> list[Axes]:
    axes = call.operand(0, "tensor" if "tensor" in call.kwargs else "input")
    how = next(iter(call.args[1:2]), None)
    how = how if how is not None else next(v for k, v in call.kwargs.items() if k not in {"input", "tensor", "dim"})
    dim = call.value(2, "dim", _SPLIT_DIMS.get(call.op, 0))
    dim = position(0 if call.op == "hsplit" and len(axes) == 1 else dim, len(axes))
    axis, found = axes[dim], [shape[dim] for shape in call.shapes]
    if _was_joined(axis, found) and (not axis.varies or not is_number(how) or _halves(call.op, axis)):
        return [replaced(axes, dim, part) for part in axis.parts]
    if "chunk" in call.op and int(how) == 1:
        return [axes]
    return [replaced(axes, dim, _piece(call, axis, how, number, len(found))) for number in range(len(found))]


def _gated(call: Operation) -> list[Axes]:
    """A gated linear unit: one half of an axis gates the other."""
    axes = call.operand(0, "input")
    dim = position(call.value(1, "dim", -1), len(axes))
    rule = Rule(lambda length: length // 2 if length % 2 == 0 else None, quotient(2).text)
    return [replaced(axes, dim, call.made(Kind.PART, (axes[dim],), rule, call.op))]


def _was_joined(axis: Axis, found: list[int]) -> bool:
    """Whether the pieces are what an axis was joined from."""
    return axis.kind is Kind.SUM and [part.size for part in axis.parts] == found


def _halves(op: str, axis: Axis) -> bool:
    """Whether a number of equal pieces gives what was joined at any size."""
    return "split" not in op and len(set(axis.parts)) == 1


def _piece(call: Operation, axis: Axis, how: Any, number: int, count: int) -> Axis:
    whole = not isinstance(how, Sequence | torch.Tensor)
    size = _piece_sizes(call.op, how)
    rule = Rule(lambda length: _entry(size(length), number))
    if whole and "chunk" in call.op and axis.size % count == 0:
        rule = Rule(rule.size, quotient(count).text)
        return call.made(Kind.PART, (axis,), rule, call.op)
    return call.made(Kind.SLICE, (axis,), rule, call.op)


def _entry(numbers: list[int], index: int) -> int | None:
    return numbers[index] if index < len(numbers) else None


def _piece_sizes(op: str, how: Any) -> Any:
    """What gives the sizes of all pieces of an axis of some length."""
    if op in {"chunk", "unsafe_chunk"}:
        return lambda length: _cut(length, -(-length // int(how))) if length else [0] * int(how)
    if "tensor_split" in op or op in _SPLIT_DIMS:
        if is_number(how):
            return lambda length: [(length + int(how) - 1 - number) // int(how) for number in range(int(how))]
        return lambda length: _between(length, [int(end) for end in how])
    if is_number(how):
        return lambda length: _cut(length, int(how))
    return lambda length: [int(size) for size in how] if length == sum(int(size) for size in how) else []


def _cut(length: int, size: int) -> list[int]:
    return [min(size, length - start) for start in range(0, length, max(size, 1))] or [0]


def _between(length: int, ends: list[int]) -> list[int]:
    return [len(range(length)[start:stop]) for start, stop in zip([None, *ends], [*ends, None], strict=True)]


def _unbound(call: Operation) -> list[Axes]:
    axes = call.operand()
    return [without(axes, position(call.value(1, "dim", 0), len(axes)))] * len(call.shapes)


# -- entries by place ------------------------------------------------------------------------------------------------


def _selected(call: Operation) -> list[Axes]:
    axes = call.operand()
    return [without(axes, position(call.value(1, "dim"), len(axes)))]


def _narrowed(call: Operation) -> list[Axes]:
    axes = call.operand()
    dim, length = position(call.value(1, "dim"), len(axes)), int(call.value(3, "length"))
    return [replaced(axes, dim, _first(call, axes[dim], call.literal(length, dim)))]


def _first(call: Operation, axis: Axis, length: Axis) -> Axis:
    """So many entries of an axis, which must be there."""
    rule = Rule(lambda whole, size: size if whole >= size else None, "{1} of {0}")
    return length if length.varies else call.made(Kind.SLICE, (axis, length), rule, call.op)


def _index_selected(call: Operation) -> list[Axes]:
    axes, index = call.operand(), call.operand(2, "index")
    return [replaced(axes, position(call.value(1, "dim"), len(axes)), index[0] if index else call.fixed(1))]


def _gathered(call: Operation) -> list[Axes]:
    return [call.operand(2, "index")]


def _taken(call: Operation) -> list[Axes]:
    axes, index, dim = call.operand(), call.operand(1, "indices"), call.value(2, "dim")
    if dim is None:
        return [index]
    dim = position(dim, len(axes))
    return [
        replaced(
            broadcast(call, replaced(axes, dim, call.fixed(1)), replaced(index, dim, call.fixed(1))), dim, index[dim]
        )
    ]


def _embedded(call: Operation) -> list[Axes]:
    ids, weight = call.operand(0, "input"), call.operand(1, "weight")
    if len(ids) == 2:
        call.known.name_inputs(ids, ("batch", "seq"))
    return [(*ids, weight[1])]


def _embedded_bags(call: Operation) -> list[Axes]:
    ids, weight = call.operand(0, "input"), call.operand(1, "weight")
    bags = ids[0] if len(ids) == 2 else call.operand(2, "offsets")[0]
    return [(bags, weight[1])]


def _one_hot(call: Operation) -> list[Axes]:
    classes = int(call.value(1, "num_classes", -1))
    return [(*call.operand(), call.unknown(call.shapes[0][-1]) if classes < 0 else call.literal(classes))]


def _diagonal(call: Operation) -> list[Axes]:
    axes, offset = call.operand(), int(call.value(1, "offset", call.value(1, "diagonal", 0)))
    if call.op == "diag_embed" or len(axes) == 1:
        side = call.longer(axes[-1], abs(offset))
        return [(*axes[:-1], side, side)]
    dims = (0, 1) if call.op == "diag" else (call.value(2, "dim1", 0), call.value(3, "dim2", 1))
    one, other = (position(dim, len(axes)) for dim in dims)
    rule = Rule(lambda rows, columns: max(0, min(rows + min(offset, 0), columns - max(offset, 0))))
    return [(*without(axes, one, other), call.made(Kind.SLICE, (axes[one], axes[other]), rule))]


_SPLITS = "chunk split tensor_split hsplit vsplit dsplit unsafe_chunk unsafe_split split_with_sizes"

RULES: dict[str, Follow] = {
    **dict.fromkeys(
        ("cat", "concat", "concatenate", "hstack", "vstack", "dstack", "row_stack", "column_stack"), _joined
    ),
    "stack": _stacked,
    "block_diag": _block_diagonal,
    **dict.fromkeys(
        [
            "chunk",
            "split",
            "tensor_split",
            "hsplit",
            "vsplit",
            "dsplit",
            "unsafe_chunk",
            "unsafe_split",
            "split_with_sizes",
        ],
        _pieces,
    ),
    "glu": _gated,
    "unbind": _unbound,
    "select": _selected,
    "narrow": _narrowed,
    "index_select": _index_selected,
    "gather": _gathered,
    "take": lambda call: [call.operand(1, "index")],
    "take_along_dim": _taken,
    "embedding": _embedded,
    "embedding_bag": _embedded_bags,
    "one_hot": _one_hot,
    **dict.fromkeys(("diagonal", "diag", "diag_embed"), _diagonal),
}
