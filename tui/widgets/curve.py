"""A chart of curves over steps, with a crosshair."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from tui import palette
from tui.charts import plot as plots
from tui.charts.numbers import grouped, short
from tui.messages import StepPointed

if TYPE_CHECKING:
    from rich.style import Style
    from textual import events

STROKES = ("━", "╍")  # how the legend shows a line and a dashed one


class Curve(Widget, can_focus=True):
    """Series of one quantity; its border says what and how much.

    Args:
        quantity: what the chart shows, if one name stands for all series.
    """

    BINDING_GROUP_TITLE = "Chart"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "point(-1)", "Crosshair", show=False, id="chart.left"),
        Binding("right", "point(1)", "Crosshair", show=False, id="chart.right"),
        Binding("home", "point(-1000000)", "First step", show=False, id="chart.first"),
        Binding("end", "point(1000000)", "Last step", show=False, id="chart.last"),
        Binding("enter", "enlarge", "Enlarge", id="chart.enlarge"),
    ]
    ALLOW_MAXIMIZE = True
    DEFAULT_CSS = """
    Curve {
        border: round $surface-lighten-2;
        border-title-color: $text;
        border-subtitle-color: $text-muted;
        padding: 0 1 0 0;
        &:focus { border: round $primary; }
    }
    """

    series: reactive[tuple[plots.Series, ...]] = reactive((), always_update=True)
    logarithmic: reactive[bool] = reactive(False)
    pointed: reactive[int | None] = reactive(None)

    def __init__(self, quantity: str = "", *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.quantity = quantity
        self._picture: plots.Picture | None = None
        self._strips: list[Strip] = []
        self._is_stale = True

    def watch_series(self) -> None:
        """Draw other values."""
        self._redraw()

    def watch_logarithmic(self) -> None:
        """Draw on the other scale."""
        self._redraw()

    def watch_pointed(self) -> None:
        """Show the values at another step."""
        self._redraw()

    def on_resize(self) -> None:
        """Fit the new size."""
        self._redraw()

    def render_line(self, y: int) -> Strip:
        """One line of the picture, which is drawn once somebody sees it: most of two hundred charts are not."""
        self._draw()
        if y < len(self._strips):
            return self._strips[y]
        return Strip.blank(self.size.width, self.rich_style)

    def _redraw(self) -> None:
        if not self.is_mounted:
            return
        self.border_title = self._legend(self.size.width)
        self.border_subtitle = self._readout()
        self._is_stale = True
        self.refresh()

    def _draw(self) -> plots.Picture | None:
        """The picture as it is to be now; None if there is no room for one."""
        if not self._is_stale:
            return self._picture
        self._is_stale, self._picture, self._strips = False, None, []
        width, height = self.size
        if width >= plots.LEAST_WIDTH and height >= plots.LEAST_HEIGHT:
            self._picture = plots.plot(self.series, width, height, log=self.logarithmic, cursor=self.pointed)
            base = self.rich_style
            self._strips = [
                Strip([Segment(text, base + _style(what)) for text, what in line]) for line in self._picture.lines
            ]
        return self._picture

    def _legend(self, width: int) -> Content:
        log = " (log)" if self.logarithmic else ""
        if len(self.series) <= 1:
            name = self.quantity or (self.series[0].name if self.series else "")
            return Content(f"{name}{log}")
        parts: list[Content | tuple[str, str]] = []
        for number, one in enumerate(self.series):
            stroke = STROKES[number % 2] * 2
            parts += [(f"{stroke} ", palette.SERIES[number % len(palette.SERIES)]), Content(one.name), Content("  ")]
        return Content.assemble(*parts[:-1], Content(log)).truncate(max(4, width - 4), ellipsis=True)

    def _readout(self) -> Content:
        """The values under the crosshair; without one the newest, and how many are no numbers."""
        parts = []
        step = self.pointed
        for one in self.series:
            found = one.nearest(step if step is not None else 2**62)
            if found is not None:
                name = f"{one.name} " if len(self.series) > 1 else ""
                parts.append(f"{name}{short(found[1])}")
                step = found[0] if step is None else step
        if step is None:
            return Content("no value yet")
        if self.pointed is not None:
            parts.insert(0, f"step {grouped(step)}")
        elif warning := _not_numbers(self.series):
            return Content.assemble((warning, palette.NOT_A_NUMBER))
        return Content(" · ".join(parts))

    def point(self, column: int) -> None:
        """Put the crosshair on a column of the field."""
        if (picture := self._draw()) is not None:
            frame = picture.frame
            column = max(0, min(frame.columns - 1, column))
            self.post_message(StepPointed(frame.step(column)))

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Follow the mouse."""
        if (picture := self._draw()) is not None:
            offset = event.get_content_offset(self)
            if offset is not None:
                self.point(offset.x - picture.frame.gutter)

    def on_leave(self) -> None:
        """Take the crosshair away with the mouse."""
        if not self.has_focus:
            self.post_message(StepPointed(None))

    def on_blur(self) -> None:
        """Show that the keys go elsewhere."""
        self.post_message(StepPointed(None))

    def action_point(self, by: int) -> None:
        """Move the crosshair by a column; it begins at the newest step."""
        if (picture := self._draw()) is not None:
            frame = picture.frame
            at = frame.columns if self.pointed is None else frame.column(self.pointed)
            self.point(at + by)

    def action_enlarge(self) -> None:
        """Give the chart the whole screen, or back."""
        if self.screen.maximized is not None:
            self.screen.minimize()
        else:
            self.screen.maximize(self)


def _not_numbers(series: tuple[plots.Series, ...]) -> str:
    """How many values are no finite numbers, and since which step; empty if all are."""
    worst = [(one, ~np.isfinite(one.values)) for one in series]
    count = sum(int(bad.sum()) for _, bad in worst)
    if not count:
        return ""
    first = min(int(one.steps[bad][0]) for one, bad in worst if bad.any())
    nan = any(np.isnan(one.values).any() for one in series)
    inf = any(np.isinf(one.values).any() for one in series)
    what = " and ".join(name for name, has in (("NaN", nan), ("Inf", inf)) if has)
    return f"{plots.NAN_MARK} {grouped(count)} {what}, first at step {grouped(first)}"


@lru_cache(maxsize=64)
def _style(what: str) -> Style:
    fixed = {
        "": palette.style(),
        plots.AXIS: palette.style(palette.AXIS),
        plots.GRID: palette.style(palette.GRID),
        plots.CROSSHAIR: palette.style(palette.CROSSHAIR),
        plots.NOT_A_NUMBER: palette.style(palette.NOT_A_NUMBER),
        plots.INFINITE: palette.style(palette.INFINITE, bold=True),
    }
    if what in fixed:
        return fixed[what]
    number = int(what.removeprefix("band").removeprefix("line"))
    colors = palette.BANDS if what.startswith("band") else palette.SERIES
    return palette.style(colors[number % len(colors)])
