"""Shape mistakes that raise nothing: found while the first step was watched, handed on from the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope.events import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tensorscope.diagnosis.evidence import Evidence
    from tensorscope.events import Finding

IDS = (
    "loss_broadcasting",
    "silent_broadcast",
    "batch_mixing",
    "axis_order",
    "softmax_wrong_dim",
    "mask_ineffective",
    "future_leak",
)


def silent_shapes(evidence: Evidence) -> Iterator[Finding]:
    """What was found, errors first."""
    order = list(Severity)
    yield from sorted(evidence.silent, key=lambda finding: -order.index(finding.severity))
