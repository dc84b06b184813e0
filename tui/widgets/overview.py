"""The first view: every logged scalar as a curve, below them what the trace read off, findings and newest values."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.reactive import reactive

from tui import palette
from tui.charts.numbers import short
from tui.gauges import newest
from tui.snapshot import AskOverview, Overview
from tui.widgets.curve import Curve
from tui.widgets.notice import Words
from tui.widgets.views import View

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tui.charts.plot import Series
    from tui.head import Head
    from tui.messages import StepPointed
    from tui.snapshot import Answer

CHART_WIDTH, CHART_HEIGHT = 38, 8  # the least that can be read
PLEASANT_HEIGHT = 10
GAUGE_HEIGHT = 7
VALUES_SHOWN = 8  # newest values of gauges


class OverviewView(View):
    """Curves, findings, last values."""

    label = "Overview"
    BINDING_GROUP_TITLE = "Overview"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "log", "Log scale", id="overview.log"),
        Binding("m", "gauges", "More", tooltip="All gauges: settings, times, memory", id="overview.gauges"),
    ]
    DEFAULT_CSS = """
    OverviewView {
        layout: horizontal;
        #charts { width: 1fr; scrollbar-size-vertical: 1; }
        #grid, #gauges { layout: grid; grid-size: 1; height: auto; }
        #side { width: 36; height: 100%; }
        #side Words { border: round $surface-lighten-2; border-title-color: $text; height: auto; padding: 0 1; }
        &.-stacked { layout: vertical; }
        &.-stacked #charts { height: 1fr; width: 100%; }
        &.-stacked #side { width: 100%; height: auto; max-height: 4; }
        &.-stacked #values, &.-stacked #readings, #readings.-none { display: none; }
        &.-stacked #side Words { border: none; height: auto; max-height: 4; }
    }
    """

    logarithmic: reactive[bool] = reactive(False)
    everything: reactive[bool] = reactive(False)  # whether gauges are shown that do not move

    def __init__(self) -> None:
        super().__init__(id="overview")
        self._charts: dict[str, Curve] = {}
        self._gauges: dict[str, Curve] = {}
        self._moving: set[str] = set()
        self._grid, self._gauge_grid = Container(id="grid"), Container(id="gauges")
        self._values, self._readings = Words(id="values"), Words(id="readings")
        self._readings.border_title = "Gauges"
        self._findings = Words(id="summary")
        self._values.border_title = "Last values"
        self._findings.border_title = "Findings"

    def compose(self) -> ComposeResult:
        """Put the parts together."""
        with VerticalScroll(id="charts", can_focus=False):
            yield self._grid
            yield self._gauge_grid
        with Container(id="side"):
            yield self._findings
            yield self._values
            yield self._readings

    def question(self, until: int | None) -> AskOverview:
        """Scalars and findings."""
        return AskOverview(until)

    def show(self, answer: Answer, head: Head) -> None:
        """Update the charts that are there and add those that are new."""
        assert isinstance(answer, Overview)
        with self.app.batch_update():
            before = self._shown()
            self._mount(self._charts, self._grid, [group[0].name for group in answer.charts])
            self._mount(self._gauges, self._gauge_grid, [gauge.kind for gauge in answer.gauges])
            for group in answer.charts:
                self._charts[group[0].name].series = group
            for gauge in answer.gauges:
                chart = self._gauges[gauge.kind]
                chart.series = gauge.series
                if gauge.moves:
                    self._moving.add(gauge.kind)  # it stays there, also when one looks at an earlier step
                chart.display = self.everything or gauge.kind in self._moving
            self._values.say(_last_values(answer.charts))
            self._readings.say(_table(newest(answer.gauges)[:VALUES_SHOWN]))
            self._readings.set_class(not answer.gauges, "-none")
            self._findings.say(summary(answer, head))
            if self._shown() != before:
                self._arrange()

    def enter(self) -> None:
        """Focus the first chart."""
        if self._charts:
            next(iter(self._charts.values())).focus(scroll_visible=False)

    def _mount(self, charts: dict[str, Curve], grid: Container, names: list[str]) -> None:
        """Add the charts that are not there yet, all at once: hundreds one by one take seconds."""
        new = {name: Curve() for name in names if name not in charts}
        for chart in new.values():
            chart.logarithmic = self.logarithmic
        charts |= new
        grid.mount(*new.values())
        if charts is self._charts and len(charts) == len(new) > 0 and self.screen.focused is None:
            next(iter(new.values())).focus(scroll_visible=False)

    def _shown(self) -> list[Curve]:
        return [*self._charts.values(), *(chart for chart in self._gauges.values() if chart.display)]

    def on_resize(self) -> None:
        """Fit the new size."""
        self._arrange()

    def _arrange(self) -> None:
        """As many charts side by side as are pleasant, as high as the screen allows."""
        stacked = self.size.width < 100
        self.set_class(stacked, "-stacked")
        width = self.size.width - (0 if stacked else 36)
        height = self.size.height - (self._findings.size.height if stacked else 0)
        gauges = [chart for chart in self._gauges.values() if chart.display]
        below = -(-len(gauges) // max(1, width // CHART_WIDTH)) * GAUGE_HEIGHT
        self._arrange_grid(self._gauge_grid, gauges, width, below, GAUGE_HEIGHT)
        charts = list(self._charts.values())
        least = -(-len(charts) // max(1, width // CHART_WIDTH)) * PLEASANT_HEIGHT
        room = height - below if height - below >= least else height  # else they are to be scrolled to
        self._arrange_grid(self._grid, charts, width, room, PLEASANT_HEIGHT)

    def _arrange_grid(self, grid: Container, charts: list[Curve], width: int, height: int, pleasant: int) -> None:
        count = max(1, len(charts))
        most = max(1, min(count, width // CHART_WIDTH))
        fits = (n for n in range(1, most + 1) if -(-count // n) * pleasant <= height)
        across = next(fits, most)
        down = -(-count // across)
        each = max(min(pleasant, CHART_HEIGHT), height // down)
        for number, chart in enumerate(charts):
            last = number == count - 1
            chart.styles.column_span = across - number % across if last else 1  # leaves no hole in the last row
        grid.styles.grid_size_columns = across
        grid.styles.grid_size_rows = down
        grid.styles.grid_rows = str(each)
        grid.styles.height = each * down if charts else 0

    def on_step_pointed(self, message: StepPointed) -> None:
        """Point at the same step everywhere."""
        message.stop()
        for chart in self._shown():
            chart.pointed = message.step

    def action_log(self) -> None:
        """Draw all curves on a logarithmic scale, or back."""
        self.logarithmic = not self.logarithmic
        for chart in (*self._charts.values(), *self._gauges.values()):
            chart.logarithmic = self.logarithmic

    def action_gauges(self) -> None:
        """Show every gauge, or only those that move."""
        self.everything = not self.everything
        for kind, chart in self._gauges.items():
            chart.display = self.everything or kind in self._moving
        self._arrange()
        if self.everything and self._gauges:
            self.call_after_refresh(next(iter(self._gauges.values())).focus)


def _last_values(charts: tuple[tuple[Series, ...], ...]) -> Content:
    series = [one for group in charts for one in group]
    if not series:
        return Content("nothing logged yet")
    return _table([(one.name, short(found[1])) for one in series if (found := one.nearest(2**62)) is not None])


def _table(rows: list[tuple[str, str]]) -> Content:
    width = max((len(name) for name, _ in rows), default=0)
    return Content("\n").join(
        Content.assemble((name.ljust(width + 2), "$text-muted"), (text, "bold")) for name, text in rows
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
