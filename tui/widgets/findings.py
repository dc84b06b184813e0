"""The fourth view: what is wrong with the training, the worst first, and why one can know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import ContentSwitcher, Static

from tui import palette
from tui.charts.numbers import grouped, short, shortened
from tui.messages import PlaceChosen
from tui.snapshot import AskDiagnosis, Diagnosis
from tui.widgets.notice import Notice
from tui.widgets.overview import healthy
from tui.widgets.rows import Column, Rows, fitting
from tui.widgets.views import View

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tensorscope.events import Finding
    from tui.head import Head
    from tui.snapshot import Answer
    from tui.widgets.rows import Piece

COLUMNS = (Column("where", 22, 1, right=False), Column("steps", 15, 2), Column("rule", 20, 3, right=False))
WHERE, STEPS, RULE = range(len(COLUMNS))
LEAST_SUMMARY = 30
NOT_PLACES = {"input", "loss", "optimizer"}  # sites of findings that are no lines of the tree


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the list: a finding, or a note of the recorder."""

    severity: str
    title: str
    finding: Finding | None = None
    text: str = ""
    steps: str = ""
    rule: str = ""


def items_of(answer: Diagnosis) -> list[Item]:
    """Findings first, then notes."""
    findings = [
        Item(str(f.severity), f.summary, f, steps=_steps(f.first_step, f.last_step), rule=f.rule)
        for f in answer.findings
    ]
    notes = [
        Item("info", text.splitlines()[0] if text else "", text=text, steps=grouped(step), rule="while recording")
        for step, text in answer.notes
    ]
    return findings + notes


class FindingList(Rows):
    """The list."""

    BINDING_GROUP_TITLE = "Findings"

    def __init__(self) -> None:
        super().__init__(id="found")
        self.items: list[Item] = []

    def update(self, items: list[Item]) -> None:
        """Show other items."""
        self.items = items
        self.changed()

    def count(self) -> int:
        """How many lines are shown."""
        return len(self.items)

    def heading(self, width: int) -> str:
        """The titles of the columns."""
        columns = fitting(COLUMNS, width - LEAST_SUMMARY)
        cells = "".join(COLUMNS[n].cell(COLUMNS[n].title) + " " for n in columns)
        return f"  {cells}what"

    def pieces(self, index: int, width: int) -> list[Piece]:
        """What stands in a row."""
        item = self.items[index]
        mark, color = palette.severity_mark(item.severity)
        columns = fitting(COLUMNS, width - LEAST_SUMMARY)
        texts = {WHERE: (item.finding and item.finding.site) or "", STEPS: item.steps, RULE: item.rule}
        pieces = [(f"{mark} ", palette.style(color, bold=True))]
        for number in columns:
            shade = palette.style() if number == WHERE else palette.style(palette.FADED)
            pieces.append((COLUMNS[number].cell(texts[number]) + " ", shade))
        room = width - 2 - sum(COLUMNS[n].width + 1 for n in columns)
        return [*pieces, (_clipped(item.title, room), palette.style())]


class FindingsView(View):
    """The list, and all about the line under the cursor."""

    label = "Findings"
    DEFAULT_CSS = """
    FindingsView {
        #list { height: 100%; }
        FindingList { max-height: 50%; padding: 0 1; }
        #about {
            height: 1fr; border: round $surface-lighten-2; border-title-color: $text; padding: 0 1;
            scrollbar-size-vertical: 1;
            Static { height: auto; }
        }
    }
    """

    def __init__(self) -> None:
        super().__init__(id="findings")
        self.list = FindingList()
        self._text = Static()
        self._about = VerticalScroll(self._text, id="about", can_focus=False)
        self._notice = Notice(id="healthy")
        both = VerticalScroll(self.list, self._about, id="list", can_focus=False)
        self._switcher = ContentSwitcher(both, self._notice)

    def compose(self) -> ComposeResult:
        """Put the parts together."""
        yield self._switcher

    def question(self, until: int | None) -> AskDiagnosis:
        """Findings and notes."""
        return AskDiagnosis(until)

    def show(self, answer: Answer, head: Head) -> None:
        """List what there is, or say plainly that there is nothing."""
        assert isinstance(answer, Diagnosis)
        items = items_of(answer)
        if not items:
            said = f"✓ {healthy(head)}"
            detail = f"Every rule was silent up to step {grouped(head.last_step)}."
            self._notice.say(said, detail, color=palette.STATUS["running"][1])
        self._switcher.current = "list" if items else "healthy"
        if items != self.list.items:
            self.list.update(items)
            self.list.styles.height = len(items) + 1
            self._explain()

    def enter(self) -> None:
        """Focus the list."""
        self.list.focus()

    def on_rows_moved(self, message: Rows.Moved) -> None:
        """Tell about the row under the cursor."""
        message.stop()
        self._explain()

    def on_rows_chosen(self, message: Rows.Chosen) -> None:
        """Open what the row stands for."""
        message.stop()
        finding = self.list.items[message.index].finding
        if finding is None or not finding.site or finding.site in NOT_PLACES:
            self.notify("This is about the whole program; no layer to show.")
        else:
            self.post_message(PlaceChosen(finding.site))

    def _explain(self) -> None:
        if self.list.items:
            item = self.list.items[min(self.list.cursor, len(self.list.items) - 1)]
            self._about.border_title = item.rule
            self._text.update(explained(item.finding) if item.finding else Content(item.text))


def explained(finding: Finding) -> Content:
    """All that a finding says: the sentence, the evidence, what explains it, what to do."""
    mark, color = palette.severity_mark(finding.severity)
    where = [
        ("where", finding.site or "the whole program"),
        ("steps", _steps(finding.first_step, finding.last_step)),
        *((name.replace("_", " "), short(value)) for name, value in finding.evidence.items()),
    ]
    if finding.caused_by is not None:
        cause = finding.caused_by
        where.append(("caused by", f"{cause.rule} at {cause.site or 'the whole program'}: {cause.summary}"))
    width = max(len(label) for label, _ in where) + 2
    lines: list[Content] = [Content.assemble((f"{mark} {finding.summary}", f"bold {color}")), Content("")]
    lines += [Content.assemble((label.ljust(width), "$text-muted"), text) for label, text in where]
    if finding.hint:
        lines += [Content(""), Content.assemble(("hint: ", "bold"), finding.hint)]
    return Content("\n").join(lines)


def _steps(first: int, last: int) -> str:
    return grouped(first) if first == last else f"{grouped(first)}–{grouped(last)}"


def _clipped(text: str, width: int) -> str:
    return text if len(text) <= width else shortened(text[: max(0, width - 1)], width - 1) + "…"
