"""What the rules look at: a run's numbers as tables, each read once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tensorscope.errors import RunError
from tensorscope.events import Kind, Site

if TYPE_CHECKING:
    from tensorscope.diagnosis.thresholds import Thresholds
    from tensorscope.events import Finding
    from tensorscope.reports import ShapeReport
    from tensorscope.run.origin import Origin
    from tensorscope.run.reader import Run

Table = npt.NDArray[np.float64]
LOSS_NAMES = ("loss", "train_loss", "train/loss", "training_loss", "loss/train")


class Evidence:
    """A run, read for the rules.

    Attributes:
        thresholds: what they compare with.
        sites: every site of the run, in the order in which the forward pass meets them.
        steps: the measured steps, (steps,).
    """

    def __init__(self, run: Run, thresholds: Thresholds) -> None:
        self._run = run
        self._tables: dict[str, Table] = {}
        self.thresholds = thresholds
        self.sites = run.sites
        self.steps = np.array(run.measured_steps, np.int64)

    def table(self, stat: str) -> Table:
        """One statistic: (sites, steps), NaN where a site was not measured, +Inf where it held non-finite elements."""
        if stat not in self._tables:
            self._tables[stat] = self._run.table(self.sites, stat)[1]
        return self._tables[stat]

    def rows(self, *, kind: Kind, gradient: bool) -> list[int]:
        """Rows of the tables that show sites of one kind."""
        return [row for row, site in enumerate(self.sites) if site.kind is kind and site.gradient == gradient]

    def row(self, site: Site) -> int | None:
        """The row of one site, None if it was never seen."""
        return self._rows.get(site)

    @cached_property
    def _rows(self) -> dict[Site, int]:
        return {site: row for row, site in enumerate(self.sites)}

    @cached_property
    def loss(self) -> tuple[npt.NDArray[np.int64], Table] | None:
        """The training loss that was logged, if it was logged under a usual name."""
        for name in LOSS_NAMES:
            try:
                return self._run.scalars(name)
            except RunError:
                continue
        return None

    @property
    def reports(self) -> list[ShapeReport]:
        """The explanations of the errors that the run met."""
        return self._run.reports

    @property
    def origin(self) -> Origin | None:
        """What running the first bad pass again has shown."""
        return self._run.origin

    @property
    def nonfinite(self) -> dict[str, int] | None:
        """`first` and `last` step that went bad, and how many `steps` did, whether they were measured or not."""
        return self._run.nonfinite

    @property
    def overflows(self) -> npt.NDArray[np.int64]:
        """The measured steps at which a gradient scaler found an overflow, as it may, and left the parameters alone."""
        if "overflow" not in self._run.gauge_names:
            return np.zeros(0, np.int64)
        steps, found = self._run.gauge("overflow")
        return steps[found > 0]

    @property
    def last_step(self) -> int:
        """The step under way at the end of the run."""
        return max(0, self._run.last_step)

    @property
    def silent(self) -> list[Finding]:
        """Shape mistakes that were seen while the first step was recorded."""
        return self._run.silent

    def handed_nonfinite(self, module: str, step: int) -> bool:
        """Whether the trace saw that a module's first bad output came from arguments that were bad already."""
        return any(seen["path"] == module and seen["step"] == step for seen in self._run.handed_nonfinite)

    @cached_property
    def matrices(self) -> list[str]:
        """Parameters with two axes or more, in the order in which the forward pass reaches their modules."""
        depth: dict[str, int] = {}
        for row in self.rows(kind=Kind.OUTPUT, gradient=False):
            depth.setdefault(self.sites[row].path, row)
        shapes = self._run.last_shapes()
        weights = [s for s in self.sites if s.kind is Kind.PARAMETER and not s.gradient]
        names = [s for s in weights if s in shapes and len(shapes[s].dims) > 1]
        return [str(name) for name in sorted((n for n in names if n.module in depth), key=lambda n: depth[n.module])]

    def has_learned(self) -> bool:
        """Whether the loss that was logged has fallen well below its first value."""
        if self.loss is None or len(self.loss[1]) < self.thresholds.fewest_steps:
            return False
        values = self.loss[1]
        few = max(1, len(values) // 10)
        first, last = np.median(values[:few]), np.median(values[-few:])
        return bool(np.isfinite(last) and last < self.thresholds.learned_share * first)
