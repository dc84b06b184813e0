"""Decides which steps are measured, so that measuring stays cheap."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

MEMORY = 9  # latest durations that count
LONGEST = 10_000  # steps between two measured ones, at most


class Pace:
    """Measures every `every` steps, or as often as keeps the cost below a share of the bare step.

    Args:
        every: interval in steps; None to adapt.
        overhead: share of the bare step's duration that measuring may add.

    Attributes:
        interval: steps from one measured step to the next.
        fixed: whether it was given.
    """

    def __init__(self, every: int | None, overhead: float) -> None:
        self.interval = every or 1
        self.fixed = every is not None
        self.overhead = overhead
        self._bare: deque[float] = deque(maxlen=MEMORY)
        self._costs: deque[float] = deque(maxlen=MEMORY)
        self._last_measured: int | None = None
        self._seen = 0

    def is_due(self, step: int) -> bool:
        """Whether to measure this step."""
        due = self._last_measured is None or step - self._last_measured >= self.interval
        if due:
            self._last_measured = step
        return due

    def step_took(self, seconds: float, spent: float, *, measured: bool) -> None:
        """Learn how long a step took, and how much of that was ours."""
        self._seen += 1
        if self._seen == 1:  # the first step warms up everything: it is no guide
            return
        self._bare.append(max(seconds - spent, 1e-9))
        if measured:
            self._costs.append(spent)
        if measured and not self.fixed:
            affordable = max(self.overhead, 1e-6) * median(self._bare)
            wanted = max(1, math.ceil(median(self._costs) / affordable))
            self.interval = min(LONGEST, wanted, 2 * self.interval)  # one slow moment must not silence the trace
