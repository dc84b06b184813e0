"""A field of colour: sites down, steps across, with a cursor that says what a cell holds."""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from tui import palette
from tui.charts.heat import MISSING, NONFINITE, ZERO, scale_of
from tui.charts.mosaic import Mosaic, mosaic
from tui.charts.numbers import grouped, short, shortened
from tui.messages import SiteChosen

if TYPE_CHECKING:
    from textual import events

    from tensorscope.events import Site
    from tui.snapshot import Table
    from tui.widgets.rows import Piece

NAN_MARK, ZERO_MARK = "×", "·"
NAN_HALVES = {(True, True): "×", (True, False): "˟", (False, True): "ₓ"}  # (upper, lower) half holds no number
LABEL_WIDTH, FOOT = 30, 2  # the most that names take, and the lines below the field


class Heatmap(Widget, can_focus=True):
    """One statistic of many sites; two sites share a line where there are more sites than lines."""

    BINDING_GROUP_TITLE = "Field"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(0, -1)", "Up", show=False, id="field.up"),
        Binding("down,j", "move(0, 1)", "Down", show=False, id="field.down"),
        Binding("left,h", "move(-1, 0)", "Earlier", show=False, id="field.left"),
        Binding("right", "move(1, 0)", "Later", show=False, id="field.right"),
        Binding("pageup", "move(0, -10)", "Ten up", show=False, id="field.pageup"),
        Binding("pagedown", "move(0, 10)", "Ten down", show=False, id="field.pagedown"),
        Binding("z", "zoom", "Zoom", id="field.zoom"),
        Binding("enter", "choose", "Open", id="field.choose"),
    ]
    DEFAULT_CSS = """
    Heatmap {
        border: round $surface-lighten-2;
        border-title-color: $text;
        border-subtitle-color: $text;
        padding: 0 1;
        &:focus { border: round $primary; }
    }
    """

    table: reactive[Table | None] = reactive(None, always_update=True)
    zoomed: reactive[bool] = reactive(False)  # a line for every site, scrolled, instead of all on one screen

    def __init__(self) -> None:
        super().__init__(id="field")
        self.at_row, self.at_column = 0, 10**6  # the cursor: a pixel row, a column; at first on the newest step
        self._top = 0  # the first pixel row shown
        self._mosaic: Mosaic | None = None
        self._strips: list[Strip] = []
        self._colors = 0  # how many the terminal has for the field

    @property
    def columns(self) -> int:
        """Characters that the field is wide."""
        return max(1, self.size.width - self._label_width - 1)

    @property
    def lines(self) -> int:
        """Lines that the field is high."""
        return max(1, self.size.height - FOOT)

    @property
    def _label_width(self) -> int:
        longest = max((len(_label(site)) for site in self.table.sites), default=0) if self.table else LABEL_WIDTH
        return min(longest, LABEL_WIDTH, self.size.width // 3)

    def watch_table(self) -> None:
        """Draw other values."""
        self._redraw()

    def watch_zoomed(self) -> None:
        """Begin at the top of the other picture."""
        self.at_row = self._top = 0
        self._redraw()

    def on_resize(self) -> None:
        """Fit the new size."""
        self._redraw()

    def render_line(self, y: int) -> Strip:
        """One line of the picture."""
        return self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width, self.rich_style)

    def _redraw(self) -> None:
        table = self.table
        self._strips, self._mosaic = [], None
        self._colors = getattr(self.app, "palette_size", 64)
        if self.is_mounted and table is not None and table.values.size and self.size.width > 10:
            whole = self.zoomed or not self._colors
            self._mosaic = mosaic(table.values, self.lines, self.columns, whole=whole)
            self._clamp(self._mosaic)
            self._draw(table, self._mosaic)
        self.refresh()

    def _clamp(self, found: Mosaic) -> None:
        self.at_row = max(0, min(self.at_row, len(found.values) - 1))
        self.at_column = max(0, min(self.at_column, self.columns - 1))
        visible = self.lines * 2 if found.halves else self.lines // found.tall
        self._top = max(min(self._top, self.at_row), self.at_row - visible + 1, 0)

    def _draw(self, table: Table, found: Mosaic) -> None:
        scale = scale_of(table.values, self._colors or len(palette.SHADES) - 1)
        levels = scale.of(found.values)
        base = self.rich_style
        for line in range(self.lines):
            pixels = found.pixels(line + self._top * (1 if found.halves else found.tall))
            pieces = self._line(table, found, levels, pixels, line) if pixels else []
            strip = Strip([Segment(text, base + style) for text, style in pieces])
            self._strips.append(strip.adjust_cell_length(self.size.width, base))
        for pieces in (self._steps(table), self._legend(10**scale.low, 10**scale.high)):
            strip = Strip([Segment(text, base + style) for text, style in pieces])
            self._strips.append(strip.adjust_cell_length(self.size.width, base))
        self.border_subtitle = self._readout(table, found)

    def _line(self, table: Table, found: Mosaic, levels: np.ndarray, pixels: tuple[int, int], line: int) -> list[Piece]:
        upper, lower = pixels
        here = self.at_row in pixels
        site = int(found.rows[self.at_row if here else upper])
        label = shortened(_label(table.sites[site]), self._label_width).ljust(self._label_width)
        if not found.halves and line % found.tall:
            label = " " * self._label_width
        pieces = [(label + " ", palette.style("#ffffff" if here else palette.FADED, bold=here))]
        below = levels[lower] if lower < len(levels) else np.full(levels.shape[1], MISSING)
        cursor = self.at_column if here else -1
        marked_line = found.halves or line % found.tall == (found.tall - 1) // 2
        cells = zip(levels[upper].tolist(), below.tolist(), range(levels.shape[1]), strict=True)
        for (pair, marked), run in groupby(cells, lambda cell: (cell[:2], cell[2] == cursor and marked_line)):
            pieces.append(self._cells(pair, len(list(run)), marked=marked, upper=self.at_row == upper))
        return pieces

    def _cells(self, pair: tuple[int, int], width: int, *, marked: bool, upper: bool) -> Piece:
        """Equal cells side by side; the one under the cursor holds its sign."""
        if marked:
            level = pair[0 if upper else 1]
            light = level >= self._colors / 2 or level == NONFINITE
            return "◆", palette.style("#000000" if light and self._colors else "#ffffff", self._color(level), bold=True)
        bad = (pair[0] == NONFINITE, pair[1] == NONFINITE)
        if any(bad):
            return NAN_HALVES[bad] * width, palette.style("#000000", palette.NOT_A_NUMBER, bold=True)
        if pair[0] == pair[1]:
            return self._whole(pair[0]) * width, palette.style(palette.FADED, self._color(pair[0]))
        return "▀" * width, palette.style(self._color(pair[0]) or "#121212", self._color(pair[1]))

    def _whole(self, level: int) -> str:
        if level == ZERO:
            return ZERO_MARK
        if level == MISSING or self._colors:
            return " "
        return palette.SHADES[level + 1]

    def _color(self, level: int) -> str:
        if level == NONFINITE:
            return palette.NOT_A_NUMBER
        return palette.ramp(self._colors)[level] if level >= 0 and self._colors else ""

    def _steps(self, table: Table) -> list[Piece]:
        """The first, the middle and the last step below the field, and where the cursor is."""
        text = [" "] * self.columns
        last = len(table.steps) - 1
        for place in (0.0, 0.5, 1.0):
            label = grouped(int(table.steps[round(place * last)]))
            start = round(place * (self.columns - len(label)))
            if start >= 0 and not "".join(text[max(0, start - 1) : start + len(label) + 1]).strip():
                text[start : start + len(label)] = label
        name = "step".rjust(self._label_width)
        before, after = "".join(text[: self.at_column]), "".join(text[self.at_column + 1 :])
        faded = palette.style(palette.AXIS)
        here = text[self.at_column].replace(" ", "▲")
        return [(f"{name} {before}", faded), (here, palette.style("#ffffff", bold=True)), (after, faded)]

    def _legend(self, low: float, high: float) -> list[Piece]:
        faded = palette.style(palette.AXIS)
        pieces: list[Piece] = [(f"{short(low)} ".rjust(self._label_width + 1), faded)]
        if self._colors:
            pieces += [(" ", palette.style("", color)) for color in palette.ramp(16)]
        else:
            pieces.append((palette.SHADES[1:], palette.style()))
        pieces.append((f" {short(high)}   ", faded))
        pieces.append((NAN_MARK, palette.style("#000000", palette.NOT_A_NUMBER, bold=True)))
        room = self.size.width - sum(len(text) for text, _ in pieces)
        said = " NaN or Inf"
        for more in (f"   {ZERO_MARK} zero", "   blank: not measured"):
            said += more if len(said + more) <= room else ""
        return [*pieces, (said, faded)]

    def _readout(self, table: Table, found: Mosaic) -> str:
        row, column = found.strongest(table.values, self.at_row, self.at_column)
        value = float(table.values[row, column])
        said = "NaN or Inf" if math.isinf(value) else "not measured" if math.isnan(value) else f"rms {short(value)}"
        name = str(table.sites[row]).replace("[", r"\[")
        return f"{name} · step {grouped(int(table.steps[column]))} · {said}"

    def _point(self, x: int, y: int) -> bool:
        """Put the cursor on a place of the content; false outside the field."""
        if self._mosaic is None or x <= self._label_width or y >= self.lines:
            return False
        pixels = self._mosaic.pixels(y + self._top * (1 if self._mosaic.halves else self._mosaic.tall))
        if pixels is None:
            return False
        self.at_row, self.at_column = pixels[0], x - self._label_width - 1
        self._redraw()
        return True

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Follow the mouse."""
        if (offset := event.get_content_offset(self)) is not None:
            self._point(offset.x, offset.y)

    def on_click(self, event: events.Click) -> None:
        """Put the cursor there; a second click opens."""
        offset = event.get_content_offset(self)
        if offset is not None and self._point(offset.x, offset.y) and event.chain > 1:
            self.action_choose()

    def action_move(self, across: int, down: int) -> None:
        """Move the cursor."""
        self.at_column += across
        self.at_row += down
        self._redraw()

    def action_zoom(self) -> None:
        """Give every site a line of its own, or fit all of them on the screen."""
        self.zoomed = not self.zoomed

    def action_choose(self) -> None:
        """Open the site under the cursor."""
        if self._mosaic is not None and self.table is not None:
            row, _ = self._mosaic.strongest(self.table.values, self.at_row, self.at_column)
            self.post_message(SiteChosen(self.table.sites[row]))


def _label(site: Site) -> str:
    """A site's name; the border already says whether gradients are shown."""
    return site.removesuffix(":grad")
