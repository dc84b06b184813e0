"""Chapter 28: four reasons to end a training before its time.

    stops = [threshold(epoch=5, bound=0.8), progress(EarlyStopping(10, 1e-3, "max")), resource(seconds=60)]
    if any(stop(curve) for stop in stops): ...

Each reason is a function of the validation curve so far, asked once after each epoch.

Glossary
    curve        the validation score after each epoch so far
    patience     epochs without progress that are borne

Source: chapter 28 of the book; Golovin et al., Google Vizier (2017), 3.2.1, for the comparison with other trainings.

Differs from the book: whether small or large scores are good is said, not guessed (erratum E-56).
Does not handle: curves that are extrapolated.
"""

from __future__ import annotations

import time
from statistics import fmean, median
from typing import TYPE_CHECKING

from reference_models.search import rank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from reference_models.regularization import EarlyStopping
    from reference_models.search import Mode

    Stop = Callable[[Sequence[float]], bool]


def threshold(epoch: int, bound: float, mode: Mode = "max") -> Stop:
    """Stop a training that is not good enough by some epoch.

    Args:
        epoch: from which on it is asked, counted from 0.
        bound: what has to be reached by then.
        mode: whether small or large scores are good.
    """

    def stop(curve: Sequence[float]) -> bool:
        return len(curve) > epoch and all(rank(score, mode) > rank(bound, mode) for score in curve)

    return stop


def progress(patience: EarlyStopping) -> Stop:
    """Stop a training that does not get better any more.

    Args:
        patience: is told the score of each epoch, so it serves for one training.
    """

    def stop(curve: Sequence[float]) -> bool:
        return patience.update(curve[-1])

    return stop


def comparison(others: Iterable[Sequence[float]], mode: Mode = "max", *, grace: int = 1) -> Stop:
    """Stop a training that has been worse, at its best, than the others were on average by the same epoch.

    Args:
        others: curves of other trainings; those that were shorter do not count.
        mode: whether small or large scores are good.
        grace: epochs before it is asked.
    """
    known = [list(curve) for curve in others]

    def stop(curve: Sequence[float]) -> bool:
        length = len(curve)
        averages = [fmean(other[:length]) for other in known if len(other) >= length]
        if length <= grace or not averages:
            return False
        # worse than the median of the running averages
        return min(rank(score, mode) for score in curve) > rank(median(averages), mode)

    return stop


def resource(
    *, seconds: float | None = None, epochs: int | None = None, clock: Callable[[], float] = time.perf_counter
) -> Stop:
    """Stop a training that has used up what it was given.

    Args:
        seconds: from now on.
        epochs: in all.
        clock: seconds since some moment.
    """
    start = clock()

    def stop(curve: Sequence[float]) -> bool:
        late = seconds is not None and clock() - start >= seconds
        return late or (epochs is not None and len(curve) >= epochs)

    return stop
