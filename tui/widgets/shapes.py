"""The fifth view: every call of the first forward in order, the dims that went in and those that came out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import ContentSwitcher, Input

from tui import palette
from tui.charts.numbers import grouped, shortened
from tui.explanation import WRONG, marked_shape
from tui.messages import PlaceChosen
from tui.shapetrace import AskShapes, ShapeRow, ShapeTrace, changed_axes
from tui.widgets.notice import Notice, Words
from tui.widgets.rows import Rows
from tui.widgets.views import View

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tensorscope.graphs.graph import Value
    from tui.head import Head
    from tui.snapshot import Answer
    from tui.widgets.rows import Piece

ARROW = " → "
LEAST_PATH, LEAST_NAME, WIDEST_NAME = 16, 8, 20
CHANGED = "#5fd787"


@dataclass(frozen=True, slots=True)
class Widths:
    """Characters of each column, and whether the axes of what goes in and of what comes out are named."""

    path: int
    name: int
    taken: int
    given: int
    taken_named: bool = False
    given_named: bool = False


@lru_cache(maxsize=32)
def widths_for(width: int, longest: tuple[int, ...]) -> Widths:
    """Share a width among the columns.

    Args:
        width: characters across.
        longest: characters of the longest path, name, and dims in and out, without and with names.
    """
    path, name, *dims = longest
    room = width - 2 - len(ARROW) - 2
    name = min(name, WIDEST_NAME)
    for named in ((True, True), (False, True), (False, False)):
        taken, given = (dims[at + 2 * named[at]] for at in (0, 1))
        left = room - name - taken - given
        if left >= min(path, 2 * LEAST_PATH):
            return Widths(min(path, left), name, taken, given, *named)
    taken, given = (min(dims[at], (room - LEAST_PATH) // 2) for at in (0, 1))
    left = room - taken - given
    name = min(name, left - LEAST_PATH) if left - LEAST_PATH >= LEAST_NAME else 0
    return Widths(max(1, min(path, left - name)), name, max(1, taken), max(1, given))


class ShapeList(Rows):
    """The calls, one in a row; those that failed are marked, and the axes that a call changed."""

    BINDING_GROUP_TITLE = "Shapes"
    DEFAULT_CSS = "ShapeList { padding: 0 1; height: 1fr; }"

    def __init__(self) -> None:
        super().__init__(id="calls")
        self.rows: list[ShapeRow] = []
        self._longest: tuple[int, ...] = (0,) * 6

    def update(self, rows: list[ShapeRow]) -> None:
        """Show other calls; the cursor stays in the module that it was in, or goes to the call that failed."""
        module = self.rows[self.cursor].module if self.rows else None
        self.rows = rows
        self._longest = _longest(rows)
        self.changed()
        failed = [n for n, row in enumerate(rows) if row.failed and module in {None, row.module}]
        same = (n for n, row in enumerate(rows) if row.module == module)
        self.cursor = failed[0] if failed else next(same, 0)

    def count(self) -> int:
        """How many calls are shown."""
        return len(self.rows)

    def heading(self, width: int) -> str:
        """The titles of the columns."""
        to = self._widths(width)
        name = f" {'what':<{to.name}}" if to.name else ""
        return f"  {'call':<{to.path}}{name} {'dims in':<{to.taken}}{ARROW}dims out"

    def pieces(self, index: int, width: int) -> list[Piece]:
        """What stands in a row."""
        row, to = self.rows[index], self._widths(width)
        plain, faded = palette.style(), palette.style(palette.FADED)
        mark = ("✗ ", palette.style(WRONG, bold=True)) if row.failed else ("  ", plain)
        label = (shortened(row.label, to.path).ljust(to.path), palette.style(WRONG if row.failed else "", bold=True))
        name = f" {shortened(row.name, to.name):<{to.name}}" if to.name else ""
        weights: list[Piece] = [(shortened(" ".join(row.weights), to.taken), faded)] if not row.ins else []
        taken = _fitted(_first(row.ins, to.taken_named) or weights, to.taken)
        arrow = (ARROW, palette.style(palette.AXIS))
        given = _given(row, to) if row.outs or not row.failed else [("raised", palette.style(WRONG, bold=True))]
        return [mark, label, (name, faded), (" ", plain), *taken, arrow, *given]

    def _widths(self, width: int) -> Widths:
        return widths_for(width, self._longest)


class ShapesView(View):
    """The list, a search, and all about the call under the cursor."""

    label = "Shapes"
    needs_steps = False
    BINDING_GROUP_TITLE = "Shapes"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "operations", "Ops or modules", id="shapes.operations"),
        Binding("slash", "search", "Search", key_display="/", id="shapes.search"),
        Binding("escape", "show_all", "Show all", show=False, id="shapes.all"),
    ]
    DEFAULT_CSS = """
    ShapesView {
        #search { height: 1; border: none; padding: 0 1; }
        #about { height: auto; max-height: 4; padding: 0 1; color: $text-muted; background: $panel; }
        Notice { height: 1fr; }
        ContentSwitcher { height: 1fr; }
    }
    """

    def __init__(self) -> None:
        super().__init__(id="shapes")
        self.listing = ShapeList()
        self.operations = False
        self._trace: ShapeTrace | None = None
        self._texts: dict[bool, list[str]] = {}  # what is searched, made when it first is
        self._search = Input(placeholder="part of a path, an operation, a size or a name", id="search")
        self._search.display = False
        self._notice = Notice(id="empty")
        self._switcher = ContentSwitcher(self.listing, self._notice, initial="empty")
        self._about = Words(id="about")

    def compose(self) -> ComposeResult:
        """Put the parts together."""
        yield self._search
        yield self._switcher
        yield self._about

    def question(self, until: int | None) -> AskShapes:
        """The shape trace: that of the first forward, whatever step is looked at."""
        return AskShapes()

    def show(self, answer: Answer, head: Head) -> None:
        """List the calls, or say why there is none."""
        assert isinstance(answer, ShapeTrace)
        if answer is not self._trace:
            self._trace = answer
            self._texts.clear()
            self._list()

    def enter(self) -> None:
        """Focus the list."""
        self.listing.focus()

    def _list(self) -> None:
        """Show those calls that the search leaves."""
        if self._trace is None:
            return
        rows = self._trace.ops if self.operations else self._trace.modules
        chosen = self._found(rows)
        self.listing.update(chosen)
        self._switcher.current = "calls" if chosen else "empty"
        if not rows:
            self._notice.say("no shapes are known yet", "They are recorded with the first forward.")
        elif not chosen:
            self._notice.say("no call matches the search", "escape shows all of them")
        self._say(len(chosen), len(rows))

    def _found(self, rows: tuple[ShapeRow, ...]) -> list[ShapeRow]:
        wanted = self._search.value.lower().split()
        if not wanted:
            return list(rows)
        if self.operations not in self._texts:
            self._texts[self.operations] = [_searched(row) for row in rows]
        texts = zip(rows, self._texts[self.operations], strict=True)
        return [row for row, text in texts if all(word in text for word in wanted)]

    def _say(self, chosen: int, all_rows: int) -> None:
        assert self._trace is not None
        what = "calls" if not self._trace.whole else "operations" if self.operations else "module calls"
        count = (
            f"{grouped(chosen)} of {grouped(all_rows)} {what}" if chosen != all_rows else f"{grouped(chosen)} {what}"
        )
        known = "of the first forward" if self._trace.whole else "known of a first forward that did not end"
        row = self.listing.rows[self.listing.cursor] if self.listing.rows else None
        self._about.say(Content.assemble((f"{count} {known}", "$text-disabled"), *_told(row)))

    def on_rows_moved(self, message: Rows.Moved) -> None:
        """Tell about the call under the cursor."""
        message.stop()
        if self._trace is not None:
            self._say(self.listing.count(), len(self._trace.ops if self.operations else self._trace.modules))

    def on_rows_chosen(self, message: Rows.Chosen) -> None:
        """Show the module in the tree."""
        message.stop()
        self.post_message(PlaceChosen(self.listing.rows[message.index].module))

    def on_input_changed(self) -> None:
        """Narrow the list."""
        self._list()

    def on_input_submitted(self) -> None:
        """Go on with the narrowed list."""
        self.listing.focus()

    def action_operations(self) -> None:
        """Show every operation, or module calls only."""
        self.operations = not self.operations
        self._list()

    def action_search(self) -> None:
        """Type to narrow the list."""
        self._search.display = True
        self._search.focus()

    def action_show_all(self) -> None:
        """Show all calls again."""
        self._search.value = ""
        self._search.display = False
        self.listing.focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave escape to the screen while nothing is searched."""
        return bool(self._search.display) if action == "show_all" else super().check_action(action, parameters)


