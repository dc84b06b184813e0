"""Which steps are measured: simulated trainings whose steps, costs and outliers are drawn."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorscope.live.pace import AIM, DENSITY, LEAST, LONGEST, MEMORY, SHORT, Pace

STEPS = 1 << 13
shares = st.floats(0.01, 0.2)


class Training:
    """Steps that take what they are told to, give or take a tenth."""

    def __init__(self, pace: Pace, bare: float, cost: float, idle: float = 0.0, jitter: float = 0.1) -> None:
        self.pace, self.bare, self.cost, self.idle, self.jitter = pace, bare, cost, idle, jitter
        self.step = 0
        self.measured: list[int] = []
        self._random = random.Random(0)

    def run(self, steps: int, *, outliers: float = 0.0) -> tuple[float, float]:
        """Seconds of so many bare steps, and what was spent on measuring meanwhile."""
        bare = spent = 0.0
        for _ in range(steps):
            due = self.pace.is_due(self.step)
            if due:
                self.measured.append(self.step)
            took, ours = self._about(self.bare), self._about(self.cost if due else self.idle)
            bare, spent = bare + took, spent + ours
            slow = 100 if self._random.random() < outliers else 1
            self.pace.step_took(slow * took + slow * ours, slow * ours, measured=due)
            self.step += 1
        return bare, spent

    def _about(self, seconds: float) -> float:
        return seconds * (1 + self.jitter * (2 * self._random.random() - 1))


@given(shares, st.floats(SHORT, 1), st.floats(0.001, 2), st.floats(0, 0.3))
def test_in_the_long_run_the_budget_is_kept(overhead: float, bare: float, cost: float, idle: float) -> None:
    pace = Pace(None, overhead)
    own = idle * overhead * bare  # what every step costs, below the whole budget
    training = Training(pace, bare, cost * bare + own, own)
    training.run(STEPS)
    seconds, spent = training.run(STEPS)
    measured = max(0.0, cost * bare) / LONGEST  # no pace is slower than that
    assert spent <= 1.1 * max(AIM * overhead * seconds, measured * STEPS)


@given(shares, st.floats(0.001, 2), st.floats(0, 0.3))
def test_what_is_aimed_at_is_used_and_not_half_of_it_left(overhead: float, cost: float, idle: float) -> None:
    pace = Pace(None, overhead)
    own = idle * overhead
    Training(pace, 1.0, cost + own, own, jitter=0).run(STEPS)
    wanted = cost / (AIM * overhead - own)
    assert wanted <= pace.interval * (1 + 1e-9)
    assert pace.interval == 1 or pace.interval <= 2.2 * wanted * (1 + 1e-9)


@given(shares, st.floats(1, 5))
def test_where_every_step_costs_the_whole_budget_something_is_measured_all_the_same(
    overhead: float, idle: float
) -> None:
    pace = Pace(None, overhead)
    training = Training(pace, 1.0, 1.0 + idle * overhead, idle * overhead)
    training.run(STEPS)
    before = len(training.measured)
    seconds, spent = training.run(STEPS)
    assert len(training.measured) > before
    assert spent <= 1.1 * (idle + AIM * LEAST) * overhead * seconds


@pytest.mark.parametrize("length", [500, 5000])
def test_steps_too_short_for_the_budget_are_measured_often_at_first_and_then_ever_less(length: int) -> None:
    pace = Pace(None, 0.05)
    training = Training(pace, 1e-3, 3e-3, 1e-4)
    training.run(length)
    doublings = math.log2(length / DENSITY)
    assert DENSITY / 2 * doublings <= len(training.measured) <= 2 * DENSITY * doublings
    training.run(STEPS)
    within = AIM * LEAST * 0.05 * 1e-3
    assert 3e-3 / within <= pace.interval <= 2.2 * 3e-3 / within  # in the end no more than there is always


@pytest.mark.parametrize("factor", [10, 0.1])
@pytest.mark.parametrize("what", ["bare", "cost"])
def test_a_tenfold_change_is_followed(what: str, factor: float) -> None:
    pace = Pace(None, 0.05)
    training = Training(pace, 1.0, 1.0)
    training.run(2000)
    assert pace.interval == 32
    setattr(training, what, getattr(training, what) * factor)
    training.run(STEPS)
    costlier = factor if what == "cost" else 1 / factor
    assert pace.interval == (512 if costlier > 1 else 4)
    seconds, spent = training.run(STEPS)
    assert spent <= 0.051 * seconds


@pytest.mark.parametrize("overhead", [0.01, 0.05, 0.3])
def test_outliers_change_nothing(overhead: float) -> None:
    paces = [Pace(None, overhead), Pace(None, overhead)]
    Training(paces[0], 1.0, 0.7).run(STEPS)
    Training(paces[1], 1.0, 0.7).run(STEPS, outliers=0.03)
    assert paces[0].interval == paces[1].interval


def test_one_slow_moment_does_not_silence_the_trace() -> None:
    pace = Pace(None, 0.05)
    training = Training(pace, 1.0, 0.01)
    training.run(100)
    assert pace.interval == 1
    for _ in range(MEMORY // 2):
        pace.step_took(1001.0, 1000.0, measured=True)
        assert pace.interval == 1
    pace.step_took(1001.0, 1000.0, measured=True)
    pace.step_took(1001.0, 1000.0, measured=True)
    assert pace.interval <= 4
    training.run(STEPS)
    assert pace.interval == 1


@given(shares, st.lists(st.floats(0.05, 20), min_size=2, max_size=4))
def test_ranks_of_different_speeds_measure_common_steps(overhead: float, costs: list[float]) -> None:
    ranks = [Training(Pace(None, overhead), 1.0, cost) for cost in costs]
    for _ in range(3000):
        due = sorted((rank.pace.interval, not rank.pace.is_due(rank.step)) for rank in ranks)
        for (_, faster), (_, slower) in pairwise(due):
            assert faster <= slower  # who measures less often measures what the others do, too
        for rank in ranks:
            rank.run(1)
    common = set.intersection(*({*rank.measured} for rank in ranks))
    assert 2 * len(common) >= min(len(rank.measured) for rank in ranks)


durations = st.floats(0, 1e6)


@given(shares, st.lists(st.tuples(durations, durations, st.booleans(), st.booleans()), max_size=60))
def test_an_interval_is_a_power_of_two_whatever_happens(
    overhead: float, steps: list[tuple[float, float, bool, bool]]
) -> None:
    pace = Pace(None, overhead)
    for step, (seconds, spent, measured, behind) in enumerate(steps):
        before = pace.interval
        pace.is_due(step)
        pace.step_took(seconds, spent, measured=measured, behind=behind)
        assert pace.interval in {max(1, before // 2), before, min(LONGEST, 2 * before)}
        assert 1 <= pace.interval <= LONGEST
        assert pace.interval & (pace.interval - 1) == 0


def test_steps_that_cost_next_to_nothing_are_all_measured() -> None:
    training = Training(Pace(None, 0.03), 1.0, 1e-6)
    training.run(200)
    assert training.measured == list(range(200))


@given(st.integers(1, 1000), shares, st.lists(st.tuples(durations, durations, st.booleans()), max_size=30))
def test_a_given_interval_is_never_changed(every: int, overhead: float, steps: list[tuple[float, float, bool]]) -> None:
    pace = Pace(every, overhead)
    assert pace.fixed
    for step, (seconds, spent, behind) in enumerate(steps):
        assert pace.is_due(step) == (step % every == 0)
        pace.step_took(seconds, spent, measured=pace.is_due(step), behind=behind)
        assert pace.interval == every


def test_the_first_step_is_no_guide() -> None:
    pace = Pace(None, 0.05)
    pace.step_took(1000.0, 999.0, measured=True)
    for _ in range(50):
        pace.step_took(1.0, 0.01, measured=True)
        assert pace.interval == 1


def test_a_writer_that_is_behind_doubles_the_interval() -> None:
    pace = Pace(None, 0.05)
    for _ in range(3):
        pace.step_took(1.0, 1e-4, measured=True)
    intervals = []
    for _ in range(20):
        pace.step_took(1.0, 1e-4, measured=True, behind=True)
        intervals.append(pace.interval)
    assert intervals == [min(LONGEST, 2**n) for n in range(1, 21)]
    for _ in range(20):
        pace.step_took(1.0, 1e-4, measured=True)
    assert pace.interval == 1
