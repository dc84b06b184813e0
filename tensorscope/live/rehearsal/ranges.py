"""For which sizes a model runs: proposed by the conditions that a forward on symbols left, confirmed by trying.

A condition that does not hold need not mean failure, the program may just go another way; one that holds means that
it goes the same way. So what satisfies all conditions runs, and what does not is tried on tensors without data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

from tensorscope.live.rehearsal.forward import perform, rehearse
from tensorscope.live.rehearsal.search import LARGEST
from tensorscope.tables import Constraint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from tensorscope.live.rehearsal.inputs import Given
    from tensorscope.live.rehearsal.symbols import Condition

_FURTHEST = 2**20  # size up to which conditions are asked
OPERATIONS = 40_000  # of all trials together
_LONGEST = 1_000  # operations of one trial beyond those of the first, from which on no larger sizes are tried
_REAL = 32  # largest size that is tried for real
_STEPS = (2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 64, 128)
_TRIED_STEPS = (2, 4, 8, 16, 32)


@dataclass
class Trials:
    """Tells whether a model runs with given sizes.

    Args:
        model: the model.
        given: its arguments.
        sizes: with which it runs.
        conditions: what a forward on symbols decided by, all of which hold for some sizes that run.
        cost: operations that one forward takes.
        real: whether it has to run for real, on copies.
    """

    model: nn.Module
    given: Given
    sizes: dict[str, int]
    conditions: list[Condition]
    cost: int
    real: bool = False
    spent: int = 0
    _known: dict[tuple[int, ...], bool] = field(default_factory=dict)
    _long: bool = False

    def proven(self, changes: dict[str, int]) -> bool:
        """Whether the model goes the same way with some sizes changed."""
        sizes = self.sizes | changes
        return bool(self.conditions) and all(condition.holds(sizes) for condition in self.conditions)

    def runs(self, changes: dict[str, int]) -> bool | None:
        """Whether the model runs with some sizes changed; None if too much was tried already."""
        sizes = self.sizes | changes
        key = tuple(sizes.values())
        if key not in self._known:
            if self.proven(changes):
                return True
            if self.spent > OPERATIONS:
                return None
            tried = (perform if self.real else rehearse)(self.model, self.given, sizes)
            self.spent += tried.operations + self.cost // 10
            self._long = self._long or tried.operations > self.cost + _LONGEST
            self._known[key] = tried.runs
        return self._known[key]

    @property
    def reach(self) -> int:
        """The largest size that is tried without proof."""
        return _REAL if self.real else LARGEST

    @property
    def exhausted(self) -> bool:
        """Whether larger sizes are not worth trying."""
        return self._long or self.spent > OPERATIONS


@dataclass(frozen=True, slots=True)
class _Walk:
    """How far a size can be changed.

    Attributes:
        low: the smallest size.
        high: the largest, None if no end was found.
        step: in which steps.
        tried: the largest size tried where nothing proves that larger ones go.
    """

    low: int
    high: int | None
    step: int
    tried: int | None


def constraints(trials: Trials) -> tuple[Constraint, ...]:
    """What the sizes of a model's inputs have to be, one constraint per axis or group of axes that go together."""
    names = list(trials.sizes)
    walks = {name: walk for name in names if (walk := _walk(trials, (name,))) is not None}
    tied = _tied(trials, [name for name in names if name not in walks])
    found: dict[str, Constraint] = {}
    for name in names:
        if name in tied:
            group, walk = tied[name]
            found.setdefault(group[0], _constraint(group, walk, equal=True))
        elif name in walks:
            alike = _alike(name, walks)
            found.setdefault(alike[0], _constraint(alike, walks[name]))
        else:
            fixed = _fixed(name, trials)
            found.setdefault(str(fixed), fixed)
    return tuple(found.values())


def _tied(trials: Trials, names: list[str]) -> dict[str, tuple[tuple[str, ...], _Walk]]:
    """Axes that can only be changed together, each with its group."""
    found: dict[str, tuple[tuple[str, ...], _Walk]] = {}
    for group in _equal(names, trials):
        if not any(name in found for name in group) and (walk := _walk(trials, group)) is not None:
            found |= dict.fromkeys(group, (group, walk))
    return found


def _alike(name: str, walks: dict[str, _Walk]) -> tuple[str, ...]:
    """The axes of which the same can be said; of each free one it is said by itself."""
    if walks[name].high is None and walks[name].step == 1 and walks[name].low <= 1:
        return (name,)
    return tuple(other for other, walk in walks.items() if walk == walks[name])


def _equal(names: list[str], trials: Trials) -> Iterator[tuple[str, ...]]:
    """Groups of axes of one size that may have to be equal: those that a condition equates, then pairs, then all."""
    by_size: dict[int, list[str]] = {}
    for name in names:
        by_size.setdefault(trials.sizes[name], []).append(name)
    for alike in by_size.values():
        yield from (group for group in _equated(alike, trials.conditions) if len(group) > 1)
        yield from combinations(alike, 2)
        if len(alike) > 2:
            yield tuple(alike)


