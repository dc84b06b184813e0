"""Rule `softmax_wrong_dim`: a softmax over an axis that is not the one summed over next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope.events import Severity
from tensorscope.live.silent.axes import Axis, Kind
from tensorscope.live.silent.following import reduced_axes, softmax_axis
from tensorscope.live.silent.ledger import Event, Mistake, Place, Seen, shape_text

if TYPE_CHECKING:
    from collections.abc import Iterator

RULE = "softmax_wrong_dim"
_SOFTMAXES = ("softmax", "log_softmax")


class Normalizing:
    """Rule `softmax_wrong_dim`."""

    def __init__(self) -> None:
        self._renormalized: set[Place] = set()
        self._suspects: dict[Place, Mistake] = {}

    def see(self, event: Event) -> Iterator[Mistake]:
        """Look at one operation."""
        if event.name in _SOFTMAXES:
            yield from _of_one(event)
        elif event.name in ("matmul", "bmm", "mm", "einsum"):
            for seen, contracted in contractions(event):
                self._contracted(seen, contracted)
        elif event.name in ("nll_loss", "cross_entropy", "kl_div"):
            yield from _in_loss(event)
        elif event.name == "sum":
            self._summed(event)

    def end(self, outputs: list[Seen]) -> Iterator[Mistake]:
        """What was not normalised once more, and what left the model so."""
        for place, mistake in self._suspects.items():
            if place not in self._renormalized:
                yield mistake
        for seen in outputs:
            if seen.soft is not None and _over_batch(seen, seen.soft.axis):
                says = f"its output {shape_text(seen.sizes)} sums to 1 over the batch, not over the classes"
                yield Mistake(RULE, seen.soft.place, says, "normalise over the classes: `softmax(-1)`")

    def _contracted(self, seen: Seen, contracted: list[Axis]) -> None:
        soft = seen.soft
        if soft is None or any(axis is soft.axis for axis in contracted):
            return
        position = next((p for p, axis in enumerate(seen.axes) if axis is soft.axis), None)
        if position is None or soft.place in self._suspects:
            return
        if seen.scores or _over_batch(seen, soft.axis):
            self._suspects[soft.place] = _summed_elsewhere(seen, soft.place, position, contracted)

    def _summed(self, event: Event) -> None:
        """A sum over another axis may normalise once more, or pool with weights that are none."""
        x = event.operand(0, "input")
        seen = event.seen(x) if x is not None else None
        if seen is None or seen.soft is None:
            return
        gone = [seen.axes[position] for position in reduced_axes(event)]
        if len(gone) == len(seen.axes) or any(axis is seen.soft.axis for axis in gone):
            return
        if seen.maker == "mul" and _over_batch(seen, seen.soft.axis) and any(_is_sequence(axis) for axis in gone):
            position = next(p for p, axis in enumerate(seen.axes) if axis is seen.soft.axis)
            self._suspects[seen.soft.place] = _summed_elsewhere(seen, seen.soft.place, position, gone)
        elif seen.maker != "mul":
            self._renormalized.add(seen.soft.place)


def contractions(event: Event) -> list[tuple[Seen, list[Axis]]]:
    """For each operand of a product, the axes of it that are summed over."""
    tensors = event.tensors()
    if event.name == "einsum":
        equation = event.args[0] if isinstance(event.args[0], str) else ""
        if "->" not in equation or "." in equation:
            return []
        given, result = equation.replace(" ", "").split("->")
        pairs = zip(given.split(","), [event.seen(t) for t in tensors], strict=True)
        return [
            (seen, [axis for letter, axis in zip(names, seen.axes, strict=True) if letter not in result])
            for names, seen in pairs
        ]
    if len(tensors) != 2 or any(tensor.ndim < 2 for tensor in tensors):
        return []
    left, right = (event.seen(tensor) for tensor in tensors)
    return [(left, [left.axes[-1]]), (right, [right.axes[-2]])]


def _is_sequence(axis: Axis) -> bool:
    return axis.size > 1 and any(step.kind is Kind.INPUT for step in axis.ancestors()) and not axis.leading


def _over_batch(seen: Seen, axis: Axis) -> bool:
    """Whether a softmax ran over axis 0 of an input, which is also not what the tensor's other axes are."""
    others = [other for other in seen.axes if other is not axis and other.size > 1]
    in_place = any(axis is own for own in seen.axes)
    return axis.leading and in_place and axis.size > 1 and bool(others) and not any(axis.same(o) for o in others)


def _summed_elsewhere(seen: Seen, place: Place, position: int, contracted: list[Axis]) -> Mistake:
    other = next((p for p, axis in enumerate(seen.axes) if any(axis is gone for gone in contracted)), -1)
    says = (
        f"weights of shape {shape_text(seen.sizes)} are normalised over axis {position} and then summed over axis "
        f"{other % len(seen.axes)}, so that the sums have weights that do not add up to 1"
    )
    return Mistake(RULE, place, says, f"normalise over the axis that is summed over: `softmax({_dim(seen, other)})`")


def _dim(seen: Seen, position: int) -> int:
    position %= len(seen.axes)
    return position - len(seen.axes) if position >= len(seen.axes) - 2 else position


def _of_one(event: Event) -> Iterator[Mistake]:
    x, dim = event.operand(0, "input"), softmax_axis(event)
    if x is None or dim is None:
        return
    seen = event.seen(x)
    axis = seen.axes[dim]
    if axis.size == 1 and axis.kind is Kind.WEIGHT and seen.live and x.numel() > 1:
        says = f"{shape_text(seen.sizes)} is normalised over axis {dim}, of size 1: every result is {_one(event)}"
        hint = "normalise over the axis with the alternatives, or use a sigmoid for a single logit"
        yield Mistake(RULE, event.place, says, hint, severity=Severity.WARNING)


def _one(event: Event) -> str:
    return "0" if event.name == "log_softmax" else "1"


def _in_loss(event: Event) -> Iterator[Mistake]:
    x = event.operand(0, "input")
    seen = event.seen(x) if x is not None else None
    if seen is None or seen.soft is None or len(seen.axes) < 2:
        return
    classes = seen.axes[1]
    if event.name == "kl_div":
        wrong = _over_batch(seen, seen.soft.axis)
    else:
        wrong = any(leaf is seen.soft.axis for axis in seen.axes if axis is not classes for leaf in axis.leaves())
    if wrong:
        says = (
            f"log-probabilities {shape_text(seen.sizes)} of `{event.name}` sum to 1 over an axis of "
            f"{seen.soft.axis.size} elements that is not the classes'"
        )
        yield Mistake(RULE, seen.soft.place, says, "normalise over the classes: `log_softmax(-1)` before any reshaping")
