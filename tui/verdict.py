"""What takes long to find out about a run that is being written, and so may be a moment old: findings, differences."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

    from tensorscope.events import Finding
    from tensorscope.run.differences import RankDifference
    from tensorscope.run.reader import Run

PAUSE_SECONDS = 2.0  # between two looks at a run that is being written, at least
SHARE = 0.05  # of the time that looking may take

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class _Look(Generic[Found]):
    found: Found
    last_step: int
    due: float


class Paced(Generic[Found]):
    """Answers a question about runs; while one is being written, with what was found a moment ago.

    Args:
        look: finds the answer.
    """

    def __init__(self, look: Callable[[Run], Found]) -> None:
        self._look = look
        self._known: WeakKeyDictionary[Run, _Look[Found]] = WeakKeyDictionary()

    def __call__(self, run: Run) -> Found:
        """The answer."""
        known, step, now = self._known.get(run), run.last_step, time.monotonic()
        if known is None or (step != known.last_step and now >= known.due):
            found = self._look(run)
            done = time.monotonic()
            known = self._known[run] = _Look(found, step, done + max(PAUSE_SECONDS, (done - now) / SHARE))
        return known.found


def _diagnose(run: Run) -> list[Finding]:
    from tensorscope.diagnosis.engine import diagnose

    return diagnose(run)


def _compare(run: Run) -> list[RankDifference]:
    return run.rank_differences() if len(run.ranks) > 1 else []


_diagnosed = Paced(_diagnose)
differences_of = Paced(_compare)


def findings_of(run: Run) -> list[Finding]:
    """The findings of a run, the cause first: what its trace found at the end; until then what the rules say now."""
    if run.meta.get("status", "running") != "running":
        return run.findings
    return _diagnosed(run)
