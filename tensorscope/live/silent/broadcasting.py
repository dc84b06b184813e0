"""Shapes that broadcast where they should have lined up."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from tensorscope.events import Severity
from tensorscope.live.silent.axes import Axis, Kind
from tensorscope.live.silent.following import POINTWISE, reduced_axes
from tensorscope.live.silent.ledger import Event, Mistake, Place, Seen, shape_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

LOSSES = frozenset(
    [
        "mse_loss",
        "l1_loss",
        "smooth_l1_loss",
        "huber_loss",
        "kl_div",
        "poisson_nll_loss",
        "soft_margin_loss",
        "margin_ranking_loss",
    ]
)
_SAMPLE_LOSSES = LOSSES | {
    *("cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"),
    *("gaussian_nll_loss", "triplet_margin_loss", "cosine_embedding_loss", "hinge_embedding_loss"),
}


class Broadcasting:
    """Rules `loss_broadcasting` and `silent_broadcast`."""

    def __init__(self) -> None:
        self._pending: dict[Place, tuple[Seen, Seen]] = {}

    def see(self, event: Event) -> Iterator[Mistake]:
        """Look at one operation."""
        if event.name in ("mean", "sum", "nanmean") and (x := event.operand(0, "input")) is not None:
            yield from self._reduced(event, x)
        if event.name not in POINTWISE and event.name not in LOSSES:
            return
        pair = _pair(event)
        if pair is None:
            return
        if event.name in LOSSES:
            yield from _in_loss(event, *pair)
        elif _is_outer(*pair, event):
            self._pending[event.place] = pair
            for tensor in event.results:
                event.ledger.note(tensor, replace(event.seen(tensor), outer=event.place))
        elif (crossed := _crossed(*pair)) is not None:
            yield _crossing(event.place, *pair, crossed)
        elif event.name in ("add", "mul", "sub", "div") and _is_misplaced_bias(*pair):
            yield _misplaced(event.place, *pair)

    def end(self, outputs: list[Seen]) -> Iterator[Mistake]:
        """What broadcast, and was not seen to become a loss."""
        for place, pair in self._pending.items():
            if not any(axis.kind is Kind.TAKEN for axis in pair[0].axes):
                yield _grown("silent_broadcast", place, *pair)

    def _reduced(self, event: Event, x: torch.Tensor) -> Iterator[Mistake]:
        outer = event.seen(x).outer
        if outer in self._pending and len(reduced_axes(event)) == x.ndim:
            yield _grown("loss_broadcasting", outer, *self._pending.pop(outer))


def _pair(event: Event) -> tuple[Seen, Seen] | None:
    """The two tensors that an operation combines, the one of more axes first."""
    tensors = [tensor for tensor in event.tensors() if tensor.ndim and not tensor.is_nested][-2:]
    if len(tensors) < 2 or not event.results:
        return None
    first, second = (event.seen(tensor) for tensor in tensors)
    return (first, second) if len(first.axes) >= len(second.axes) else (second, first)


def _stripped(seen: Seen) -> tuple[int, ...]:
    return tuple(size for size in seen.sizes if size != 1)


def _broadcast(longer: tuple[int, ...], shorter: tuple[int, ...]) -> tuple[int, ...]:
    filled = (1,) * (len(longer) - len(shorter)) + shorter
    return tuple(max(pair) for pair in zip(longer, filled, strict=True))


def _grows(a: Seen, b: Seen) -> bool:
    """Whether broadcasting two tensors of the same sizes, axes of size 1 apart, makes more of them than there are."""
    if _stripped(a) != _stripped(b) or not _stripped(a):
        return False
    both = _broadcast(a.sizes, b.sizes)
    return prod(both) > prod(a.sizes)


def _is_outer(a: Seen, b: Seen, event: Event) -> bool:
    """Whether a forgotten axis of size 1, and no intention, makes an outer product."""
    if len(a.axes) == len(b.axes) or not _grows(a, b) or a.weight or b.weight:
        return False
    if any(axis.size == 1 and axis.kind is Kind.INSERTED for axis in a.axes):
        return False  # `x[:, None] - x` is meant
    if any(axis.kind is Kind.TAKEN for axis in a.axes) and not (event.place.after and a.live and b.outside):
        return False  # and so may `x[:, :1] - x[:, 0]` be
    data = (seen.live or (seen.outside and event.place.after) for seen in (a, b))
    return all(data) and (event.place.after or _lines_up(a, b))


def _lines_up(a: Seen, b: Seen) -> bool:
    """Whether, axes of size 1 apart, the two have the same axes, as far as that is known."""
    mine, theirs = ([axis for axis in seen.axes if axis.size != 1] for seen in (a, b))
    return all(
        x.same(y) or (x.leading and y.leading) or (x.kind is y.kind is Kind.INPUT)
        for x, y in zip(mine, theirs, strict=True)
    )


def _in_loss(event: Event, a: Seen, b: Seen) -> Iterator[Mistake]:
    if _grows(a, b):
        yield _grown("loss_broadcasting", event.place, a, b)
    elif len(a.axes) != len(b.axes) and prod(a.sizes) == prod(b.sizes) == 1:
        says = f"prediction and target have shapes {shape_text(a.sizes)} and {shape_text(b.sizes)}"
        hint = "give both the same shape: with more than one sample they would broadcast"
        yield Mistake("loss_broadcasting", event.place, says, hint, severity=Severity.INFO)


def _grown(rule: str, place: Place, a: Seen, b: Seen) -> Mistake:
    both = _broadcast(a.sizes, b.sizes)
    every = _pairs(place, a, b) if rule == "loss_broadcasting" else "all pairs are formed"
    return Mistake(
        rule,
        place,
        f"shapes {shape_text(a.sizes)} and {shape_text(b.sizes)} broadcast to {shape_text(both)}, so that {every}",
        _lining_up(a, b),
        {"elements": float(prod(both)), "meant": float(prod(a.sizes))},
    )


def _pairs(place: Place, a: Seen, b: Seen) -> str:
    """What a loss that broadcasts does with the samples."""
    if place.op.rstrip("_") not in ("mul", "multiply", "div", "divide", "true_divide"):
        return "every prediction is compared with every target"
    if any(seen.maker in _SAMPLE_LOSSES for seen in (a, b)):
        return "every sample's loss is multiplied with every weight"
    return "every sample's value is multiplied with every sample's factor, such as a weight or a target"


def _lining_up(a: Seen, b: Seen) -> str:
    """How to bring two tensors to the same shape of which the first has more axes, or as many."""
    at = next((p for p, s in enumerate(a.sizes) if s == 1 and (*a.sizes[:p], *a.sizes[p + 1 :]) == b.sizes), None)
    if at is None:
        return "bring both to the same shape first: `.flatten()` both, or `a.view_as(b)`"
    dim = -1 if at == len(a.axes) - 1 else at
    return (
        f"bring both to the same shape first: `.squeeze({dim})` on the one of shape {shape_text(a.sizes)}, "
        f"or `.unsqueeze({dim})` on the other"
    )


def _crossed(a: Seen, b: Seen) -> tuple[int, int] | None:
    """Positions in `a`: where an axis of `b` lines up by size alone, and where the same axis really is."""
    shift = len(a.axes) - len(b.axes)
    for back, theirs in enumerate(b.axes):
        at = back + shift
        if theirs.size == 1 or a.axes[at].size == 1 or a.axes[at].same(theirs) or _shared(a.axes, theirs):
            continue
        for other, mine in enumerate(a.axes):
            if other != at and mine.same(theirs) and (shift > 0 or _is_swap(a, b, at, other)):
                return at, other
    return None


def _shared(axes: tuple[Axis, ...], axis: Axis) -> bool:
    """Whether an axis is there twice, so that it may be either."""
    return sum(mine.same(axis) for mine in axes) > 1


def _is_swap(a: Seen, b: Seen, at: int, other: int) -> bool:
    """Whether two tensors of the same rank disagree about which axis is the batch; symmetrising a matrix is fine."""
    swapped = a.axes[at].same(b.axes[other])
    return swapped and len(a.axes) > 2 and (a.axes[at].leading or a.axes[other].leading)


def _crossing(place: Place, a: Seen, b: Seen, crossed: tuple[int, int]) -> Mistake:
    at, other = crossed
    says = (
        f"shapes {shape_text(a.sizes)} and {shape_text(b.sizes)} line up only because axes {other} and {at} of the "
        f"first happen to have {a.axes[at].size} elements both: axis {other} is combined with axis {at}"
    )
    if len(a.axes) == len(b.axes):
        return Mistake("axis_order", place, says, "transpose one of the two back before they are combined")
    return Mistake("silent_broadcast", place, says, _crossing_hint(len(a.axes), len(b.axes), other))


def _crossing_hint(rank: int, low: int, other: int) -> str:
    index = ", ".join(":" if p == other else "None" for p in range(rank)) if low == 1 else ""
    how = f"index it with `[{index}]`" if index else "insert axes of size 1 (`[:, None]`)"
    return f"keep the reduced axis (`keepdim=True`), or {how}, so that equal axes meet"


def _is_misplaced_bias(a: Seen, b: Seen) -> bool:
    """Whether a weight with one element a channel meets the last axis of a feature map, which is a spatial one."""
    if not b.weight or len(b.axes) != 1 or len(a.axes) < 3 or not a.live:
        return False
    channels, last = a.axes[1], a.axes[-1]
    return b.axes[0].size == channels.size == last.size > 1 and channels.kind is Kind.WEIGHT and _is_spatial(last)


def _is_spatial(axis: Axis) -> bool:
    return any(step.kind is Kind.INPUT for step in axis.ancestors())


def _misplaced(place: Place, a: Seen, b: Seen) -> Mistake:
    ones = ", 1" * (len(a.axes) - 2)
    says = (
        f"`{b.weight}` {shape_text(b.sizes)} is broadcast along the last axis of {shape_text(a.sizes)}, "
        f"which has as many elements as there are channels"
    )
    return Mistake("silent_broadcast", place, says, f"`.view(1, -1{ones})` lines it up with the channels")
