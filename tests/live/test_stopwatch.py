"""Times of modules from calls and gradients at hand-made moments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorscope.live import stopwatch
from tensorscope.live.stopwatch import Stopwatch, joined

#       0
#     1   4
#    2 3   5
PARENTS = (-1, 0, 1, 1, 0, 4)
NEVER = None


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(stopwatch, "time", made)
    return made


def times(watch: Stopwatch) -> dict[int, tuple[float | None, ...]]:
    """Forward and backward seconds of the modules that ran; None where one did not."""
    modules, rows = watch.rows() or ((), np.empty((0, 2)))
    return {
        module: tuple(NEVER if math.isnan(seconds) else seconds for seconds in row)
        for module, row in zip(modules, rows.tolist(), strict=True)
    }


def test_a_module_takes_from_its_call_to_its_return(clock: Clock) -> None:
    watch = Stopwatch(PARENTS)
    watch.enter(0)
    clock.now += 1
    watch.enter(1)
    clock.now += 2
    watch.leave(1, clock.now)
    clock.now += 4
    watch.leave(0, clock.now)
    assert times(watch) == {0: (7, NEVER), 1: (2, NEVER)}


def test_what_is_ours_is_nobodys(clock: Clock) -> None:
    watch = Stopwatch(PARENTS)
    watch.enter(0)
    watch.enter(1)
    clock.now += 1
    clock.now += 8
    watch.ours += 8
    watch.leave(1, clock.now)
    clock.now += 2
    watch.leave(0, clock.now)
    for module, seconds in ((1, 1), (0, 4)):
        watch.gradient_came(module, clock.now)
        clock.now += seconds + 16
        watch.ours += 16
    watch.backward_ended(clock.now)
    assert times(watch) == {0: (3, 5), 1: (1, 1)}


def test_a_module_called_twice_takes_both_times(clock: Clock) -> None:
    watch = Stopwatch(PARENTS)
    for seconds in (1, 4):
        watch.enter(2)
        clock.now += seconds
        watch.leave(2, clock.now)
    for seconds in (2, 16):
        watch.gradient_came(2, clock.now)
        clock.now += seconds
    watch.backward_ended(clock.now)
    assert times(watch)[2] == (5, 18)


def test_a_module_that_raised_is_forgotten_where_its_parent_returns(clock: Clock) -> None:
    watch = Stopwatch(PARENTS)
    watch.enter(0)
    watch.enter(1)
    watch.enter(2)
    clock.now += 3
    watch.leave(0, clock.now)  # it caught what 2 raised through 1
    watch.enter(3)
    clock.now += 1
    watch.leave(3, clock.now)
    assert times(watch) == {0: (3, NEVER), 3: (1, NEVER)}


def test_the_time_until_the_next_gradient_is_that_of_the_one_before(clock: Clock) -> None:
    watch = Stopwatch(PARENTS)
    watch.enter(0)
    watch.leave(0, clock.now)
    for module, seconds in ((0, 1), (5, 2), (4, 4), (3, 8), (2, 16), (1, 32)):
        watch.gradient_came(module, clock.now)
        clock.now += seconds
    watch.backward_ended(clock.now)
    clock.now += 1000
    watch.backward_ended(clock.now)  # nothing is waiting any more
    backward = {module: both[1] for module, both in times(watch).items()}
    assert backward == {5: 2, 4: 6, 3: 8, 2: 16, 1: 56, 0: 63}


def test_without_an_end_the_last_gradient_takes_no_time(clock: Clock) -> None:
    watch = Stopwatch(PARENTS)
    watch.enter(0)
    watch.leave(0, clock.now)
    watch.gradient_came(5, clock.now)
    clock.now += 1
    watch.gradient_came(3, clock.now)
    assert times(watch) == {0: (0, 1), 4: (NEVER, 1), 5: (NEVER, 1)}


def test_a_step_without_a_forward_has_no_times(clock: Clock) -> None:
    watch = Stopwatch(PARENTS)
    assert watch.rows() is None
    watch.enter(0)  # and never returns
    watch.gradient_came(1, clock.now)
    watch.backward_ended(clock.now)
    assert watch.rows() is None


def test_cleared_it_begins_anew(clock: Clock) -> None:
    watch = Stopwatch(PARENTS)
    watch.enter(0)
    watch.enter(1)
    watch.leave(1, clock.now)
    watch.gradient_came(1, clock.now)
    watch.clear()
    assert watch.rows() is None
    watch.enter(4)
    clock.now += 2
    watch.leave(4, clock.now)
    watch.backward_ended(clock.now)
    assert times(watch) == {4: (2, NEVER)}


def test_a_module_without_a_parent_gives_its_time_to_nobody(clock: Clock) -> None:
    watch = Stopwatch((-1, -1, 1))
    watch.enter(2)
    watch.leave(2, clock.now)
    watch.gradient_came(2, clock.now)
    clock.now += 1
    watch.backward_ended(clock.now)
    assert times(watch) == {1: (NEVER, 1), 2: (0, 1)}


spans = st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 9), st.booleans())
calls = st.recursive(
    st.tuples(spans, st.just([])), lambda inner: st.tuples(spans, st.lists(inner, max_size=3)), max_leaves=8
)


def _perform(watch: Stopwatch, clock: Clock, call: tuple, expected: dict[int, float]) -> float:
    """Make a call as it was drawn: seconds of its own, seconds of ours, and calls inside; some raise."""
    (module, own, ours, raises), inside = call
    watch.enter(module)
    seconds = float(own)
    clock.now += own + ours
    watch.ours += ours
    for inner in inside:
        seconds += _perform(watch, clock, inner, expected)
    if not raises:
        watch.leave(module, clock.now)
        expected[module] = expected.get(module, 0.0) + seconds
    return seconds


def _with_own_modules(call: tuple, taken: frozenset[int] = frozenset()) -> tuple:
    """The call without those that a module makes of itself."""
    (module, own, ours, raises), inside = call
    taken |= {module}
    return (module, own, ours, raises), [_with_own_modules(c, taken) for c in inside if c[0][0] not in taken]


@given(st.lists(calls, max_size=3))
def test_however_modules_call_each_other_each_gets_its_seconds(drawn: list[tuple]) -> None:
    clock, expected = Clock(), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopwatch, "time", clock)
        watch = Stopwatch(PARENTS)
        watch.enter(6)  # what holds them all, so that calls that raised are forgotten between the others
        for call in drawn:
            _perform(watch, clock, _with_own_modules(call), expected)
    found = {module: both[0] for module, both in times(watch).items()}
    assert found == expected


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_a_parents_backward_is_its_own_and_its_parts(gradients: list[tuple[int, int, int]]) -> None:
    watch, now, expected = Stopwatch(PARENTS), 0.0, {}
    watch._used = True
    for module, seconds, ours in gradients:
        watch.gradient_came(module, now)
        now += seconds + ours
        watch.ours += ours
        while module >= 0:
            expected[module] = expected.get(module, 0.0) + seconds
            module = PARENTS[module]  # noqa: PLW2901
    watch.backward_ended(now)
    assert {module: both[1] for module, both in times(watch).items()} == expected


seconds_or_never = st.one_of(st.just(math.nan), st.integers(0, 99).map(float))
phases = st.dictionaries(st.integers(0, 5), st.tuples(seconds_or_never, seconds_or_never), min_size=1)


@given(st.lists(phases, min_size=1, max_size=4))
def test_phases_of_a_step_add_up(drawn: list[dict[int, tuple[float, float]]]) -> None:
    modules, rows = joined([(tuple(phase), np.array(list(phase.values()))) for phase in drawn])
    assert sorted(modules) == sorted({module for phase in drawn for module in phase})
    for module, row in zip(modules, rows.tolist(), strict=True):
        for place, found in enumerate(row):
            all_times = [phase[module][place] for phase in drawn if module in phase]
            ran = [seconds for seconds in all_times if not math.isnan(seconds)]
            assert (found == sum(ran)) if ran else math.isnan(found)
