"""Finds what does not fit in a failed call."""

from __future__ import annotations

import ast
import re
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch

from tensorscope.live.postmortem import (
    mismatch_joins,
    mismatch_lookups,
    mismatch_losses,
    mismatch_products,
    mismatch_ranks,
    mismatch_sequences,
    mismatch_views,
    mismatch_windows,
)
from tensorscope.live.postmortem.mismatch_kinds import other_kind
from tensorscope.live.postmortem.rebuild import can_rebuild
from tensorscope.live.postmortem.scene import Mismatch, passed_through

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tensorscope.live.postmortem.scene import Remedy, Scene

_ANALYSES: dict[str, Any] = {
    **mismatch_products.ANALYSES,
    **mismatch_joins.ANALYSES,
    **mismatch_views.ANALYSES,
    **mismatch_windows.ANALYSES,
    **mismatch_lookups.ANALYSES,
    **mismatch_sequences.ANALYSES,
    **mismatch_losses.ANALYSES,
    **mismatch_ranks.ANALYSES,
}
_HIGHEST_RANK = 5
# Operations whose own analysis knows their dtypes better than the general one.
_OWN_KINDS = {"cross_entropy", "nll_loss", "embedding", "embedding_bag", "gather", "one_hot", "index_select"}
# What small changes of an operand's axes may help with.
_ABOUT_AXES = re.compile(
    r"\bdim(s|ension|ensions|ensional)?\b|\d-?D\b|\brank\b|vector|matrix|matrices|scalar|batch|shape", re.I
)
_GOT = re.compile(r"\bgot:? (input )?(with )?(?P<got>\d+)\b.*?\bexpect\w*( \w+){0,4}? (?P<wanted>\d+)\b", re.S)
_WANTED = re.compile(
    r"\b(expect\w*|equal to|match|should be|must be)\b[^\d]{0,60}(?P<wanted>\d+)\b.*?"
    r"\b(got|but|is|was|found)\b[^\d]{0,40}(?P<got>\d+)\b",
    re.S,
)


def find_mismatch(scene: Scene) -> Mismatch:
    """What does not fit; torch's own words where nothing more is known."""
    if not scene.op:
        return Mismatch(_quoted(scene))
    analysis = _ANALYSES.get(scene.op)
    own = analysis(scene) if analysis is not None and scene.op in _OWN_KINDS else None
    found = own or other_kind(scene) or (analysis(scene) if analysis else None) or mismatch_ranks.missing_axis(scene)
    if found is None and ("broadcast" in scene.message or "must match the size of tensor" in scene.message):
        found = mismatch_joins.broadcast(scene)
    return found or _plain(scene)


def _plain(scene: Scene) -> Mismatch:
    """Torch's words, and the operand that they are about."""
    found = Mismatch(_quoted(scene), layout=_ABOUT_AXES.search(scene.message) is not None)
    said = _GOT.search(scene.message) or _WANTED.search(scene.message)
    got, wanted = (int(said["got"]), int(said["wanted"])) if said else (None, None)
    axes = [
        (scene.call.text(name), axis)
        for name, tensor in scene.call.tensors().items()
        if not scene.replay.weight(tensor)
        for axis in scene.axes(tensor)
    ]
    about = [(text, axis) for text, axis in axes if axis.size == got] or axes[-1:]
    found.blamed = [(text, axis, wanted) for text, axis in about[-1:]]
    if got is not None and wanted is not None:
        found.remedies += _resized(scene, found, got, wanted)
    return found


def _resized(scene: Scene, found: Mismatch, got: int, wanted: int) -> Iterator[Remedy]:
    """The layer made for the size that it got, or what it got made as it wants it."""
    remedies = [scene.resized_producer(axis, wanted) for _, axis, _ in found.blamed]
    if scene.depth and can_rebuild(scene.module):
        names = [name for name, value in vars(scene.module).items() if value == wanted and type(value) is int]
        remedies += [scene.rebuild(scene.path, 28, **{name: got}) for name in names]
    yield from (remedy for remedy in remedies if remedy is not None)


def _quoted(scene: Scene) -> str:
    lines = [line for line in scene.message.splitlines() if line.strip()] or [""]
    said = " ".join(lines[-1 if "TorchScript" in lines[0] else 0].removeprefix("RuntimeError: ").split())
    text = said if len(said) <= 110 else said[:109] + "…"
    return f"{scene.subject}: {text[:1].lower() + text[1:] if text[1:2].islower() else text}" if text else scene.subject


def general_remedies(scene: Scene) -> Iterator[Remedy]:
    """Small changes of one operand after which the call by itself succeeds, the likeliest first."""
    call = scene.call
    if isinstance(scene.node, ast.Name) or scene.op in mismatch_joins.BROADCASTING:
        return  # what is broadcast after some change of shape runs, and means something else
    for role, tensor in call.tensors().items():
        if scene.replay.weight(tensor) or tensor.ndim > _HIGHEST_RANK:
            continue
        for suffix, rank in _views(tensor):
            if _succeeds(scene, role, passed_through(suffix)):
                yield scene.transform(role, suffix, rank)


def _views(tensor: torch.Tensor) -> Iterator[tuple[str, int]]:
    """What could be written after a tensor, the likelier the lower the number."""
    for place in range(tensor.ndim + 1):
        yield f".unsqueeze({place})", 70 + place
    for place, size in enumerate(tensor.shape):
        if size == 1:
            yield f".squeeze({place})", 66
    for first, second in combinations(range(tensor.ndim), 2):
        yield f".transpose({first}, {second})", 80 if first else 90  # the first axis is the batch's, as a rule
    if tensor.ndim > 2:
        yield ".flatten(1)", 75
    if tensor.ndim > 1:
        yield ".flatten()", 85
    for place in range(1, tensor.ndim - 1):
        yield f".movedim({place}, -1)", 78


def _succeeds(scene: Scene, role: str, change: Any) -> bool:
    """Whether the call by itself runs with one argument changed."""
    failure = scene.failure
    if failure.func is None:
        return True
    from tensorscope.live.postmortem.calls import changed

    try:
        with torch.no_grad():
            args, kwargs = changed(scene.call.slots[role], change, failure.args, failure.kwargs)
            failure.func(*args, **kwargs)
    except Exception:  # noqa: BLE001  (any failure means no)
        return False
    return True
