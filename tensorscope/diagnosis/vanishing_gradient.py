"""Rule `vanishing_gradient`: the first layers get next to no gradient, and the network does not learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tensorscope.events import Finding, Kind, Severity, Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tensorscope.diagnosis.evidence import Evidence, Table

RULE = "vanishing_gradient"


def vanishing_gradient(evidence: Evidence) -> Iterator[Finding]:
    """The first layer, if its gradient per weight is far below the last layer's for most of the run."""
    relative = {
        name: values for name in evidence.matrices if (values := _relative_gradient(evidence, name)) is not None
    }
    names = list(relative)
    if len(names) < 3 or evidence.has_learned():
        return
    last = relative[names[-1]]
    ratios = {name: _typical(relative[name], last) for name in names[:-1]}
    starved = [name for name, ratio in ratios.items() if ratio < evidence.thresholds.vanishing_ratio]
    if not starved or starved[0] != names[0]:
        return
    seen = np.flatnonzero(np.isfinite(relative[names[0]]))
    ratio = ratios[names[0]]
    yield Finding(
        rule=RULE,
        site=names[0].rpartition(".")[0] or names[0],
        severity=Severity.WARNING,
        summary=(
            f"the gradient of `{names[0]}`, relative to its weights, is {ratio:.1e} times that of `{names[-1]}`: "
            f"{len(starved)} of {len(names)} layers barely learn"
        ),
        first_step=int(evidence.steps[seen[0]]),
        last_step=int(evidence.steps[seen[-1]]),
        evidence={"ratio": ratio, "layers": len(names), "starved": len(starved)},
        hint=(
            "use ReLU-like activations with He initialisation instead of sigmoid or tanh, normalisation between the "
            "layers, or residual connections"
        ),
    )


def _relative_gradient(evidence: Evidence, name: str) -> Table | None:
    """RMS of a parameter's gradient over RMS of the parameter, per measured step; None if it never had a gradient."""
    parameter = Site(name, Kind.PARAMETER)
    weight, gradient = evidence.row(parameter), evidence.row(parameter.grad)
    if weight is None or gradient is None:
        return None
    rms = evidence.table("rms")
    finite = np.isfinite(rms[gradient]) & np.isfinite(rms[weight]) & (rms[weight] > 0)
    if finite.sum() < evidence.thresholds.fewest_steps:
        return None
    return np.where(finite, rms[gradient] / np.where(finite, rms[weight], 1), np.nan)


def _typical(first: Table, last: Table) -> float:
    """Median over the run of first / last; where the last layer has no gradient either, nothing has vanished."""
    both = np.isfinite(first) & np.isfinite(last) & (last > 0)
    return float(np.median(first[both] / last[both])) if both.any() else 1.0
