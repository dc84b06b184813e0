"""The keys of the screen below, made from its bindings."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.app import ComposeResult
    from textual.binding import ActiveBinding


class HelpScreen(ModalScreen[None]):
    """All keys that work below, in groups.

    Args:
        bindings: the active bindings of the screen that it is shown over.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q", "dismiss", "Close", id="help.close"),
    ]
    DEFAULT_CSS = """
    HelpScreen {
        align: center middle;
        VerticalScroll {
            width: auto; max-width: 95%; height: auto; max-height: 95%;
            background: $surface; border: round $primary; border-title-color: $text; padding: 0 2;
            scrollbar-size-vertical: 1;
        }
        Static { width: auto; height: auto; }
    }
    """

    def __init__(self, bindings: Iterable[ActiveBinding]) -> None:
        super().__init__()
        self._bindings_below = list(bindings)

    def compose(self) -> ComposeResult:
        """Put the parts together."""
        with VerticalScroll() as scroll:
            scroll.border_title = "Keys"
            scroll.border_subtitle = "esc closes"
            yield Static(self._table())

    def _table(self) -> Content:
        groups: dict[str, dict[tuple[str, str], list[str]]] = {}
        for namespace, binding, enabled, _ in self._bindings_below:
            if enabled and binding.id:  # keys that Textual brings along have none
                title = getattr(namespace, "BINDING_GROUP_TITLE", None) or "Everywhere"
                same = groups.setdefault(title, {}).setdefault((binding.description, binding.action), [])
                same.append(self.app.get_key_display(binding))
        width = max((len(" ".join(keys)) for group in groups.values() for keys in group.values()), default=0)
        lines: list[Content] = []
        for title, group in groups.items():
            lines += [Content(""), Content.styled(title, "bold $text-accent")]
            for (description, _), keys in group.items():
                lines.append(Content.assemble((" ".join(keys).rjust(width), "bold"), "  ", description))
        return Content("\n").join([*lines, Content("")])
