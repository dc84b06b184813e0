"""The second view: the model as a tree, one line of live numbers for every tensor."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from textual.binding import Binding, BindingType
from textual.content import Content

from tui import palette
from tui.charts.heat import MISSING, NONFINITE, ZERO, scale_of
from tui.charts.numbers import amount, percent, short, shortened
from tui.messages import SiteChosen
from tui.outline import Node, Role
from tui.snapshot import TREND_COLUMNS, AskLayers, Layers
from tui.widgets.notice import Words
from tui.widgets.rows import Column, Rows, fitting
from tui.widgets.views import View

if TYPE_CHECKING:
    import numpy.typing as npt
    from textual.app import ComposeResult

    from tensorscope.events import Shape, Site, Stats
    from tui.snapshot import Answer, Head
    from tui.widgets.rows import Piece

TREND_MARKS = " ▁▂▃▄▅▆▇█"
COLUMNS = (
    Column("shape", 22, 6, right=False),
    Column("mean", 9, 5),
    Column("std", 9, 2),
    Column("min", 9, 7),
    Column("max", 9, 7),
    Column("zero", 4, 4),
    Column("dead", 4, 8),
    Column("NaN/Inf", 7, 1),
    Column("grad rms", 9, 0),
    Column("grad trend", TREND_COLUMNS, 3, right=False),
)
SHAPE, MEAN, STD, MIN, MAX, ZEROS, DEAD, BAD, GRADIENT, TREND = range(len(COLUMNS))
LEAST_NAME = 20
WIDEST_SHAPE = 56


@lru_cache(maxsize=8)
def columns_for(width: int, longest: int) -> list[tuple[int, Column]]:
    """The columns that a list of this width shows, each with its place in `COLUMNS`.

    Args:
        width: characters across.
        longest: characters of the longest shape with names; the names are left out where they take too much room.
    """
    chosen: list[int] = []
    columns = list(COLUMNS)
    for room in (min(longest, WIDEST_SHAPE), COLUMNS[SHAPE].width):
        columns[SHAPE] = replace(COLUMNS[SHAPE], width=room)
        chosen = fitting(tuple(columns), width - LEAST_NAME)
        if SHAPE in chosen:
            break
    return [(n, columns[n]) for n in chosen]


class LayerTree(Rows):
    """The tree; branches fold."""

    BINDING_GROUP_TITLE = "Layers"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "fold", "Fold", show=False, id="layers.fold"),
        Binding("right", "unfold", "Unfold", show=False, id="layers.unfold"),
        Binding("e", "fold_all", "Fold all", id="layers.fold_all"),
    ]

    def __init__(self) -> None:
        super().__init__(id="tree")
        self.answer: Layers | None = None
        self.folded: set[str] = set()
        self.shown: list[Node] = []
        self._levels: dict[Site, list[int]] = {}
        self._longest = COLUMNS[SHAPE].width  # characters of the longest shape with its names

    def update(self, answer: Layers) -> None:
        """Show other numbers, and other lines if the tree has grown."""
        self.answer = answer
        self._levels = levels_of(answer.trends)
        named = (len(str(shape)) - 2 for shape in answer.shapes.values())
        self._longest = max(COLUMNS[SHAPE].width // 2, *named, 0)
        self._unfolded()

    def count(self) -> int:
        """How many lines are shown."""
        return len(self.shown)

    def heading(self, width: int) -> str:
        """The titles of the columns."""
        columns = columns_for(width, self._longest)
        taken = sum(column.width + 1 for _, column in columns)
        return "layer".ljust(width - taken) + "".join(" " + column.cell(column.title) for _, column in columns)

    def pieces(self, index: int, width: int) -> list[Piece]:
        """What stands in a row."""
        node = self.shown[index]
        columns = columns_for(width, self._longest)
        pieces = self._named(node, width - sum(column.width + 1 for _, column in columns))
        for number, column in columns:
            pieces.append((" ", palette.style()))
            pieces += self._trend(node) if number == TREND else [self._cell(node, number, column)]
        return pieces

    def _named(self, node: Node, width: int) -> list[Piece]:
        arrow = " " if node.leaf else "▸" if node.path in self.folded and node.role is Role.MODULE else "▾"
        indent = "  " * min(node.depth, max(0, (width - 14) // 2))
        mark, color = self._blame(node)
        room = width - len(indent) - 2 - (2 if mark else 0)
        label = shortened(node.label, room)
        kind = "→ " + node.type if node.role is Role.SHARED else node.type
        kind = shortened(kind, room - len(label) - 1) if room - len(label) > 4 else ""
        faded = node.role is not Role.MODULE
        pieces = [
            (f"{indent}{arrow} ", palette.style(palette.AXIS)),
            (label, palette.style("#bcbcbc") if faded else palette.style(bold=True)),
            (f" {kind}" if kind else "", palette.style(palette.FADED)),
        ]
        used = room - len(label) - (len(kind) + 1 if kind else 0)
        pieces.append((" " * max(0, used), palette.style()))
        if mark:
            pieces.append((f" {mark}", palette.style(color, bold=True)))
        return pieces

    def _blame(self, node: Node) -> tuple[str, str]:
        assert self.answer is not None
        at = str(node.site.path) if node.role is Role.PARAMETER and node.site else node.path
        severity = self.answer.blamed.get(at) if node.role in {Role.MODULE, Role.PARAMETER} and at else None
        return palette.severity_mark(severity) if severity else ("", "")

    def _stats(self, node: Node, *, gradient: bool = False) -> Stats | None:
        assert self.answer is not None
        if node.site is None:
            return None
        return self.answer.stats.get(node.site.grad if gradient else node.site)

    def _cell(self, node: Node, number: int, column: Column) -> Piece:
        if number == SHAPE:
            assert self.answer is not None
            shape = self.answer.shapes.get(node.site) if node.site else None
            return column.cell(_shape(shape, column.width) if shape else ""), palette.style(palette.FADED)
        stats = self._stats(node, gradient=number == GRADIENT)
        if stats is None:
            return column.cell(""), palette.style()
        text, color = _number(stats, number)
        return column.cell(text), palette.style(color, bold=bool(color))

    def _trend(self, node: Node) -> list[Piece]:
        levels = self._levels.get(node.site.grad) if node.site else None
        if not levels:
            return [(" " * COLUMNS[TREND].width, palette.style())]
        colors = palette.ramp(len(TREND_MARKS) - 1)
        pieces = [_trend_piece(level, colors) for level in levels]
        return [*pieces, (" " * (COLUMNS[TREND].width - len(pieces)), palette.style())]

    def action_fold(self) -> None:
        """Fold the branch under the cursor; on a leaf or a folded branch, go to its parent."""
        if not self.shown:
            return
        node = self.shown[self.cursor]
        if node.role is Role.MODULE and not node.leaf and node.path not in self.folded:
            self.folded.add(node.path)
            self._unfolded()
            return
        above = (n for n in range(self.cursor - 1, -1, -1) if self.shown[n].depth < node.depth)
        self.cursor = next(above, self.cursor)

    def action_unfold(self) -> None:
        """Unfold the branch under the cursor."""
        if self.shown:
            self.folded.discard(self.shown[self.cursor].path)
            self._unfolded()

    def action_fold_all(self) -> None:
        """Fold every module that holds modules no further, or unfold everything."""
        if self.answer is None:
            return
        deep = {node.path for node in self.answer.nodes if node.role is Role.MODULE and not node.leaf and node.depth}
        self.folded = set() if self.folded else deep
        self._unfolded()

    def go_to(self, path: str) -> bool:
        """Put the cursor on a module or parameter, unfolding what hides it; false if the tree has no such line."""
        nodes = self.answer.nodes if self.answer else ()
        found = next((node for node in nodes if path in {node.path, node.site and node.site.path}), None)
        if found is None:
            return False
        parts = found.path.split(".")
        self.folded -= {".".join(parts[:n]) for n in range(len(parts) + 1)}
        self._unfolded()
        exact = (n for n, node in enumerate(self.shown) if node.site and node.site.path == path)
        self.cursor = next(exact, self.shown.index(found))
        return True

    def _unfolded(self) -> None:
        self.shown = visible(self.answer.nodes, self.folded) if self.answer else []
        self.changed()


class LayersView(View):
    """The tree, and the whole name of the line under the cursor."""

    label = "Layers"
    needs_steps = False
    DEFAULT_CSS = """
    LayersView { #where { dock: bottom; height: 1; padding: 0 1; color: $text-muted; } LayerTree { padding: 0 1; } }
    """

    def __init__(self) -> None:
        super().__init__(id="layers")
        self.listing = LayerTree()
        self._where = Words(id="where")
        self.target: str | None = None  # the place to go to as soon as the tree is known

    def compose(self) -> ComposeResult:
        """Put the parts together."""
        yield self.listing
        yield self._where

    def question(self, until: int | None) -> AskLayers:
        """The tree as of a step."""
        return AskLayers(until)

    def show(self, answer: Answer, head: Head) -> None:
        """Hand the numbers to the tree."""
        assert isinstance(answer, Layers)
        self.listing.update(answer)
        if self.target is not None:
            if not self.listing.go_to(self.target):
                self.notify(f"`{self.target}` is not a layer of this model")
            self.target = None
        self._say_where()

    def enter(self) -> None:
        """Focus the tree."""
        self.listing.focus()

    def on_rows_moved(self, message: Rows.Moved) -> None:
        """Tell about the row under the cursor."""
        message.stop()
        self._say_where()

    def _say_where(self) -> None:
        node = self.listing.shown[self.listing.cursor] if self.listing.shown else None
        shape = self.listing.answer.shapes.get(node.site) if node and node.site and self.listing.answer else None
        self._where.say(Content(f"{node.site or node.path or node.label}  {shape or ''}" if node else ""))

    def on_rows_chosen(self, message: Rows.Chosen) -> None:
        """Open what the row stands for."""
        message.stop()
        node = self.listing.shown[message.index]
        if node.site is not None:
            self.post_message(SiteChosen(node.site))
        elif node.path in self.listing.folded:
            self.listing.action_unfold()
        else:
            self.listing.action_fold()


def visible(nodes: tuple[Node, ...], folded: set[str]) -> list[Node]:
    """The lines that are not below a folded module."""
    shown: list[Node] = []
    hidden_below = math.inf
    for node in nodes:
        if node.depth > hidden_below:
            continue
        hidden_below = node.depth if node.role is Role.MODULE and node.path in folded else math.inf
        shown.append(node)
    return shown


def _shape(shape: Shape, width: int) -> str:
    """A shape with its names if they fit."""
    named = str(shape).strip("()")
    return named if len(named) <= width else ", ".join(map(str, shape.dims))


def _number(stats: Stats, column: int) -> tuple[str, str]:
    """The text of a cell and its colour; empty for the ordinary one."""
    if column == BAD:
        return (f"✗ {amount(stats.nonfinite)}", palette.NOT_A_NUMBER) if stats.nonfinite else ("", "")
    if column == ZEROS:
        return percent(stats.zero_fraction), "#ffaf5f" if stats.zero_fraction >= 0.9 else ""
    if column == DEAD:
        return percent(stats.dead_fraction), "#ffaf5f" if stats.dead_fraction >= 0.5 else ""
    value = {MEAN: stats.mean, STD: stats.std, MIN: stats.min, MAX: stats.max, GRADIENT: stats.rms}[column]
    if stats.nonfinite and column == GRADIENT:
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


def levels_of(trends: dict[Site, npt.NDArray[np.float64]]) -> dict[Site, list[int]]:
    """Every trend as levels of one scale, so that layers can be compared."""
    if not trends:
        return {}
    table = np.stack(list(trends.values()))
    levels = scale_of(table, len(TREND_MARKS) - 1).of(table)
    return dict(zip(trends, levels.tolist(), strict=True))
