"""What a run says about itself, printed: the facts in sections, and a table of what its modules cost."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tensorscope.events import ROOT, Kind
from tui.charts.bars import across
from tui.charts.numbers import amount, percent
from tui.costs import Cost, costs_of
from tui.facts import sections_of, speed_of
from tui.gauges import memory, seconds
from tui.report import PIPE_WIDTH
from tui.verdict import differences_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tensorscope.run.reader import Run
    from tui.facts import Section

BAR = 10  # characters of the longest bar


def print_account(run: Run, console: Console | None = None) -> None:
    """Print the facts: styled on a terminal, plain text in a pipe."""
    console = console or Console(highlight=False)
    if not console.is_terminal and console.file is sys.stdout:
        console = Console(file=console.file, width=PIPE_WIDTH, highlight=False, no_color=True)
    heading = Text(str(run.path), "bold")
    console.print(Group(heading, Text(), *map(_section, sections_of(run)), _modules(run)))


def as_data(run: Run) -> dict[str, Any]:
    """The facts as a program wants them: JSON-able, with NaN as None; seconds, bytes, steps."""
    outputs = _output(run)
    data = {
        "run": str(run.path),
        "status": run.status,
        "steps": run.last_step + 1,
        "measured": run.measured,
        "dropped": run.dropped,
        "speed": speed_of(run),
        "meta": run.meta,
        "optimizers": run.optimizers,
        "modes": run.modes,
        "parts": [{"first_step": first, "status": status} for first, status in run.parts],
        "ranks": {str(number): state._asdict() for number, state in run.rank_states.items()},
        "differences": [
            {"site": str(found.site), "first_step": found.first_step, "ranks": sorted(found.values)}
            for found in differences_of(run)
        ],
        "notes": [{"step": step, "text": text} for step, text in run.notes],
        "modules": {
            path or ROOT: asdict(cost) | {"output_bytes": outputs.get(path, 0)} for path, cost in costs_of(run).items()
        },
    }
    return {key: _finite(value) for key, value in data.items()}


def _finite(value: Any) -> Any:
    """JSON has no word for NaN and Inf."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _section(section: Section) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for label, text in section.rows:
        table.add_row(f"  {label}", Text(text))
    return Group(Text(section.title, "bold"), table, Text())


def _modules(run: Run) -> RenderableType:
    """One line per module, in the model's order, with all that is inside it."""
    costs, outputs = costs_of(run), _output(run)
    timed = any(not math.isnan(cost.share) for cost in costs.values())
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", collapse_padding=True)
    table.add_column("module", overflow="fold", min_width=8)
    table.add_column("type", overflow="ellipsis", no_wrap=True)
    for name in (*(("forward", "backward", "time") if timed else ()), "FLOPs", "params", "weights", "output"):
        table.add_column(name, justify="right", no_wrap=True)
    if timed:
        table.add_column("", no_wrap=True)
    for module in run.modules:
        cost = costs.get(module.path, Cost())
        times = (seconds(cost.forward), seconds(cost.backward), percent(cost.share)) if timed else ()
        counts = (amount(n) if n else "" for n in (cost.flops, cost.parameters))
        sizes = (memory(n) if n else "" for n in (cost.bytes, outputs.get(module.path, 0)))
        bar = (Text(across(0.0 if math.isnan(cost.share) else cost.share, BAR), "blue"),) if timed else ()
        table.add_row(module.path or ROOT, module.type, *times, *counts, *sizes, *bar)
    note = "" if timed else "  (not timed)"
    return Group(Text(f"Modules{note}", "bold"), table)


def _output(run: Run) -> dict[str, int]:
    """Module path → bytes of all its output tensors."""
    found: dict[str, int] = {}
    for site, shape in run.last_shapes().items():
        if site.kind is Kind.OUTPUT and not site.gradient:
            found[site.path] = found.get(site.path, 0) + shape.nbytes
    return found
