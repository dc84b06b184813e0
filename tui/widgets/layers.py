"""The second view: the model as a tree, one line of live numbers for every tensor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content

from tui import palette
from tui.charts.numbers import shortened
from tui.messages import QuestionChanged, SiteChosen
from tui.outline import Node, Role
from tui.snapshot import AskLayers, Layers
from tui.widgets.notice import Words
from tui.widgets.rows import Rows
from tui.widgets.sheets import Costs, Statistics
from tui.widgets.views import View

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tui.head import Head
    from tui.snapshot import Answer
    from tui.widgets.rows import Piece
    from tui.widgets.sheets import Sheet


class LayerTree(Rows):
    """The tree; branches fold."""

    BINDING_GROUP_TITLE = "Layers"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "fold", "Fold", show=False, id="layers.fold"),
        Binding("right", "unfold", "Unfold", show=False, id="layers.unfold"),
        Binding("e", "fold_all", "Fold all", id="layers.fold_all"),
        Binding("c", "costs", "Costs", tooltip="Costs or statistics", id="layers.costs"),
    ]

    def __init__(self) -> None:
        super().__init__(id="tree")
        self.answer: Layers | None = None
        self.folded: set[str] = set()
        self.shown: list[Node] = []
        self.sheet: Sheet | None = None
        self.with_costs = False

    def update(self, answer: Layers) -> None:
        """Show other numbers, and other lines if the tree has grown."""
        self.answer = answer
        self.sheet = Statistics(answer) if answer.costs is None else Costs(answer, answer.costs)
        self._unfolded()

    def count(self) -> int:
        """How many lines are shown."""
        return len(self.shown)

    def heading(self, width: int) -> str:
        """The titles of the columns."""
        columns = self.sheet.columns(width) if self.sheet else []
        taken = sum(column.width + 1 for column in columns)
        return "layer".ljust(width - taken) + "".join(" " + column.cell(column.title) for column in columns)

    def pieces(self, index: int, width: int) -> list[Piece]:
        """What stands in a row."""
        assert self.sheet is not None
        node = self.shown[index]
        columns = self.sheet.columns(width)
        pieces = self._named(node, width - sum(column.width + 1 for column in columns))
        for column in columns:
            pieces += [(" ", palette.style()), *self.sheet.cell(node, column)]
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

    def action_costs(self) -> None:
        """Show what the modules cost instead of statistics, or back."""
        self.with_costs = not self.with_costs
        self.post_message(QuestionChanged())

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
        return AskLayers(until, self.listing.with_costs)

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
        about = self.listing.sheet.about if self.listing.sheet else ""
        parts = (f"{node.site or node.path or node.label}", str(shape or ""), about) if node else ()
        self._where.say(Content("  ".join(part for part in parts if part)))

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
