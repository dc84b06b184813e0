"""Grid, random search, successive halving and Hyperband."""

from __future__ import annotations

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_models.search import (
    Rung,
    Trial,
    best,
    brackets,
    grid,
    halving,
    hyperband,
    random,
    ranked,
    successive_halving,
    try_all,
)
from reference_models.spaces import Choice, Integer, LogUniform, Space, Uniform

SPACE = Space(lr=LogUniform(1e-4, 0.1), batch=Choice(16, 64), hidden=Integer(32, 512))
LINE = Space(x=Uniform(0, 1))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_grid_is_the_product_of_what_each_parameter_offers():
    configs = grid(Space(a=Choice("x", "y"), b=Integer(1, 3), c=Uniform(0, 1)), points=3)
    assert configs == [{"a": a, "b": b, "c": c} for a in "xy" for b in (1, 2, 3) for c in (0, 0.5, 1)]


def test_the_same_seed_draws_the_same_configs_and_they_are_not_all_the_same():  # E-56
    drawn = random(SPACE, 20, generator())
    assert drawn == random(SPACE, 20, generator())
    assert drawn != random(SPACE, 20, generator(1))
    assert len({config["lr"] for config in drawn}) == 20
    assert all(1e-4 <= c["lr"] <= 0.1 and c["batch"] in {16, 64} and 32 <= c["hidden"] <= 512 for c in drawn)


def test_a_longer_random_search_begins_like_a_shorter_one():
    assert random(SPACE, 20, generator())[:7] == random(SPACE, 7, generator())
    assert random(SPACE, 0, generator()) == []


def test_a_draw_without_a_generator_follows_the_global_seed():
    torch.manual_seed(5)
    drawn = random(SPACE, 3)
    torch.manual_seed(5)
    assert drawn == random(SPACE, 3)
    assert drawn != random(SPACE, 3)


scores = st.lists(st.one_of(st.floats(allow_nan=True), st.just(math.inf), st.just(-math.inf)), min_size=1, max_size=9)


@given(scores, st.sampled_from(["min", "max"]))
def test_ranking_sorts_by_mode_with_nan_last_and_equal_scores_in_their_order(numbers, mode):
    trials = [Trial({"x": i}, 1, number) for i, number in enumerate(numbers)]
    order = ranked(trials, mode)
    real = [trial.score for trial in order if not math.isnan(trial.score)]
    assert real == sorted((x for x in numbers if not math.isnan(x)), reverse=mode == "max")
    assert all(math.isnan(trial.score) for trial in order[len(real) :])
    for one, other in pairwise(order):
        if one.score == other.score or math.isnan(one.score):
            assert one.config["x"] < other.config["x"]
    assert best(trials, mode) is order[0]


def test_perplexity_is_minimised_and_accuracy_maximised():  # E-56
    trials = [Trial({}, 1, 32.76), Trial({}, 1, 98.24)]
    assert best(trials, "min").score == 32.76
    assert best(trials, "max").score == 98.24


def test_halving_leaves_a_third_with_three_times_the_budget():
    assert halving(27) == [Rung(27, 1), Rung(9, 3), Rung(3, 9), Rung(1, 27)]
    assert halving(10, budget=2, eta=2) == [Rung(10, 2), Rung(5, 4), Rung(2, 8), Rung(1, 16)]
    assert halving(2) == [Rung(2, 1)]


def test_successive_halving_goes_on_with_the_best_only():
    trials = successive_halving(LINE, lambda config, budget: config["x"] * budget, generator=generator())
    assert [trial.budget for trial in trials] == [1] * 27 + [3] * 9 + [9] * 3 + [27]
    drawn = sorted((config["x"] for config in random(LINE, 27, generator())), reverse=True)
    for start, count in ((27, 9), (36, 3), (39, 1)):
        assert [trial.config["x"] for trial in trials[start : start + count]] == drawn[:count]


def test_successive_halving_minimises_as_well_and_drops_what_diverged():
    def evaluate(config, budget):
        return math.nan if config["x"] < 0.5 else config["x"]

    trials = successive_halving(LINE, evaluate, mode="min", generator=generator())
    drawn = [config["x"] for config in random(LINE, 27, generator())]
    assert trials[-1].config["x"] == min(x for x in drawn if x >= 0.5)


