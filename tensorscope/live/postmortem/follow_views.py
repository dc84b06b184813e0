"""Axes through changes of shape: which new axes are which old ones, several together, or a part of one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from tensorscope.live.postmortem.axes import Axes, Axis, Cut, Kind, Rule
from tensorscope.live.postmortem.follow_elementwise import broadcast
from tensorscope.live.postmortem.follow_operation import OddOperationError, Operation, is_number, position, replaced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tensorscope.live.postmortem.follow_operation import Follow


def _image(call: Operation) -> Axes:
    """The operand's axes; those of an argument that looks like images are named so."""
    axes = call.operand()
    if [axis.source.index if axis.source else -1 for axis in axes] == [0, 1, 2, 3] and axes[1].size in {1, 3}:
        call.known.name_inputs(axes, ("batch", "channels", "height", "width"))
    return axes


def _viewed(call: Operation) -> list[Axes]:
    axes = _image(call)
    if isinstance(call.value(1, "dtype"), torch.dtype):
        raise OddOperationError("view as another type")
    wanted = call.numbers(1, "shape" if "shape" in call.kwargs else "size")
    free = wanted.index(-1) if -1 in wanted else None
    return [regrouped(call, axes, call.shapes[0], free)]


def _viewed_as(call: Operation) -> list[Axes]:
    return [regrouped(call, call.operand(), call.shapes[0], None)]


def regrouped(call: Operation, axes: Axes, shape: Sequence[int], free: int | None) -> Axes:
    """Match axes with a shape of as many entries: products that are equal belong together, from the left.

    Args:
        call: the operation.
        axes: what is there.
        shape: what it is to be.
        free: the place in `shape` that torch was left to fill in (-1); what stands behind it is matched from the right.
    """
    if 0 in shape:
        return _of_nothing(call, axes, shape)
    stop = len(shape) if free is None else free
    head = _groups(axes, shape[:stop])
    tail = _groups(axes[_width(head) :][::-1], shape[stop + 1 :][::-1])
    if free is not None and _width(head) + _width(tail) == len(axes) and (head or tail):
        # A 1 was filled in: the neighbour was divided by its whole size, and with another size gives another number.
        (tail or head).pop()
    made = [axis for group in head for axis in _exchanged(call, *group, None)]
    end = [axis for group in tail for axis in _exchanged(call, group[0][::-1], group[1][::-1], None)[::-1]][::-1]
    middle, sizes = axes[_width(head) : len(axes) - _width(tail)], shape[len(made) : len(shape) - len(end)]
    if sizes:
        made += _exchanged(call, middle, sizes, None if free is None else free - len(made))
    elif rest := [axis for axis in middle if axis.varies]:  # of size 1, and no longer there
        made[-1:] = [call.product([*made[-1:], *rest])]
    return (*made, *end)


def _width(groups: list[tuple[Axes, Sequence[int]]]) -> int:
    return sum(len(olds) for olds, _ in groups)


def _groups(axes: Axes, shape: Sequence[int]) -> list[tuple[Axes, Sequence[int]]]:
    """Old and new axes that have as many entries, group by group, for as long as both go on."""
    groups: list[tuple[Axes, Sequence[int]]] = []
    old = new = 0
    while new < len(shape):
        first = old
        while old < len(axes) and axes[old].size == 1 != shape[new]:
            old += 1  # it goes with what follows
        if shape[new] == 1 and (old == len(axes) or axes[old].size != 1):
            groups.append(((), shape[new : new + 1]))
            new += 1
        elif old < len(axes) and (count := _unfolds(axes[old], shape[new:])):
            groups.append((axes[first : old + 1], shape[new : new + count]))
            old, new = old + 1, new + count
        elif (ends := _group(axes, shape, old, new)) is not None:
            groups.append((axes[first : ends[0]], shape[new : ends[1]]))
            old, new = ends
        else:
            break
    return groups


def _unfolds(axis: Axis, shape: Sequence[int]) -> int:
    """How many new axes are those that an axis was flattened from."""
    sizes = [part.size for part in axis.parts] if axis.kind is Kind.PRODUCT else []
    return len(sizes) if sizes and sizes == list(shape[: len(sizes)]) else 0


