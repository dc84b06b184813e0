"""The account of a run as text: what was trained, its layers and how they fare, what is wrong."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tensorscope.events import ROOT, Finding, Kind, Severity, Shape, Site, Stats
from tui.facts import difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tensorscope.run.reader import Run

PIPE_WIDTH = 120  # columns when nobody says how wide the output is
STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
LONGEST_SHAPE = 41  # characters of a shape with names
DIFFERENCES = 5  # parameters that differ between ranks, and are told
BAR = 10  # characters of the longest gradient bar


def print_report(run: Run, findings: Sequence[Finding], console: Console | None = None) -> None:
    """Print the account of a run: coloured tables on a terminal, plain text in a pipe."""
    console = console or Console(highlight=False)
    if not console.is_terminal and console.file is sys.stdout:
        console = Console(file=console.file, width=PIPE_WIDTH, highlight=False, no_color=True)
    console.print(report(run, findings))


def report(run: Run, findings: Sequence[Finding]) -> RenderableType:
    """The account of a run as something Rich can print."""
    return Group(_heading(run), Text(), _layers(run), *_scalars(run), *_notes(run), Text(), _findings(run, findings))


def _heading(run: Run) -> Text:
    meta = run.meta
    steps, measured = run.last_step + 1, run.measured
    text = Text.assemble((str(meta.get("model", "?")), "bold"), f"  {run.path}\n")
    facts = [f"{steps} steps", f"{measured} measured", f"{sum(m.parameters for m in run.modules):,} parameters"]
    facts += [f"{count} {name}" for count, name in ((len(run.ranks), "ranks"), (len(run.parts), "parts")) if count > 1]
    if "ended" in meta:
        facts.append(f"{meta['ended'] - meta['created']:.0f} s")
    text.append(f"{run.status}", "red" if run.status == "died" else "green")
    text.append(f" · {' · '.join(facts)}")
    if "error" in meta:
        text.append(f"\n{meta['error']}", "red")
    return text


def _layers(run: Run) -> Table:
    """One line per module call: what it returned, and the gradient that came back to it."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", collapse_padding=True)
    table.add_column("module", overflow="fold", min_width=8)
    table.add_column("type", overflow="ellipsis", no_wrap=True)
    table.add_column("output", overflow="fold", min_width=14)
    for name in ("params", "mean", "std", "zero", "gradient"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    stats, shapes = run.stats_at(), run.last_shapes()
    modules = {module.path: module for module in run.modules}
    seen = [site for site in run.sites if not site.gradient and site.kind in (Kind.OUTPUT, Kind.INPUT)]
    sites = sorted(seen, key=lambda site: (site.kind is not Kind.INPUT, not site.path))  # in the order of the data
    largest, smallest = _gradient_range(stats, sites)
    for site in sites:
        module = modules.get(site.path)
        is_input = site.kind is Kind.INPUT
        gradient = stats.get(site.grad)
        table.add_row(
            "input" if site == f"{ROOT}:input" else str(site),
            "" if is_input or module is None else module.type,
            _shape(shapes.get(site)),
            f"{module.parameters:,}" if module and module.parameters and not is_input else "",
            *_numbers(stats.get(site)),
            _magnitude(gradient),
            _bar(gradient, largest, smallest),
        )
    return table


def _shape(shape: Shape | None) -> str:
    """With the axes' names where that stays short."""
    named = "" if shape is None else str(shape)
    return named if shape is None or len(named) <= LONGEST_SHAPE else str(replace(shape, names=()))


def _numbers(stats: Stats | None) -> tuple[str | Text, str, str]:
    if stats is None:
        return "", "", ""
    if stats.nonfinite:
        return Text(f"{stats.nonfinite} NaN/Inf", "bold red"), "", ""
    zero = "" if math.isnan(stats.zero_fraction) else f"{stats.zero_fraction:.0%}"
    return f"{stats.mean:.3g}", f"{stats.std:.3g}", zero


def _magnitude(gradient: Stats | None) -> str | Text:
    if gradient is None:
        return ""
    return Text("NaN/Inf", "bold red") if gradient.nonfinite else f"{gradient.rms:.1e}"


def _gradient_range(stats: dict[Site, Stats], sites: list[Site]) -> tuple[float, float]:
    logs = [math.log10(g.rms) for site in sites if (g := stats.get(site.grad)) and not g.nonfinite and g.rms > 0]
    return (max(logs), min(logs)) if logs else (0.0, 0.0)


def _bar(gradient: Stats | None, largest: float, smallest: float) -> Text:
    """Gradient on a log scale, at least a decade wide per two characters, so that small differences look small."""
    if gradient is None or gradient.nonfinite or not gradient.rms > 0:
        return Text()
    decades = max(largest - smallest, BAR / 2)
    length = BAR - round((largest - math.log10(gradient.rms)) / decades * (BAR - 1))
    return Text("━" * max(1, length), "blue")


def _scalars(run: Run) -> list[RenderableType]:
    names = run.scalar_names
    if not names:
        return []
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("logged")
    for name in ("first", "best", "last"):
        table.add_column(name, justify="right")
    newest = run.last_scalars()
    for name in (name for name in names if name in newest):
        curve, last = run.scalar_envelope(name, 1), newest[name][1]
        begin = run.scalar_envelope(name, 1, last=int(curve.steps[0]))
        first = float(begin.low[0])
        best = float(curve.high[0] if last > first else curve.low[0])
        table.add_row(name, *(f"{value:.4g}" for value in (first, best, last)))
    return [Text(), table]


def _notes(run: Run) -> list[RenderableType]:
    notes = [f"step {step}: {text}" for step, text in run.notes]
    if run.dropped:
        notes.append(f"{run.dropped} frames were left out: the disk did not keep up")
    notes += [f"ranks differ: {difference(found)}" for found in run.rank_differences()[:DIFFERENCES]]
    return [Text(), *(Text(f"note  {note}", "yellow") for note in notes)] if notes else []


def _findings(run: Run, findings: Sequence[Finding]) -> RenderableType:
    if not findings:
        measured = run.measured
        return Text(
            f"✓ no findings in {measured} measured steps: gradients, rectifiers and finiteness are in order", "green"
        )
    return Group(*(Padding(_finding(finding), (0, 0, 1, 0)) for finding in findings))


def _finding(finding: Finding) -> Text:
    text = Text.assemble((f"{finding.severity} {finding.rule}", STYLES[finding.severity]))
    text.append(f"  {finding.site or 'whole program'}\n", "bold")
    text.append(f"  {finding.summary}\n")
    numbers = " · ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in finding.evidence.items())
    text.append(f"  steps {finding.first_step}–{finding.last_step} · {numbers}\n", "dim")
    text.append(f"  hint: {finding.hint}")
    return text
