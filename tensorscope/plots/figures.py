"""The kinds of figure, by the name that `tensorscope plot` knows them by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tensorscope.errors import RunError, did_you_mean
from tensorscope.plots.curves import curves
from tensorscope.plots.gradients import gradients

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

    from tensorscope.run.reader import Run

KINDS: dict[str, Callable[[Run], Figure]] = {"curves": curves, "gradients": gradients}


def save_figure(run: Run, kind: str, path: str | Path) -> Path:
    """Draw a figure of a run into a file.

    Args:
        run: the run.
        kind: a key of `KINDS`.
        path: where to write; the suffix decides the format (`.png`, `.svg`, `.pdf`).

    Raises:
        RunError: the kind or the format is unknown, the run holds nothing to draw, or the file cannot be written.
    """
    if kind not in KINDS:
        raise RunError(
            f"there is no plot `{kind}`", facts={"kinds": ", ".join(KINDS)}, hint=did_you_mean(kind, list(KINDS))
        )
    target = Path(path)
    figure = KINDS[kind](run)
    try:
        figure.savefig(target, dpi=150)
    except (OSError, ValueError) as error:
        raise RunError(f"`{target}` cannot be written", facts={"reason": error}) from error
    return target
