"""`tensorscope info`: what a run says about itself, and what its modules cost, as text or JSON."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def info(path: Path, as_json: bool) -> None:
    """Say how the run at PATH was recorded: sampling, speed, program, optimizers, machine, parts, ranks.

    A table says what each module costs in time, arithmetic and memory, with all that is inside it.

    Exits with 2 if the run cannot be read.
    """
    from tensorscope.run.reader import open_run
    from tui.account import as_data, print_account

    run = open_run(path)
    if as_json:
        click.echo(json.dumps(as_data(run), indent=2))
    else:
        print_account(run)
