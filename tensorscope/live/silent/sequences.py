"""Recurrence and attention that run over the batch, or over the heads, in place of the sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tensorscope.events import Severity
from tensorscope.live.silent.axes import Axis, Kind
from tensorscope.live.silent.following import REDUCTIONS, is_padded, reduced_axes
from tensorscope.live.silent.ledger import Event, Mistake, Place, Seen, shape_text
from tensorscope.live.silent.moving import index_items

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})


class _Run(NamedTuple):
    """A recurrence or an attention.

    Attributes:
        over: the axis that it runs over.
        across: the one that it treats as the batch.
        sizes: of its input.
        batch_first: whether it was constructed so.
        place: where it ran.
    """

    over: Axis
    across: Axis
    sizes: tuple[int, ...]
    batch_first: bool
    place: Place


class Sequences:
    """Rules `batch_mixing` and `axis_order`, as far as sequences show it."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._collapsed: dict[int, str] = {}  # axes of which one entry, or a summary, was taken, and how
        self._positions: set[int] = set()  # axes along which something was added that does not depend on the input

    def see(self, event: Event) -> Iterator[Mistake]:
        """Look at one operation."""
        for axis in _collapsed(event):
            self._collapsed.setdefault(id(axis.origin), _way(event, axis))
        if event.name == "add":
            self._positions |= {id(axis.origin) for axis in _positions(event)}
        if event.name in RECURRENT:
            self._recurs(event)
        elif event.name == "multi_head_attention_forward":
            self._attends(event)
        yield from _over_heads(event)

    def end(self, outputs: list[Seen]) -> Iterator[Mistake]:
        """Decide which axis of the input was the batch: the one that the output still has."""
        sequences = {id(run.over) for run in self._runs}
        for run in self._runs:
            if id(run.across) in sequences or not run.over.leading:
                continue  # something runs over the other axis too: both are meant
            kept = any(seen.axes and seen.axes[0].origin is run.over for seen in outputs)
            gone = not any(axis.origin is run.across for seen in outputs for axis in seen.axes)
            how = self._collapsed.get(id(run.across))
            if kept and gone and how is not None:
                yield _over_batch(run, f"the output has a row for each of the {run.over.size}, and {how}")
            elif kept and id(run.across) in self._positions and id(run.over) not in self._positions:
                yield _over_batch(run, "positions are added along the other axis")

    def _recurs(self, event: Event) -> None:
        x = event.operand(0)
        if x is None or x.ndim != 3 or not is_padded(event):
            return
        seen = event.seen(x)
        time, batch = (1, 0) if event.args[-1] else (0, 1)
        over, across = seen.axes[time].origin, seen.axes[batch].origin
        self._note(_Run(over, across, seen.sizes, time == 1, event.place))

    def _attends(self, event: Event) -> None:
        query, key = event.operand(0, "query"), event.operand(1, "key")
        if query is not None and key is not None and query.ndim == key.ndim == 3:
            seen = event.seen(query)
            turned = seen.maker == "transpose"  # by the module, for `batch_first`
            sizes = (seen.sizes[1], seen.sizes[0], seen.sizes[2]) if turned else seen.sizes
            if seen.axes[0].same(event.seen(key).axes[0]):
                self._note(_Run(seen.axes[0].origin, seen.axes[1].origin, sizes, turned, event.place))

    def _note(self, run: _Run) -> None:
        if run.over.size > 1 and run.across.size > 1:
            self._runs.append(run)


def _over_batch(run: _Run, why: str) -> Mistake:
    says = (
        f"it runs over axis {int(run.batch_first)} of its input {shape_text(run.sizes)}, and that is the batch: {why}"
    )
    if run.batch_first:
        hint = (
            "it has `batch_first=True` and is given (seq, batch, features): drop that, or the transposition before it"
        )
    elif run.place.op in RECURRENT:
        hint = "construct it with `batch_first=True`, or transpose axes 0 and 1 before and after it"
    else:
        hint = (
            "construct the attention, or the layer that it is part of, with `batch_first=True`, "
            "or transpose axes 0 and 1 before and after it"
        )
    return Mistake(
        "batch_mixing", run.place, says, hint, {"batch": float(run.over.size), "seq": float(run.across.size)}
    )


