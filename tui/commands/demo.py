"""`tensorscope demo`: train a reference model, traced, and watch it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tensorscope.errors import RunError
from tui.training import train_and_watch, train_here


@click.command()
@click.argument("model", default="cnn")
@click.option("--run", "path", type=click.Path(path_type=Path), help="Where to write the run; default runs/demo-MODEL.")
@click.option("--seed", default=0, show_default=True, help="Of weights, split and order of the batches.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training data; default: the model's own.")
@click.option("--watch/--no-watch", default=None, help="Show it live, or train and print; default: live on a terminal.")
def demo(model: str, path: Path | None, seed: int, epochs: int | None, watch: bool | None) -> None:
    """Train MODEL, a reference model, with `tensorscope.trace` around it, and show it live.

    `tensorscope models` lists them. Without a terminal it trains with some lines on the way, then prints the report.
    Either way it leaves the run, `graph.svg` and `curves.png` in the run's folder.
    """
    folder = path or Path("runs") / f"demo-{model}"
    on_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    if watch and not on_terminal:
        raise RunError("`--watch` needs a terminal", hint="leave it out: the report is printed instead")
    if watch or (watch is None and on_terminal):
        click.echo(train_and_watch(model, folder, seed, epochs))
    else:
        result = train_here(model, folder, seed, epochs)
        told = [f"{target.score} {result.scores[target.score]:.4g} (target {target})" for target in result.targets]
        click.echo(" · ".join([*told, f"{result.seconds:.0f} s"]) + "\n")
    _show(folder)


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
