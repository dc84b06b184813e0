"""Every logged scalar over the steps; what belongs together shares a panel."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np

from tensorscope.errors import RunError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tensorscope.run.envelope import Steps, Values
    from tensorscope.run.reader import Run

_SPLITS = "train|training|val|valid|validation|dev|test|eval"
_SPLIT = re.compile(rf"^(?:{_SPLITS})[_/.\- ]|[_/.\- ](?:{_SPLITS})$", re.IGNORECASE)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito, for all eyes
WINDOW = 25  # points in the running mean that is drawn over a noisy curve


def curves(run: Run) -> Figure:
    """One panel for each quantity that was logged, its training and validation curves together.

    Raises:
        RunError: nothing was logged.
    """
    from matplotlib.figure import Figure

    panels: dict[str, list[str]] = {}
    for name in run.scalar_names:
        panels.setdefault(quantity(name), []).append(name)
    if not panels:
        raise RunError(f"the run `{run.path}` has no curves", hint="log some: `trace.log(loss=loss)`")
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(6.4 * columns, 3.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, (title, names) in zip(axes, panels.items(), strict=False):
        _panel(axis, run, title, names)
    for axis in list(axes)[len(panels) :]:
        axis.remove()
    return figure


def quantity(name: str) -> str:
    """What a scalar measures, without the split that it was measured on: `loss` for `val/loss` and `test_loss`."""
    return _SPLIT.sub("", name) or name


def _panel(axis: Axes, run: Run, title: str, names: list[str]) -> None:
    for name, colour in zip(names, COLOURS * len(names), strict=False):
        steps, values = run.scalars(name)
        _curve(axis, steps, values, colour, name)
    axis.set_title(title, loc="left")
    axis.set_xlabel("step")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)


def _curve(axis: Axes, steps: Steps, values: Values, colour: str, name: str) -> None:
    finite = np.isfinite(values)
    many = finite.sum() > 4 * WINDOW
    shown = np.where(finite, values, np.nan)
    axis.plot(
        steps,
        shown,
        color=colour,
        alpha=0.3 if many else 1.0,
        lw=1 if many else 1.5,
        marker="" if finite.sum() > WINDOW else "o",
        ms=3,
        label=None if many else name,
    )
    if many:
        kernel = np.ones(WINDOW) / WINDOW
        centred = steps[finite][WINDOW // 2 : -(WINDOW // 2)]
        axis.plot(centred, np.convolve(values[finite], kernel, "valid"), color=colour, label=name)
    if not finite.all():
        # A cross at the foot of the panel where the value is NaN or infinite.
        axis.plot(
            steps[~finite],
            np.zeros((~finite).sum()),
            "x",
            color=colour,
            ms=5,
            clip_on=False,
            transform=axis.get_xaxis_transform(),
            label=f"{name}: not finite",
        )
