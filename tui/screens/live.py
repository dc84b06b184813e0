"""The ground of screens that follow a run: ask in a thread, show what comes back, say what went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import work
from textual.screen import Screen
from textual.worker import Worker, WorkerState

from tensorscope.errors import TensorscopeError, message
from tui.messages import Arrived, Failed

if TYPE_CHECKING:
    from tui.snapshot import Question
    from tui.source import Source

POLL_SECONDS = 0.25
UNWATCHED = 4  # polls left out of so many while the terminal is not looked at


class LiveScreen(Screen[None]):
    """Polls a source while it is on top; never more than one reading is under way.

    Args:
        source: where snapshots come from.
    """

    AUTO_FOCUS = ""  # a view takes the focus when it has something to show

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self._reading = False
        self._polls = 0

    def question(self) -> Question:
        """What the screen wants to know now."""
        raise NotImplementedError

    def on_mount(self) -> None:
        """Read at once, and then again and again."""
        self.set_interval(POLL_SECONDS, self._tick)
        self.poll()

    def _tick(self) -> None:
        self._polls += 1
        if self.app.app_focus or self._polls % UNWATCHED == 0:
            self.poll()

    def poll(self) -> None:
        """Ask, unless an answer is still on its way or nobody looks at this screen."""
        if self.is_current and not self._reading:
            self._reading = True
            self._read(self.question())

    @work(thread=True, exclusive=True, exit_on_error=False, group="read")
    def _read(self, question: Question) -> None:
        try:
            snapshot = self.source.read(question)
        except TensorscopeError as error:
            self.post_message(Failed(error.title, message("", error.facts, error.hint).strip("\n")))
        except OSError as error:  # the folder goes away between two looks at it
            self.post_message(Failed(f"the run `{self.source.path}` cannot be read", str(error)))
        else:
            if snapshot is not None:
                self.post_message(Arrived(snapshot))
        finally:
            self._reading = False

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Say what a worker could not do."""
        if event.state is WorkerState.ERROR:  # a file whose tables hold what they should not
            self._reading = False
            self.post_message(Failed(f"the run `{self.source.path}` is damaged", repr(event.worker.error)))