def _group(axes: Axes, shape: Sequence[int], old: int, new: int) -> tuple[int, int] | None:
    """Where both have as many entries again; None if one comes to its end before."""
    if old == len(axes):
        return None
    there, wanted, old, new = axes[old].size, shape[new], old + 1, new + 1
    while there != wanted:
        if there < wanted and old < len(axes):
            there, old = there * axes[old].size, old + 1
        elif there > wanted and new < len(shape):
            wanted, new = wanted * shape[new], new + 1
        else:
            return None
    return old, new


def _exchanged(call: Operation, olds: Axes, sizes: Sequence[int], free: int | None) -> list[Axis]:
    """New axes for old ones with as many entries."""
    if len(olds) > 1:
        olds = tuple(axis for axis in olds if axis.size != 1 or axis.varies)
    if len(sizes) == 1:
        return [call.product(olds)]
    if not olds:
        return [call.fixed(size) for size in sizes]
    if any(axis.kind is Kind.PRODUCT and len(axis.parts) > 1 for axis in olds):
        parts = tuple(part for axis in olds for part in (axis.parts if axis.kind is Kind.PRODUCT else (axis,)))
        return list(regrouped(call, parts, sizes, free))
    if len(olds) == 1:
        return _split(call, olds[0], sizes, free)
    made: list[Axis] = []
    for number, size in enumerate(sizes):
        if number == free:
            made.append(call.made(Kind.PART, olds, _share(math.prod(sizes) // size), call.op))
        elif free is not None:
            made.append(call.literal(size))
        else:  # which of the numbers would change with the old ones is not known
            made.append(Axis(size, Kind.PART, call.op, olds, call.step, call.module))
    return made


def _share(divisor: int) -> Rule:
    return Rule(lambda *sizes: math.prod(sizes) // divisor if math.prod(sizes) % divisor == 0 else None)


def _split(call: Operation, axis: Axis, sizes: Sequence[int], free: int | None) -> list[Axis]:
    if free is None and axis.varies:
        free = _growing(axis, len(sizes))
    return [call.part(axis, Cut(tuple(sizes), number, free)) for number in range(len(sizes))]


def _growing(axis: Axis, count: int) -> int:
    """Which factor of an axis grows with it: of features the last (heads · head_dim), of places the first."""
    return count - 1 if axis.label in {"dim", "features", "channels"} else 0


def _of_nothing(call: Operation, axes: Axes, shape: Sequence[int]) -> Axes:
    """Of a tensor without entries only what stands alike at its ends can be told."""
    head = 0
    while head < min(len(axes), len(shape)) and axes[head].size == shape[head]:
        head += 1
    tail = 0
    while tail < min(len(axes), len(shape)) - head and axes[-1 - tail].size == shape[-1 - tail]:
        tail += 1
    middle = [call.unknown(size) for size in shape[head : len(shape) - tail]]
    return (*axes[:head], *middle, *axes[len(axes) - tail :])


def _flattened(call: Operation) -> list[Axes]:
    axes = _image(call)
    if not axes:
        return [(call.fixed(1),)]
    ends = (0, -1) if call.op == "ravel" else (call.value(1, "start_dim", 0), call.value(2, "end_dim", -1))
    start, stop = (position(dim, len(axes)) for dim in ends)
    run = axes[start : stop + 1]
    return [(*axes[:start], run[0] if len(run) == 1 else call.product(run), *axes[stop + 1 :])]


def _unflattened(call: Operation) -> list[Axes]:
    axes = call.operand()
    dim, sizes = position(call.value(1, "dim"), len(axes)), list(call.value(2, "sizes"))
    free = sizes.index(-1) if -1 in sizes else None
    shape = call.shapes[0][dim : dim + len(sizes)]
    return [replaced(axes, dim, *regrouped(call, (axes[dim],), shape, free))]


def _squeezed(call: Operation) -> list[Axes]:
    axes, dims = call.operand(), call.value(1, "dim")
    if dims is None:
        return [tuple(axis for axis in axes if axis.size != 1)]
    chosen = {position(dim, len(axes)) for dim in ([dims] if is_number(dims) else dims)}
    return [tuple(axis for index, axis in enumerate(axes) if index not in chosen or axis.size != 1)]


def _unsqueezed(call: Operation) -> list[Axes]:
    axes = call.operand()
    dim = position(call.value(1, "dim"), len(axes) + 1)
    return [(*axes[:dim], call.fixed(1), *axes[dim:])]


# -- more of the same ------------------------------------------------------------------------------------------------


def _expanded(call: Operation) -> list[Axes]:
    axes = call.operand()
    if call.op == "expand_as":
        return [_stretched(call, axes, call.operand(1, "other"))]
    wanted = call.numbers(1, "shape" if "shape" in call.kwargs else "size")
    new = len(wanted) - len(axes)
    others = tuple(axes[at - new] if size == -1 else call.literal(size, at) for at, size in enumerate(wanted))
    return [_stretched(call, axes, others)]


def _stretched(call: Operation, axes: Axes, others: Axes) -> Axes:
    new = len(others) - len(axes)
    return (
        *others[:new],
        *(axis if axis.size != 1 or other.size == 1 else other for axis, other in zip(axes, others[new:], strict=True)),
    )


def _broadcast(call: Operation) -> list[Axes]:
    return [broadcast(call, *call.operands())] * len(call.shapes)


def _repeated(call: Operation) -> list[Axes]:
    axes, counts = call.operand(), call.numbers(1, "dims" if call.op == "tile" else "repeats")
    if call.op == "tile":
        counts = [1] * (len(axes) - len(counts)) + counts
    new = len(counts) - len(axes)
    made = (_times(call, axis, count) for axis, count in zip(axes, counts[new:], strict=True))
    return [(*(call.literal(count, at) for at, count in enumerate(counts[:new])), *made)]


def _times(call: Operation, axis: Axis, count: int) -> Axis:
    if count == 1:
        return axis
    times = call.literal(count)
    return times if axis.size == 1 and not axis.varies else call.product([axis, times])


def _interleaved(call: Operation) -> list[Axes]:
    axes, count, dim = call.operand(), call.value(1, "repeats"), call.value(2, "dim")
    if not is_number(count) or isinstance(count, torch.Tensor):
        raise OddOperationError("as often as another tensor says")
    if dim is None:
        return [(_times(call, call.product(axes), int(count)),)]
    dim = position(dim, len(axes))
    return [replaced(axes, dim, _times(call, axes[dim], int(count)))]


# -- other orders ----------------------------------------------------------------------------------------------------


def _permuted(call: Operation) -> list[Axes]:
    axes = call.operand()
    return [tuple(axes[position(dim, len(axes))] for dim in call.numbers(1, "dims"))]


def _swapped(call: Operation) -> list[Axes]:
    axes = list(call.operand())
    if not axes:
        return [()]
    names = {"swapaxes": ("axis0", "axis1")}.get(call.op, ("dim0", "dim1"))
    one, other = (position(call.value(at, name), len(axes)) for at, name in enumerate(names, 1))
    axes[one], axes[other] = axes[other], axes[one]
    return [tuple(axes)]


def _turned(call: Operation) -> list[Axes]:
    """The last two axes change places; with `T`, all axes are reversed."""
    axes = call.operand()
    return [axes[::-1] if len(axes) < 2 or call.op in {"t", "T", "H"} else (*axes[:-2], axes[-1], axes[-2])]


def _rotated(call: Operation) -> list[Axes]:
    axes = list(call.operand())
    one, other = (position(dim, len(axes)) for dim in call.value(2, "dims", (0, 1)))
    if int(call.value(1, "k", 1)) % 2:
        axes[one], axes[other] = axes[other], axes[one]
    return [tuple(axes)]


def _moved(call: Operation) -> list[Axes]:
    axes = call.operand()
    ends: list[list[int]] = []
    for at, name in ((1, "source"), (2, "destination")):
        dims: Any = call.value(at, name)
        ends.append([position(dim, len(axes)) for dim in ([dims] if is_number(dims) else dims)])
    moving = dict(zip(ends[1], ends[0], strict=True))
    rest = iter([index for index in range(len(axes)) if index not in ends[0]])
    return [tuple(axes[moving[index] if index in moving else next(rest)] for index in range(len(axes)))]


RULES: dict[str, Follow] = {
    **dict.fromkeys(("view", "reshape"), _viewed),
    **dict.fromkeys(("view_as", "reshape_as"), _viewed_as),
    **dict.fromkeys(("flatten", "ravel"), _flattened),
    "unflatten": _unflattened,
    "squeeze": _squeezed,
    "unsqueeze": _unsqueezed,
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expanded),
    "broadcast_tensors": _broadcast,
    **dict.fromkeys(("repeat", "tile"), _repeated),
    "repeat_interleave": _interleaved,
    "permute": _permuted,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _swapped),
    **dict.fromkeys(("t", "T", "mT", "H", "mH", "adjoint"), _turned),
    "rot90": _rotated,
    **dict.fromkeys(("movedim", "moveaxis"), _moved),
}
