"""Trains reference models for the commands: traced, with a progress bar, here or in a child that is watched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import click

from tensorscope.errors import TensorscopeError, did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from reference_models.training import Preset, Result, Task
    from tensorscope.live.trace import Trace

PATIENCE_SECONDS = 30  # how long a training that is told to stop may take
LINES = 20  # epochs that are told of, at most


def preset_called(name: str) -> Preset:
    """The preset of that name.

    Raises:
        TensorscopeError: there is none.
    """
    from reference_models import PRESETS

    if name not in PRESETS:
        guess = did_you_mean(name, PRESETS) or "`tensorscope models` lists them"
        raise TensorscopeError(f"there is no reference model `{name}`", hint=guess)
    return PRESETS[name]


def train_here(name: str, folder: Path, seed: int, epochs: int | None) -> Result:
    """Train a preset in this process, its run in `folder`; what was recorded stays if it is interrupted."""
    click.echo(f"training `{name}`, seed {seed}", err=True)
    from tensorscope.live.trace import trace

    task = preset_called(name).build(seed)
    try:
        with trace(task.model, folder) as tracing:
            _train(task, tracing, epochs)
    except KeyboardInterrupt:
        click.echo(f"\ninterrupted; what was recorded is kept: tensorscope watch {folder}", err=True)
        raise
    return task.result()


def _train(task: Task, tracing: Trace, epochs: int | None) -> None:
    """Train with a progress bar on a terminal, and some lines of what came of it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    length = task.length if epochs is None else epochs
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("step", total=task.steps_per_epoch * length)

        def on_step(step: int, numbers: object) -> None:
            tracing.log(**numbers)  # type: ignore[arg-type]
            progress.update(bar, completed=step + 1)

        for epoch in task.epochs(length, on_step=on_step):
            tracing.log(**{name: value for name, value in epoch.numbers.items() if name.startswith("test_")})
            if (epoch.number + 1) % -(-length // LINES) == 0:
                console.print(str(epoch))


def train_and_watch(name: str, folder: Path, seed: int, epochs: int | None) -> str:
    """Train in a child process, view in this one; leaving the viewer ends the training.

    Returns:
        The table of what was reached; empty if the training was ended before.
    """
    from tui.app import watch

    preset_called(name)
    command = [sys.executable, "-m", "tui.cli", "models", "train", name, "--run", str(folder), "--seed", str(seed)]
    with tempfile.TemporaryFile("w+") as reached, tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(
            command + (["--epochs", str(epochs)] if epochs else []),
            stdin=subprocess.DEVNULL,
            stdout=reached,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the viewer is the viewer's
        )
        try:
            watch(folder, wait=True)
        finally:
            ended = _stop(child)
        reached.seek(0)
        table = reached.read()
        if ended > 0 and ended != 130 and not table:  # what misses its target ends with 1, too, but not without a word
            log.seek(0)
            raise TensorscopeError(
                f"the training ended with exit code {ended}", facts={"it said": log.read().strip()[-2000:]}
            )
        return table


def _stop(child: subprocess.Popen[bytes]) -> int:
    """End a training as Ctrl-C would, so that its run is closed properly; its exit code."""
    if child.poll() is None:
        click.echo("ending the training …", err=True)
        os.killpg(child.pid, signal.SIGINT)
        try:
            return child.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.wait()
