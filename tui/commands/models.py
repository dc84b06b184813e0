"""`tensorscope models`: the reference models, and what they reach when they are trained."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tensorscope.errors import RunError
from tui.scores import known_scores, remember
from tui.training import preset_called, train_and_watch, train_here

if TYPE_CHECKING:
    from rich.table import Table

    from reference_models.training import Preset, Result, Target

SEEDS = (0, 1, 2)  # of `train --all`
CHAPTERS = "opt.: Learning optimization strategies; py.: Accessing Candle from Python (the book does not number them)"


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@click.pass_context
def models(context: click.Context, as_json: bool) -> None:
    """List the reference models: chapter of the book, task, parameters, targets, and the scores they reached here last.

    `tensorscope models train NAME` trains one.
    """
    if context.invoked_subcommand is not None:
        return
    from reference_models import PRESETS

    rows = [_facts(preset) for preset in PRESETS.values()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        _print_list(rows)


@models.command()
@click.argument("names", metavar="[NAME]…", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Train all that are meant to work, with three seeds each.")
@click.option("--seed", "seeds", type=int, multiple=True, help="Of weights, split and batches; may be repeated.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training data; default: the model's own.")
@click.option("--run", "path", type=click.Path(path_type=Path), help="Where to write the run; default runs/NAME-SEED.")
@click.option("--watch", is_flag=True, help="Show the training live.")
def train(
    names: tuple[str, ...], every: bool, seeds: tuple[int, ...], epochs: int | None, path: Path | None, watch: bool
) -> None:
    """Train reference models, traced, and compare what they reach with their targets.

    Exits with 1 if a target is missed.
    """
    from reference_models import PRESETS

    if every == bool(names):
        raise click.UsageError("name models to train, or ask for `--all`")
    chosen = [p.name for p in PRESETS.values() if not p.provokes] if every else list(names)
    presets = [preset_called(name) for name in chosen]
    seeds = seeds or (SEEDS if every else (0,))
    if len(chosen) * len(seeds) > 1 and (path or watch):
        raise click.UsageError("`--run` and `--watch` are for one model and one seed")
    folder = path or Path("runs") / f"{chosen[0]}-{seeds[0]}"
    if watch:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise RunError("`--watch` needs a terminal", hint="leave it out: scores are printed instead")
        click.echo(train_and_watch(chosen[0], folder, seeds[0], epochs), nl=False)
        return
    results: dict[str, list[Result]] = {}
    for preset in presets:
        for seed in seeds:
            run = path or Path("runs") / f"{preset.name}-{seed}"
            results.setdefault(preset.name, []).append(_train(preset, run, seed, epochs))
    _print_results(presets, results, seeds)
    if any(not result.met for of_preset in results.values() for result in of_preset):
        sys.exit(1)


def _train(preset: Preset, folder: Path, seed: int, epochs: int | None) -> Result:
    result = train_here(preset.name, folder, seed, epochs)
    if epochs is None:
        remember(result)
    click.echo(f"{result.seconds:.1f} s; look: tensorscope watch {folder}", err=True)
    if preset.provokes:
        click.echo(f"meant to show: {', '.join(preset.provokes)}; see: tensorscope diagnose {folder}", err=True)
    return result


def _facts(preset: Preset) -> dict[str, Any]:
    task = preset.build()
    return {
        "name": preset.name,
        "chapter": preset.chapter,
        "task": preset.task,
        "parameters": sum(p.numel() for p in task.model.parameters()),
        "targets": [str(target) for target in preset.targets],
        "provokes": list(preset.provokes),
        "scores": known_scores().get(preset.name, {}),
    }


def _print_list(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    healthy = [row for row in rows if not row["provokes"]]
    table = _table("model", "ch.", "parameters", "task", "target", "last")
    for row in healthy:
        table.add_row(*_named(row), "\n".join(row["targets"]), "\n".join(_last(row)))
    console.print(table)
    failing = _table("meant to fail", "ch.", "parameters", "task", "what it shows")
    for row in rows:
        if row["provokes"]:
            failing.add_row(*_named(row), "\n".join(row["provokes"]))
    console.print("\n", failing)
    console.print(Text(f"\n{CHAPTERS}\ntrain one: tensorscope models train NAME", "dim"))


def _table(*header: str) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for name in header:
        table.add_column(name, justify="right" if name == "parameters" else "left", no_wrap=name != "task")
    return table


def _named(row: dict[str, Any]) -> tuple[str, str, str, str]:
    return row["name"], row["chapter"], f"{row['parameters']:,}".replace(",", " "), row["task"]


def _last(row: dict[str, Any]) -> list[str]:
    """What was reached last: of each target's score the range over seeds."""
    told = []
    for name in (target.split()[0] for target in row["targets"]):
        values = sorted(scores[name] for scores in row["scores"].values() if name in scores)
        ends = [f"{value:.3g}" for value in dict.fromkeys([*values[:1], *values[-1:]])]
        told.append(" to ".join(ends) or "-")
    return told


def _print_results(presets: list[Preset], results: dict[str, list[Result]], seeds: tuple[int, ...]) -> None:
    """A table, ready for a README where it does not go to a terminal."""
    header = ["model", "ch.", "target", *(f"seed {seed}" for seed in seeds)]
    rows = [
        [[preset.name], [preset.chapter], list(map(str, preset.targets))]
        + [[_told(target, result) for target in preset.targets] for result in results[preset.name]]
        for preset in presets
        if preset.targets
    ]
    if not rows:
        return
    if not sys.stdout.isatty():
        lines = [header, ["---"] * len(header), *([", ".join(cell) for cell in row] for row in rows)]
        click.echo("\n".join("| " + " | ".join(line) + " |" for line in lines))
        return
    from rich.console import Console

    table = _table(*header)
    for row in rows:
        table.add_row(*("\n".join(cell) for cell in row))
    Console(highlight=False).print(table)


def _told(target: Target, result: Result) -> str:
    score = result.scores[target.score]
    return f"{score:.3g}{'' if target.met(score) else ' ✗'}"
