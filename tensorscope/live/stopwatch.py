"""How long each module takes, forward and backward, on the steps that are measured.

Forward: from its call to its return, without what we spend inside. Backward: gradients of outputs arrive one after the
other; the time until the next one is what the module needed whose output's gradient came first. Both are times of the
host; what an accelerator does meanwhile is not seen, so there nothing is measured.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Seconds = npt.NDArray[np.float64]
Times = tuple[tuple[int, ...], Seconds]  # modules that ran, and (modules, 2): their seconds forward and backward


class Stopwatch:
    """Times of the modules in one step.

    Args:
        parents: for each module the number of the module that holds it, −1 for the model; parents come first.

    Attributes:
        ours: seconds of the step so far that were ours, and count as nobody's.
    """

    def __init__(self, parents: Sequence[int]) -> None:
        self._parents = parents
        self.ours = 0.0
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self._forward: Seconds = np.full(len(self._parents), math.nan)
        self._backward: Seconds = np.full(len(self._parents), math.nan)
        self._running: list[tuple[int, float]] = []
        self._waiting: tuple[int, float] | None = None
        self._used = False

    def enter(self, module: int) -> None:
        """A module was called."""
        self._running.append((module, time.perf_counter() - self.ours))

    def leave(self, module: int, now: float) -> None:
        """It returned, or raised."""
        while self._running:
            running, began = self._running.pop()
            if running == module:
                _add(self._forward, module, now - self.ours - began)
                self._used = True
                return

    def gradient_came(self, module: int, now: float) -> None:
        """The gradient of a module's output is there: the one before it is done."""
        self.backward_ended(now)
        self._waiting = (module, now - self.ours)

    def backward_ended(self, now: float) -> None:
        """No more gradients of outputs will come."""
        if self._waiting is not None:
            module, began = self._waiting
            _add(self._backward, module, now - self.ours - began)
            self._waiting = None

    def rows(self) -> Times | None:
        """The modules that ran and their (forward, backward) seconds, a module's with those of its parts."""
        if not self._used:
            return None
        for module in range(len(self._parents) - 1, 0, -1):
            parent, seconds = self._parents[module], self._backward[module]
            if parent >= 0 and not math.isnan(seconds):
                _add(self._backward, parent, seconds)
        ran = np.flatnonzero(~(np.isnan(self._forward) & np.isnan(self._backward)))
        return tuple(ran.tolist()), np.stack([self._forward[ran], self._backward[ran]], 1)


def joined(times: Sequence[Times]) -> Times:
    """The times of one step that came in several phases."""
    if len(times) == 1:
        return times[0]
    total: dict[int, Seconds] = {}
    for modules, rows in times:
        for module, row in zip(modules, rows, strict=True):
            before = total.get(module)
            total[module] = row if before is None else np.where(np.isnan(before), row, before + np.nan_to_num(row))
    return tuple(total), np.stack(list(total.values()))


def _add(seconds: Seconds, module: int, more: float) -> None:
    before = seconds[module]
    seconds[module] = more if math.isnan(before) else before + more
