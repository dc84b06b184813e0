"""Axes through `x[…]`, and those of tensors made from numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tensorscope.live.postmortem.axes import Axes, Axis, Kind, Rule
from tensorscope.live.postmortem.follow_elementwise import broadcast
from tensorscope.live.postmortem.follow_operation import Operation, is_number, shifted

if TYPE_CHECKING:
    from tensorscope.live.postmortem.follow_operation import Follow


def _indexed(call: Operation) -> list[Axes]:
    """Ints drop an axis, slices shorten it, None adds one; tensors put theirs where the first one stands."""
    axes, entries = list(call.operand()), _entries(call)
    made: list[Axis] = []
    picked: list[Axes] = []  # axes of the indices that are tensors
    place = apart = 0
    for number, entry in enumerate(entries):
        if entry is None:
            made.append(call.fixed(1))
        elif isinstance(entry, slice):
            made.append(sliced(call, axes.pop(0), entry))
        elif entry is Ellipsis:
            rest = len(axes) - sum(map(_width, entries[number + 1 :]))
            made, axes = [*made, *axes[:rest]], axes[rest:]
        else:
            if _picks(entry):
                place = place if picked else len(made)
                apart += len(made) - place  # with other axes between them, theirs go to the front
                picked.append(_picked(call, entry))
            axes = axes[_width(entry) :]
    if picked:
        place = 0 if apart else place
        made[place:place] = _together(call, picked)
    return [
        tuple(call.unknown(size) if axis.size < 0 else axis for axis, size in zip(made, call.shapes[0], strict=True))
    ]


def _entries(call: Operation) -> list[Any]:
    index = call.value(1, "index")
    entries = list(index) if isinstance(index, tuple) else [index]
    return entries if any(entry is Ellipsis for entry in entries) else [*entries, Ellipsis]


def _picks(entry: Any) -> bool:
    """Whether an index picks entries, rather than one: a tensor of no axes is a number unless it is a mask."""
    return isinstance(entry, list | range | bool) or _is_mask(entry) or bool(getattr(entry, "shape", ()))


def _width(entry: Any) -> int:
    """How many axes an index takes up."""
    if entry is None or entry is Ellipsis or isinstance(entry, bool):
        return 0
    return int(entry.ndim) if _is_mask(entry) else 1


def _is_mask(entry: Any) -> bool:
    return str(getattr(entry, "dtype", "")).removeprefix("torch.") in {"bool", "uint8"}


def _picked(call: Operation, entry: Any) -> Axes:
    """The axes that an index puts in place of those that it takes up; of size -1 if that depends on values."""
    if isinstance(entry, torch.Tensor) and not _is_mask(entry):
        return call.axes(entry)
    if isinstance(entry, list | range) and not (len(entry) and isinstance(entry[0], bool)):
        inner = entry[0] if len(entry) else 0
        return (call.literal(len(entry)), *(() if is_number(inner) else _picked(call, inner)))
    if hasattr(entry, "shape") and not _is_mask(entry):
        return tuple(call.literal(size) for size in entry.shape)
    return (call.unknown(-1),)


def _together(call: Operation, picked: list[Axes]) -> Axes:
    masks = [axes for axes in picked if axes and axes[0].size < 0]
    return masks[0] if masks else broadcast(call, *picked)


def sliced(call: Operation, axis: Axis, entry: slice) -> Axis:
    """An axis through a slice; the axis itself if nothing is cut off."""
    start, stop, step = (None if part is None else int(part) for part in (entry.start, entry.stop, entry.step))
    first = (start or 0) == 0 and step in {None, 1}
    if first and stop is None:
        return axis
    asked = call.known.asked(stop, call.module) if first and stop is not None else {}
    if axis in asked:
        return axis
    if asked and stop is not None and stop > 1:
        rule = Rule(min, "first {1} of {0}") if len(asked) == 1 else None
        return Axis(min(stop, axis.size), Kind.SLICE, call.op, (axis, *asked), call.step, call.module, rule)
    cut = slice(start, stop, step)
    rule = Rule(lambda length: len(range(length)[cut]), _slice_text(start, stop, step))
    return call.made(Kind.SLICE, (axis,), rule, call.op)


def _slice_text(start: int | None, stop: int | None, step: int | None) -> str:
    if step not in {None, 1}:
        return "{0}[" + ":".join("" if part is None else str(part) for part in (start, stop, step)) + "]"
    if (stop is None or stop < 0) and (start or 0) >= 0:
        return shifted("{0}", -(start or 0) + (stop or 0))
    if not start and stop is not None:
        return f"first {stop} of {{0}}"
    if stop is None:
        return f"last {-(start or 0)} of {{0}}"
    return f"{start} to {stop} of {{0}}"


# -- tensors from numbers --------------------------------------------------------------------------------------------


def _filled(call: Operation) -> list[Axes]:
    """zeros, full, rand and the like: every number of the shape stands for itself."""
    return [
        tuple(call.literal(size, place if len(shape) > 1 else None) for place, size in enumerate(shape))
        for shape in call.shapes
    ]


def _tensor(call: Operation) -> list[Axes]:
    source = call.value(0, "data")
    if isinstance(source, torch.Tensor):
        return [call.axes(source)]
    return [tuple(call.fixed(size) for size in shape) for shape in call.shapes]


def _meshed(call: Operation) -> list[Axes]:
    axes = [(operand or (call.fixed(1),))[0] for operand in call.operands()]
    if call.kwargs.get("indexing") == "xy" and len(axes) > 1:
        axes[:2] = axes[1], axes[0]
    return [tuple(axes)] * len(call.shapes)


def _by_value(call: Operation) -> list[Axes]:
    """How many there are depends on values."""
    return [tuple(call.unknown(size) for size in shape) for shape in call.shapes]


_FILLED = """
    zeros ones empty full rand randn randint randperm arange linspace logspace eye new_zeros new_ones new_empty
    new_full hann_window hamming_window empty_strided
"""
_BY_VALUE = "masked_select nonzero argwhere unique unique_consecutive bincount histc"

RULES: dict[str, Follow] = {
    "getitem": _indexed,
    **dict.fromkeys(_FILLED.split(), _filled),
    **dict.fromkeys(("tensor", "as_tensor", "new_tensor"), _tensor),
    "meshgrid": _meshed,
    **dict.fromkeys(_BY_VALUE.split(), _by_value),
}
