"""The first view: every logged scalar as a curve, what was found, and the newest values."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.reactive import reactive

from tui import palette
from tui.charts.numbers import short
from tui.snapshot import AskOverview, Overview
from tui.widgets.curve import Curve
from tui.widgets.notice import Words
from tui.widgets.views import View

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tui.charts.plot import Series
    from tui.messages import StepPointed
    from tui.snapshot import Answer, Head

CHART_WIDTH, CHART_HEIGHT = 38, 8  # the least that can be read
PLEASANT_HEIGHT = 10


class OverviewView(View):
    """Curves, findings, last values."""

    label = "Overview"
    BINDING_GROUP_TITLE = "Overview"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("l", "log", "Log scale", id="overview.log")]
    DEFAULT_CSS = """
    OverviewView {
        layout: horizontal;
        #charts { width: 1fr; scrollbar-size-vertical: 1; }
        #grid { layout: grid; grid-size: 1; height: auto; }
        #side { width: 36; height: 100%; }
        #side Words { border: round $surface-lighten-2; border-title-color: $text; height: auto; padding: 0 1; }
        &.-stacked { layout: vertical; }
        &.-stacked #charts { height: 1fr; width: 100%; }
        &.-stacked #side { width: 100%; height: auto; max-height: 4; }
        &.-stacked #values { display: none; }
        &.-stacked #side Words { border: none; height: auto; max-height: 4; }
    }
    """

    logarithmic: reactive[bool] = reactive(False)

    def __init__(self) -> None:
        super().__init__(id="overview")
        self._charts: dict[str, Curve] = {}
        self._grid = Container(id="grid")
        self._values = Words(id="values")
        self._findings = Words(id="summary")
        self._values.border_title = "Last values"
        self._findings.border_title = "Findings"

    def compose(self) -> ComposeResult:
        """Put the parts together."""
        with VerticalScroll(id="charts", can_focus=False):
            yield self._grid
        with Container(id="side"):
            yield self._findings
            yield self._values

    def question(self, until: int | None) -> AskOverview:
        """Scalars and findings."""
        return AskOverview(until)

    def show(self, answer: Answer, head: Head) -> None:
        """Update the charts that are there and add those that are new."""
        assert isinstance(answer, Overview)
        with self.app.batch_update():
            known = len(self._charts)
            for group in answer.charts:
                self._chart(group[0].name).series = group
            self._values.say(_last_values(answer.charts))
            self._findings.say(summary(answer, head))
            if len(self._charts) != known:
                self._arrange()

    def enter(self) -> None:
        """Focus the first chart."""
        if self._charts:
            next(iter(self._charts.values())).focus(scroll_visible=False)

    def _chart(self, name: str) -> Curve:
        if name not in self._charts:
            chart = self._charts[name] = Curve()
            chart.logarithmic = self.logarithmic
            self._grid.mount(chart)
            if len(self._charts) == 1 and self.screen.focused is None:
                chart.focus(scroll_visible=False)
        return self._charts[name]

    def on_resize(self) -> None:
        """Fit the new size."""
        self._arrange()

    def _arrange(self) -> None:
        """As many charts side by side as are pleasant, as high as the screen allows."""
        stacked = self.size.width < 100
        self.set_class(stacked, "-stacked")
        width = self.size.width - (0 if stacked else 36)
        height = self.size.height - (self._findings.size.height if stacked else 0)
        count = max(1, len(self._charts))
        most = max(1, min(count, width // CHART_WIDTH))
        fits = (n for n in range(1, most + 1) if -(-count // n) * PLEASANT_HEIGHT <= height)
        across = next(fits, most)
        down = -(-count // across)
        each = max(CHART_HEIGHT, height // down)
        for number, chart in enumerate(self._charts.values()):
            last = number == count - 1
            chart.styles.column_span = across - number % across if last else 1  # leaves no hole in the last row
        self._grid.styles.grid_size_columns = across
        self._grid.styles.grid_size_rows = down
        self._grid.styles.grid_rows = str(each)
        self._grid.styles.height = each * down

    def on_step_pointed(self, message: StepPointed) -> None:
        """Point at the same step everywhere."""
        message.stop()
        for chart in self._charts.values():
            chart.pointed = message.step

    def action_log(self) -> None:
        """Draw all curves on a logarithmic scale, or back."""
        self.logarithmic = not self.logarithmic
        for chart in self._charts.values():
            chart.logarithmic = self.logarithmic


def _last_values(charts: tuple[tuple[Series, ...], ...]) -> Content:
    series = [one for group in charts for one in group]
    if not series:
        return Content("nothing logged yet")
    width = max(len(one.name) for one in series)
    return Content("\n").join(
        Content.assemble((one.name.ljust(width + 2), "$text-muted"), (short(found[1]), "bold"))
        for one in series
        if (found := one.nearest(2**62)) is not None
    )


def healthy(head: Head) -> str:
    """Plain words where there is no finding."""
    if head.status == "running":
        return "Nothing wrong found so far."
    return "Nothing wrong was found." if head.status == "finished" else "No rule had fired before it ended."


def summary(answer: Overview, head: Head) -> Content:
    """The findings in one line each, or a plain word that there are none."""
    mark, color = palette.severity_mark("error")
    lines = [Content.assemble((f"{mark} ", f"bold {color}"), title) for title in answer.errors[:3]]
    if not answer.findings and not lines:
        return Content.assemble(("✓ ", palette.STATUS["running"][1]), healthy(head))
    for finding in answer.findings[:6]:
        mark, color = palette.severity_mark(finding.severity)
        where = f"{finding.site} " if finding.site and finding.site not in finding.summary else ""
        lines.append(Content.assemble((f"{mark} ", f"bold {color}"), (where, "bold"), finding.summary))
    return Content("\n").join(lines)
