"""What every view of a run has in common, and the line of tabs that switches between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from textual.containers import Container
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from tui import palette

if TYPE_CHECKING:
    from tui.head import Head
    from tui.snapshot import Answer, Question


class View(Container):
    """A part of the run's screen that asks one question and shows its answer."""

    label = ""
    needs_steps = True  # whether there is nothing to show before the first step

    def question(self, until: int | None) -> Question:
        """What it wants to know, as of a step or as of now."""
        raise NotImplementedError

    def show(self, answer: Answer, head: Head) -> None:
        """Show an answer to its question."""
        raise NotImplementedError

    def enter(self) -> None:
        """Put the focus where the keys are of use."""


class HasLabel(Protocol):
    """What the tabs need to know of a view."""

    id: str | None
    label: str


class ViewTabs(Widget):
    """One line with the views' numbers and names; a click switches."""

    DEFAULT_CSS = """
    ViewTabs { height: 1; padding: 0 1; background: $panel; link-style: none; link-color: $text; }
    """

    active: reactive[str] = reactive("")
    head: reactive[Head | None] = reactive(None)

    def __init__(self, labels: dict[str, str]) -> None:
        super().__init__()
        self.labels = labels

    def render(self) -> Content:
        """The text."""
        width = self.app.size.width
        tabs = [self._tab(number, name, narrow=width < 60) for number, name in enumerate(self.labels, 1)]
        room = width - 2 - sum(tab.cell_length for tab in tabs)
        return Content(" " if room >= len(tabs) else "").join(tabs)

    def _tab(self, number: int, name: str, *, narrow: bool) -> Content:
        """One view's name; empty if there is nothing to be seen there."""
        if name == "report" and not (self.head and self.head.reports):
            return Content("")
        said = f" {number}" if narrow and name != self.active else f" {number} {self.labels[name]}"
        style = "bold reverse" if name == self.active else "$text-muted"
        parts = [Content.styled(said, style).stylize(f"@click=screen.show('{name}')")]
        mark, color = _found(name, self.head)
        if mark:
            background = " reverse" if name == self.active else ""
            parts.append(Content.styled(f" {mark}", f"bold {color}{background}"))
        return Content.assemble(*parts, Content.styled(" ", style))


def _found(name: str, head: Head | None) -> tuple[str, str]:
    """The sign beside a view's name that something is to be seen there, and its colour."""
    if head is not None and name == "findings" and head.worst is not None:
        mark, color = palette.severity_mark(head.worst)
        return f"{mark}{head.findings}", color
    if head is not None and name == "report" and head.reports:
        mark, color = palette.severity_mark("error")
        return f"{mark}{head.reports}", color
    return "", ""
