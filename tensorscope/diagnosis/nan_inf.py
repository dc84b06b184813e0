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
    site: str | None
    how: str
    hint: str
    amount: float = 0.0


def nan_inf(evidence: Evidence) -> Iterator[Finding]:
    """The origin of the first non-finite values that reached the loss, the output, a gradient or a parameter."""
    bad = np.nan_to_num(evidence.table("nonfinite")) > 0
    harmed = np.flatnonzero(_harmed(evidence, bad))
    loss = _bad_loss(evidence)
    steps = sorted({*evidence.steps[harmed].tolist(), *loss.tolist()})
    found, seen = evidence.origin, evidence.nonfinite
    if found is not None and _says_more(found, evidence, steps):
        yield _finding(found, steps, seen or {})
        return
    if seen is not None and (not steps or seen["first"] < steps[0]):
        origin, steps = _UNSEEN, sorted({seen["first"], *steps})
    elif not steps:
        return
    else:
        column = int(np.searchsorted(evidence.steps, steps[0]))
        measured = column < len(evidence.steps) and evidence.steps[column] == steps[0]
        origin = _origin(evidence, bad, column) if measured and bad[:, column].any() else _LOSS
    yield Finding(
        rule=RULE,
        site=origin.site,
        severity=Severity.ERROR,
        summary=f"the first values that are not finite come from {origin.how}, at step {steps[0]}",
        first_step=steps[0],
        last_step=_last(steps, seen or {}),
        evidence={"nonfinite": origin.amount, "bad_steps": float(_count_steps(steps, seen or {}))},
        hint=origin.hint,
    )


def _says_more(found: Origin, evidence: Evidence, bad_steps: list[int]) -> bool:
    """Whether running the pass again has shown more than the measured steps, of which an earlier one may be bad."""
    if bad_steps and bad_steps[0] < found.step:
        return False
    if found.sure or found.step not in evidence.steps:
        return True
    # Of a step that was found to be bad at its end, outputs were not measured any more.
    column = np.searchsorted(evidence.steps, found.step)
    outputs = evidence.rows(kind=Kind.OUTPUT, gradient=False)
    return not np.isfinite(evidence.table("count")[outputs, column]).any()


def _finding(found: Origin, bad_steps: list[int], seen: dict[str, int]) -> Finding:
    steps = sorted({*bad_steps, found.step})
    first = min(steps[0], seen.get("first", steps[0]))
    evidence = {"nonfinite": float(found.nonfinite or sum(one.nonfinite for one in found.culprits))}
    evidence["bad_steps"] = float(_count_steps(steps, seen))
    if found.culprits:
        one = found.culprits[0]
        numbers = {"zeros": one.zeros, "min": one.min, "max": one.max}
        evidence |= {name: float(number) for name, number in numbers.items() if number is not None}
    told = f"the first values that are not finite, at step {first}"
    return Finding(
        rule=RULE,
        site=found.site,
        severity=Severity.ERROR,
        summary=f"{found}: {told}" + (f", as it was seen at step {found.step}" if first < found.step else ""),
        first_step=first,
        last_step=_last(steps, seen),
        evidence=evidence,
        hint=advice(found),
    )


def _last(bad_steps: list[int], seen: dict[str, int]) -> int:
    return max(bad_steps[-1], seen.get("last", -1))


def _count_steps(bad_steps: list[int], seen: dict[str, int]) -> int:
    """How many steps went bad: those that were measured or logged, or all that the trace has looked at."""
    return max(len(bad_steps), seen.get("steps", 0))


_LOSS = _Origin("loss", "the loss", "look at what the loss does with its input: log of 0, 0/0, sqrt at 0")


_UNSEEN = _Origin(
    None,
    "what was not measured: a gradient, or what the model returned",
    "measure every step (`trace(model, every=1)`) to see where",
)


def _harmed(evidence: Evidence, bad: Bad) -> Bad:
    """The columns in which something is infinite that may not be; elsewhere the −Inf of an attention mask is fine."""
    returned = [row for row in evidence.rows(kind=Kind.OUTPUT, gradient=False) if not evidence.sites[row].path]
    gradients = evidence.rows(kind=Kind.PARAMETER, gradient=True)
    parameters = evidence.rows(kind=Kind.PARAMETER, gradient=False)
    # So is the −Inf of an action that a policy may not take: its output is infinite, and every gradient finite.
    learned = np.isfinite(evidence.table("count")[gradients]).any(axis=0) & ~bad[gradients].any(axis=0)
    unscaled = ~np.isin(evidence.steps, evidence.overflows)
    harmed: Bad = bad[parameters].any(axis=0) | (bad[gradients].any(axis=0) & unscaled)
    harmed |= bad[returned].any(axis=0) & ~learned
    return harmed


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
