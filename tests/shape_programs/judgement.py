"""Compare a report with what is known about its program."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shape_programs.record import Case, Dims, Started, build_from, source_of, start
from shape_programs.rewriting import versions, with_layer
from tensorscope.reports import Fix, OriginStep, ShapeReport

COLUMNS = ("module", "op", "operands", "line", "origin", "verified", "fix", "advice")
ASKED = COLUMNS[:-1]  # advice: what an untried fix says, which is as well left unsaid
Marks = dict[str, bool | None]


def judge(case: Case, report: ShapeReport | None) -> Marks:
    """For each column whether the report is right, None where the case asks nothing."""
    if report is None:
        return dict.fromkeys(COLUMNS, False)
    return {
        "module": report.module in case.module,
        "op": report.op in case.op,
        "operands": _all_there(case, report),
        "line": _line(case, report),
        "origin": _mentions(report, case.origin) if case.origin else None,
        "verified": any(fix.verified for fix in report.fixes) if case.verified else None,
        "fix": _any_fix(case, report) if case.fix and case.verified else None,
        "advice": _any_fix(case, report) if case.fix and not case.verified else None,
    }


def _all_there(case: Case, report: ShapeReport) -> bool:
    dims = {operand.dims for operand in report.operands}
    return all(dims & _alternatives(wanted) for wanted in case.operands)


def _alternatives(wanted: Dims | frozenset[Dims]) -> frozenset[Dims]:
    return wanted if isinstance(wanted, frozenset) else frozenset({wanted})


def _line(case: Case, report: ShapeReport) -> bool | None:
    if not case.line:
        return None
    where = report.where
    return where is not None and case.line in where.code and Path(where.file).name == f"programs_{case.family}.py"


def _mentions(report: ShapeReport, names: tuple[str, ...]) -> bool:
    told = [*map(_step, report.origin), report.formula or "", report.got]
    told += [f"{term} {said}" for term, said in report.terms]
    return any(name in text for name in names for text in told)


def _step(step: OriginStep) -> str:
    return f"{step.op} {step.module} {step.where.code if step.where else ''}"


def _any_fix(case: Case, report: ShapeReport) -> bool:
    """A tried fix is what counts where one is asked for; otherwise any that is offered."""
    texts = [fix.text for fix in report.fixes if fix.verified or not case.verified]
    return any(wanted in text for wanted in case.fix for text in texts)


# -- fixes, for real --


def tried(case: Case, report: ShapeReport | None) -> bool | None:
    """Whether each fix that is said to be tried also runs when it is written down; None where none can be followed."""
    asked = [fix for fix in (report.fixes if report else ()) if fix.verified]
    answers = [answer for fix in asked if (answer := fix_runs(case, fix)) is not None]
    return all(answers) if answers else None


def fix_runs(case: Case, fix: Fix) -> bool | None:
    """Whether the program runs with a fix in place; None where the sentence cannot be followed.

    A sentence that can mean several places is right if one of them is. A fix that was tried on its line only has to
    get past the error.
    """
    outcomes = [] if ", and likewise `" in fix.text else list(_outcomes(case, fix))  # several places at once
    if not outcomes:
        return None
    if fix.scope == "program":
        return None in outcomes
    return any(outcome != _failure(start(case.build)) for outcome in outcomes)


def _outcomes(case: Case, fix: Fix) -> Iterator[str | None]:
    """How the program fails, None for not, with the layer replaced, and with each source that the fix can mean."""
    started = start(case.build)
    if with_layer(started.models, fix):
        yield _failure(started)
    source = source_of(case)
    if Path(fix.where.rpartition(":")[0]).name == Path(source.file).name:
        for lines in versions(source.lines, fix):
            yield _failure(start(build_from(case, lines)))


def _failure(started: Started) -> str | None:
    try:
        started.run()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
