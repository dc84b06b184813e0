"""The lines on top of a run: which one, how it is doing, how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from tui import palette
from tui.charts.numbers import grouped, short

if TYPE_CHECKING:
    from tui.head import Head

Part = tuple[str, str]


class RunHeader(Widget):
    """One line about the run; further ones if it ended in an error, or if something is wrong with the recording."""

    DEFAULT_CSS = """
    RunHeader {
        height: auto;
        max-height: 4;
        padding: 0 1;
        background: $panel;
        color: $text;
    }
    """

    head: reactive[Head | None] = reactive(None)
    place: reactive[str] = reactive("")
    paused: reactive[int | None] = reactive(None)
    trouble: reactive[str] = reactive("")

    def watch_head(self, old: Head | None, new: Head | None) -> None:
        """Make room for what ended the run."""
        # A layout of the whole screen costs more than drawing this line: only when the number of lines changes.
        if _further(old) != _further(new):
            self.refresh(layout=True)

    def watch_trouble(self, old: str, new: str) -> None:
        """Make room for what is wrong."""
        if bool(old) != bool(new):
            self.refresh(layout=True)

    def render(self) -> Content:
        """The text."""
        width = max(10, self.size.width or self.app.size.width - 2)
        if self.head is None:
            return Content.assemble(("○ ", "$text-muted"), self.place).truncate(width, ellipsis=True)
        left, right = _left(self.head), _right(self.head, self.paused)
        first = _spread(left, right, width)
        ends = [text.strip().splitlines()[0] for text in (self.trouble, self.head.error) if text.strip()]
        lines = [Content.styled(f"  {text}", "$text-error").truncate(width, ellipsis=True) for text in ends]
        if self.head.warnings:
            text = f"  ▲ {' · '.join(self.head.warnings)}"
            lines.append(Content.styled(text, "$text-warning").truncate(width, ellipsis=True))
        return Content("\n").join([first, *lines])


def _further(head: Head | None) -> int:
    """How many lines there are to say about a run besides the first."""
    return 0 if head is None else bool(head.error) + bool(head.warnings)


def _left(head: Head) -> list[Part]:
    mark, color = palette.STATUS.get(head.status, palette.STATUS["waiting"])
    parts = [(f"{mark} {head.status}", f"bold {color}"), (head.name, "bold"), (head.model, "$text-muted")]
    return [part for part in parts if part[0]]


def _right(head: Head, paused: int | None) -> list[Part]:
    parts = []
    if paused is not None:
        parts.append((f"‖ at step {grouped(paused)}", "bold $text-warning"))
    if head.last_step >= 0:
        parts.append((f"step {grouped(head.last_step)}", ""))
    if head.notes:
        parts.append((f"▲ {head.notes} note{'s' if head.notes > 1 else ''}", "$text-warning"))
    rate = head.rate if head.status == "running" else None
    if rate is not None:
        parts.append((f"{short(rate)} steps/s", "$text-muted"))
    if head.sampling:
        parts.append((head.sampling, "$text-muted"))
    if head.sampling and head.budget:
        parts.append((head.budget, "$text-muted"))
    if rate is not None and head.samples is not None:
        parts.append((f"{short(rate * head.samples)} samples/s", "$text-muted"))
    if head.ranks > 1:
        parts.append((f"{head.ranks} ranks", "$text-muted"))
    return parts


def _spread(left: list[Part], right: list[Part], width: int) -> Content:
    """Left parts on the left and right parts on the right; what does not fit goes, the least important first."""
    while len(right) > 1 and _length(left) + _length(right) + 2 > width:
        right = right[:-1]
    while len(left) > 2 and _length(left) + _length(right) + 2 > width:
        left = left[:-1]
    gap = max(1, width - _length(left) - _length(right))
    line = Content.assemble(_joined(left), " " * gap, _joined(right))
    return line.truncate(width, ellipsis=True)


def _joined(parts: list[Part]) -> Content:
    return Content.assemble((" · ", "$text-disabled")).join(Content.styled(text, style) for text, style in parts)


def _length(parts: list[Part]) -> int:
    return sum(len(text) for text, _ in parts) + 3 * max(0, len(parts) - 1)
