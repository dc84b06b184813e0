"""Axes in the wrong order: reshapes that scramble, feature maps that are channels-last, classes on the wrong axis."""

from __future__ import annotations

import linecache
import re
from typing import TYPE_CHECKING

from tensorscope.events import Severity
from tensorscope.live.silent.axes import Axis, Kind, Scramble
from tensorscope.live.silent.ledger import Event, Mistake, Place, Seen, count_text, shape_text
from tensorscope.live.silent.moving import index_items
from tensorscope.live.silent.sequences import RECURRENT

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEARNING = frozenset(
    {"linear", "conv1d", "conv2d", "conv3d", "matmul", "bmm", "mm", "einsum", "lstm", "gru", "rnn_tanh", "embedding"}
    | {"scaled_dot_product_attention", "multi_head_attention_forward", "layer_norm", "batch_norm"}
)
# Operation → ranks for which its order is known, where it wants the features, and the order in words.
_WANTS: dict[str, tuple[tuple[int, ...], int, str]] = {
    "conv1d": ((3,), 1, "(batch, channels, length)"),
    "batch_norm": ((3,), 1, "(batch, channels, length)"),
    "linear": ((4,), -1, "(batch, height, width, channels)"),
    "layer_norm": ((4,), -1, "(batch, height, width, channels)"),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), ((3,), -1, "(batch, seq, features)")),
}
_TIME_FIRST = RECURRENT | {"multi_head_attention_forward"}
_COLOURS = (1, 3, 4)  # channels that images have
_SMALLEST_IMAGE = 8  # height and width below which three axes look alike


class Layouts:
    """Rules `axis_order` and `batch_mixing`, as far as single operations show it."""

    def __init__(self) -> None:
        self._scrambles: list[tuple[Scramble, Place, Seen]] = []
        self._guesses: list[tuple[Scramble, Place, Seen]] = []  # that only look like a transposition
        self._learned_from: set[int] = set()  # axes that a weight, or a product, was applied to

    def see(self, event: Event) -> Iterator[Mistake]:
        """Look at one operation."""
        for scramble in event.scrambles:
            self._scrambled(event, scramble)
        if event.name in _TIME_FIRST:
            self._scrambles += [guess for guess in self._guesses if _runs_along(event, guess[0])]
        if event.name in _LEARNING:
            self._learned_from |= {id(axis) for tensor in event.tensors() for axis in event.seen(tensor).axes}
        yield from _turned(event)
        if event.name == "conv2d":
            yield from _channels_last(event)
        elif event.name in ("cross_entropy", "nll_loss"):
            yield from _classes_last(event)
        elif event.name == "getitem":
            yield from _clamped(event)

    def end(self, outputs: list[Seen]) -> Iterator[Mistake]:
        """The reshapes that were not undone."""
        for scramble, place, before in self._scrambles:
            if _is_computed(before) or self._is_used(scramble, before):
                yield _scrambling(scramble, place, before)
        for seen in outputs:
            yield from _absorbed(seen)

    def _is_used(self, scramble: Scramble, before: Seen) -> bool:
        """Whether something is learned from a reshaped input; a matrix all of whose axes go may be anything."""
        return len(before.axes) > 2 and any(id(axis) in self._learned_from for axis in scramble.after)

    def _scrambled(self, event: Event, scramble: Scramble) -> None:
        x = event.operand(0, "input")
        seen = event.seen(x) if x is not None else None
        if seen is None or not seen.live or seen.maker in ("pad", "constant_pad_nd"):
            return
        if seen.maker == "cat" and any(axis.kind is Kind.DERIVED for axis in scramble.before):
            return  # the relative shift of attention: one more column, then a reshape that skews
        if not scramble.sure:
            self._guesses.append((scramble, event.place, seen))
            return
        for known in self._scrambles:
            if known[0].after == scramble.before and _sizes(known[0].before) == _sizes(scramble.after):
                self._scrambles.remove(known)  # only the layout in between was another
                return
        self._scrambles.append((scramble, event.place, seen))


