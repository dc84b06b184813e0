"""`tensorscope watch`: browse a run, or all runs below a folder, live."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import click

from tensorscope.errors import RunError


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("runs"))
def watch(path: Path) -> None:
    """Browse the run at PATH, or all runs below it, also while they are written. PATH is `runs` by default."""
    if not path.exists() and path != Path("runs"):
        from tensorscope.run.reader import open_run

        open_run(path)  # says what is missing, and what was meant
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise RunError("`watch` needs a terminal", hint=f"`tensorscope diagnose {path}` prints the account as text")
    gc.disable()  # until the viewer stands: nothing that start-up makes is garbage, and looking for it takes its time
    from tui.app import watch as view

    sys.exit(view(path))
