"""The screen of one run: its views, one at a time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import ContentSwitcher, Footer

from tui.screens.live import LiveScreen
from tui.widgets.facts import FactsView
from tui.widgets.findings import FindingsView
from tui.widgets.gradients import GradientsView
from tui.widgets.header import RunHeader
from tui.widgets.layers import LayersView
from tui.widgets.notice import Notice
from tui.widgets.overview import OverviewView
from tui.widgets.report import ReportView
from tui.widgets.shapes import ShapesView
from tui.widgets.views import View, ViewTabs

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tui.head import Head
    from tui.messages import Arrived, Failed, PlaceChosen, SiteChosen
    from tui.snapshot import Question, Snapshot
    from tui.source import Source

NOTICE = "notice"
VIEWS = ("overview", "layers", "gradients", "findings", "shapes", "facts", "report")
TITLES = {"facts": "Run"}  # where a view's name and what is said of it differ
STEPS = Binding.Group("Step", compact=True)


class RunScreen(LiveScreen):
    """Header, tabs and the active view.

    Args:
        source: where snapshots come from.
        wait: whether the run is expected to begin later.
    """

    BINDING_GROUP_TITLE = "Run"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"show('{name}')", TITLES.get(name, name.capitalize()), show=False, id=f"run.{name}")
          for number, name in enumerate(VIEWS, 1)),
        Binding("tab", "app.focus_next", "Next chart", show=False, id="run.next"),
        Binding("space", "pause", "Pause", id="run.pause"),
        Binding("left_square_bracket", "travel(-1)", "Step back", key_display="[", id="run.back", group=STEPS),
        Binding("right_square_bracket", "travel(1)", "Step on", key_display="]", id="run.on", group=STEPS),
        Binding("escape", "leave", "Runs", id="run.leave"),
    ]  # fmt: skip

    def __init__(self, source: Source, *, wait: bool = False) -> None:
        super().__init__(source)
        self.wait = wait
        self.views: dict[str, View] = {
            view.id or "": view
            for view in (
                OverviewView(), LayersView(), GradientsView(), FindingsView(), ShapesView(), FactsView(), ReportView()
            )
        }  # fmt: skip
        self.active = "overview"
        self.until: int | None = None
        self.snapshot: Snapshot | None = None
        self._trouble = ""
        self._header = RunHeader()
        self._tabs = ViewTabs({name: view.label for name, view in self.views.items()})
        self._notice = Notice(id=NOTICE)
        self._switcher = ContentSwitcher(self._notice, *self.views.values(), initial=NOTICE)

    def compose(self) -> ComposeResult:
        """Put the parts together."""
        yield self._header
        yield self._tabs
        yield self._switcher
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Read at once, and then again and again."""
        self._header.place = str(self.source.path.name)
        self._tabs.active = self.active
        self._notice.say("opening …")
        super().on_mount()

    def question(self) -> Question:
        """What the active view wants to know."""
        return self.views[self.active].question(self.until)

    def on_arrived(self, message: Arrived) -> None:
        """Show a snapshot."""
        message.stop()
        snapshot, before = message.snapshot, self.snapshot
        self._trouble = self._header.trouble = ""
        self._header.head = self._tabs.head = snapshot.head
        self._say_what_changed(snapshot, before)
        self._open_on_the_report(snapshot.head)
        self.refresh_bindings()
        if snapshot.answer is None:
            return
        self.snapshot = snapshot
        if snapshot.question != self.question():
            self.poll()
        elif snapshot.head.last_step < 0 and self.views[self.active].needs_steps:
            self._nothing_yet(snapshot.head)
        else:
            self.views[self.active].show(snapshot.answer, snapshot.head)
            self._reveal()

    def _open_on_the_report(self, head: Head) -> None:
        """Show why a run died of a shape error, unless something else is being looked at."""
        if head.status == "died" and head.reports and self.active == VIEWS[0] and self._switcher.current == NOTICE:
            self.action_show("report")

    def _reveal(self) -> None:
        if self._switcher.current != self.active:
            self._switcher.current = self.active
            self.views[self.active].enter()

    def _say_what_changed(self, snapshot: Snapshot, before: Snapshot | None) -> None:
        if snapshot.replaced:
            self.until = self._header.paused = None
            self.notify("A new run began here; this is it now.", title=snapshot.head.name)
        elif before is not None and before.head.status == "running" != snapshot.head.status:
            bad = snapshot.head.status == "died"
            step = f" at step {snapshot.head.last_step}" if snapshot.head.last_step >= 0 else ""
            why = f" Key {len(VIEWS)} shows why." if bad and snapshot.head.reports else ""
            self.notify(f"The run {said(snapshot.head.status)}{step}.{why}", severity="error" if bad else "information")

    def _nothing_yet(self, head: Head) -> None:
        if head.status == "running":
            self._notice.say("waiting for the first step", f"`{head.name}` has been opened; nothing is measured yet")
        else:
            self._notice.say(f"the run {said(head.status)} before its first step", head.error, color="$text-error")
        self._switcher.current = NOTICE

    def on_failed(self, message: Failed) -> None:
        """Say what is wrong, and go on trying."""
        message.stop()
        again, self._trouble = message.title == self._trouble, message.title
        if self.snapshot is not None and self.snapshot.head.last_step >= 0:
            # A file that is being written may be caught between two states: only what stays wrong is told.
            if again and self._header.trouble != message.title:
                self._header.trouble = message.title
                self.notify(message.detail or message.title, title=message.title, severity="warning", markup=False)
        elif self.wait:
            self._notice.say("waiting for the first step", f"a training will write its run to `{self.source.path}`")
        else:
            self._notice.say(message.title, message.detail, color="$text-error")

    def action_show(self, name: str) -> None:
        """Switch to a view."""
        self.active = self._tabs.active = name
        if self._switcher.current != NOTICE and not (self.views[name].needs_steps and self._has_no_step()):
            self._switcher.current = name
            self.views[name].enter()
        self.refresh_bindings()
        self.poll()

    def _has_no_step(self) -> bool:
        return self.snapshot is None or self.snapshot.head.last_step < 0

    def action_pause(self) -> None:
        """Stop following the run at the newest step, or follow it again."""
        newest = self.snapshot.head.last_step if self.snapshot else None
        self._stop_at(newest if self.until is None else None)

    def action_travel(self, by: int) -> None:
        """Go to the measured step before or after the one shown."""
        measured = self.snapshot.measured if self.snapshot else ()
        if not measured:
            return
        at = measured[-1] if self.until is None else self.until
        place = bisect_left(measured, at) - 1 if by < 0 else bisect_right(measured, at)
        if 0 <= place < len(measured):
            self._stop_at(measured[place])

    def _stop_at(self, step: int | None) -> None:
        self.until = self._header.paused = step
        self.poll()

    def action_leave(self) -> None:
        """Back to the list of runs, if there is one."""
        if len(self.app.screen_stack) > 2:
            self.app.pop_screen()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide what leads nowhere."""
        if action == "leave":
            return len(self.app.screen_stack) > 2
        if action == "show" and parameters == ("report",):
            return self._header.head is not None and self._header.head.reports > 0
        return super().check_action(action, parameters)

    def on_question_changed(self) -> None:
        """Ask at once."""
        self.poll()

    def on_place_chosen(self, message: PlaceChosen) -> None:
        """Show a place in the tree."""
        message.stop()
        layers = self.views["layers"]
        assert isinstance(layers, LayersView)
        layers.target = message.place
        self.action_show("layers")

    def on_site_chosen(self, message: SiteChosen) -> None:
        """Open a site."""
        from tui.screens.site import SiteScreen

        message.stop()
        self.app.push_screen(SiteScreen(self.source, message.site, self.until))


def said(status: str) -> str:
    """A status as the end of a sentence."""
    return "was interrupted" if status == "interrupted" else status
