"""`tensorscope plot`: a figure of a run."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("kind", default="curves")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write it; default KIND.png.")
def plot(path: Path, kind: str, output: Path | None) -> None:
    """Draw the run at PATH into a file. KIND is `curves` (default) or `gradients`."""
    from tensorscope.plots.figures import save_figure
    from tensorscope.run.reader import open_run

    click.echo(save_figure(open_run(path), kind, output or Path(f"{kind}.png")))
