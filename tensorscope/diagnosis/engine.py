"""Asks every rule, and sorts what they find: causes first, without what they explain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tensorscope.diagnosis.dead_relu import dead_relu
from tensorscope.diagnosis.evidence import Evidence
from tensorscope.diagnosis.nan_inf import nan_inf
from tensorscope.diagnosis.shape_errors import IDS as SHAPE_ERRORS
from tensorscope.diagnosis.shape_errors import shape_errors
from tensorscope.diagnosis.silent_shapes import IDS as SILENT_SHAPES
from tensorscope.diagnosis.silent_shapes import silent_shapes
from tensorscope.diagnosis.thresholds import DEFAULTS
from tensorscope.diagnosis.vanishing_gradient import vanishing_gradient
from tensorscope.events import Finding

if TYPE_CHECKING:
    from tensorscope.run.reader import Run

Rule = Callable[[Evidence], Iterator[Finding]]

# Cause before symptom: what an earlier rule has found explains what a later one would say.
RULES: dict[str, Rule] = {
    "shape_errors": shape_errors,
    "silent_shapes": silent_shapes,
    "nan_inf": nan_inf,
    "dead_relu": dead_relu,
    "vanishing_gradient": vanishing_gradient,
}
# The ids of rules that find several things.
FAMILIES = {"shape_errors": SHAPE_ERRORS, "silent_shapes": SILENT_SHAPES}
UNMEASURED = {*FAMILIES, "nan_inf"}  # rules that need no measurement, for what they read was recorded apart
EXPLAINS = {"nan_inf": {"dead_relu", "vanishing_gradient"}, "dead_relu": {"vanishing_gradient"}}


def diagnose(run: Run) -> list[Finding]:
    """Say what is wrong with a training.

    Args:
        run: a recorded training, finished or not.

    Returns:
        The findings, the cause first, without those that another one explains; empty if nothing was found.

    Raises:
        RunError: the run cannot be read.
    """
    evidence = Evidence(run, DEFAULTS)
    found: list[Finding] = []
    for name, rule in RULES.items():
        if not evidence.sites and name not in UNMEASURED:
            continue
        if not any(name in EXPLAINS.get(finding.rule, ()) for finding in found):
            found += rule(evidence)
    return found
