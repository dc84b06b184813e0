"""Counts the units of ReLU-like modules that have stopped firing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from tensorscope.live.kernel import KERNEL, KINDS
from tensorscope.live.moments import is_readable
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
        units = output.shape[axis]
        quiet = self._quiet.get(site)
        if quiet is None or len(quiet.passes) != units or quiet.passes.device != output.device:
            quiet = self._quiet[site] = _Quiet(*torch.zeros(2, units, dtype=torch.int32, device=output.device))
        if (blocks := _blocks(output, axis)) is not None and KERNEL is not None:
            dead = KERNEL.dead(
                output.data_ptr(), *blocks, KINDS[output.dtype], output.shape[0],
                quiet.passes.data_ptr(), quiet.samples.data_ptr(), QUIET_PASSES, QUIET_SAMPLES,
            )  # fmt: skip
            return dead / units
        fired = (output.detach() > 0).any(tuple(d for d in range(output.dim()) if d != axis))
        quiet.passes = torch.where(fired, 0, quiet.passes + 1)
        quiet.samples = torch.where(fired, 0, quiet.samples + output.shape[0])
        share = ((quiet.passes >= QUIET_PASSES) & (quiet.samples >= QUIET_SAMPLES)).float().mean()
        return float(share) if output.is_cpu else share


def _blocks(output: torch.Tensor, axis: int) -> tuple[int, int, int] | None:
    """(outer, units, inner) sizes of the output as it lies in memory; None if the kernel can't read it."""
    count, units = output.numel(), output.shape[axis]
    if not is_readable(output) or output.dtype not in KINDS:
        return None
    if output.stride(axis) == 1 and (output.is_contiguous() or _is_channels_last(output)):
        return count // units, units, 1
    if output.is_contiguous():  # the axis is that after the batch
        return output.shape[0], units, count // (output.shape[0] * units)
    return None


def _is_channels_last(output: torch.Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return output.dim() in formats and output.is_contiguous(memory_format=formats[output.dim()])
