"""Composes a picture of curves: axes, grid, envelopes, lines, marks for what is no number, and a crosshair."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tui.charts import braille
from tui.charts.axes import Axis, Tick, axis_of
from tui.charts.envelope import Envelope, columns_of, envelope
from tui.charts.numbers import grouped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    Steps = npt.NDArray[np.int64]
    Values = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]

# What a piece of a picture is; the widget chooses the colour.
AXIS, GRID, NOT_A_NUMBER, INFINITE, CROSSHAIR = "axis", "grid", "nan", "inf", "crosshair"
NAN_MARK, ABOVE_MARK, BELOW_MARK, BOTH_MARK = "×", "▲", "▼", "*"

Line = list[tuple[str, str]]  # (text, what it is) pieces of one line of a picture

LEAST_WIDTH, LEAST_HEIGHT = 12, 4


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Values over steps.

    Attributes:
        name: how the legend calls it.
        steps: (values,) ascending.
        values: (values,) any float.
        low: (values,) lower edge of a band that belongs to the values, or None.
        high: (values,) upper edge of it.
    """

    name: str
    steps: Steps
    values: Values
    low: Values | None = None
    high: Values | None = None

    def up_to(self, step: int | None) -> Series:
        """The part of it that was known at a step."""
        if step is None or not len(self.steps) or self.steps[-1] <= step:
            return self
        end = int(np.searchsorted(self.steps, step, side="right"))
        cut = [None if part is None else part[:end] for part in (self.low, self.high)]
        return Series(self.name, self.steps[:end], self.values[:end], *cut)

    def scaled(self, name: str, factor: float) -> Series:
        """The same under another name, in another unit."""
        edges = [None if part is None else part * factor for part in (self.low, self.high)]
        return Series(name, self.steps, self.values * factor, *edges)

    def nearest(self, step: int) -> tuple[int, float] | None:
        """The value at the step nearest to the one asked for."""
        if not len(self.steps):
            return None
        after = int(np.clip(np.searchsorted(self.steps, step), 0, len(self.steps) - 1))
        before = max(0, after - 1)
        near = min((before, after), key=lambda n: abs(int(self.steps[n]) - step))
        return int(self.steps[near]), float(self.values[near])


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the field of a picture lies and which steps it spans."""

    width: int
    rows: int
    gutter: int
    first: int
    last: int

    @property
    def columns(self) -> int:
        """Characters across the field."""
        return self.width - self.gutter

    def column(self, step: int) -> int:
        """The character column of a step."""
        dots = columns_of(np.array([step]), self.first, self.last, self.columns * braille.ACROSS)
        return int(dots[0]) // braille.ACROSS

    def step(self, column: int) -> int:
        """The step in the middle of a character column."""
        across = max(1, self.columns * braille.ACROSS - 1)
        place = (column * braille.ACROSS + 0.5) / across
        return round(self.first + min(1.0, max(0.0, place)) * (self.last - self.first))


@dataclass(frozen=True, slots=True)
class Picture:
    """Lines of text with what each piece is, and the frame that tells steps from columns."""

    lines: list[Line]
    frame: Frame


@dataclass(slots=True)
class _Field:
    """The characters inside the axes, and what each of them is."""

    codes: Ints
    kinds: npt.NDArray[np.int64]
    names: list[str] = field(default_factory=lambda: [""])

    @classmethod
    def blank(cls, rows: int, columns: int) -> _Field:
        return cls(np.full((rows, columns), braille.BLANK), np.zeros((rows, columns), np.int64))

    def kind(self, name: str) -> int:
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    def dots(self, dots: Bools, name: str) -> None:
        codes = braille.characters(dots)
        drawn = codes != braille.BLANK
        self.codes[drawn] |= codes[drawn]
        self.kinds[drawn] = self.kind(name)

    def fill(self, where: Bools, character: str, name: str) -> None:
        """Write a character where the field is still empty."""
        empty = where & (self.codes == braille.BLANK)
        self.codes[empty] = ord(character)
        self.kinds[empty] = self.kind(name)

    def line(self, row: int) -> Line:
        codes, kinds = self.codes[row].tolist(), self.kinds[row].tolist()
        text = "".join(map(chr, codes)).replace(chr(braille.BLANK), " ")
        cuts = [0, *(n for n in range(1, len(kinds)) if kinds[n] != kinds[n - 1]), len(kinds)]
        return [(text[a:b], self.names[kinds[a]]) for a, b in pairwise(cuts)]


def plot(series: Sequence[Series], width: int, height: int, *, log: bool = False, cursor: int | None = None) -> Picture:
    """Draw series over their steps into `width` × `height` characters; nothing reaches beyond them.

    Args:
        series: what to draw, the most important first.
        width: characters across, `LEAST_WIDTH` or more.
        height: lines, `LEAST_HEIGHT` or more.
        log: whether values are drawn by their exponents; those that are not positive are then marked as below.
        cursor: a step at which to draw the crosshair.
    """
    rows = height - 2
    axis = axis_of((part for s in series for part in (s.values, s.low, s.high) if part is not None), log=log)
    ticks = _value_ticks(axis, rows) if axis else []
    gutter = min(width // 2, max((len(tick.label) for tick in ticks), default=0) + 1)
    steps = [s.steps for s in series if len(s.steps)]
    first = min((int(s[0]) for s in steps), default=0)
    last = max((int(s[-1]) for s in steps), default=0)
    frame = Frame(width, rows, gutter, first, last)
    inside = _Field.blank(rows, frame.columns)
    envelopes = [_thinned(s, frame, axis or Axis(0, 1, log)) for s in series]
    for pieces in (_draw_band, _draw_line):
        for number in range(len(series)):  # later series lie on top: they are the sparser ones, such as a test's
            pieces(inside, envelopes[number], axis or Axis(0, 1, log), number)
    _overlay(inside, envelopes, frame, ticks, cursor)
    lines = [_labelled(inside.line(row), ticks, row, frame) for row in range(rows)]
    return Picture([*lines, _axis_line(envelopes, frame, cursor), _step_labels(frame)], frame)


def _value_ticks(axis: Axis, rows: int) -> list[Tick]:
    """A label on every other line at most, unless that leaves a scale that cannot be read."""
    ticks = axis.ticks(max(3, rows // 2))
    return ticks if len(ticks) > 1 else axis.ticks(rows)


def _thinned(series: Series, frame: Frame, axis: Axis) -> Envelope:
    columns = frame.columns * braille.ACROSS
    column = columns_of(series.steps, frame.first, frame.last, columns)
    found = envelope(column, axis.scaled(series.values), columns)
    if series.low is None or series.high is None:
        return found
    low = envelope(column, axis.scaled(series.low), columns).low
    high = envelope(column, axis.scaled(series.high), columns).high
    low, high = np.fmin(low, found.low), np.fmax(high, found.high)
    return replace(found, low=low, high=high)


def _draw_band(inside: _Field, found: Envelope, axis: Axis, number: int) -> None:
    height = len(inside.codes) * braille.DOWN
    broken = (found.nan + found.above + found.below) > 0
    top, bottom = (
        braille.bridged(braille.dot_rows(axis.places(edge), height), broken) for edge in (found.high, found.low)
    )
    inside.dots(braille.band(top, bottom, height), f"band{number}")


def _draw_line(inside: _Field, found: Envelope, axis: Axis, number: int) -> None:
    height = len(inside.codes) * braille.DOWN
    rows = braille.dot_rows(axis.places(found.middle), height)
    top, bottom = braille.line(rows, (found.nan + found.above + found.below) > 0)
    dots = braille.band(top, bottom, height)
    if number % 2:  # colour alone must not tell series apart: every other one is dashed
        dots &= (np.arange(dots.shape[1]) % 6 < 4)[None, :]
    inside.dots(dots, f"line{number}")


def _overlay(
    inside: _Field, envelopes: Iterable[Envelope], frame: Frame, ticks: Sequence[Tick], cursor: int | None
) -> None:
    everywhere = np.ones(inside.codes.shape, bool)
    if cursor is not None:
        inside.fill(everywhere & (np.arange(frame.columns) == frame.column(cursor)), "│", CROSSHAIR)
    for found in envelopes:
        inside.fill(everywhere & _nan_spans(found), "╱", NOT_A_NUMBER)
        top = np.zeros(inside.codes.shape, bool)
        top[0] = _per_character(found.above)
        inside.codes[top], inside.kinds[top] = ord(ABOVE_MARK), inside.kind(INFINITE)
    for tick in ticks:
        row = np.zeros(inside.codes.shape, bool)
        row[_tick_row(tick, frame.rows)] = True
        inside.fill(row, "┈", GRID)


def _nan_spans(found: Envelope) -> Bools:
    """Characters from a NaN up to the next number, where there is none of the series' numbers."""
    number = ~np.isnan(found.middle)
    known = np.where(number | (found.nan > 0) | (found.above > 0) | (found.below > 0), np.arange(len(number)), -1)
    newest = np.maximum.accumulate(known)  # the column that last said something
    spans: Bools = (newest >= 0) & (found.nan > 0)[newest] & ~number[newest]
    inside: Bools = _per_character(spans) & ~_per_character(number)
    return inside


