"""Rule `dead_relu`: most units of a rectifier output 0 whatever comes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tensorscope.events import Finding, Severity, Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tensorscope.diagnosis.evidence import Evidence

RULE = "dead_relu"


def dead_relu(evidence: Evidence) -> Iterator[Finding]:
    """Rectifiers with many dead units at the end of the run, up to the first that lets nothing by."""
    for row, site in enumerate(evidence.sites):
        finding = _look(evidence, row, site)
        if finding is not None:
            yield finding
            if finding.severity is Severity.ERROR:
                return  # what comes after it sees a constant: whatever dies there, dies of this


def _look(evidence: Evidence, row: int, site: Site) -> Finding | None:
    limits = evidence.thresholds
    dead = evidence.table("dead_fraction")[row]
    known = np.flatnonzero(np.isfinite(dead))
    if not known.size or dead[known[-1]] < limits.dead_warning:
        return None
    below = np.flatnonzero(dead[known] < limits.dead_warning)
    since = known[below[-1] + 1] if below.size else known[0]
    share = float(dead[known[-1]])
    return Finding(
        rule=RULE,
        site=site.path,
        severity=_severity(evidence, share),
        summary=f"{share:.0%} of the units of `{site.path}` have stopped firing: they output 0 for every sample",
        first_step=int(evidence.steps[since]),
        last_step=int(evidence.steps[known[-1]]),
        evidence={
            "dead_fraction": share,
            "zero_fraction": float(evidence.table("zero_fraction")[row, known[-1]]),
        },
        hint=(
            "a dead unit gets no gradient and stays dead: look at the layer before it (initialisation, a large "
            "negative bias), lower the learning rate, or use LeakyReLU or GELU"
        ),
    )


def _severity(evidence: Evidence, share: float) -> Severity:
    """A wide layer that learns can do without many of its units, so dead ones are worth a word and no alarm."""
    if share >= evidence.thresholds.dead_error:
        return Severity.ERROR
    return Severity.INFO if evidence.has_learned() else Severity.WARNING
