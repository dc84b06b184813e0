"""`tensorscope run`: run a script as python would, and explain the shape error that it dies of."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from tui.script import Script

OURS = str(Path(__file__).parents[1])
INTERRUPTED = 130  # exit code after Ctrl-C where a process cannot end by a signal


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("-m", "as_module", is_flag=True, help="SCRIPT is a module: `-m package.module`, as for python.")
@click.argument("script")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def run(script: str, args: tuple[str, ...], as_module: bool) -> None:
    """Run SCRIPT with its ARGS exactly as `python SCRIPT ARGS…` would, and explain the shape error that it dies of.

    Everything after SCRIPT is the script's own. The exit code is the script's; 2 if there is no such script.
    """
    from tui.script import module_named, script_at

    ending = _Ending()
    atexit.register(ending.by_signal)  # the first to be registered is the last to run
    error = _raised_by(module_named if as_module else script_at, script, args)
    if error is not None:
        _say(error)
        if isinstance(error, KeyboardInterrupt):
            ending.interrupted = True
            sys.exit(INTERRUPTED)
        _explain(error)
        sys.exit(1)


class _Ending:
    """How the process ends: after Ctrl-C by the signal itself, so that a shell's loop around it stops too."""

    interrupted = False

    def by_signal(self) -> None:
        if not self.interrupted or os.name != "posix":
            return
        sys.last_value = sys.last_traceback = None
        vars(sys.modules["__main__"]).clear()  # closes the files it has open, as the end of the interpreter would
        gc.collect()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


def _raised_by(find: Callable[[str], Script], target: str, args: tuple[str, ...]) -> BaseException | None:
    """Find and run a script; what it raised, with a traceback that begins in it. `SystemExit` goes its way."""
    from tui.script import ScriptError, become_main

    try:
        script = find(target)
        namespace = become_main(script, args)
        code = script.load()
        assert code is not None
        exec(code, namespace)
    except (SystemExit, ScriptError):
        raise
    except BaseException as error:  # noqa: BLE001  (whatever a program may end with)
        return error.with_traceback(_in_the_script(error.__traceback__))
    return None


def _in_the_script(frames: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of this program and of the import system that led to the script."""
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith((OURS, "<frozen ")):
        frames = frames.tb_next
    return frames


def _say(error: BaseException) -> None:
    """Print what python prints of an exception that nobody caught, through whatever hook the script has set."""
    kind, frames = type(error), error.__traceback__
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, frames
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    try:
        sys.excepthook(kind, error, frames)
    except Exception as broken:  # noqa: BLE001  (python does the same)
        sys.stderr.write("Error in sys.excepthook:\n")
        traceback.print_exception(broken.with_traceback(_in_the_script(broken.__traceback__)))
        sys.stderr.write("\nOriginal exception was:\n")
        sys.__excepthook__(kind, error, frames)


def _explain(error: BaseException) -> None:
    """Print the report of a shape error below its traceback, unless it stands there already."""
    if "torch" not in sys.modules or not isinstance(error, Exception) or sys.stderr is None:
        return
    try:
        from tensorscope.live.explain import explain
        from tensorscope.live.panel import rendered, told

        report = None if told(error) else explain(error)
        if report is not None:
            sys.stderr.write(f"\n{rendered(report, sys.stderr)}")
    except (Exception, KeyboardInterrupt):  # noqa: BLE001  (the user's own error has been shown: that is what counts)
        return
