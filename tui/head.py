"""What is true of the whole run, whatever is looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensorscope.events import Kind, Severity
from tui.verdict import Paced, differences_of, findings_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tensorscope.run.reader import Run

WORST_FIRST = (Severity.ERROR, Severity.WARNING, Severity.INFO)
IN_ORDER = {"running", "finished", "interrupted"}  # states of a rank that need no word
RANKS_NAMED = 4  # of those that fare alike
RECENT = 50  # measured steps that the size of a batch is taken from

# What a note of the recorder, or of the reader, is about, if it is about the file: a part of it → the word.
_ABOUT_THE_FILE = {
    "the disk failed": "the disk failed for a while",
    "ends early": "a file ends early",
    "damaged": "a file is damaged",
    "belongs to another run": "a log is missing",
}


@dataclass(frozen=True, slots=True)
class Head:
    """What is true of the whole run, whatever is looked at.

    Attributes:
        name: of the run's folder.
        model: class name of the traced model; empty if unknown.
        status: `running`, `finished`, `interrupted` or `died`.
        error: what ended it; empty if nothing did.
        last_step: newest step, −1 before the first.
        rate: steps in a second, None if unknown.
        notes: how many problems there were while recording.
        worst: severity of its worst finding, None without one.
        findings: how many findings.
        reports: how many shape errors were explained.
        sampling: which steps are measured; empty if unknown.
        budget: the share of a step that measuring may take; empty if the interval was given.
        samples: samples in one step, over all ranks; None if the model's input does not tell.
        ranks: how many ranks wrote a file.
        warnings: what is wrong with the recording itself, in a few words each.
    """

    name: str
    model: str
    status: str
    error: str
    last_step: int
    rate: float | None
    notes: int
    worst: Severity | None
    findings: int
    reports: int = 0
    sampling: str = ""
    budget: str = ""
    samples: int | None = None
    ranks: int = 1
    warnings: tuple[str, ...] = ()


def head_of(run: Run, rate: float | None) -> Head:
    """Read what is true of the whole run."""
    meta = run.meta
    findings = findings_of(run)
    notes = run.notes
    return Head(
        name=run.path.resolve().name,
        model=str(meta.get("model", "")),
        status=run.status,
        error=str(meta.get("error") or ""),
        last_step=run.last_step,
        rate=rate,
        notes=len(notes),
        worst=next((s for s in WORST_FIRST if any(f.severity is s for f in findings)), None),
        findings=len(findings),
        reports=len(run.reports),
        sampling=sampling(meta),
        budget=budget(meta),
        samples=_samples(run),
        ranks=len(run.ranks),
        warnings=warnings_of(run, notes),
    )


def sampling(meta: Mapping[str, Any]) -> str:
    """Which steps are measured now: `every step`, `every 8th step`; empty if the run does not say."""
    interval = meta.get("every") or meta.get("interval")
    if interval is None and ("overhead" in meta or "every" in meta):
        interval = 1  # an interval that adapts begins with every step
    if not isinstance(interval, int):
        return ""
    return "every step" if interval == 1 else f"every {ordinal(interval)} step"


def budget(meta: Mapping[str, Any]) -> str:
    """The share of a bare step that measuring may take; empty where the interval was given and nothing adapts."""
    share = meta.get("overhead")
    return f"{100 * share:.3g} % budget" if isinstance(share, int | float) and not meta.get("every") else ""


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `8th`, `11th`."""
    last = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{last}"


def samples_of(run: Run) -> int | None:
    """Samples in a usual recent step, over all its passes and ranks; None if the model's input does not tell."""
    site = next((s for s in run.sites if s.kind is Kind.INPUT and not (s.path or s.call or s.gradient)), None)
    shape = run.last_shapes().get(site) if site is not None else None
    if site is None or shape is None or len(shape.dims) < 2:
        return None
    axis = shape.names.index("batch") if "batch" in shape.names else 0
    each = math.prod(shape.dims[:axis] + shape.dims[axis + 1 :])
    interval = run.meta.get("every") or run.meta.get("interval") or 1
    counts = run.envelope(site, "count", 1, first=max(0, run.last_step - RECENT * interval)).high
    if each <= 0 or not len(counts) or not counts[0] >= each or counts[0] % each:
        return None
    return int(counts[0]) // each


_samples = Paced(samples_of)  # of many sites, reading their shapes takes a while


def warnings_of(run: Run, notes: Sequence[tuple[int, str]]) -> tuple[str, ...]:
    """What is wrong with the recording: frames left out, a disk or file in trouble, ranks that died or differ."""
    found = []
    if dropped := run.dropped:
        found.append(f"{dropped} frame{'s' if dropped > 1 else ''} dropped")
    found += dict.fromkeys(
        word for _, text in notes for part, word in _ABOUT_THE_FILE.items() if part in text.partition(": ")[0]
    )
    states = run.rank_states
    fares: dict[str, list[int]] = {}
    for number, state in states.items():
        fares.setdefault(state.status, []).append(number)
    if len(states) > 1:
        found += [_fare(status, numbers) for status, numbers in fares.items() if status not in IN_ORDER]
    elif "silent" in fares:
        found.append("nothing written for a while")
    differences = differences_of(run)
    if differences:
        found.append(f"ranks differ since step {min(found.first_step for found in differences)}")
    return tuple(found)


def _fare(status: str, numbers: list[int]) -> str:
    named = ", ".join(map(str, numbers[:RANKS_NAMED])) + (" …" if len(numbers) > RANKS_NAMED else "")
    many = len(numbers) > 1
    said = {
        "damaged": "cannot be read",
        "missing": "have left no file" if many else "has left no file",
        "silent": "are silent" if many else "is silent",
    }
    return f"rank{'s' if many else ''} {named} {said.get(status, status)}"
