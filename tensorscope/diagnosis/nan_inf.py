"""Rule `nan_inf`: where the first number that is not finite came from.

When the trace has run the first bad pass again, `run.origin` names the operation. Else the measured steps tell the
module: sites are numbered as the forward pass meets them, so within a step the origin is the first bad input, parameter
or output, else the last bad gradient: the backward pass runs the other way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from tensorscope.diagnosis.nonfinite_advice import advice
from tensorscope.events import ROOT, Finding, Kind, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tensorscope.diagnosis.evidence import Evidence
    from tensorscope.run.origin import Origin

RULE = "nan_inf"
Bad = npt.NDArray[np.bool_]


class _Origin(NamedTuple):
    site: str
    how: str
    hint: str
    amount: float = 0.0


def nan_inf(evidence: Evidence) -> Iterator[Finding]:
    """The origin of the first non-finite values that reached the loss, the output, a gradient or a parameter."""
    bad = np.nan_to_num(evidence.table("nonfinite")) > 0
    harmed = np.flatnonzero(bad[_vital(evidence)].any(axis=0))
    loss = _bad_loss(evidence)
    steps = sorted({*evidence.steps[harmed].tolist(), *loss.tolist()})
    found = evidence.origin
    if found is not None and _says_more(found, evidence, steps):
        yield _finding(found, steps)
        return
    if not steps:
        return
    column = int(np.searchsorted(evidence.steps, steps[0]))
    measured = column < len(evidence.steps) and evidence.steps[column] == steps[0]
    origin = _origin(evidence, bad, column) if measured and bad[:, column].any() else _LOSS
    yield Finding(
        rule=RULE,
        site=origin.site,
        severity=Severity.ERROR,
        summary=f"the first values that are not finite come from {origin.how}, at step {steps[0]}",
        first_step=steps[0],
        last_step=steps[-1],
        evidence={"nonfinite": origin.amount, "bad_steps": float(len(steps))},
        hint=origin.hint,
    )


def _says_more(found: Origin, evidence: Evidence, bad_steps: list[int]) -> bool:
    """Whether running the pass again has shown more than the measured steps, of which an earlier one may be bad."""
    if bad_steps and bad_steps[0] < found.step:
        return False
    return found.sure or found.step not in evidence.steps


def _finding(found: Origin, bad_steps: list[int]) -> Finding:
    evidence = {"nonfinite": float(found.nonfinite or sum(one.nonfinite for one in found.culprits))}
    evidence["bad_steps"] = float(len({*bad_steps, found.step}))
    if found.culprits:
        one = found.culprits[0]
        numbers = {"zeros": one.zeros, "min": one.min, "max": one.max}
        evidence |= {name: float(number) for name, number in numbers.items() if number is not None}
    return Finding(
        rule=RULE,
        site=found.site,
        severity=Severity.ERROR,
        summary=f"{found}: the first values that are not finite, at step {found.step}",
        first_step=found.step,
        last_step=max((found.step, *bad_steps)),
        evidence=evidence,
        hint=advice(found),
    )


_LOSS = _Origin("loss", "the loss", "look at what the loss does with its input: log of 0, 0/0, sqrt at 0")


def _vital(evidence: Evidence) -> list[int]:
    """Rows in which nothing may ever be infinite; elsewhere the −Inf of an attention mask is fine."""
    return [
        row
        for row, site in enumerate(evidence.sites)
        if site.kind is Kind.PARAMETER or (site.kind is Kind.OUTPUT and not site.path)
    ]


def _origin(evidence: Evidence, bad: Bad, column: int) -> _Origin:
    now = bad[:, column] & ~bad[:, :column].any(axis=1)  # what was infinite before without harm is no cause now
    if not now.any():
        now = bad[:, column]
    finders = (_in_input, _in_parameter, _in_forward, _in_backward)
    return next(found for finder in finders if (found := finder(evidence, now, column)) is not None)


def _count(evidence: Evidence, row: int, column: int) -> float:
    return float(evidence.table("nonfinite")[row, column])


def _first(rows: list[int], bad: Bad) -> int | None:
    return next((row for row in rows if bad[row]), None)


def _in_input(evidence: Evidence, bad: Bad, column: int) -> _Origin | None:
    row = _first(evidence.rows(kind=Kind.INPUT, gradient=False), bad)
    if row is None:
        return None
    hint = "check the data before it is batched: `torch.isfinite(x).all()`; drop or fill what is missing"
    return _Origin("input", "the model's input", hint, _count(evidence, row, column))


def _in_parameter(evidence: Evidence, bad: Bad, column: int) -> _Origin | None:
    """A parameter that was bad before the pass: only if no measured step shows what made it so."""
    row = _first(evidence.rows(kind=Kind.PARAMETER, gradient=False), bad)
    if row is None:
        return None
    name = evidence.sites[row]
    hint = "an update or an initialisation made it so: measure every step (`trace(model, every=1)`) to see which"
    return _Origin(str(name), f"the parameter `{name}`", hint, _count(evidence, row, column))


def _in_forward(evidence: Evidence, bad: Bad, column: int) -> _Origin | None:
    row = _first(evidence.rows(kind=Kind.OUTPUT, gradient=False), bad)
    if row is None:
        return None
    path = evidence.sites[row].path
    if evidence.handed_nonfinite(path, int(evidence.steps[column])):
        parent = path.rpartition(".")[0]  # the module was handed them: an operation of its parent made them
        where = f"`{parent}`" if parent else "the model"
        how = f"an operation in the forward of {where}, before `{path}`"
        return _Origin(parent or ROOT, how, _FORWARD_HINT, _count(evidence, row, column))
    return _Origin(path or ROOT, f"the forward of `{path or ROOT}`", _FORWARD_HINT, _count(evidence, row, column))


_FORWARD_HINT = "look there for a division by 0, log or sqrt of 0 or less, exp of large values; clamp or add an epsilon"


def _in_backward(evidence: Evidence, bad: Bad, column: int) -> _Origin:
    """The module whose output's gradient is finite while that of its input is not."""
    measured = np.isfinite(evidence.table("count")[:, column])
    forward = evidence.rows(kind=Kind.OUTPUT, gradient=True)  # sites are numbered as the forward pass meets them
    rows = [row for row in reversed(forward) if measured[row]]
    row = _first(rows, bad)
    hint = "a backward formula divides by 0: sqrt or norm at 0, pow below 1 at 0, a masked log; add an epsilon inside"
    if row is None:  # only a parameter's gradient
        row = int(np.flatnonzero(bad)[0])
        path = evidence.sites[row].module
        return _Origin(path or ROOT, f"the backward of `{path or ROOT}`", hint, _count(evidence, row, column))
    before = rows[: rows.index(row)]
    if not before:
        return _Origin("loss", "the backward of the loss", hint, _count(evidence, row, column))
    path = evidence.sites[before[-1]].path
    return _Origin(path or ROOT, f"the backward of `{path or ROOT}`", hint, _count(evidence, row, column))


def _bad_loss(evidence: Evidence) -> npt.NDArray[np.int64]:
    if evidence.loss is None:
        return np.array([], np.int64)
    steps, values = evidence.loss
    return steps[~np.isfinite(values)]