def _collapsed(event: Event) -> Iterable[Axis]:
    """Axes of which an operation takes one entry or a summary, or that it feeds to a weight."""
    x = event.operand(0, "input")
    if x is None or not x.ndim:
        return ()
    seen = event.seen(x)
    if event.name == "getitem":
        items = [item for item in index_items(event, x.ndim) or [] if item is not None]
        return [axis for item, axis in zip(items, seen.axes, strict=False) if isinstance(item, int)]
    if event.name == "select":
        return [seen.axes[int(event.argument(1, "dim", 0)) % x.ndim]]
    if event.name in REDUCTIONS and event.name not in ("all", "any"):
        gone = reduced_axes(event)
        return [seen.axes[p] for p in gone] if len(gone) < x.ndim else ()
    if event.name == "linear":
        return seen.axes[-1].parts
    return ()


def _way(event: Event, axis: Axis) -> str:
    """What an operation does to an axis that it takes one entry or a summary of."""
    other = f"the other axis, of {axis.origin.size},"
    if event.name in REDUCTIONS:
        return f"{other} is reduced by `{event.name}`"
    return f"{other} is flattened into features" if event.name == "linear" else f"one entry is taken of {other[:-1]}"


def _positions(event: Event) -> Iterable[Axis]:
    """Input axes, other than the features, along which something is added that does not depend on the input."""
    tensors = event.tensors()
    if len(tensors) != 2:
        return ()
    a, b = sorted((event.seen(tensor) for tensor in tensors), key=lambda seen: not seen.live)
    if not a.live or b.live or len(a.axes) != 3:
        return ()
    shift = len(a.axes) - len(b.axes)
    return [a.axes[i + shift] for i, axis in enumerate(b.axes[:-1]) if axis.size > 1 and i + shift >= 0]


def _over_heads(event: Event) -> Iterator[Mistake]:
    """Scores between the heads of one position: the transposition of positions and heads was forgotten."""
    if event.name == "softmax":
        x = event.operand(0, "input")
        seen = event.seen(x) if x is not None else None
        if seen is None or len(seen.axes) < 4:
            return
        query, key, lead = seen.axes[-2], seen.axes[-1], seen.axes[:-2]
    elif event.name == "scaled_dot_product_attention":
        tensors = [event.operand(0, "query"), event.operand(1, "key")]
        if any(tensor is None or tensor.ndim < 4 for tensor in tensors):
            return
        seen, other = (event.seen(tensor) for tensor in tensors if tensor is not None)
        query, key, lead = seen.axes[-2], other.axes[-2], seen.axes[:-2]
    else:
        return
    if query.size == key.size > 1 and _is_heads(query) and _is_heads(key) and any(map(_is_steps, lead)):
        says = (
            f"attention of shape {shape_text(seen.sizes)} runs over the {query.size} heads of each position, "
            f"not over positions"
        )
        hint = (
            "if positions are to attend to each other, `.transpose(1, 2)` after splitting the heads: (batch, heads, "
            "seq, head_dim); if heads are, nothing is wrong"
        )
        yield Mistake("axis_order", event.place, says, hint, {"heads": float(query.size)}, Severity.WARNING)


def _is_heads(axis: Axis) -> bool:
    """Whether it was split off an axis of features that a weight made."""
    steps = list(axis.ancestors())
    return any(step.kind is Kind.PART for step in steps) and steps[-1].kind is Kind.WEIGHT


def _is_steps(axis: Axis) -> bool:
    steps = list(axis.ancestors())
    return axis.size > 1 and steps[-1].kind is Kind.INPUT and not steps[-1].leading
