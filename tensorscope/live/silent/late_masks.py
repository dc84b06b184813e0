"""Masks that are applied to the weights of a softmax, in place of to its scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope.events import Severity
from tensorscope.live.silent.ledger import Event, Mask, Mistake, Place, Seen, shape_text
from tensorscope.live.silent.masking import VISIBLE, has_values, is_future, masked, share_of
from tensorscope.live.silent.normalizing import contractions

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

_MASKING = frozenset({"mul", "multiply", "masked_fill"})
_NORMALIZING = frozenset({"sum", "nansum", "norm", "normalize", "softmax", "logsumexp"})
_SUMMING = frozenset({"matmul", "bmm", "mm", "einsum"})


class LateMasks:
    """Rules `mask_ineffective` and `future_leak`: weights that were masked, and not normalised once more."""

    def __init__(self) -> None:
        self._late: dict[Place, Mistake] = {}
        self._used: set[Place] = set()  # whose weights were summed with

    def see(self, event: Event) -> Iterator[Mistake]:
        """Look at one operation."""
        if event.name in _MASKING:
            self._masks(event)
        elif event.name in _NORMALIZING and (x := event.operand(0, "input")) is not None:
            for mask in event.seen(x).masks:
                self._late.pop(mask.place, None)
        elif event.name in _SUMMING and self._late:
            for seen, contracted in contractions(event):
                if seen.soft is not None and any(axis is seen.soft.axis for axis in contracted):
                    self._used |= {mask.place for mask in seen.masks}
        yield from ()

    def end(self, outputs: list[Seen]) -> Iterator[Mistake]:
        """What was used as it was left."""
        for place, mistake in self._late.items():
            if place in self._used:
                yield mistake

    def _masks(self, event: Event) -> None:
        if event.name == "masked_fill" and event.argument(2, "value") != 0:
            return
        found = masked(event)
        if found is None:
            return
        weights, mask = found
        seen = event.seen(weights)
        over_keys = seen.soft is not None and seen.scores and seen.soft.axis is seen.axes[-1]
        if over_keys and has_values(weights) and (is_future(mask.hidden) or _hides_keys(mask.hidden, weights)):
            before = weights.detach() if weights is not event.results[0] else None
            if before is not None and share_of(before, mask.hidden.expand_as(before)) > VISIBLE:
                self._late[mask.place] = _late(mask, event.results[0].detach())


def _hides_keys(hidden: torch.Tensor, weights: torch.Tensor) -> bool:
    """Whether a mask is of padding: the same for all queries, and with nothing visible between hidden keys."""
    if hidden.shape[-1] != weights.shape[-1] or (hidden.ndim > 1 and hidden.shape[-2] != 1) or not bool(hidden.any()):
        return False
    later, sooner = hidden[..., 1:], hidden[..., :-1]
    return bool((later >= sooner).all()) or bool((later <= sooner).all())


def _late(mask: Mask, left: torch.Tensor) -> Mistake:
    total = float(left.double().sum(-1).mean())
    rule, what = ("future_leak", "later positions") if mask.causal else ("mask_ineffective", "masked positions")
    says = (
        f"the mask {shape_text(mask.hidden.shape)} comes after the softmax {shape_text(left.shape)}: its rows add up "
        f"to {total:.2g} on average, not to 1, and depend on {what}"
    )
    hint = "mask the scores before the softmax: `scores.masked_fill(~visible, float('-inf'))`"
    return Mistake(rule, mask.place, says, hint, {"row_sum": total}, Severity.WARNING)
