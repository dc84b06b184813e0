"""Plain words in the middle of the screen where there is nothing to show yet, or nothing that can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

if TYPE_CHECKING:
    from textual.app import ComposeResult


class Words(Static):
    """Text that changes often: a layout of the whole screen is asked for only when its number of lines changes."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self._said = Content("")

    def say(self, words: Content) -> None:
        """Show other words."""
        if not words.is_same(self._said):
            lines = [str(content).count("\n") for content in (words, self._said)]
            wraps = max(map(len, str(words).split("\n"))) > self.size.width
            self._said = words
            self.update(words, layout=wraps or lines[0] != lines[1])


class Notice(VerticalScroll):
    """A title, and what can be done."""

    DEFAULT_CSS = """
    Notice {
        align: center middle;
        Words { width: auto; max-width: 100%; height: auto; padding: 1 2; }
    }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, can_focus=False)
        self._text = Words()

    def compose(self) -> ComposeResult:
        """Put the parts together."""
        yield self._text

    def say(self, title: str, detail: str = "", *, color: str = "$text") -> None:
        """Show other words."""
        body = (f"\n\n{detail}", "$text-muted") if detail else ""
        self._text.say(Content.assemble((title, f"bold {color}"), body))
