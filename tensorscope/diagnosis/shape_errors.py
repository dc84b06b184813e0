"""The shape error that a run died of, as its explanation tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope.events import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tensorscope.diagnosis.evidence import Evidence

IDS = ("shape_error", "dtype_error", "device_error", "index_out_of_range")


def shape_errors(evidence: Evidence) -> Iterator[Finding]:
    """What was reported, at the step under way."""
    for report in evidence.reports:
        step = evidence.last_step
        at = f" at {report.where}" if report.where else ""
        fix = next((fix for fix in report.fixes if fix.verified), None)
        yield Finding(
            report.kind,
            report.module or None,
            Severity.ERROR,
            f"{report.title}{at}",
            step,
            step,
            {f"axis {axis}": float(size) for axis, size in enumerate(report.operands[0].dims)}
            if report.operands
            else {},
            str(fix) if fix is not None else "",
        )
