"""What is wrong with a run: what its trace found at the end, or, until there is an end, what the rules say now."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from tensorscope.events import Finding
    from tensorscope.run.reader import Run

PAUSE_SECONDS = 2.0  # between two diagnoses of a run that is being written, at least
SHARE = 0.05  # of the time that diagnosing may take


@dataclass(frozen=True, slots=True)
class _Verdict:
    findings: list[Finding]
    last_step: int
    due: float


_verdicts: WeakKeyDictionary[Run, _Verdict] = WeakKeyDictionary()


def findings_of(run: Run) -> list[Finding]:
    """The findings of a run, the cause first; of one that has not been closed they may be a moment old."""
    if run.meta.get("status", "running") != "running":
        return run.findings
    verdict, step, now = _verdicts.get(run), run.last_step, time.monotonic()
    if verdict is None or (step != verdict.last_step and now >= verdict.due):
        from tensorscope.diagnosis.engine import diagnose

        findings = diagnose(run)
        done = time.monotonic()
        verdict = _verdicts[run] = _Verdict(findings, step, done + max(PAUSE_SECONDS, (done - now) / SHARE))
    return verdict.findings