def test_what_is_best_early_need_not_survive():
    # Fast starters are worst in the end, and the second rung shows it.
    def evaluate(config, budget):
        return config["x"] if budget == 1 else -config["x"]

    trials = successive_halving(LINE, evaluate, generator=generator())
    drawn = sorted((config["x"] for config in random(LINE, 27, generator())), reverse=True)
    assert trials[-1].config["x"] == drawn[8]


# Li et al. (2018), table 1: what algorithm 1 makes of R = 81 and η = 3
TABLE = [
    [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
    [(34, 3), (11, 9), (3, 27), (1, 81)],
    [(15, 9), (5, 27), (1, 81)],
    [(8, 27), (2, 81)],
    [(5, 81)],
]


def test_hyperbands_brackets_are_those_of_the_paper():
    assert [[(rung.configs, rung.budget) for rung in rungs] for rungs in brackets(81, 3)] == TABLE


@given(st.integers(1, 1000), st.integers(2, 5))
def test_every_bracket_ends_at_the_full_budget_and_costs_about_the_same(largest, eta):
    plan = brackets(largest, eta)
    assert eta ** (len(plan) - 1) <= largest < eta ** len(plan)
    for rungs in plan:
        assert rungs[-1].budget == largest
        assert rungs[-1].configs >= 1
        assert all(one.configs >= eta * other.configs for one, other in pairwise(rungs))
        # One rung costs at most (s_max + 1) R / (s + 1) and one config more than that, since n is rounded up.
        share = len(plan) * largest / len(rungs)
        for rung in rungs:
            assert rung.configs * (rung.budget - 0.5) <= share + rung.budget + 1e-9


@pytest.mark.parametrize("power", range(1, 8))
def test_a_power_of_eta_loses_no_bracket_to_rounding(power):
    assert [len(brackets(eta**power, eta)) for eta in (2, 3, 5, 10)] == [power + 1] * 4


def test_hyperband_tries_as_planned_and_finds_the_best_of_all_its_draws():
    seen = Counter()

    def evaluate(config, budget):
        seen[budget] += 1
        return -((config["x"] - 0.3) ** 2)

    trials = hyperband(LINE, evaluate, generator=generator())
    planned = Counter()
    for rungs in TABLE:
        planned.update({budget: configs for configs, budget in rungs})
    assert seen == planned
    assert len(trials) == sum(planned.values())
    draw = generator()
    everything = [config["x"] for rungs in TABLE for config in random(LINE, rungs[0][0], draw)]
    assert best(trials).config["x"] == min(everything, key=lambda x: abs(x - 0.3))


@settings(max_examples=5)
@given(st.integers(0, 2**31))
def test_the_same_seed_searches_the_same_way(seed):
    def evaluate(config, budget):
        return math.sin(9 * config["lr"] * config["hidden"]) * budget

    for search in (successive_halving, hyperband):
        assert search(SPACE, evaluate, generator=generator(seed)) == search(SPACE, evaluate, generator=generator(seed))


def test_several_trials_at_a_time_give_what_one_after_the_other_gives():
    def evaluate(config, budget):
        return config["lr"] * config["hidden"] * budget

    with ThreadPoolExecutor(4) as pool:
        for search in (successive_halving, hyperband):
            parallel = search(SPACE, evaluate, generator=generator(), run=pool.map)
            assert parallel == search(SPACE, evaluate, generator=generator())


def test_what_goes_wrong_in_a_trial_is_not_swallowed():
    def evaluate(config, budget):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        try_all([{}], evaluate)


MISTAKES = {
    "a mode that is none": (lambda: ranked([Trial({}, 1, 0.0)], "least"), "`mode` to be 'min' or 'max', got 'least'"),
    "the best of nothing": (lambda: best([]), "at least one trial, got none"),
    "a negative count": (lambda: random(LINE, -1), "`count` ≥ 0, got -1"),
    "halving nothing": (lambda: halving(0), "`count` ≥ 1, got 0"),
    "halving with no budget": (lambda: halving(9, budget=0), "`budget` ≥ 1, got 0"),
    "halving by one": (lambda: halving(9, eta=1), "`eta` ≥ 2, got 1"),
    "brackets of no budget": (lambda: brackets(0), "`largest` ≥ 1, got 0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake):
    make, text = MISTAKES[mistake]
    with pytest.raises(ValueError, match=text):
        make()
