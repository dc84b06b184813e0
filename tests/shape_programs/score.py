"""Print what reports say about every program: `python tests/shape_programs/score.py [NAME…] [--show NAME]`."""

from __future__ import annotations

import logging
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from shape_programs import CORPUS, UNRELATED
from shape_programs.judgement import COLUMNS as JUDGED
from shape_programs.judgement import judge, tried
from shape_programs.record import Case, start
from tensorscope import explain
from tensorscope.reports import ShapeReport

COLUMNS = (*JUDGED, "runs")  # runs: every tried fix, written into the source, runs for real
MARKS = {True: "✓", False: "✗", None: "·"}


@dataclass
class Row:
    case: Case
    marks: dict[str, bool | None]
    seconds: float
    said: str = ""
    crash: str = ""


def explained(case: Case) -> tuple[ShapeReport | None, float, str]:
    """The report, the seconds it took, and the traceback where explaining itself raised."""
    error = start(case.build).fail()
    before = time.perf_counter()
    try:
        report = explain(error)
    except Exception:
        return None, time.perf_counter() - before, traceback.format_exc()
    return report, time.perf_counter() - before, ""


def row(case: Case) -> Row:
    report, seconds, crash = explained(case)
    said = f"{report.op} in {report.module!r}" if report else "None"
    marks = judge(case, report) | {"runs": tried(case, report)}
    return Row(case, marks, seconds, said, crash)


def table(rows: list[Row]) -> str:
    width = max((len(row.case.name) for row in rows), default=4)
    lines = [f"{'':<15} {'':<{width}} " + " ".join(f"{name[:8]:<8}" for name in COLUMNS) + " seconds  said"]
    for row in rows:
        marks = " ".join(f"{MARKS[row.marks[name]]:<8}" for name in COLUMNS)
        crash = f"  CRASH {row.crash.splitlines()[-1]}" if row.crash else ""
        bad = "" if all(mark is not False for mark in row.marks.values()) else row.said
        lines.append(
            f"{row.case.family:<15} {row.case.name:<{width}} {marks} {row.seconds:7.2f}  {bad}{crash}".rstrip()
        )
    totals = (_total([row.marks[name] for row in rows]) for name in COLUMNS)
    lines.append(
        f"{'':<15} {'total':<{width}} "
        + " ".join(f"{total:<8}" for total in totals)
        + f" {sum(r.seconds for r in rows):7.2f}"
    )
    return "\n".join(lines)


def _total(marks: list[bool | None]) -> str:
    asked = [mark for mark in marks if mark is not None]
    return f"{sum(asked)}/{len(asked)}"


def left_alone(cases: list[Case]) -> str:
    lines = [f"\nerrors about something else, to be left alone ({len(cases)}):"]
    for case in cases:
        report, seconds, crash = explained(case)
        said = crash.splitlines()[-1] if crash else f"REPORTED {report.title}" if report else "ok"
        lines.append(f"  {case.name:<40} {seconds:7.2f}  {said}")
    return "\n".join(lines)


def show(case: Case) -> str:
    report, seconds, crash = explained(case)
    error = start(case.build).fail()
    return f"--- {case.name} ({case.family}, {seconds:.2f} s): {type(error).__name__}: {error}\n\n{report or crash}\n"


def main(words: list[str]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
    every = [*CORPUS, *UNRELATED]
    showing, words = "--show" in words, [word for word in words if word != "--show"]
    chosen = [case for case in every if not words or any(word in f"{case.family}/{case.name}" for word in words)]
    if showing:
        print("\n".join(map(show, chosen)))
        return
    rows = [row(case) for case in chosen if not case.unrelated]
    print(table(rows))
    crashes = {found.crash.splitlines()[-1]: found for found in rows if found.crash}
    for found in crashes.values():
        print(f"\n{found.case.name}\n{found.crash}")
    if others := [case for case in chosen if case.unrelated]:
        print(left_alone(others))


if __name__ == "__main__":
    main(sys.argv[1:])
