"""What the tree of layers can show beside its names: statistics of the tensors, or what the modules cost."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tensorscope.events import Kind, Site
from tui import palette
from tui.charts.bars import across
from tui.charts.heat import MISSING, NONFINITE, ZERO, scale_of
from tui.charts.numbers import amount, exponent, percent, short
from tui.gauges import memory, seconds
from tui.outline import Node, Role
from tui.snapshot import TREND_COLUMNS, Layers
from tui.widgets.rows import Column, fitting

if TYPE_CHECKING:
    from tensorscope.events import Shape, Stats
    from tui.costs import Cost
    from tui.widgets.rows import Piece

LEAST_NAME = 20  # characters that are left to the names
WIDEST_SHAPE = 56
TREND_MARKS = " ▁▂▃▄▅▆▇█"
METER, BAR = 9, 8  # characters of the update's scale, and of the longest bar
DECADES = 6  # of the update's scale: from 1e-6 to 1
ORANGE = "#ffaf5f"

SHAPE = Column("shape", 22, 7, right=False)
MEAN, STD, MIN, MAX = Column("mean", 9, 6), Column("std", 9, 2), Column("min", 9, 9), Column("max", 9, 9)
ZEROS, DEAD, BAD = Column("zero", 4, 5), Column("dead", 4, 10), Column("NaN/Inf", 7, 1)
GRADIENT, TREND = Column("grad rms", 9, 0), Column("grad trend", TREND_COLUMNS, 3, right=False)
UPDATE, SCALE = Column("update", 7, 4), Column("1e-6    1", METER, 8, right=False)
FORWARD, BACKWARD, SHARE = Column("forward", 8, 1), Column("backward", 8, 2), Column("time", 5, 0)
BARS, FLOPS = Column("", BAR, 4, right=False), Column("FLOPs", 6, 3)
WEIGHTS, OUTPUT, PARAMETERS = Column("weights", 8, 5), Column("output", 8, 6), Column("params", 6, 8)


class Sheet(Protocol):
    """Columns, and what stands in them.

    Attributes:
        about: what the numbers are, in a few words.
    """

    about: str

    def columns(self, width: int) -> list[Column]:
        """The columns that a list of this width shows beside the names."""

    def cell(self, node: Node, column: Column) -> list[Piece]:
        """What stands in a column of a line; as wide as the column."""


class Statistics:
    """Newest numbers of every tensor, of its gradient, and of a parameter how much its last update was.

    Args:
        answer: what is to be shown.
    """

    about = ""

    def __init__(self, answer: Layers) -> None:
        self._answer = answer
        named = (len(str(shape)) - 2 for shape in answer.shapes.values())
        self._longest = max(SHAPE.width // 2, *named, 0)  # characters of the longest shape with its names
        self._moved = any(site.kind is Kind.UPDATE for site in answer.stats)

    def columns(self, width: int) -> list[Column]:
        """Those that fit; axes' names are left out where they take too much room."""
        return _statistics(width, min(self._longest, WIDEST_SHAPE), moved=self._moved)

    def cell(self, node: Node, column: Column) -> list[Piece]:
        """A number, a shape, or the course of the gradient."""
        if column is TREND:
            return self._trend(node)
        if column.title == SHAPE.title:
            shape = self._answer.shapes.get(node.site) if node.site else None
            return [(column.cell(_shape(shape, column.width) if shape else ""), palette.style(palette.FADED))]
        if column in (UPDATE, SCALE):
            return [self._update(node, column)]
        stats = self._answer.stats.get(node.site.grad if column is GRADIENT else node.site) if node.site else None
        if stats is None:
            return [(column.cell(""), palette.style())]
        text, color = _number(stats, column)
        return [(column.cell(text), palette.style(color, bold=bool(color)))]

    def _update(self, node: Node, column: Column) -> Piece:
        stats = self._answer.stats
        update = stats.get(Site(node.site.path, Kind.UPDATE)) if node.role is Role.PARAMETER and node.site else None
        weight = stats.get(node.site) if node.site else None
        if update is None or weight is None or not weight.rms:
            return column.cell(""), palette.style()
        if update.nonfinite and column is UPDATE:
            return column.cell(f"✗ {amount(update.nonfinite)}"), palette.style(palette.NOT_A_NUMBER, bold=True)
        ratio = update.rms / weight.rms
        text = meter(ratio) if column is SCALE else "NaN" if math.isnan(ratio) else exponent(f"{ratio:.1e}")
        return column.cell(text), palette.style(palette.SERIES[0] if column is SCALE else "")

    @cached_property
    def _levels(self) -> dict[Site, list[int]]:
        """Every trend as levels of one scale, so that layers can be compared."""
        trends = self._answer.trends
        if not trends:
            return {}
        table = np.stack(list(trends.values()))
        return dict(zip(trends, scale_of(table, len(TREND_MARKS) - 1).of(table).tolist(), strict=True))

    def _trend(self, node: Node) -> list[Piece]:
        levels = self._levels.get(node.site.grad, []) if node.site else []
        colors = palette.ramp(len(TREND_MARKS) - 1)
        pieces = [_trend_piece(level, colors) for level in levels]
        return [*pieces, (" " * (TREND.width - len(pieces)), palette.style())]


