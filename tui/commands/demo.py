"""`tensorscope demo`: train a reference model, traced, and watch it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tensorscope.errors import RunError, TensorscopeError

if TYPE_CHECKING:
    from reference_models.training import Task
    from tensorscope.live.trace import Trace

PATIENCE_SECONDS = 30  # how long a training that is told to stop may take


@click.command()
@click.argument("model", default="cnn")
@click.option("--run", "path", type=click.Path(path_type=Path), help="Where to write the run; default runs/demo-MODEL.")
@click.option("--seed", default=0, show_default=True, help="Of weights, split and order of the batches.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training data; default: the model's own.")
@click.option("--watch/--no-watch", default=None, help="Show it live, or train and print; default: live on a terminal.")
def demo(model: str, path: Path | None, seed: int, epochs: int | None, watch: bool | None) -> None:
    """Train MODEL (`cnn` or `cnn-tiny`) on scikit-learn's digits with `tensorscope.trace` around it, and show it live.

    Without a terminal it trains with a line per epoch, then prints the report. Either way it leaves the run,
    `graph.svg` and `curves.png` in the run's folder.
    """
    folder = path or Path("runs") / f"demo-{model}"
    on_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    if watch and not on_terminal:
        raise RunError("`--watch` needs a terminal", hint="leave it out: the report is printed instead")
    if watch or (watch is None and on_terminal):
        _train_and_watch(model, folder, seed, epochs)
    else:
        _train_here(model, folder, seed, epochs)
        _show(folder)


def _train_here(model: str, folder: Path, seed: int, epochs: int | None) -> None:
    click.echo(f"training `{model}`, seed {seed}: loading torch", err=True)
    import reference_models
    from tensorscope.live.trace import trace

    if model not in reference_models.PRESETS:
        raise TensorscopeError(
            f"there is no reference model `{model}`", facts={"models": ", ".join(reference_models.PRESETS)}
        )
    task = reference_models.PRESETS[model].build(seed)
    try:
        with trace(task.model, folder) as tracing:
            _train(task, tracing, epochs)
    except KeyboardInterrupt:
        click.echo(f"\ninterrupted; what was recorded is kept: tensorscope watch {folder}", err=True)
        raise
    result = task.result()
    click.echo(f"test accuracy {result.test_accuracy:.4f} (target {result.target}) after {result.seconds:.0f} s\n")


def _train(task: Task, tracing: Trace, epochs: int | None) -> None:
    """Train with a progress bar on a terminal, a line per epoch elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        steps = task.steps_per_epoch * (epochs or task.preset.epochs)
        bar = progress.add_task("step", total=steps)

        def on_step(step: int, loss: object, accuracy: object) -> None:
            tracing.log(loss=loss, accuracy=accuracy)  # type: ignore[arg-type]
            progress.update(bar, completed=step + 1)

        for epoch in task.epochs(epochs, on_step=on_step):
            tracing.log(test_loss=epoch.test_loss, test_accuracy=epoch.test_accuracy)
            console.print(str(epoch))


def _train_and_watch(model: str, folder: Path, seed: int, epochs: int | None) -> None:
    """Train in a child process, view in this one; leaving the viewer ends the training."""
    from tui.app import watch

    command = [sys.executable, "-m", "tui.cli", "demo", model, "--no-watch", "--run", str(folder), "--seed", str(seed)]
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(
            command + (["--epochs", str(epochs)] if epochs else []),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the viewer is the viewer's
        )
        try:
            watch(folder, wait=True)
        finally:
            ended = _stop(child)
        if ended > 0 and ended != 130:
            log.seek(0)
            raise TensorscopeError(
                f"the training ended with exit code {ended}", facts={"it said": log.read().strip()[-2000:]}
            )
    _show(folder)


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


def _show(folder: Path) -> None:
    """Print the report, and leave its pictures beside the run."""
    from tensorscope.diagnosis.engine import diagnose
    from tensorscope.plots.figures import save_figure
    from tensorscope.run.reader import open_run
    from tui.report import print_report

    run = open_run(folder)
    print_report(run, diagnose(run))
    graph = run.graph
    written = [graph.save(folder / "graph.svg")] if graph is not None else []
    if run.scalar_names:
        written.append(save_figure(run, "curves", folder / "curves.png"))
    click.echo("\nwritten:")
    for path in written:
        click.echo(f"  {path}")
    click.echo(f"  {folder}\n\nlook again: tensorscope watch {folder}")