def _equated(names: list[str], conditions: list[Condition]) -> list[tuple[str, ...]]:
    """The names in groups, so that those of one condition that is an equation are together."""
    group = {name: {name} for name in names}
    for condition in conditions:
        joined = [name for name in condition.uses if name in group] if condition.equates else []
        for name in joined[1:]:
            group[joined[0]] |= group[name]
            for member in group[joined[0]]:
                group[member] = group[joined[0]]
    return list(dict.fromkeys(tuple(name for name in names if name in group[first]) for first in names))


def _walk(trials: Trials, names: tuple[str, ...]) -> _Walk | None:
    """How far the sizes of these axes can be changed together; None if not at all."""
    here = trials.sizes[names[0]]
    step = _step(trials, names, here)
    if step is None:
        return None

    def proven(size: int) -> bool:
        return size == here or trials.proven(dict.fromkeys(names, size))

    def runs(size: int) -> bool:
        return size == here or trials.runs(dict.fromkeys(names, size)) is True

    least, most = here - (here - 1) // step * step, here + (_FURTHEST - here) // step * step
    low, _ = _reached(proven, here, least, step)
    low, _ = _reached(runs, low, least, step)
    sure, _ = _reached(proven, here, most, step)
    tried = max(here + (trials.reach - here) // step * step, min(sure + step, most))
    high, ended = _reached(runs, sure, tried, step, lambda: trials.exhausted)
    return _Walk(low, high if ended else None, step, high if high > sure and not ended else None)


def _step(trials: Trials, names: tuple[str, ...], here: int) -> int | None:
    """The smallest step in which these sizes can be changed."""
    fixed = _said_fixed(trials, names, here) and not trials.runs(dict.fromkeys(names, 2 * here))
    tried = (1,) if fixed else (1, *_TRIED_STEPS)
    for step in (1, *_STEPS):
        # What fits 1 alone is broadcast: no size that may be chosen.
        changes = [dict.fromkeys(names, size) for size in (here + step, here - step) if size > 1]
        if any(trials.proven(change) for change in changes):
            return step
        if step in tried and any(trials.runs(change) for change in changes):
            return step
    return None


def _said_fixed(trials: Trials, names: tuple[str, ...], here: int) -> bool:
    """Whether a condition says outright that the size is what it is."""
    return any(f"{name} = {here}" == condition.text for name in names for condition in trials.conditions)


def _reached(
    runs: Callable[[int], bool], here: int, end: int, step: int, enough: Callable[[], bool] = lambda: False
) -> tuple[int, bool]:
    """The last size on the way from `here` to `end` that runs, and whether the next one does not.

    The end is tried second, then ever longer strides are taken.
    """
    if here == end or not runs(next_to := here + step if end > here else here - step):
        return here, here != end
    good, stride = next_to, step
    if end < here and runs(end):
        return end, False
    while good != end and not enough():
        stride *= 2
        further = min(good + stride, end) if end > here else max(good - stride, end)
        if not runs(further):
            return (good, False) if enough() else (_between(runs, good, further, step), True)
        good = further
    return good, False


def _between(runs: Callable[[int], bool], good: int, bad: int, step: int) -> int:
    """The last size that runs on the way from one that does to one that does not."""
    while abs(bad - good) > step:
        middle = good + (bad - good) // (2 * step) * step if bad > good else good - (good - bad) // (2 * step) * step
        if middle == good:
            break
        good, bad = (middle, bad) if runs(middle) else (good, middle)
    return good


def _constraint(names: tuple[str, ...], walk: _Walk, *, equal: bool = False) -> Constraint:
    """What a walk found, as a sentence."""
    return Constraint.of(names, walk.low, walk.high, step=walk.step, equal=equal, tried=walk.tried)


def _fixed(name: str, trials: Trials) -> Constraint:
    """An axis that cannot be changed alone."""
    size = trials.sizes[name]
    for condition in trials.conditions:
        if condition.equates and name in condition.uses and len(condition.uses) == 2:
            others = [other for other in condition.uses if other != name]
            if (
                not trials.proven({name: size + 1})
                and condition.holds(trials.sizes)
                and _binds(condition, name, trials)
            ):
                return Constraint.relation((name, *others), condition.text, size)
    return Constraint.of((name,), size, size)


def _binds(condition: Condition, name: str, trials: Trials) -> bool:
    """Whether a condition is what keeps an axis from changing."""
    size = trials.sizes[name]
    return not any(condition.holds(trials.sizes | {name: other}) for other in (size + 1, size - 1, 2 * size))