def _per_character(counts: npt.NDArray[np.generic]) -> Bools:
    return np.asarray(counts.astype(bool).reshape(-1, braille.ACROSS).any(axis=1))


def _tick_row(tick: Tick, rows: int) -> int:
    return int(braille.dot_rows(np.array([tick.place]), rows * braille.DOWN)[0]) // braille.DOWN


def _labelled(line: Line, ticks: Sequence[Tick], row: int, frame: Frame) -> Line:
    label = next((tick.label for tick in ticks if _tick_row(tick, frame.rows) == row), "")
    edge = "┤" if label else "│"
    return [(label[: frame.gutter - 1].rjust(frame.gutter - 1) + edge, AXIS), *line]


def _axis_line(envelopes: Sequence[Envelope], frame: Frame, cursor: int | None) -> Line:
    marks = ["─"] * frame.columns
    for place, _ in _step_ticks(frame):
        marks[place] = "┬"
    if cursor is not None:
        marks[frame.column(cursor)] = "┴"
    nan: Bools = np.zeros(frame.columns, bool)
    below: Bools = np.zeros(frame.columns, bool)
    for found in envelopes:
        nan = nan | _per_character(found.nan) | _nan_spans(found)
        below = below | _per_character(found.below)
    line: Line = [(" " * (frame.gutter - 1) + "└", AXIS)]
    for column, mark in enumerate(marks):
        if nan[column]:
            line.append((BOTH_MARK if below[column] else NAN_MARK, NOT_A_NUMBER))
        elif below[column]:
            line.append((BELOW_MARK, INFINITE))
        else:
            line.append((mark, CROSSHAIR if mark == "┴" else AXIS))
    return line


def _step_ticks(frame: Frame) -> list[tuple[int, int]]:
    if frame.last <= frame.first:
        return [(0, frame.first)]
    across = Axis(float(frame.first), float(frame.last))
    most = max(2, frame.columns // 12)
    steps = [frame.first + tick.place * (frame.last - frame.first) for tick in across.ticks(most)]
    whole = [round(step) for step in steps if abs(step - round(step)) < 1e-6]
    return [(frame.column(step), step) for step in whole]


def _step_labels(frame: Frame) -> Line:
    text = [" "] * frame.width
    free = 0
    for place, step in _step_ticks(frame):
        label = grouped(step)
        start = min(max(0, frame.gutter + place - len(label) // 2), frame.width - len(label))
        if start >= free:
            text[start : start + len(label)] = label
            free = start + len(label) + 2
    if free and not "".join(text[-5:]).strip() and frame.width - free > 5:
        text[-4:] = "step"
    return [("".join(text), AXIS)]
