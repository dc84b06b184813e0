"""The viewer: shows runs while they are being written, and long after."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from textual.command import Provider

    from tui.messages import RunChosen


def _actions() -> type[Provider]:
    from tui.search import Actions  # loaded when the palette first opens

    return Actions


def _places() -> type[Provider]:
    from tui.search import Places

    return Places


class Viewer(App[None]):
    """Opens the list of runs below a folder, or one run at once.

    Args:
        path: a folder, a run's folder, or a run file.
        wait: whether a run is about to be written at `path`.
        now: seconds since 1970, for what happened how long ago.
    """

    TITLE = "tensorscope"
    CSS_PATH = "app.tcss"
    COMMANDS = App.COMMANDS | {_actions, _places}
    BINDING_GROUP_TITLE = "Everywhere"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Help", key_display="?", id="app.help"),
        Binding("ctrl+p", "command_palette", "Commands", show=False, id="app.commands"),
        Binding("q", "quit", "Quit", id="app.quit"),
        Binding("ctrl+c", "quit", "Quit", show=False, priority=True, id="app.interrupt"),
    ]

    def __init__(self, path: Path, *, wait: bool = False, now: Callable[[], float] = time.time) -> None:
        super().__init__()
        self.path, self.wait, self.now = path, wait, now

    def on_mount(self) -> None:
        """Open the path."""
        if self.wait or is_run(self.path):
            self._show_run(self.path)
            return
        from tui.folder import Folder
        from tui.screens.runs import RunsScreen

        self.push_screen(RunsScreen(Folder(self.path), self.now))

    def on_ready(self) -> None:
        """Let garbage be collected from here on; what start-up has made stays, and need not be looked through again."""
        gc.freeze()
        gc.enable()

    @property
    def palette_size(self) -> int:
        """How many colours a field may use: many, those of the ramp, or none."""
        if self.no_color:
            return 0
        system = "truecolor" if self.is_headless else self.console.color_system  # a screenshot shows every colour
        return {"truecolor": 64, "256": 10}.get(system or "", 0)

    def on_run_chosen(self, message: RunChosen) -> None:
        """Open a run."""
        self._show_run(message.path)

    def _show_run(self, path: Path) -> None:
        from tui.screens.run import RunScreen
        from tui.source import Source

        self.push_screen(RunScreen(Source(path), wait=self.wait))

    def action_help(self) -> None:
        """Show all keys."""
        from tui.screens.help import HelpScreen

        self.push_screen(HelpScreen(self.screen.active_bindings.values()))


def is_run(path: Path) -> bool:
    """Whether a path is one run, readable or not."""
    return path.is_file() or any(path.glob("rank*.sqlite"))


def watch(path: Path, *, wait: bool = False) -> int:
    """Show the run at `path`, or all runs below it, until the user quits.

    Args:
        path: a folder, a run's folder, or a run file.
        wait: whether a run is about to be written at `path`.

    Returns:
        The exit code.
    """
    viewer = Viewer(path, wait=wait)
    viewer.run()
    return viewer.return_code or 0