def _runs_along(event: Event, guess: Scramble) -> bool:
    """Whether a sequence runs along what would be the batch with a part of the positions, if nothing was transposed."""
    x = event.operand(0, "query")
    if x is None or x.ndim != 3 or not all(axis.is_position() for axis in guess.before):
        return False
    time = 1 if event.name in RECURRENT and event.args[-1] is True else 0
    return guess.before[0].leading and event.seen(x).axes[time] is guess.after[0]


def _is_computed(seen: Seen) -> bool:
    return any(leaf.kind is not Kind.INPUT for axis in seen.axes for leaf in axis.leaves())


def _sizes(axes: tuple[Axis, ...]) -> list[int]:
    return [axis.size for axis in axes]


def _scrambling(scramble: Scramble, place: Place, before: Seen) -> Mistake:
    old, new = _sizes(scramble.before), _sizes(scramble.after)
    says = f"axes of sizes {_listed(old)} are reshaped to {_listed(new)}: "
    evidence = {"axes_before": float(len(old)), "axes_after": float(len(new))}
    if scramble.mixes_batch:
        says += _of_samples(scramble)
        return Mistake("batch_mixing", place, says, _unmixing(scramble, before), evidence)
    if sorted(old) == sorted(new):
        says += "the sizes are those of a transposition, but the elements stay in their order in memory"
    else:
        says += "the elements stay in their order in memory, cut across the old axes"
    hint = "a reshape moves no axis: use `permute` or `transpose`, and reshape after it"
    return Mistake("axis_order", place, says, hint, evidence)


def _of_samples(scramble: Scramble) -> str:
    """What became of the samples."""
    samples = next(axis.size for axis in scramble.before if axis.holds_batch())
    rows = scramble.after[0].size
    if rows == samples:
        return f"the {rows} rows are not the {samples} samples, and hold parts of several"
    return f"{samples} samples became {count_text(rows, 'row')}, which hold parts of several"


def _unmixing(scramble: Scramble, before: Seen) -> str:
    """How to keep the samples apart."""
    if before.maker in RECURRENT and len(before.axes) == 3 and not scramble.before[0].holds_batch():
        return (
            "the batch is axis 1 of final states: `torch.cat([h[-2], h[-1]], -1)` joins the last layer's two "
            "directions; for all, `h.transpose(0, 1).flatten(1)`"
        )
    if not scramble.before[0].holds_batch():
        return "a reshape moves no axis: `transpose` the batch to the front first"
    return "a reshape keeps the order in memory: keep the batch as axis 0 (`x.flatten(1)`), or transpose first"


def _listed(sizes: list[int]) -> str:
    return " · ".join(map(str, sizes))


def _absorbed(seen: Seen) -> Iterator[Mistake]:
    """Channels that ended up in the batch of what the model returned."""
    if not seen.axes or seen.axes[0].kind is not Kind.MERGED:
        return
    leaves = seen.axes[0].leaves()
    if leaves[0].leading and len(seen.axes) > 1 and any(_is_channels(leaf) for leaf in leaves[1:]):
        says = (
            f"the output {shape_text(seen.sizes)} has {_listed([leaf.size for leaf in leaves])} rows: "
            f"a reshape took channels into the batch of {leaves[0].size}"
        )
        place = Place("reshape", "", "")
        yield Mistake(
            "batch_mixing", place, says, "flatten all but the batch: `x.flatten(1)`", severity=Severity.WARNING
        )


def _is_channels(axis: Axis) -> bool:
    return axis.kind is Kind.WEIGHT


