"""Masks that hide nothing, and a future that attention sees."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from tensorscope.events import Severity
from tensorscope.live.silent.axes import Kind
from tensorscope.live.silent.following import softmax_axis
from tensorscope.live.silent.ledger import Event, Mask, Mistake, Place, Seen, shape_text

if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGEST = 4_000_000  # elements that are looked at
_FEWEST = 3  # positions from which a triangle is one
VISIBLE = 0.1  # mean weight of a hidden position, against that of the others, from which it is not hidden
_PENALTY = -1.0  # what is added to scores to hide is below this

_REAL = (torch.Tensor, torch.nn.Parameter)
ADDING = frozenset({"add", "sub"})


class Masking:
    """Rules `mask_ineffective`, `future_leak`, and `silent_broadcast` of masks."""

    def __init__(self) -> None:
        self._unused: dict[int, tuple[int, Mask]] = {}  # id of a masked copy → id of the scores, and what masked

    def see(self, event: Event) -> Iterator[Mistake]:
        """Look at one operation."""
        for tensor in event.tensors():
            self._unused.pop(id(tensor), None)
        if event.name in ("masked_fill", "where", "add", "sub", "mul"):
            yield from self._masks(event)
        elif event.name == "softmax":
            yield from self._normalises(event)
        elif event.name in ("scaled_dot_product_attention", "multi_head_attention_forward"):
            yield from _given(event)

    def end(self, outputs: list[Seen]) -> Iterator[Mistake]:
        """Nothing is left to say."""
        self._unused.clear()
        yield from ()

    def _masks(self, event: Event) -> Iterator[Mistake]:
        found = masked(event)
        if found is None:
            return
        scores, mask = found
        seen = event.seen(scores)
        if (mistake := _per_sample(event.place, seen, mask) or _on_heads(event.place, seen, mask)) is not None:
            yield mistake
            return
        result = event.results[0]
        event.ledger.note(result, replace(event.seen(result), masks=(*seen.masks, mask)))
        if event.name == "masked_fill" and result is not scores:
            self._unused[id(result)] = (id(scores), mask)

    def _normalises(self, event: Event) -> Iterator[Mistake]:
        x, dim = event.operand(0, "input"), softmax_axis(event)
        if x is None or dim is None:
            return
        for copy, (scores, mask) in list(self._unused.items()):
            if scores == id(x):
                del self._unused[copy]
                yield _thrown_away(mask, x.shape)
                return
        masks = event.seen(x).masks
        if masks and dim == x.ndim - 1 and type(x) in _REAL and not x.is_meta and x.numel():
            yield from _leaking(masks, event.results[0].detach())


def has_values(tensor: torch.Tensor) -> bool:
    """Whether its values can be looked at, and there are not too many."""
    return type(tensor) in _REAL and not tensor.is_meta and 0 < tensor.numel() <= _LARGEST


def masked(event: Event) -> tuple[torch.Tensor, Mask] | None:
    """The scores, or weights, and the mask of an operation that may be masking."""
    tensors = [tensor for tensor in event.tensors() if tensor.ndim]
    scores = next((t for t in tensors if t.is_floating_point() and event.seen(t).live and t.ndim > 1), None)
    if scores is None or scores.shape != event.results[0].shape:
        return None
    if event.name in ("masked_fill", "where"):
        mask = event.operand(
            1 if event.name == "masked_fill" else 0, "mask" if event.name == "masked_fill" else "condition"
        )
        if mask is None or mask.dtype != torch.bool or not mask.ndim or not has_values(mask):
            return None
        keeps = event.name == "where" and event.operand(1, "input") is scores
        return scores, _mask(~mask if keeps else mask, event, mask, either=False)
    other = next((t for t in tensors if t is not scores), None)
    if other is None or not _may_mask(event, other):
        return None
    hidden, either = _hidden(event, other)
    return (scores, _mask(hidden, event, other, either=either)) if hidden is not None else None


def _may_mask(event: Event, tensor: torch.Tensor) -> bool:
    """Whether a tensor can be a mask: given or made, not computed by the model, not learned."""
    if not has_values(tensor) or tensor.requires_grad:
        return False
    seen = event.seen(tensor)
    learned = (step.kind is Kind.WEIGHT for axis in seen.axes for leaf in axis.leaves() for step in leaf.ancestors())
    return not (seen.live and (seen.scores or any(learned)))


def _hidden(event: Event, tensor: torch.Tensor) -> tuple[torch.Tensor | None, bool]:
    """What an added or multiplied mask hides, if its values are those of a mask; and whether that is a guess."""
    values = tensor.detach()
    ones, zeros = values == 1, values == 0
    if bool((ones | zeros).all()) and bool(ones.any()) and bool(zeros.any()):
        return zeros.clone(), event.name in ADDING
    if event.name == "add" and bool((zeros | (values < _PENALTY)).all()) and bool(zeros.any()):
        low = values < _PENALTY
        same = low.any() and bool((values[low] == values[low][0]).all())
        return (low, False) if same else (None, False)
    return None, False


def _mask(hidden: torch.Tensor, event: Event, given: torch.Tensor, *, either: bool) -> Mask:
    hidden, axes = hidden.detach().clone(), event.seen(given).axes
    if either and is_future(~hidden):
        hidden = ~hidden
    per_sample = bool(axes) and axes[0].leading
    return Mask(hidden, _is_causal(hidden) or _is_inverted(hidden), either, event.place, per_sample)


def _square(hidden: torch.Tensor) -> torch.Tensor | None:
    """The last two axes of a mask that is the same for all samples and heads."""
    if hidden.ndim < 2 or hidden.shape[-1] != hidden.shape[-2] or hidden.shape[-1] < _FEWEST:
        return None
    flat = hidden.reshape(-1, *hidden.shape[-2:])
    return flat[0] if bool((flat == flat[0]).all()) else None


def is_future(hidden: torch.Tensor) -> bool:
    """Whether exactly what comes later is hidden, the position itself or not."""
    square = _square(hidden)
    return square is not None and any(bool((square == torch.ones_like(square).triu(k)).all()) for k in (0, 1))


def _is_late(hidden: torch.Tensor) -> bool:
    """Whether the triangle begins one position too late."""
    square = _square(hidden)
    return square is not None and bool((square == torch.ones_like(square).triu(2)).all())


def _is_inverted(hidden: torch.Tensor) -> bool:
    """Whether the past is hidden."""
    square = _square(hidden)
    return square is not None and any(bool((square == torch.ones_like(square).tril(k)).all()) for k in (0, -1))


def _is_causal(hidden: torch.Tensor) -> bool:
    return is_future(hidden) or _is_late(hidden)


def _per_sample(place: Place, seen: Seen, mask: Mask) -> Mistake | None:
    """A (batch, key) mask that lines up with (query, key) because there are as many samples as positions.

    Rows that end at different places, and hide some positions from themselves, are the lengths of samples.
    """
    hidden = mask.hidden
    if mask.causal or mask.either or hidden.ndim != 2 or len(seen.axes) < 3 or not seen.scores:
        return None
    rows, batch = hidden.shape[0], seen.axes[0].size
    if rows != hidden.shape[1] or rows != batch or rows < 2 or not bool(hidden.diagonal().any()):
        return None
    if not _are_lengths(hidden):
        return None
    says = (
        f"a mask {shape_text(hidden.shape)} with the lengths of {batch} samples lines up with the queries of scores "
        f"{shape_text(seen.sizes)}, because there are as many of both"
    )
    ones = ", ".join([":", *["None"] * (len(seen.axes) - 2), ":"])
    return Mistake("silent_broadcast", place, says, f"`mask[{ones}]` lines it up with the samples")


def _on_heads(place: Place, seen: Seen, mask: Mask) -> Mistake | None:
    """A (batch, 1, key) mask that lines up with the heads because there are as many of them as samples."""
    hidden = mask.hidden
    if not mask.per_sample or mask.either or hidden.ndim != 3 or len(seen.axes) != 4 or not seen.scores:
        return None
    batch, heads, _, keys = seen.sizes
    fits = hidden.shape == (batch, 1, keys) and seen.axes[0].leading
    if not fits or heads != batch or batch < 2 or not _are_lengths(hidden[:, 0]):
        return None
    says = (
        f"a mask {shape_text(hidden.shape)} with the lengths of {batch} samples lines up with the {heads} heads of "
        f"scores {shape_text(seen.sizes)}, because there are as many of both"
    )
    return Mistake("silent_broadcast", place, says, "`mask[:, None, None, :]` lines it up with the samples")


def _are_lengths(hidden: torch.Tensor) -> bool:
    """Whether rows end, or begin, at different places."""
    ends = bool((hidden[:, 1:] >= hidden[:, :-1]).all()) or bool((hidden[:, 1:] <= hidden[:, :-1]).all())
    return ends and bool((hidden != hidden[0]).any())


def _thrown_away(mask: Mask, scores: torch.Size) -> Mistake:
    rule = "future_leak" if mask.causal else "mask_ineffective"
    says = f"the masked scores {shape_text(scores)} are thrown away: the softmax takes those before masking"
    return Mistake(rule, mask.place, says, "`masked_fill` returns a new tensor: `scores = scores.masked_fill(...)`")


def _leaking(masks: tuple[Mask, ...], weights: torch.Tensor) -> Iterator[Mistake]:
    """Masks whose hidden positions got weight all the same."""
    for mask in masks:
        if len(masks) == 1 and _hides_queries(mask.hidden, weights.shape):
            yield _of_queries(mask, weights)
            return
        if _is_inverted(mask.hidden) or _is_late(mask.hidden):
            yield _misshapen(mask, weights)
            return
        hidden = _some(torch.broadcast_to(mask.hidden, weights.shape))
        some = _some(weights)
        shares = [share_of(some, hidden)] + ([share_of(some, ~hidden)] if mask.either and not mask.causal else [])
        if all(share > VISIBLE for share in shares):
            yield _ineffective(mask, weights, min(shares))
            return


def _hides_queries(hidden: torch.Tensor, shape: torch.Size) -> bool:
    """Whether a mask covers whole rows: for its queries everything is hidden, and no key is for the others."""
    whole = hidden.ndim > 1 and hidden.shape[-1] == 1 and hidden.shape[-2] == shape[-2] > 1 < shape[-1]
    return whole and bool(hidden.any()) and not bool(hidden.all())


def _of_queries(mask: Mask, weights: torch.Tensor) -> Mistake:
    says = (
        f"the mask {shape_text(mask.hidden.shape)} runs along the queries of the softmax {shape_text(weights.shape)}: "
        f"it hides no key"
    )
    return Mistake("mask_ineffective", mask.place, says, "let it run along the last axis: `mask[:, None, None, :]`")


def _some(weights: torch.Tensor) -> torch.Tensor:
    """A part that is cheap to look at: all samples and heads, or fewer of them."""
    while weights.numel() > _LARGEST and weights.ndim > 2:
        weights = weights[: max(1, weights.shape[0] // 2)] if weights.shape[0] > 1 else weights[0]
    return weights


def share_of(weights: torch.Tensor, hidden: torch.Tensor) -> float:
    """Mean weight of hidden positions, against that of the others, over rows that have both."""
    mixed = hidden.any(-1, keepdim=True) & ~hidden.all(-1, keepdim=True) & weights.isfinite().all(-1, keepdim=True)
    covered, open_ = hidden & mixed, ~hidden & mixed
    if not bool(covered.any()):
        return 0.0
    wide = weights.double()
    return float(wide[covered].mean() / wide[open_].mean().clamp(min=1e-300))


def _ineffective(mask: Mask, weights: torch.Tensor, share: float) -> Mistake:
    rule = "future_leak" if mask.causal else "mask_ineffective"
    what = "later positions" if mask.causal else "positions"
    says = (
        f"the mask {shape_text(mask.hidden.shape)} does not hide: {what} that it marks still get {share:.0%} of the "
        f"weight of the others in the softmax {shape_text(weights.shape)}"
    )
    hint = "hide with -inf before the softmax: `scores.masked_fill(~visible, float('-inf'))`; 0 and 1 hide nothing"
    return Mistake(rule, mask.place, says, hint, {"share": share})


def _misshapen(mask: Mask, weights: torch.Tensor) -> Mistake:
    size = f"the mask {shape_text(mask.hidden.shape)} on attention {shape_text(weights.shape)}"
    if _is_late(mask.hidden):
        says = f"{size} begins one position late: each position sees the next one"
        return Mistake("future_leak", mask.place, says, "use `torch.triu(ones, diagonal=1)` for what is hidden")
    says = f"{size} hides from each position what comes before it, and shows what comes after it"
    if bool(mask.hidden.diagonal(dim1=-2, dim2=-1).any()):
        hint = "it hides each position from itself too: invert the mask"
        return Mistake("future_leak", mask.place, says, hint)
    hint = (
        "to read left to right, hide what comes after: `torch.triu(ones, diagonal=1)`; right to left is fine, if meant"
    )
    return Mistake("future_leak", mask.place, says, hint, severity=Severity.WARNING)


def _given(event: Event) -> Iterator[Mistake]:
    """A mask handed to torch's own attention."""
    sdpa = event.name == "scaled_dot_product_attention"
    mask = event.operand(3, "attn_mask") if sdpa else event.kwargs.get("attn_mask")
    padding = None if sdpa else event.kwargs.get("key_padding_mask")
    for given in (mask, padding):
        if not isinstance(given, torch.Tensor) or not has_values(given) or given.requires_grad:
            continue
        if given.dtype == torch.bool:
            hidden = ~given if sdpa else given
            if _is_inverted(hidden) or _is_late(hidden):
                yield _misshapen(_mask(hidden, event, given, either=False), given)
        elif event.seen(given).live is False or not given.is_floating_point() or given is padding or sdpa:
            hidden_, either = _hidden(replace_name(event), given)
            if hidden_ is not None and either:
                yield _added(_mask(hidden_, event, given, either=True))
            elif hidden_ is not None and (_is_inverted(hidden_) or _is_late(hidden_)):
                yield _misshapen(_mask(hidden_, event, given, either=False), given)


def replace_name(event: Event) -> Event:
    """The same as an addition, which is what attention does with a mask of numbers."""
    return Event(replace(event.place, op="add"), event.args, event.kwargs, event.results, event.ledger)


def _added(mask: Mask) -> Mistake:
    rule = "future_leak" if mask.causal else "mask_ineffective"
    says = f"a mask {shape_text(mask.hidden.shape)} of zeros and ones is added to the scores, which hides nothing"
    return Mistake(rule, mask.place, says, "pass a bool mask, or 0 for visible and -inf for hidden")
