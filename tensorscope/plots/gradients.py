"""Gradient flow: how large the gradient of every module's output is, over the steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tensorscope.errors import RunError
from tensorscope.events import Kind

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tensorscope.run.reader import Run

COLUMNS = 400  # measured steps shown at most
Numbers = npt.NDArray[Any]
NOT_FINITE = "#e6007e"


def gradients(run: Run) -> Figure:
    """Modules from the input down to the output, steps to the right, log10 of the gradient's RMS as colour.

    Raises:
        RunError: no gradient was recorded.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    sites = [site for site in run.sites if site.kind is Kind.OUTPUT and site.gradient and site.path]
    steps, rms = run.table(sites, "rms", COLUMNS)
    seen: Numbers = np.any(~np.isnan(rms), axis=1)
    if not seen.any():
        raise RunError(
            f"the run `{run.path}` holds no gradients", hint="call `backward()` on a loss made from the model's output"
        )
    sites, rms = [site for site, kept in zip(sites, seen, strict=True) if kept], rms[seen]
    figure = Figure(figsize=(9, max(3.0, 1.2 + 0.22 * len(sites))), layout="constrained")
    axis = figure.subplots()
    with np.errstate(divide="ignore"):
        magnitude = np.ma.masked_invalid(np.log10(rms))
    colours = colormaps["viridis"].with_extremes(bad="#dddddd")
    image = axis.pcolormesh(_edges(steps), np.arange(len(sites) + 1), magnitude, cmap=colours)
    rows, places = np.nonzero(np.isinf(rms))
    marks = axis.plot(_centres(steps)[places], rows + 0.5, "x", color=NOT_FINITE, ms=4, label="NaN or Inf")
    axis.set_yticks(np.arange(len(sites)) + 0.5, [site.removesuffix(":grad") for site in sites], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("step")
    axis.set_title("gradient flow", loc="left")
    figure.colorbar(image, ax=axis, label="log10 RMS of the output's gradient")
    if rows.size:
        axis.legend(handles=marks, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def _edges(steps: Numbers) -> Numbers:
    """Borders halfway between neighbouring steps."""
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    middle = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[2 * steps[0] - middle[0]], middle, [2 * steps[-1] - middle[-1]]])


def _centres(steps: Numbers) -> Numbers:
    edges = _edges(steps)
    return np.asarray((edges[1:] + edges[:-1]) / 2)
