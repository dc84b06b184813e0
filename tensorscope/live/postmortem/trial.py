"""Tries changes out: a fix is verified only if the program then runs through."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from tensorscope.live.postmortem.mismatches import general_remedies
from tensorscope.live.postmortem.replay import replay
from tensorscope.reports import Fix

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tensorscope.live.postmortem.replay import Edit
    from tensorscope.live.postmortem.scene import Mismatch, Remedy, Scene

_ENOUGH = 3  # verified fixes after which no more are looked for
_MOST = 14  # runs of the program in search of one
_WORSE = 30  # ranks behind the best fix at which others are not worth telling


def try_fixes(scene: Scene, mismatch: Mismatch, *, real: bool) -> tuple[Fix, ...]:
    """The remedies that work, the best first; then those that could not be tried."""
    ranked = sorted(mismatch.remedies, key=lambda remedy: remedy.rank)
    working = _working(scene, ranked, real)
    if not working and mismatch.layout:
        found = sorted(general_remedies(scene), key=lambda remedy: remedy.rank)
        working = _working(scene, found, real)
    return (*working, *(_fix(remedy, scene, verified=False) for remedy in ranked if remedy.edit is None))


def _working(scene: Scene, remedies: Iterable[Remedy], real: bool) -> list[Fix]:
    working: list[Fix] = []
    seen: set[str] = set()
    runs, limit = 0, None
    for remedy in remedies:
        if remedy.edit is None or remedy.text in seen or (limit is not None and remedy.rank > limit):
            continue
        seen.add(remedy.text)
        for edit, said in chain([(remedy.edit, "")], [(remedy.wider, ", and likewise its siblings")]):
            if edit is None or runs >= _MOST or len(working) >= _ENOUGH:
                break
            runs += 1
            if _runs(scene, edit, real):
                working.append(_fix(remedy, scene, verified=True, more=said))
                limit = limit or remedy.rank + _WORSE
                break
    return working


def _runs(scene: Scene, edit: Edit, real: bool) -> bool:
    try:
        return replay(scene.program, edit, real=real).failure is None
    except Exception:  # noqa: BLE001  (a module that can't be made with these settings is no fix)
        return False


def _fix(remedy: Remedy, scene: Scene, *, verified: bool, more: str = "") -> Fix:
    return Fix(remedy.text + more, verified, scene.program.scope, remedy.where)
