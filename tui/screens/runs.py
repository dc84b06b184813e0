"""The screen that lists the runs below a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Input
from textual.worker import Worker, WorkerState

from tui import palette
from tui.charts.numbers import ago, grouped, short, shortened
from tui.messages import Listed, RunChosen
from tui.widgets.notice import Notice, Words
from tui.widgets.rows import Column, Rows, fitting

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import ComposeResult

    from tui.folder import Entry, Folder
    from tui.widgets.rows import Piece

LOOK_SECONDS = 1.0
COLUMNS = (
    Column("status", 11, 1, right=False),
    Column("model", 18, 4, right=False),
    Column("steps", 9, 2),
    Column("loss", 9, 0),
    Column("begun", 13, 3),
)
STATUS, MODEL, STEPS, LOSS, BEGUN = range(len(COLUMNS))
LEAST_NAME = 20


class RunList(Rows):
    """The list.

    Args:
        now: seconds since 1970.
    """

    BINDING_GROUP_TITLE = "Runs"

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(id="runs")
        self.now = now
        self.entries: list[Entry] = []

    def update(self, entries: list[Entry]) -> None:
        """Show other runs; the cursor stays on the run it was on."""
        at = self.entries[self.cursor].path if self.entries else None
        self.entries = entries
        self.changed()
        self.cursor = next((n for n, entry in enumerate(entries) if entry.path == at), self.cursor)

    def count(self) -> int:
        """How many lines are shown."""
        return len(self.entries)

    def heading(self, width: int) -> str:
        """The titles of the columns."""
        columns = fitting(COLUMNS, width - LEAST_NAME)
        taken = sum(COLUMNS[n].width + 1 for n in columns)
        return "  run".ljust(width - taken) + "".join(" " + COLUMNS[n].cell(COLUMNS[n].title) for n in columns)

    def pieces(self, index: int, width: int) -> list[Piece]:
        """What stands in a row."""
        entry = self.entries[index]
        columns = fitting(COLUMNS, width - LEAST_NAME)
        name = width - sum(COLUMNS[n].width + 1 for n in columns)
        mark, color = palette.STATUS.get(entry.status, palette.STATUS["unreadable"])
        pieces = [
            (f"{mark} ", palette.style(color, bold=True)),
            (shortened(entry.name, name - 2).ljust(name - 2), palette.style(bold=True)),
        ]
        if entry.problem:
            text = f" {entry.problem}"
            return [*pieces, (shortened(text, width - name).ljust(width - name), palette.style(color))]
        for number in columns:
            text, shade = (entry.status, color) if number == STATUS else (self._text(entry, number), "")
            pieces.append((" " + COLUMNS[number].cell(text), palette.style(shade)))
        return pieces

    def _text(self, entry: Entry, number: int) -> str:
        if number == LOSS:
            return "" if entry.loss is None else short(entry.loss)
        if number == BEGUN:
            return "" if entry.created is None else ago(self.now() - entry.created)
        return entry.model if number == MODEL else grouped(entry.steps)


class RunsScreen(Screen[None]):
    """The list, a filter, and plain words where there is no run.

    Args:
        folder: where runs are looked for.
        now: seconds since 1970.
    """

    AUTO_FOCUS = "RunList"
    BINDING_GROUP_TITLE = "Runs"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/", id="runs.filter"),
        Binding("escape", "unfilter", "Show all", show=False, id="runs.unfilter"),
    ]
    DEFAULT_CSS = """
    RunsScreen {
        #where { height: 1; padding: 0 1; background: $panel; }
        #filter { height: 1; border: none; padding: 0 1; }
        RunList { padding: 0 1; height: 1fr; }
        Notice { height: 4fr; }
    }
    """

    def __init__(self, folder: Folder, now: Callable[[], float]) -> None:
        super().__init__()
        self.folder = folder
        self.list = RunList(now)
        self._all: tuple[Entry, ...] = ()
        self._looking = False
        self._where = Words(id="where")
        self._filter = Input(placeholder="part of a name, model or status", id="filter")
        self._notice = Notice(id="none")
        self._filter.display = self._notice.display = False

    def compose(self) -> ComposeResult:
        """Put the parts together."""
        yield self._where
        yield self._filter
        yield self.list
        yield self._notice
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Look at once, and then again and again."""
        self.set_interval(LOOK_SECONDS, self.look)
        self.look()

    def look(self) -> None:
        """List the runs anew, unless that is still under way or nobody looks at this screen."""
        if self.is_current and not self._looking:
            self._looking = True
            self._list()

    @work(thread=True, exclusive=True, exit_on_error=False, group="list")
    def _list(self) -> None:
        try:
            self.post_message(Listed(self.folder.entries()))
        finally:
            self._looking = False

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Say what a worker could not do."""
        # A folder that goes away between two looks at it; the next look is a second away.
        if event.state is WorkerState.ERROR and not isinstance(event.worker.error, FileNotFoundError):
            self.notify(str(event.worker.error), title="the runs cannot be listed", severity="error", markup=False)

    def on_listed(self, message: Listed) -> None:
        """Show the runs."""
        message.stop()
        self._all = message.entries
        self._show()

    def _show(self) -> None:
        wanted = self._filter.value.lower().split()
        chosen = [entry for entry in self._all if all(word in _searched(entry) for word in wanted)]
        self.list.update(chosen)
        count = f"{len(self._all)} run{'s' if len(self._all) != 1 else ''}"
        count = f"{len(chosen)} of {count}" if wanted else count
        place = shortened(str(self.folder.path), max(10, self.size.width - len(count) - 20))
        self._where.say(Content.assemble(("tensorscope", "bold"), f"  {place}  ", (count, "$text-muted")))
        if not self._all:
            self._say_how_to_make_one()
        elif not chosen:
            self._notice.say("no run matches the filter", "escape shows all of them")
        self._notice.display = not chosen

    def _say_how_to_make_one(self) -> None:
        path = self.folder.path
        self._notice.say(
            f"no run in `{path}` yet" if path.is_dir() else f"`{path}` does not exist yet",
            "A run is written while a traced model trains:\n\n"
            "    import tensorscope\n"
            f'    with tensorscope.trace(model, "{path}/first") as trace:\n'
            "        ...  # your training loop\n\n"
            "This list goes on looking.",
        )

    def on_input_changed(self) -> None:
        """Narrow the list."""
        self._show()

    def on_input_submitted(self) -> None:
        """Go on with the narrowed list."""
        self.list.focus()

    def action_filter(self) -> None:
        """Type to narrow the list."""
        self._filter.display = True
        self._filter.focus()

    def action_unfilter(self) -> None:
        """Show all runs again."""
        self._filter.value = ""
        self._filter.display = False
        self.list.focus()

    def on_rows_chosen(self, message: Rows.Chosen) -> None:
        """Open what the row stands for."""
        message.stop()
        entry = self.list.entries[message.index]
        if entry.problem:
            self.notify(entry.problem, title=f"{entry.name} cannot be opened", severity="error", markup=False)
        else:
            self.post_message(RunChosen(entry.path))


def _searched(entry: Entry) -> str:
    return f"{entry.name} {entry.model} {entry.status}".lower()
