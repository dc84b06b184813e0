"""The third view: how large the gradients (or the tensors) of all sites were over the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import ContentSwitcher

from tui.messages import QuestionChanged
from tui.snapshot import FAMILIES, AskTable, Table
from tui.widgets.heatmap import Heatmap
from tui.widgets.notice import Notice
from tui.widgets.views import View

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tui.head import Head
    from tui.snapshot import Answer


class GradientsView(View):
    """The field, and the key that chooses what it shows."""

    label = "Gradients"
    BINDING_GROUP_TITLE = "Gradients"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("g", "family", "Gradients or tensors", id="gradients.family")]

    def __init__(self) -> None:
        super().__init__(id="gradients")
        self.family = ""  # chosen; empty for the first one that was recorded
        self._shown = ""
        self._field = Heatmap()
        self._notice = Notice(id="nothing")

    def compose(self) -> ComposeResult:
        """Put the parts together."""
        yield ContentSwitcher(self._field, self._notice, initial="field")

    def question(self, until: int | None) -> AskTable:
        """The family's sites over the run, in as many columns as the screen has."""
        return AskTable(self.family, max(20, self.screen.size.width), until)

    def show(self, answer: Answer, head: Head) -> None:
        """Hand the table to the field."""
        assert isinstance(answer, Table)
        self._field.border_title = f"{answer.family}, root mean square"
        self._field.table = answer
        self._notice.say(f"no {answer.family} were recorded", "press g for other tensors")
        self.query_one(ContentSwitcher).current = "field" if answer.values.size else "nothing"
        self._shown = answer.family

    def enter(self) -> None:
        """Focus the field."""
        self._field.focus()

    def action_family(self) -> None:
        """Show the next family of tensors."""
        at = FAMILIES.index(self._shown) if self._shown else -1
        self.family = FAMILIES[(at + 1) % len(FAMILIES)]
        self.post_message(QuestionChanged())
