"""A list that draws only the rows on the screen: the ground of every list and tree here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.charts.numbers import shortened

if TYPE_CHECKING:
    from textual import events

Piece = tuple[str, Style]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a list.

    Attributes:
        title: what stands above it.
        width: characters.
        rank: columns of higher ranks go first when the screen is narrow.
        right: whether it is aligned to the right.
    """

    title: str
    width: int
    rank: int
    right: bool = True

    def cell(self, text: str) -> str:
        """A text brought to the column's width."""
        cut = shortened(text, self.width)
        return cut.rjust(self.width) if self.right else cut.ljust(self.width)


def fitting(columns: tuple[Column, ...], width: int) -> list[int]:
    """Which columns fit side by side, one blank before each, when the highest ranks are left out first."""
    chosen = list(range(len(columns)))
    while chosen and sum(columns[n].width + 1 for n in chosen) > width:
        worst = max(columns[n].rank for n in chosen)
        chosen = [n for n in chosen if columns[n].rank < worst]
    return chosen


class Rows(ScrollView, can_focus=True):
    """A list with a cursor. Subclasses say how many rows there are and what is in each."""

    BINDING_GROUP_TITLE = "List"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False, id="rows.up"),
        Binding("down,j", "move(1)", "Down", show=False, id="rows.down"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="rows.pageup"),
        Binding("pagedown", "page(1)", "Page down", show=False, id="rows.pagedown"),
        Binding("home", "move(-1000000000)", "First", show=False, id="rows.first"),
        Binding("end", "move(1000000000)", "Last", show=False, id="rows.last"),
        Binding("enter", "choose", "Open", id="rows.choose"),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {"rows--cursor", "rows--title"}
    DEFAULT_CSS = """
    Rows {
        overflow-x: hidden;
        scrollbar-size-vertical: 1;
        & > .rows--cursor { background: $boost; }
        &:focus > .rows--cursor { background: $primary 30%; text-style: bold; }
        & > .rows--title { color: $text-muted; text-style: bold; }
    }
    """

    @dataclass
    class Chosen(Message):
        """A row was opened."""

        rows: Rows
        index: int

        @property
        def control(self) -> Rows:
            """The list."""
            return self.rows

    @dataclass
    class Moved(Message):
        """The cursor stands on another row."""

        rows: Rows
        index: int

        @property
        def control(self) -> Rows:
            """The list."""
            return self.rows

    cursor: reactive[int] = reactive(0, repaint=False)
    titled = True  # whether the first line holds the columns' titles

    def count(self) -> int:
        """How many rows there are."""
        raise NotImplementedError

    def pieces(self, index: int, width: int) -> list[Piece]:
        """What stands in a row."""
        raise NotImplementedError

    def heading(self, width: int) -> str:
        """What stands above the rows."""
        return ""

    def changed(self) -> None:
        """Draw anew, after the rows have changed."""
        self._strips.clear()
        size = Size(0, self.count() + self.titled)
        if size != self.virtual_size:  # setting it makes Textual lay out the whole screen
            self.virtual_size = size
        self.cursor = max(0, min(self.cursor, self.count() - 1))
        self.refresh()

    def notify_style_update(self) -> None:
        """Forget what was drawn in other colours."""
        super().notify_style_update()
        self._bases.clear()
        self._strips.clear()

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._strips: dict[tuple[int, bool, bool, int], Strip] = {}
        self._bases: dict[str, Style] = {}  # looking up a widget's style takes longer than drawing a row

    @property
    def inner_width(self) -> int:
        """Characters across, the scroll bar left out."""
        return self.scrollable_content_region.width

    def render_line(self, y: int) -> Strip:
        """One line of the picture."""
        width = self.inner_width
        if self.titled and y == 0:
            text = self.heading(width)[:width].ljust(width)
            return Strip([Segment(text, self.get_component_rich_style("rows--title"))], width)
        index = y - self.titled + round(self.scroll_offset.y)
        if not 0 <= index < self.count():
            return Strip.blank(width, self.rich_style)
        key = (index, index == self.cursor, self.has_focus, width)
        if key not in self._strips:
            self._strips[key] = self._strip(index, width)
        return self._strips[key]

    def _strip(self, index: int, width: int) -> Strip:
        segments = [Segment(text, style) for text, style in self.pieces(index, width)]
        strip = Strip(segments).adjust_cell_length(width, Style())
        name = "rows--cursor" if index == self.cursor else ""
        if name not in self._bases:
            self._bases[name] = self.get_component_rich_style(name) if name else self.rich_style
        return strip.apply_style(self._bases[name])

    def watch_cursor(self, _old: int, new: int) -> None:
        """Keep the cursor on the screen."""
        if not self.show_row(new):
            self.call_after_refresh(self.show_row, new)  # rows just added can be scrolled to after the next layout
        self.refresh()
        self.post_message(self.Moved(self, new))

    def show_row(self, index: int) -> bool:
        """Scroll as little as needed to have a row on the screen; false if that is not possible yet."""
        visible = max(1, self.size.height - self.titled)
        top = round(self.scroll_offset.y)
        wanted = max(min(top, index), index - visible + 1)
        if wanted != top:
            self.scroll_to(y=wanted, animate=False)
        return round(self.scroll_target_y) == wanted

    def on_resize(self) -> None:
        """Fit the new size."""
        self.changed()

    def on_focus(self) -> None:
        """Show that the keys come here."""
        self.refresh()

    def on_blur(self) -> None:
        """Show that the keys go elsewhere."""
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """Put the cursor there; a second click opens."""
        index = event.y - self.titled + round(self.scroll_offset.y)
        if not 0 <= index < self.count():
            return
        again = index == self.cursor and event.chain > 1
        self.cursor = index
        if again:
            self.action_choose()

    def action_move(self, by: int) -> None:
        """Move the cursor by some rows."""
        self.cursor = max(0, min(self.count() - 1, self.cursor + by))

    def action_page(self, by: int) -> None:
        """Move the cursor by a screenful."""
        self.action_move(by * max(1, self.size.height - 1 - self.titled))

    def action_choose(self) -> None:
        """Open the row under the cursor."""
        if self.count():
            self.post_message(self.Chosen(self, self.cursor))
