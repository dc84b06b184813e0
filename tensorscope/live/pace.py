"""Decides which steps are measured, so that measuring stays cheap."""

from __future__ import annotations

from collections import deque
from statistics import median

MEMORY = 15  # latest durations that count
FEW = 5  # steps of a kind that make a median
AIM = 0.75  # share of the budget that we mean to use: our clocks don't see that we cool the training's caches
LEAST = 0.5  # share of that which is always there for measuring
SHORT = 0.005  # seconds: where steps take less, looking at each of them costs more than the budget anyway …
DENSITY = 32  # … and up to so many are measured in every doubling of their number, which is soon next to nothing
LONGEST = 1 << 13  # steps from one measured step to the next, at most


class Pace:
    """Measures every `every` steps, or as often as keeps the cost below a share of the bare step.

    An interval that adapts is a power of two, and a step is measured if the interval divides it: so the ranks of one
    training measure common steps, though each keeps its own pace.

    Args:
        every: interval in steps; None to adapt.
        overhead: share of the bare step's duration that tracing may add.

    Attributes:
        interval: steps from one measured step to the next.
        fixed: whether it was given.
    """

    def __init__(self, every: int | None, overhead: float) -> None:
        self.interval = every or 1
        self.fixed = every is not None
        self.overhead = overhead
        self._bare: deque[float] = deque(maxlen=MEMORY)
        self._idle: deque[float] = deque(maxlen=MEMORY)
        self._costs: deque[float] = deque(maxlen=MEMORY)
        self._whole: dict[bool, deque[float]] = {measured: deque(maxlen=MEMORY) for measured in (True, False)}
        self._seen = 0

    @property
    def step_seconds(self) -> float:
        """What a bare step took lately; 0 if that is not known yet."""
        return self._bare[-1] if self._bare else 0.0

    def is_due(self, step: int) -> bool:
        """Whether to measure this step."""
        return step % self.interval == 0

    def step_took(self, seconds: float, spent: float, *, measured: bool, behind: bool = False) -> None:
        """Learn from a step.

        Args:
            seconds: how long it took, all in all.
            spent: how much of that was ours.
            measured: whether it was measured.
            behind: whether the writer does not keep up.
        """
        self._seen += 1
        if self._seen == 1:  # the first step warms up everything: it is no guide
            return
        self._bare.append(max(seconds - spent, 1e-9))
        (self._costs if measured else self._idle).append(spent)
        self._whole[measured].append(seconds)
        if self.fixed or not self._costs or not measured:
            return
        if behind:
            self.interval = min(LONGEST, 2 * self.interval)
        else:
            # One slow moment must not silence the trace: at most twice as long, half as long only if that fits well.
            wanted = self._wanted()
            if wanted > self.interval:
                self.interval = min(LONGEST, 2 * self.interval)
            elif self.interval > 1 and 2.2 * wanted < self.interval:
                self.interval //= 2

    def _wanted(self) -> float:
        """The interval at which what a measured step costs, over what every step costs, is within the share."""
        idle = median(self._idle) if self._idle else 0.0
        extra = max(0.0, median(self._costs) - idle)
        if min(map(len, self._whole.values())) >= FEW:
            # What we read leaves less of the caches to the training, which no clock of ours sees.
            longer = median(self._whole[True]) - median(self._whole[False])
            extra = max(extra, min(longer, 2 * extra))
        bare = median(self._bare)
        budget = AIM * self.overhead * bare
        # Where what every step costs uses up the budget, some are measured all the same.
        wanted = extra / max(budget - idle, LEAST * budget, 1e-12)
        return min(wanted, self._seen / DENSITY) if bare < SHORT else wanted
