"""The command line: one program, one file per command."""

from __future__ import annotations

import importlib
import sys

import click

from tensorscope import __version__
from tensorscope.errors import TensorscopeError, did_you_mean

# Command → what it says of itself. Its file is only loaded when it runs, so that nothing waits for torch in vain.
COMMANDS = {
    "demo": "Train a reference model, traced, and watch it.",
    "models": "List the reference models, or train them.",
    "watch": "Browse a run, or all runs below a folder, live.",
    "run": "Run any script as python would, and explain the shape error that it dies of.",
    "info": "Say how a run was recorded: sampling, speed, program, optimizers, ranks, costs of modules.",
    "diagnose": "Say what happened in a run, and what is wrong with it.",
    "check": "Find a model's shapes, and for which sizes it runs, before it runs.",
    "summary": "Print torchinfo's summary of a model.",
    "graph": "Draw the computation of a model, or of a run.",
    "plot": "Draw the curves or the gradient flow of a run into a file.",
}


class Program(click.Group):
    """Finds commands by name, and near misses too."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands in the order in which they are needed."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"tui.commands.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click's, with a guess at what was meant."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS:
            guess = did_you_mean(name, COMMANDS) or "`tensorscope --help` lists the commands"
            raise click.UsageError(f"there is no command `{name}`\n\nhint: {guess}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without loading any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tensorscope")
def program() -> None:
    """The debugger for PyTorch tensors.

    Trace a training with `tensorscope.trace(model, "runs/mine")`, then watch it here.
    """


def main() -> None:
    """Run the command line; what tensorscope has to say about wrong input goes to stderr, with exit code 2."""
    try:
        program.main(prog_name="tensorscope", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except TensorscopeError as error:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