def _told(row: ShapeRow | None) -> list[str | tuple[str, str]]:
    """All about a call, in words."""
    if row is None:
        return []
    taken, given = (" ".join(f"{value} {value.dtype}".rstrip() for value in values) for values in (row.ins, row.outs))
    dims = f"{taken}{ARROW}{given or 'raised'}" if taken and (given or row.failed) else taken or given
    where = f"  {shortened(row.where, 60)}" if row.where else ""
    return [("\n", ""), (row.label, "bold $text"), f"  {row.name}{where}\n{dims}"]


def _given(row: ShapeRow, to: Widths) -> list[Piece]:
    changed = changed_axes(row.ins[0].dims, row.outs[0].dims) if row.ins and row.outs else set()
    return _fitted(_first(row.outs, to.given_named, changed), to.given)


def _first(values: tuple[Value, ...], named: bool, changed: set[int] | None = None) -> list[Piece]:
    """The first of some tensors, and how many more there are."""
    if not values:
        return []
    names = values[0].names if named else ()
    pieces = marked_shape(values[0].dims, names, changed or (), palette.style(CHANGED, bold=True))
    return [*pieces, (_more(values), palette.style(palette.FADED))]


def _more(values: tuple[Value, ...]) -> str:
    return f" +{len(values) - 1}" if len(values) > 1 else ""


def _fitted(pieces: list[Piece], width: int) -> list[Piece]:
    """Pieces cut or filled to a width."""
    fitted: list[Piece] = []
    left = width
    total = sum(len(text) for text, _ in pieces)
    for text, style in pieces:
        if total > width and len(text) >= left:
            return [*fitted, (text[: max(0, left - 1)] + "…", style)]
        fitted.append((text, style))
        left -= len(text)
    return [*fitted, (" " * left, palette.style())]


def _longest(rows: list[ShapeRow]) -> tuple[int, ...]:
    """Characters of the longest path, name, and dims in and out, without and with names."""
    taken, given = {row.ins for row in rows}, {row.outs for row in rows}
    sides = [(values, named) for named in (False, True) for values in (taken, given)]
    dims = [max((_written(value, named) for value in values), default=0) for values, named in sides]
    paths, names = ({getattr(row, what) for row in rows} for what in ("label", "name"))
    return (max(map(len, paths), default=0), max(map(len, names), default=0), *dims)


def _written(values: tuple[Value, ...], named: bool) -> int:
    return sum(len(text) for text, _ in _first(values, named))


def _searched(row: ShapeRow) -> str:
    said = " ".join(map(str, (*row.ins, *row.outs)))
    return f"{row.label} {row.name} {said} {row.where}".lower()
