"""`tensorscope summary`: torchinfo's summary of a model, with its count of tied parameters put right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from torch import nn

_COLUMNS = ("output_size", "num_params", "mult_adds")


@click.command()
@click.argument("target")
@click.argument("dims", nargs=-1)
@click.option("--depth", type=click.IntRange(min=1), default=3, show_default=True, help="Modules deeper are left out.")
def summary(target: str, dims: tuple[str, ...], depth: int) -> None:
    """Print torchinfo's summary of TARGET: one line per module with its sizes, parameters and multiply-adds.

    TARGET and DIMS are those of `tensorscope check`. The model runs once. Exits with 2 on wrong input.
    """
    from tensorscope.live.check import example
    from tui.targets import arguments_from, load

    model, inputs = load(target)
    args, kwargs = (inputs, {}) if inputs and not dims else arguments_from(model, dims)
    args, kwargs = example(model, *args, **kwargs)
    click.echo(_summary(model, args, kwargs, depth))


def _summary(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], depth: int) -> str:
    """The text of torchinfo; where it fails the table of `check`, which says so."""
    import torchinfo

    try:
        found = torchinfo.summary(model, input_data=list(args), depth=depth, col_names=_COLUMNS, verbose=0, **kwargs)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        return _instead(model, args, kwargs, error)
    return "\n".join([str(found), *_corrections(model, found.total_params)])


def _instead(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> str:
    from tensorscope.live.check import check

    table = check(model, *args, **kwargs)
    said = str(error.__cause__ or error).partition("\n")[0]
    return f"torchinfo cannot follow this model ({said:.80}); this is what `tensorscope check` says:\n\n{table}"


def _corrections(model: nn.Module, counted: int) -> list[str]:
    """What torchinfo counts more than once."""
    homes: dict[int, list[str]] = {}
    for path, parameter in model.named_parameters(remove_duplicate=False):
        homes.setdefault(id(parameter), []).append(path)
    total = sum(parameter.numel() for parameter in model.parameters())
    tied = [
        f"`{paths[0]}` is also {', '.join(f'`{path}`' for path in paths[1:])}" for paths in homes.values() if paths[1:]
    ]
    if not tied or counted == total:
        return []
    return [f"Tied parameters are counted more than once above: there are {total:,}.", *(f"  {text}" for text in tied)]
