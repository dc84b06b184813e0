"""The sixth view, of a run that met a shape error: the report in lines; enter leads to the layer a line is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content

from tui.explanation import Line, laid_out
from tui.messages import PlaceChosen
from tui.snapshot import AskReports, Reports
from tui.widgets.notice import Words
from tui.widgets.rows import Rows
from tui.widgets.views import View

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tensorscope.reports import ShapeReport
    from tui.head import Head
    from tui.snapshot import Answer
    from tui.widgets.rows import Piece


class ReportLines(Rows):
    """One report in lines of the screen's width."""

    BINDING_GROUP_TITLE = "Report"
    DEFAULT_CSS = "ReportLines { padding: 0 1; height: 1fr; scrollbar-gutter: stable; }"
    titled = False

    def __init__(self) -> None:
        super().__init__(id="lines")
        self.report: ShapeReport | None = None
        self._lines: list[Line] = []

    def explain(self, report: ShapeReport) -> None:
        """Show another report, from its first line on."""
        self.report = report
        self.changed()
        self.cursor = 0

    def changed(self) -> None:
        """Lay it out for the size that there is."""
        width, height = self.inner_width, self.size.height
        self._lines = laid_out(self.report, width, height) if self.report is not None and width > 0 else []
        super().changed()

    def count(self) -> int:
        """How many lines there are."""
        return len(self._lines)

    def pieces(self, index: int, width: int) -> list[Piece]:
        """What stands in a line."""
        return list(self._lines[index].pieces)

    def place(self, index: int) -> str:
        """The module that a line is about."""
        assert self.report is not None
        place = self._lines[index].place
        return self.report.module if place is None else place


class ReportView(View):
    """The newest report; with several, a key leads to the others."""

    label = "Report"
    needs_steps = False
    BINDING_GROUP_TITLE = "Report"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,n", "turn(1)", "Other report", key_display="→", id="report.next"),
        Binding("left,N", "turn(-1)", "Report before", show=False, id="report.before"),
    ]
    DEFAULT_CSS = """
    ReportView {
        #which { height: 1; padding: 0 1; color: $text-muted; display: none; }
        &.-several #which { display: block; }
    }
    """

    def __init__(self) -> None:
        super().__init__(id="report")
        self.reports: tuple[ShapeReport, ...] = ()
        self._at = 0
        self._lines = ReportLines()
        self._which = Words(id="which")

    def compose(self) -> ComposeResult:
        """Put the parts together."""
        yield self._which
        yield self._lines

    def question(self, until: int | None) -> AskReports:
        """The reports."""
        return AskReports()

    def show(self, answer: Answer, head: Head) -> None:
        """Show the newest one."""
        assert isinstance(answer, Reports)
        if answer.reports != self.reports:
            self.reports = answer.reports
            self.action_turn(-self._at)
            self.refresh_bindings()

    def enter(self) -> None:
        """Focus the lines."""
        self._lines.focus()

    def action_turn(self, by: int) -> None:
        """Show the report before or after this one."""
        if self.reports:
            self._at = (self._at + by) % len(self.reports)
            self._lines.explain(self.reports[self._at])
            self.set_class(len(self.reports) > 1, "-several")
            self._which.say(Content(f"report {self._at + 1} of {len(self.reports)}, the newest first"))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer to turn only where there are several."""
        return len(self.reports) > 1 if action == "turn" else super().check_action(action, parameters)

    def on_rows_chosen(self, message: Rows.Chosen) -> None:
        """Lead to the layer."""
        message.stop()
        self.post_message(PlaceChosen(self._lines.place(message.index)))
