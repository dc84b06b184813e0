"""`tensorscope graph`: draw the computation of a model, or the one that a run recorded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tensorscope.graphs.graph import Graph


@click.command()
@click.argument("target")
@click.argument("dims", nargs=-1)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("graph.svg"),
    show_default=True,
    help="Where to draw it: .svg, .png, .pdf or .dot.",
)
@click.option("--depth", type=click.IntRange(min=0), help="Modules deeper than this become one box.")
def graph(target: str, dims: tuple[str, ...], output: Path, depth: int | None) -> None:
    """Draw the computation of TARGET: a run's folder, or a factory of a model with the DIMS of its inputs.

    A factory is `package.module:name` or `file.py:name`. DIMS are one string per input, sizes with or without names,
    and a dtype in front if it is not float32: "batch=4 channels=1 28 28", "int64 batch=2 seq=16".
    """
    captured = _of_model(target, dims, depth) if ":" in target else _of_run(target, dims)
    click.echo(captured.save(output))


def _of_run(target: str, dims: tuple[str, ...]) -> Graph:
    from tensorscope.errors import GraphError
    from tensorscope.run.reader import open_run

    if dims:
        raise GraphError(
            f"`{target}` is no factory", hint="write `package.module:name` or `file.py:name`, then the dims"
        )
    found = open_run(target).graph
    if found is None:
        raise GraphError(f"the run `{target}` holds no graph", hint="it is recorded with the first step")
    return found


def _of_model(target: str, dims: tuple[str, ...], depth: int | None) -> Graph:
    from tensorscope.live.capture import graph as capture
    from tui.targets import inputs_from, load_model

    return capture(load_model(target), *(inputs_from(text) for text in dims), depth=depth)
