"""`tensorscope check`: the shapes of a model, and for which sizes it runs, before it runs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from tensorscope.errors import TensorscopeError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tensorscope.tables import ShapeTable


@click.command()
@click.argument("target")
@click.argument("dims", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def check(target: str, dims: tuple[str, ...], as_json: bool) -> None:
    """Find the shapes of TARGET's modules, and for which sizes of its inputs it runs, without data.

    TARGET is a factory of a model, `package.module:name` or `file.py:name`; one that returns inputs too needs no DIMS.
    DIMS are one text per input: names, or sizes with or without names, a dtype in front if it is not float32, and the
    parameter's name if it is not the next one: "batch 3 height width", "int64 batch seq=16", "mask: bool batch seq".
    Names without a size get one with which the model runs.

    Exits with 0 if all is well, with 1 if the model breaks or a silent mistake is found, with 2 on wrong input.
    """
    from tensorscope.live.check import check as find
    from tui.targets import arguments_from, load

    model, inputs = load(target)
    args, kwargs = (inputs, {}) if inputs and not dims else arguments_from(model, dims)
    try:
        table = find(model, *args, **kwargs)
    except TensorscopeError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever the model raises is what the check has found)
        _say_broken(error, as_json)
        sys.exit(1)
    _say(table, as_json)
    sys.exit(int(any(finding.severity != "info" for finding in table.findings)))


def _say(table: ShapeTable, as_json: bool) -> None:
    if as_json:
        click.echo(table.to_json())
    elif sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(drawn(table))
    else:
        click.echo(str(table))


def _say_broken(error: Exception, as_json: bool) -> None:
    """The explanation that was attached to the error, or else where it comes from."""
    from tensorscope.live.explain import explain

    report = explain(error)
    said = f"{type(error).__name__}: {error}"
    if as_json:
        click.echo(json.dumps({"error": said, "report": json.loads(report.to_json()) if report else None}, indent=1))
    elif report is not None and sys.stdout.isatty():
        from rich.console import Console

        from tensorscope.live.panel import panel

        Console(highlight=False).print(panel(report))
    else:
        click.echo(str(report or said))


def drawn(table: ShapeTable) -> RenderableType:
    """A table of shapes as something Rich can print."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from tensorscope.tables.layout import shown_lines
    from tui.report import STYLES

    lines, legend = shown_lines(table)
    rows = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", collapse_padding=True)
    rows.add_column("module", overflow="ellipsis", no_wrap=True, min_width=12)
    rows.add_column("type", style="cyan", overflow="ellipsis", no_wrap=True)
    rows.add_column("output", overflow="fold", min_width=14)
    for name in ("params", "FLOPs"):
        rows.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        rows.add_row("  " * line.depth + line.label, line.type, line.output, line.parameters, line.flops)
    model, _, facts = table.heading().partition(" · ")
    parts: list[RenderableType] = [Text.assemble((model, "bold"), f" · {facts}"), Text(table.given()), Text(), rows]
    parts += [Text(f"  {mark} {text}", "dim") for mark, text in legend.items()]
    for title, style, texts in (("constraints", "green", table.constraints), ("notes", "yellow", table.notes)):
        parts += [Text(), Text(title, "bold"), *(Text(f"  {text}", style) for text in texts)] if texts else []
    for finding in table.findings:
        parts += [Text(), Text(f"{finding.severity} {finding.rule}", STYLES[finding.severity])]
        parts += [Text(f"  {finding.summary}"), Text(f"  hint: {finding.hint}")]
    return Group(*parts)
