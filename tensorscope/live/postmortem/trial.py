"""Tries changes out: a fix is verified only if the program then runs through."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensorscope.live.postmortem.mismatch_joins import BROADCASTING
from tensorscope.live.postmortem.mismatches import find_mismatch, general_remedies
from tensorscope.live.postmortem.replay import Edit, replay
from tensorscope.live.postmortem.scene import Scene
from tensorscope.reports import Fix

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tensorscope.live.postmortem.replay import Replay
    from tensorscope.live.postmortem.scene import Mismatch, Remedy

_ENOUGH = 3  # verified fixes after which no more are looked for
_MOST = 40  # runs of the program in search of one
_REPEATS = 16  # times that the same mistake is mended in other places
_SIBLINGS = ", and likewise its siblings"
_WORSE = 30  # ranks behind the best fix at which others are not worth telling


def try_fixes(scene: Scene, mismatch: Mismatch, *, real: bool) -> tuple[Fix, ...]:
    """The remedies that work, the best first; then those that could not be tried."""
    ranked = sorted(mismatch.remedies, key=lambda remedy: remedy.rank)
    trials = _Trials(scene, real)
    working = trials.working(ranked, elsewhere=False) or trials.working(ranked, elsewhere=True)
    if not working and mismatch.layout:
        working = trials.working(sorted(general_remedies(scene), key=lambda remedy: remedy.rank), elsewhere=False)
    return (*working, *(_fix(remedy, scene, verified=False) for remedy in ranked if remedy.edit is None))


@dataclass
class _Trials:
    """Runs of one program with changes."""

    scene: Scene
    real: bool
    runs: int = 0

    def working(self, remedies: Iterable[Remedy], *, elsewhere: bool) -> list[Fix]:
        """Those that let the program run through, made in one place or also where else the same mistake shows."""
        working: list[Fix] = []
        seen: set[str] = set()
        limit = math.inf
        for remedy in remedies:
            if remedy.edit is None or remedy.text in seen or remedy.rank > limit or len(working) >= _ENOUGH:
                continue
            seen.add(remedy.text)
            more = self._repeated(remedy, self._run(remedy.edit)) if elsewhere else self._helps(remedy)
            if more is not None:
                working.append(_fix(remedy, self.scene, verified=True, more=more))
                limit = min(limit, remedy.rank + _WORSE)
        return working

    def _helps(self, remedy: Remedy) -> str | None:
        """What else has to change for a remedy to help, empty if nothing; None if it does not help."""
        assert remedy.edit is not None
        seen = self._run(remedy.edit)
        if seen is not None and seen.failure is None:
            return None if self._spreads(seen) else ""
        if remedy.wider is not None and (wide := self._run(remedy.wider)) is not None and wide.failure is None:
            return _SIBLINGS
        return None

    def _repeated(self, remedy: Remedy, seen: Replay | None) -> str | None:
        """The places where the same change is needed too, one after the other."""
        edit, places = remedy.edit, [remedy.target]
        for _ in range(_REPEATS if remedy.recipe else 0):
            if seen is None or edit is None:
                return None
            if seen.failure is None:
                found = [place for place in places[1:] if place not in places[:1]]
                return (
                    f", and likewise {', '.join(dict.fromkeys(found))}" if found and not self._spreads(seen) else None
                )
            scene = Scene(self.scene.program, seen, seen.failure, self.scene.outer)
            again = next((r for r in find_mismatch(scene).remedies if r.recipe == remedy.recipe), None)
            if again is None or again.edit is None or again.target in places:
                return None
            places.append(again.target)
            edit = edit.with_(again.edit)
            seen = self._run(edit)
        return None

    def _run(self, edit: Edit) -> Replay | None:
        if self.runs >= _MOST:
            return None
        self.runs += 1
        try:
            return replay(self.scene.program, edit, real=self.real)
        except Exception:  # noqa: BLE001  (a module that can't be made with these settings is no fix)
            return None

    def _spreads(self, seen: Replay) -> bool:
        """Whether what came after was stretched to more than either operand: then it runs, and means something else."""
        return any(_is_outer(seen, index) for index in range(len(self.scene.replay.steps), len(seen.steps)))


def _is_outer(seen: Replay, index: int) -> bool:
    step = seen.steps[index]
    if step.op not in BROADCASTING or not step.shapes:
        return False
    made, ranks = math.prod(step.shapes[0]), {len(shape) for shape in step.taken}
    return len(step.taken) == 2 and len(ranks) == 2 and min(ranks) > 0 and all(math.prod(s) < made for s in step.taken)


def _fix(remedy: Remedy, scene: Scene, *, verified: bool, more: str = "") -> Fix:
    where = remedy.where_all if more == _SIBLINGS else remedy.where
    return Fix(remedy.text + more, verified, scene.program.scope, where)