def _channels_last(event: Event) -> Iterator[Mistake]:
    x = event.operand(0, "input")
    seen = event.seen(x) if x is not None else None
    if seen is None or len(seen.axes) != 4 or any(axis.kind is not Kind.INPUT for axis in seen.axes):
        return
    _, first, second, last = seen.sizes
    in_place = seen.maker == ""
    if in_place and last in _COLOURS and first == second >= _SMALLEST_IMAGE:
        says = f"images of shape {shape_text(seen.sizes)} look channels-last, and `conv2d` takes axis 1 as the channels"
        yield Mistake(
            "axis_order", event.place, says, "`x.permute(0, 3, 1, 2)` makes them (batch, channels, height, width)"
        )


def _turned(event: Event) -> Iterator[Mistake]:
    """Channels and positions of the same size, in the order that the operation does not want."""
    x = event.operand(0, "input")
    if event.name not in _WANTS or x is None or x.ndim not in _WANTS[event.name][0]:
        return
    _, channels_at, wanted = _WANTS[event.name]
    seen = event.seen(x)
    middle, last = seen.axes[1], seen.axes[-1]
    channels, steps = (last, middle) if channels_at == 1 else (middle, last)
    if middle.size != last.size or last.size == 1 or not seen.live:
        return
    if channels.origin.kind is Kind.WEIGHT and steps.is_position():
        says = (
            f"`{event.place.written}` takes axis {channels_at % x.ndim} of {shape_text(seen.sizes)} as the features, "
            f"and they are on axis {1 if channels_at != 1 else x.ndim - 1}, of the same size"
        )
        yield Mistake("axis_order", event.place, says, f"permute to {wanted} before it")


def _classes_last(event: Event) -> Iterator[Mistake]:
    """Logits (batch, seq, classes) where seq and classes have the same size."""
    x, target = event.operand(0, "input"), event.operand(1, "target")
    if x is None or target is None or x.ndim != 3 or target.ndim != 2 or x.shape[1] != x.shape[2]:
        return
    seen = event.seen(x)
    middle, last = seen.axes[1:]
    if last.kind is Kind.WEIGHT and any(step.kind is Kind.INPUT for step in middle.ancestors()):
        says = f"`{event.name}` takes axis 1 of {shape_text(seen.sizes)} as the classes, and they are on axis 2"
        hint = "`logits.transpose(1, 2)`, or flatten both: `logits.flatten(0, 1)`, `target.flatten()`"
        yield Mistake("axis_order", event.place, says, hint)


def _clamped(event: Event) -> Iterator[Mistake]:
    """A slice written with two numbers, the second beyond the end."""
    x = event.operand(0)
    seen = event.seen(x) if x is not None else None
    items = index_items(event, len(seen.axes)) if seen is not None else None
    if seen is None or items is None or not seen.live:
        return
    real = [item for item in items if item is not None]
    for position, (item, axis) in enumerate(zip(real, seen.axes, strict=True)):
        if not isinstance(item, slice) or not _reaches_beyond(item, axis.size):
            continue
        if _is_literal(event.place.line, item.start, item.stop):
            says = (
                f"the slice `{item.start}:{item.stop}` of axis {position} of {shape_text(seen.sizes)} ends at "
                f"{axis.size}: it gives {count_text(max(0, axis.size - item.start), 'element')}, "
                f"not {item.stop - item.start}"
            )
            hint = "check the axis and its size; `narrow` raises where a slice is cut short"
            yield Mistake("axis_order", event.place, says, hint, severity=Severity.WARNING)


def _reaches_beyond(item: slice, size: int) -> bool:
    numbers = type(item.start) is int and type(item.stop) is int and item.step is None
    return numbers and 0 < item.start < item.stop and item.stop > size


def _is_literal(line: str, start: int, stop: int) -> bool:
    """Whether the slice stands in the source in digits; a computed one often ends with a shorter piece on purpose."""
    file, _, number = line.rpartition(":")
    text = linecache.getline(file, int(number)) if number.isdigit() else ""
    return re.search(rf"(?<![\w.]){start}\s*:\s*{stop}(?![\w.])", text) is not None
