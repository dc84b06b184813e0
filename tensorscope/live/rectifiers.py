"""Counts the units of ReLU-like modules that have stopped firing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from tensorscope.live.stats import has_data

if TYPE_CHECKING:
    from tensorscope.events import Site

NAMES = frozenset({"ReLU", "ReLU6", "Threshold", "ReLUSquared", "SquaredReLU"})  # exactly 0 for all negative inputs
QUIET_PASSES = 10  # a unit counts as dead once it has not fired for this many measured passes …
QUIET_SAMPLES = 500  # … and for this many samples of the batch axis


@dataclass(slots=True)
class _Quiet:
    passes: torch.Tensor  # (units,) int32: measured passes since each unit fired last
    samples: torch.Tensor  # (units,) int32


class Rectifiers:
    """Remembers, for each rectifier of a model, since when each of its units has been silent."""

    def __init__(self) -> None:
        self._quiet: dict[str, _Quiet] = {}

    @torch.no_grad()
    def dead_fraction(self, site: Site, module: nn.Module, output: torch.Tensor) -> float | torch.Tensor | None:
        """Share of a rectifier's units that have not fired for a window; None for other modules.

        Args:
            site: where the output is seen.
            module: the module.
            output: (batch, units), (batch, seq, units) or (batch, units, *image).

        Returns:
            A number; on an accelerator a 0-d tensor, so that nothing waits for it.
        """
        if type(module).__name__ not in NAMES or output.dim() < 2 or not output.numel() or not has_data(output):
            return None
        axis = 1 if output.dim() > 3 else output.dim() - 1
        fired = output.amax([d for d in range(output.dim()) if d != axis]) > 0
        quiet = self._quiet.get(site)
        if quiet is None or quiet.passes.shape != fired.shape or quiet.passes.device != fired.device:
            zeros = torch.zeros_like(fired, dtype=torch.int32)
            quiet = self._quiet[site] = _Quiet(zeros, zeros)
        quiet.passes = torch.where(fired, 0, quiet.passes + 1)
        quiet.samples = torch.where(fired, 0, quiet.samples + output.shape[0])
        dead = (quiet.passes >= QUIET_PASSES) & (quiet.samples >= QUIET_SAMPLES)
        share = dead.float().mean()
        return float(share) if output.is_cpu else share
