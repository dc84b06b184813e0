"""The view of what a run says about itself: sampling, speed, program, optimizers, parts, ranks, machine, notes."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from tui.snapshot import AskFacts, Facts
from tui.widgets.views import View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from tui.facts import Section
    from tui.head import Head
    from tui.snapshot import Answer

COLUMN = 56  # the least width of one column of facts
GAP = 4
ALARMING = {"trouble", "differs"}  # labels of what is wrong


class FactsView(View):
    """Sections of facts, in as many columns as the screen has room for."""

    label = "Run"
    needs_steps = False
    DEFAULT_CSS = """
    FactsView { VerticalScroll { padding: 0 1; scrollbar-size-vertical: 1; } Static { height: auto; } }
    """

    def __init__(self) -> None:
        super().__init__(id="facts")
        self._sections: tuple[Section, ...] = ()
        self._text = Static()
        self._scroll = VerticalScroll(self._text)

    def compose(self) -> ComposeResult:
        """Put the parts together."""
        yield self._scroll

    def question(self, until: int | None) -> AskFacts:
        """The facts as they are now."""
        return AskFacts()

    def show(self, answer: Answer, head: Head) -> None:
        """Write other facts."""
        assert isinstance(answer, Facts)
        if answer.sections != self._sections:
            self._sections = answer.sections
            self._write()

    def enter(self) -> None:
        """Let the keys scroll."""
        self._scroll.focus()

    def on_resize(self) -> None:
        """Fit the new size."""
        self._write()

    def _write(self) -> None:
        self._text.update(in_columns(self._sections, max(20, self.size.width - 3)))


def in_columns(sections: Sequence[Section], width: int) -> Content:
    """Sections below each other in columns of about equal length, none of them broken."""
    across = max(1, min(len(sections), (width + GAP) // (COLUMN + GAP)))
    each = (width - GAP * (across - 1)) // across
    blocks = [_block(section, each) for section in sections]
    columns = _balanced(blocks, across)
    height = max((len(column) for column in columns), default=0)
    lines = []
    for row in range(height):
        cells = [column[row] if row < len(column) else Content("") for column in columns]
        padded = [cell.pad_right(each + GAP - cell.cell_length) for cell in cells[:-1]]
        lines.append(Content("").join([*padded, cells[-1]]))
    return Content("\n").join(lines)


def _block(section: Section, width: int) -> list[Content]:
    """The lines of a section, and an empty one below."""
    label_width = max(len(label) for label, _ in section.rows) + 2
    lines = [Content.styled(section.title, "bold $text-primary")]
    for label, text in section.rows:
        style = "$text-warning" if label in ALARMING else ""
        room = max(10, width - label_width - 2)
        pieces = [piece for line in text.splitlines() for piece in wrap(line, room, break_on_hyphens=False)] or [""]
        for number, piece in enumerate(pieces):
            name = (label if number == 0 else "").ljust(label_width)
            lines.append(Content.assemble((f"  {name}", "$text-muted"), (piece, style)))
    return [*lines, Content("")]


def _balanced(blocks: list[list[Content]], across: int) -> list[list[Content]]:
    """Blocks in columns, in their order: the least height in which they fit."""
    height = max((len(block) for block in blocks), default=0)
    while True:
        columns: list[list[Content]] = [[]]
        for block in blocks:
            if columns[-1] and len(columns[-1]) + len(block) > height:
                columns.append([])
            columns[-1] += block
        if len(columns) <= across:
            return columns
        height += 1
