"""Distributions of one tensor: its bars at one step, and its course over all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.segment import Segment
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from tui import palette
from tui.charts.bars import bars, rebinned, span_of
from tui.charts.course import course
from tui.charts.numbers import amount, grouped, short

if TYPE_CHECKING:
    from tensorscope.events import Histogram
    from tui.widgets.rows import Piece

Histograms = tuple[tuple[int, "Histogram"], ...]
GUTTER = 9  # room for a number beside the course


class Distribution(Widget):
    """What both pictures share: histograms with their steps, and strips made from them."""

    DEFAULT_CSS = """
    Distribution {
        border: round $surface-lighten-2;
        border-title-color: $text;
        border-subtitle-color: $text-muted;
        padding: 0 1 0 0;
    }
    """

    histograms: reactive[Histograms] = reactive((), always_update=True)
    pointed: reactive[int | None] = reactive(None)

    def __init__(self) -> None:
        super().__init__()
        self._strips: list[Strip] = []

    def pieces(self, width: int, height: int) -> list[list[Piece]]:
        """The lines of the picture."""
        raise NotImplementedError

    def watch_histograms(self) -> None:
        """Draw other values."""
        self.redraw()

    def watch_pointed(self) -> None:
        """Show the values at another step."""
        self.redraw()

    def on_resize(self) -> None:
        """Fit the new size."""
        self.redraw()

    def redraw(self) -> None:
        """Make the picture anew."""
        if not self.is_mounted:
            return
        width, height = self.size
        lines: list[list[Piece]] = []
        if not self.histograms:
            self.border_subtitle = "no histogram recorded"
        elif width > GUTTER * 2 and height > 1:
            lines = self.pieces(width, height)
        base = self.rich_style
        self._strips = [
            Strip([Segment(text, base + style) for text, style in line]).adjust_cell_length(width, base)
            for line in lines
        ]
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """One line of the picture."""
        return self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width, self.rich_style)

    def chosen(self) -> tuple[int, Histogram]:
        """The histogram nearest to the step pointed at; without one the newest."""
        if self.pointed is None:
            return self.histograms[-1]
        return min(self.histograms, key=lambda found: abs(found[0] - (self.pointed or 0)))


class Bars(Distribution):
    """The histogram at one step."""

    def pieces(self, width: int, height: int) -> list[list[Piece]]:
        """Bars as wide as the widget, above their smallest, largest and middle value."""
        step, found = self.chosen()
        edges, counts = np.array(found.edges), np.array(found.counts, np.float64)
        low, high = span_of(edges[:1], edges[-1:])
        across = width - 1
        if across >= len(counts):  # every stored bin as wide as fits: finer ones would make up what was not measured
            each = counts[np.arange(across) * len(counts) // across]
        else:
            each = rebinned(edges, counts, np.linspace(low, high, across + 1))
        lines = bars(each / max(each.max(), 1e-300), height - 1)
        self.border_subtitle = f"step {grouped(step)} · {amount(int(counts.sum()))} values"
        color = palette.style(palette.SERIES[0])
        text: list[list[Piece]] = [[(" ", palette.style()), (line, color)] for line in lines]
        return [*text, [(" " + labels(low, high, across), palette.style(palette.AXIS))]]


class Course(Distribution):
    """All histograms side by side."""

    def pieces(self, width: int, height: int) -> list[list[Piece]]:
        """Half-blocks, or shades where there is no colour."""
        colors = getattr(self.app, "palette_size", 64)
        lines, columns = height - 1, width - GUTTER
        table, low, high = course([found for _, found in self.histograms], lines * (2 if colors else 1), columns)
        levels = np.ceil(table * ((colors or len(palette.SHADES)) - 1)).astype(int)
        made: list[list[Piece]] = []
        for line in range(lines):
            label = short(high) if line == 0 else short(low) if line == lines - 1 else ""
            cells = _half_blocks(levels[2 * line], levels[2 * line + 1], colors) if colors else _shades(levels[line])
            made.append([(label.rjust(GUTTER - 1) + " ", palette.style(palette.AXIS)), *cells])
        first, last = (grouped(self.histograms[n][0]) for n in (0, -1))
        steps = first + last.rjust(columns - len(first)) if columns > len(first) + len(last) else ""
        made.append([("step ".rjust(GUTTER) + steps, palette.style(palette.AXIS))])
        self.border_subtitle = f"{len(self.histograms)} histograms"
        return made


def labels(low: float, high: float, width: int) -> str:
    """The ends of a span, and 0 or its middle between them if there is room."""
    left, right = short(low), short(high)
    middle = 0.0 if low < 0 < high else (low + high) / 2
    text = [" "] * width
    text[width - len(right) :] = right
    text[: len(left)] = left
    said = short(middle)
    start = round((middle - low) / (high - low) * (width - 1)) - len(said) // 2
    if len(left) + 1 < start and start + len(said) + 1 < width - len(right):
        text[start : start + len(said)] = said
    return "".join(text[:width])


def _half_blocks(upper: np.ndarray, lower: np.ndarray, colors: int) -> list[Piece]:
    ramp = palette.ramp(colors)
    pieces: list[Piece] = []
    for pair in zip(upper.tolist(), lower.tolist(), strict=True):
        top, bottom = (ramp[level] if level else "" for level in pair)
        if top:
            pieces.append(("▀", palette.style(top, bottom)))
        else:
            pieces.append(("▄" if bottom else " ", palette.style(bottom)))
    return pieces


def _shades(levels: np.ndarray) -> list[Piece]:
    return [("".join(palette.SHADES[level] for level in levels.tolist()), palette.style())]
