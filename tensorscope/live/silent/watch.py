"""Watches a program operation by operation for shape mistakes that raise nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from tensorscope.events import Finding, Severity
from tensorscope.live.silent.axes import Axis, Kind
from tensorscope.live.silent.broadcasting import Broadcasting
from tensorscope.live.silent.following import follow
from tensorscope.live.silent.late_masks import LateMasks
from tensorscope.live.silent.layouts import Layouts
from tensorscope.live.silent.ledger import Event, Ledger, Mistake, Place, Seen
from tensorscope.live.silent.masking import Masking
from tensorscope.live.silent.normalizing import Normalizing
from tensorscope.live.silent.sequences import Sequences
from tensorscope.live.tensors import leaves
from tensorscope.live.unseen import Unseen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    import torch

_MOST = 20_000  # operations after which no more are looked at
_ENDS = frozenset({"backward", "grad"})  # of the part of a step in which shapes matter


class _Rule(Protocol):
    def see(self, event: Event) -> Iterator[Mistake]:
        """Look at one operation."""

    def end(self, outputs: list[Seen]) -> Iterator[Mistake]:
        """Say what can only be said at the end."""


class Watch:
    """Is told of operations, and says which are mistakes; keeps no tensor of the program alive.

    Args:
        weights: parameters and buffers, by path.
    """

    def __init__(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        self.error: Exception | None = None
        self.over = False  # whether there is nothing more to see
        self._after = False
        self._count = 0
        self._ledger = Ledger({id(tensor): path for path, tensor in reversed(list(weights))})
        self._rules: list[_Rule] = [Broadcasting(), Normalizing(), Layouts(), Sequences(), Masking(), LateMasks()]
        self._mistakes: list[Mistake] = []
        self._outputs: list[Seen] = []

    def safely(self) -> AbstractContextManager[None]:
        """Around telling it something: an error ends the watch alone, and nobody's mode sees what it computes."""
        return Unseen(self)

    def take(self, tensor: torch.Tensor) -> None:
        """The model is given a tensor."""
        if not tensor.is_nested and not self._ledger.is_known(tensor):
            axes = tuple(
                Axis(int(s), Kind.INPUT, leading=p == 0 and tensor.ndim > 1) for p, s in enumerate(tensor.shape)
            )
            if tensor.ndim == 1:
                axes = (Axis(int(tensor.shape[0]), Kind.INPUT, leading=True),)
            self._ledger.note(tensor, Seen(axes, live=True))

    def see(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: object, path: str, line: str
    ) -> None:
        """An operation ran."""
        if self.over:
            return
        self._count += 1
        self.over = name in _ENDS or self._count > _MOST
        results = [args[0]] if name == "setitem" else list(leaves(result))
        if not results or self.over:
            return
        event = Event(Place(name, path, line, self._after), args, kwargs, results, self._ledger)
        if all(any(t is o for o in event.tensors()) for t in results) and not name.endswith("_"):
            return  # a question, or nothing was done
        if name == "setitem":
            return
        follow(event)
        for rule in self._rules:
            self._mistakes += rule.see(event)

    def give(self, output: object) -> None:
        """The model returned; what follows is the loss."""
        self._after = True
        for tensor in leaves(output):
            if tensor.is_nested:
                continue
            seen = self._ledger.seen(tensor)
            self._outputs.append(seen)
            self._ledger.note(tensor, _as_output(seen))

    def end(self) -> list[Finding]:
        """Everything that was found, each rule once a place; the watch is over."""
        self.over = True
        for rule in self._rules:
            self._mistakes += rule.end(self._outputs)
        self._ledger.clear()
        return _findings(self._mistakes)


def _findings(mistakes: list[Mistake]) -> list[Finding]:
    """One finding for each line at which a rule was broken, however many modules share the line."""
    first: dict[tuple[str, str], Mistake] = {}
    sites: dict[tuple[str, str], set[str]] = {}
    for mistake in mistakes:
        key = (mistake.rule, mistake.place.line or mistake.place.path)
        first.setdefault(key, mistake)
        sites.setdefault(key, set()).add(mistake.place.path)
    return [_finding(mistake, len(sites[key])) for key, mistake in first.items()]


def _as_output(seen: Seen) -> Seen:
    """What a model returns is data to the loss: its axes of size 1 are there on purpose no more."""
    axes = tuple(Axis(1, Kind.DERIVED) if axis.size == 1 else axis for axis in seen.axes)
    return replace(seen, axes=axes, output=True, live=True)


_LOSS_RULES = frozenset({"loss_broadcasting"})


def _finding(mistake: Mistake, modules: int) -> Finding:
    place = mistake.place
    file, _, number = place.line.rpartition(":")
    line = f"{os.path.basename(file)}:{number}" if file else ""
    at = f"`{place.written}`{f' at {line}' if line else ''}"
    site = mistake.site or place.path or None
    if place.after or (site is None and mistake.rule in _LOSS_RULES):
        site = "loss"
    return Finding(
        rule=mistake.rule,
        site=site,
        severity=Severity(mistake.severity),
        summary=f"{at}: {mistake.says}" + (f" (the same in {modules} modules)" if modules > 1 else ""),
        first_step=0,
        last_step=0,
        evidence=dict(mistake.evidence),
        hint=mistake.hint,
    )
