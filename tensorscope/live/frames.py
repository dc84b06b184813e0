"""Turns what was seen in a step into the rows of a frame, in the writer's thread where it may wait for a device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from tensorscope.events import STORED
from tensorscope.live.stats import Row, count_bins
from tensorscope.run.merge import merge_rows

if TYPE_CHECKING:
    from collections.abc import Callable

Rows = npt.NDArray[np.float64]
ZERO, DEAD = STORED.index("zero_fraction"), STORED.index("dead_fraction")
FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(slots=True, eq=False)
class Seen:
    """One tensor that was measured.

    Attributes:
        site: id of the site.
        row: what `measure_row` gave.
        dead: share of dead units, NaN where that means nothing.
        same_as: id of the site at which this same tensor was measured, if this one only repeats it.
    """

    site: int
    row: Row
    dead: float | torch.Tensor = math.nan
    same_as: int | None = None


@dataclass(slots=True, eq=False)
class Sample:
    """A few elements of a tensor."""

    site: int
    values: torch.Tensor


def statistics(seen: list[Seen], samples: list[Sample]) -> tuple[tuple[int, ...], Callable[[], Rows]]:
    """The sites of a frame of statistics, and a function that waits for its rows."""
    series = tuple(one.site for one in seen)
    rows_ready = _fetcher([one.row for one in seen], 6)
    dead_ready = _fetcher([one.dead for one in seen], 1)
    samples_ready = _waiter([few.values for few in samples])

    def fetch() -> Rows:
        rows = np.full((len(seen), len(STORED)), np.nan)
        rows[:, [0, 1, 2, 3, 4, 6]] = rows_ready()
        rows[:, DEAD] = dead_ready()[:, 0]
        zero = _zero_fractions(samples, samples_ready())
        for place, one in enumerate(seen):
            rows[place, ZERO] = _zero_fraction(rows[place], zero.get(one.site if one.same_as is None else one.same_as))
        # Frames hold float32, whose range ends earlier than float64's.
        return np.clip(merge_rows(series, rows)[1], -FLOAT32, FLOAT32)

    return tuple(dict.fromkeys(series)), fetch


def histograms(samples: list[Sample]) -> tuple[tuple[int, ...], Callable[[], Rows]]:
    """The sites of a frame of histograms, and a function that waits for its rows."""
    last = {few.site: few.values for few in samples}
    ready = _waiter(list(last.values()))
    return tuple(last), lambda: np.stack([count_bins(values) for values in ready()])


def _zero_fractions(samples: list[Sample], values: list[npt.NDArray[np.float32]]) -> dict[int, float]:
    zeros: dict[int, tuple[int, int]] = {}
    for few, numbers in zip(samples, values, strict=True):
        zero, size = zeros.get(few.site, (0, 0))
        zeros[few.site] = (zero + numbers.size - int(np.count_nonzero(numbers)), size + numbers.size)
    return {site: zero / size for site, (zero, size) in zeros.items() if size}


def _zero_fraction(row: npt.NDArray[np.float64], sampled: float | None) -> float:
    """Exact where the extremes tell, else what the sample says."""
    low, high, bad = row[3], row[4], row[6]
    if low > 0 or high < 0:
        return 0.0
    if low == high == 0 and not bad:
        return 1.0
    return math.nan if sampled is None else sampled


def _fetcher(values: list[Any], width: int) -> Callable[[], Rows]:
    """Rows of numbers, some of them still on devices: one transfer a device for all of those, by a later call."""
    waiting: dict[torch.device, list[int]] = {}
    for place, value in enumerate(values):
        if isinstance(value, torch.Tensor):
            waiting.setdefault(value.device, []).append(place)
    stacks = [torch.stack([values[place].reshape(-1) for place in places]) for places in waiting.values()]
    wait = _waiting(stacks)

    def fetch() -> Rows:
        rows = np.full((len(values), width), np.nan)
        for place, value in enumerate(values):
            if not isinstance(value, torch.Tensor):
                rows[place] = value
        wait()
        for places, stack in zip(waiting.values(), stacks, strict=True):
            rows[places] = stack.cpu().numpy()
        return rows

    return fetch


def _waiter(tensors: list[torch.Tensor]) -> Callable[[], list[npt.NDArray[np.float32]]]:
    wait = _waiting(tensors)

    def fetch() -> list[npt.NDArray[np.float32]]:
        wait()
        return [tensor.cpu().numpy() for tensor in tensors]

    return fetch


def _waiting(tensors: list[torch.Tensor]) -> Callable[[], None]:
    """Waits until what CUDA streams have been asked so far is done; elsewhere a copy waits by itself."""
    devices = {tensor.device for tensor in tensors if tensor.is_cuda}
    events = [torch.cuda.current_stream(device).record_event() for device in devices]

    def wait() -> None:
        for event in events:
            event.synchronize()

    return wait