class Costs:
    """Time, arithmetic and memory of every module.

    Args:
        answer: the tree, with its shapes.
        costs: of each module, by its path.
    """

    def __init__(self, answer: Layers, costs: dict[str, Cost]) -> None:
        self._shapes, self._costs = answer.shapes, costs
        self._timed = any(not math.isnan(cost.share) for cost in costs.values())
        self.about = "medians of recent steps, with all inside" if self._timed else "modules were not timed"

    def columns(self, width: int) -> list[Column]:
        """Those that fit; none for times where nothing was timed."""
        return _costs(width, timed=self._timed)

    def cell(self, node: Node, column: Column) -> list[Piece]:
        """A number, or a bar."""
        if column is BARS:
            cost = self._cost(node)
            filled = 0.0 if cost is None or math.isnan(cost.share) else cost.share
            return [(column.cell(across(filled, BAR)), palette.style(palette.SERIES[0]))]
        return [(column.cell(self._text(node, column)), palette.style())]

    def _cost(self, node: Node) -> Cost | None:
        return self._costs.get(node.path) if node.role is Role.MODULE else None

    def _text(self, node: Node, column: Column) -> str:
        shape = self._shapes.get(node.site) if node.site else None
        if column is OUTPUT:
            held = shape is not None and shape.nbytes > 0 and node.role in (Role.MODULE, Role.TENSOR)
            return memory(shape.nbytes) if shape is not None and held else ""
        if node.role is Role.PARAMETER and shape is not None:
            elements = math.prod(shape.dims)
            return {WEIGHTS.title: memory(shape.nbytes), PARAMETERS.title: amount(elements)}.get(column.title, "")
        cost = self._cost(node)
        return "" if cost is None else _cost_text(cost, column)


def _cost_text(cost: Cost, column: Column) -> str:
    if column is FLOPS:
        return amount(cost.flops) if cost.flops else ""
    if column is PARAMETERS:
        return amount(cost.parameters) if cost.parameters else ""
    if column is WEIGHTS:
        return memory(cost.bytes) if cost.bytes else ""
    return percent(cost.share) if column is SHARE else seconds(cost.forward if column is FORWARD else cost.backward)


@lru_cache(maxsize=16)
def _statistics(width: int, longest: int, *, moved: bool) -> list[Column]:
    columns = [SHAPE, MEAN, STD, MIN, MAX, ZEROS, DEAD, BAD, *([UPDATE, SCALE] if moved else []), GRADIENT, TREND]
    chosen: list[Column] = []
    for room in (longest, SHAPE.width):
        columns[0] = replace(SHAPE, width=room)
        chosen = [columns[n] for n in fitting(tuple(columns), width - LEAST_NAME)]
        if columns[0] in chosen:
            break
    return chosen


@lru_cache(maxsize=16)
def _costs(width: int, *, timed: bool) -> list[Column]:
    columns = [*([FORWARD, BACKWARD, SHARE, BARS] if timed else []), FLOPS, PARAMETERS, WEIGHTS, OUTPUT]
    return [columns[n] for n in fitting(tuple(columns), width - LEAST_NAME)]


def meter(ratio: float) -> str:
    """A place on the logarithmic scale from 1e-6 to 1, whose middle is 1e-3."""
    track = ["┈"] * METER
    track[METER // 2] = "┊"
    if ratio > 0 and math.isfinite(ratio):
        place = (math.log10(ratio) + DECADES) / DECADES
        track[round(min(1.0, max(0.0, place)) * (METER - 1))] = "●"
    return "".join(track)


def _shape(shape: Shape, width: int) -> str:
    """A shape with its names if they fit."""
    named = str(shape).strip("()")
    return named if len(named) <= width else ", ".join(map(str, shape.dims))


def _number(stats: Stats, column: Column) -> tuple[str, str]:
    """The text of a cell and its colour; empty for the ordinary one."""
    if column is BAD:
        return (f"✗ {amount(stats.nonfinite)}", palette.NOT_A_NUMBER) if stats.nonfinite else ("", "")
    if column is ZEROS:
        return percent(stats.zero_fraction), ORANGE if stats.zero_fraction >= 0.9 else ""
    if column is DEAD:
        return percent(stats.dead_fraction), ORANGE if stats.dead_fraction >= 0.5 else ""
    value = stats.rms if column is GRADIENT else float(getattr(stats, column.title))
    if stats.nonfinite and column is GRADIENT:
        return f"✗ {short(value)}" if math.isfinite(value) else "✗ NaN", palette.NOT_A_NUMBER
    return short(value), palette.NOT_A_NUMBER if math.isnan(value) else ""


def _trend_piece(level: int, colors: tuple[str, ...]) -> Piece:
    if level == MISSING:
        return " ", palette.style()
    if level == NONFINITE:
        return "×", palette.style(palette.NOT_A_NUMBER, bold=True)
    if level == ZERO:
        return "0", palette.style(palette.FADED)
    return TREND_MARKS[level + 1], palette.style(colors[max(3, level)])
