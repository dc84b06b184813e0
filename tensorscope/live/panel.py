"""A shape report as a Rich panel, and the hook that shows it below the traceback of an error that nobody caught."""

from __future__ import annotations

import builtins
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

    from tensorscope.reports import ShapeReport

    Hook = Callable[[type[BaseException], BaseException, TracebackType | None], object]

WIDEST = 100  # columns; longer lines are hard to read
KEPT = 8  # reports whose notes are known

_reports: dict[str, ShapeReport] = {}  # text of the note → report; the errors themselves would keep tensors alive


def panel(report: ShapeReport) -> RenderableType:
    """A report as something Rich can print, at whatever width there is."""
    from rich.console import Group
    from rich.constrain import Constrain
    from rich.panel import Panel
    from rich.text import Text

    parts: list[RenderableType] = [Text(report.title, "bold"), Text(), _facts(report)]
    if report.fixes:
        parts += [Text(), _fixes(report)]
    box = Panel(Group(*parts), title=Text(" shape error ", "bold red"), title_align="left", border_style="red")
    return Constrain(box, WIDEST)


def rendered(report: ShapeReport, stream: TextIO) -> str:
    """What to write of a report: the panel on a terminal, plain text elsewhere."""
    if not stream.isatty():
        return f"{report}\n"
    from rich.console import Console

    console = Console(file=stream)
    with console.capture() as said:
        console.print(panel(report))
    return said.get()


def install(error: BaseException, report: ShapeReport) -> None:
    """Let the panel take the place of the report's note when `error` reaches `sys.excepthook` on a terminal.

    The hook that was there prints the traceback, and is put back afterwards. Other exceptions, pipes and IPython see
    nothing of it; it never raises.

    Args:
        error: the exception, with the report as a note (PEP 678), now or later.
        report: its explanation.
    """
    text = str(report)
    _reports.pop(text, None)
    _reports[text] = report
    while len(_reports) > KEPT:
        del _reports[next(iter(_reports))]
    if isinstance(error, Exception) and _on_terminal() and not isinstance(sys.excepthook, _Hook):
        sys.excepthook = _Hook(sys.excepthook)


def told(error: BaseException) -> ShapeReport | None:
    """The report that an error carries as a note, if it does."""
    notes = getattr(error, "__notes__", ())
    return next((report for text, report in _reports.items() if any(text in str(note) for note in notes)), None)


class _Hook:
    """Stands before the hook that was there."""

    def __init__(self, before: Hook) -> None:
        self.before = before

    def __call__(self, kind: type[BaseException], error: BaseException, frames: TracebackType | None) -> None:
        report, text = _panel_for(error)
        if report is None:
            self.before(kind, error, frames)
            return
        if sys.excepthook is self:
            sys.excepthook = self.before
        notes = error.__notes__
        error.__notes__ = [note for note in notes if str(report) not in str(note)]
        try:
            self.before(kind, error, frames)
        finally:
            error.__notes__ = notes
        sys.stderr.write(text)


def _panel_for(error: BaseException) -> tuple[ShapeReport | None, str]:
    """The report of an error and its panel; none if there is nothing to show, or it cannot be shown."""
    try:
        report = told(error)
        if report is not None and _on_terminal():
            return report, f"\n{rendered(report, sys.stderr)}"
    except Exception:  # noqa: BLE001  (the traceback must come, with the note as it is)
        return None, ""
    return None, ""


def _on_terminal() -> bool:
    if hasattr(builtins, "__IPYTHON__"):  # shows tracebacks in its own way
        return False
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except (ValueError, AttributeError):  # closed, or put in place by something that is no file
        return False


def _facts(report: ShapeReport) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    own: dict[str, RenderableType] = {}
    if report.operands:
        own["op"] = _operands(report)
    if report.origin:
        own["path"] = _path(report)
    for label, value in report.facts().items():
        table.add_row(label, own.get(label, Text(value)))
    return table


def _path(report: ShapeReport) -> RenderableType:
    """One flow for each operand that a way leads to."""
    from rich.console import Group

    ways: dict[str, list[str]] = {}
    for step in report.origin:
        ways.setdefault(step.operand, []).insert(0, str(step))
    return Group(*map(_Flow, ways.values()))


def _operands(report: ShapeReport) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from tensorscope.reports import shape_text

    table = Table.grid(padding=(0, 2, 0, 0))
    for operand in report.operands:
        shape = shape_text(operand.dims, operand.names)
        table.add_row(*(Text(cell) for cell in (operand.name, shape, operand.dtype, operand.device)))
    return Group(Text(report.op), table)


def _fixes(report: ShapeReport) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1, 0, 0))
    for fix in report.fixes:
        mark = Text("✓", "bold green") if fix.verified else Text("?", "bold yellow")
        table.add_row(mark, Text(str(fix)))
    return table


class _Flow:
    """Steps with arrows between them, broken between steps and never within a shape that fits."""

    def __init__(self, steps: list[str]) -> None:
        self.steps = steps

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        yield Text("\n".join(self._lines(options.max_width)), overflow="fold")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> object:
        from rich.measure import Measurement

        whole = len(" → ".join(self.steps))
        return Measurement(min(options.max_width, max(map(len, self.steps)) + 2), min(options.max_width, whole))

    def _lines(self, width: int) -> Iterator[str]:
        line = ""
        for step in self.steps:
            longer = f"{line} → {step}" if line else step
            if line and len(longer) > width:
                yield line
                longer = f"→ {step}"
            line = longer
        yield line
