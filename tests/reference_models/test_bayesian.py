"""The Gaussian process against scikit-learn's, its acquisition against integration, and the search against chance."""

from __future__ import annotations

import math
import statistics
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, Matern
from tolerances import assert_close

from reference_models.bayesian import (
    LENGTHS,
    NOISES,
    STARTS,
    GaussianProcess,
    bayesian,
    expected_improvement,
    fitted,
    matern,
    rbf,
)
from reference_models.search import random, try_all
from reference_models.spaces import Choice, Integer, LogUniform, Space, Uniform

KERNELS = {"rbf": (rbf, RBF), "matern": (matern, partial(Matern, nu=2.5))}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def points(count, features, seed):
    return torch.rand(count, features, dtype=torch.float64, generator=generator(seed))


@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=15)
@given(st.integers(0, 6), st.integers(0, 6), st.integers(1, 4), st.floats(0.01, 10), st.integers(0, 99))
def test_a_kernel_is_scikit_learns(name, samples, others, features, length, seed):
    ours, theirs = KERNELS[name]
    a, b = points(samples, features, seed), points(others, features, seed + 1)
    actual = ours(a, b, length)
    assert actual.shape == (samples, others)
    if samples and others:
        assert_close(actual, torch.from_numpy(theirs(length)(a.numpy(), b.numpy())))


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_symmetric_one_at_no_distance_and_falls_with_it(name):
    kernel = KERNELS[name][0]
    x = torch.linspace(0, 5, 50, dtype=torch.float64).unsqueeze(1)
    alike = kernel(x, x, 0.7)
    assert torch.equal(alike, alike.T)
    assert torch.equal(alike.diagonal(), torch.ones(50, dtype=torch.float64))
    assert (alike[0].diff() < 0).all()
    assert torch.linalg.eigvalsh(alike).min() > -1e-12


@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=15)
@given(st.integers(1, 12), st.integers(1, 3), st.floats(0.1, 2), st.sampled_from([1e-6, 1e-3, 0.1]), st.integers(0, 99))
def test_the_posterior_and_the_likelihood_are_scikit_learns(name, samples, features, length, noise, seed):
    ours, theirs = KERNELS[name]
    x, new = points(samples, features, seed), points(7, features, seed + 1)
    y = torch.sin(5 * x.sum(1)) + x[:, 0]
    process = GaussianProcess(x, y, partial(ours, length=length), noise)
    mean, deviation = process.posterior(new)
    oracle = GaussianProcessRegressor(theirs(length), alpha=noise, optimizer=None).fit(x.numpy(), y.numpy())
    expected_mean, expected_deviation = oracle.predict(new.numpy(), return_std=True)
    # Both lose digits to the inverse of K, whose condition is about samples / noise.
    tolerance = 1e-14 * samples / noise + 1e-9
    np.testing.assert_allclose(mean, expected_mean, rtol=0, atol=10 * tolerance)
    np.testing.assert_allclose(deviation**2, expected_deviation**2, rtol=0, atol=tolerance)
    np.testing.assert_allclose(
        process.log_likelihood(), oracle.log_marginal_likelihood(oracle.kernel_.theta), rtol=1e-7, atol=1e-5
    )


def test_without_noise_the_guess_goes_through_what_is_known_and_forgets_it_far_away():
    x = torch.tensor([[0.0], [0.5], [1.0]], dtype=torch.float64)
    y = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    process = GaussianProcess(x, y, partial(matern, length=0.3), noise=1e-12)
    mean, deviation = process.posterior(x)
    torch.testing.assert_close(mean, y)
    assert (deviation < 1e-5).all()
    mean, deviation = process.posterior(x + 1000)
    assert_close(mean, torch.zeros(3, dtype=torch.float64))
    assert_close(deviation, torch.ones(3, dtype=torch.float64))


def test_what_is_known_makes_nothing_less_certain():
    x, new = points(9, 2, 0), points(50, 2, 1)
    deviations = [GaussianProcess(x[:n], torch.zeros(n, dtype=torch.float64)).posterior(new)[1] for n in range(1, 10)]
    assert all((later <= earlier + 1e-12).all() for earlier, later in pairwise(deviations))


def test_the_same_point_twice_is_no_failure():
    x = torch.zeros(4, 2, dtype=torch.float64)
    mean, deviation = GaussianProcess(x, torch.ones(4, dtype=torch.float64)).posterior(x)
    assert_close(mean, torch.ones(4, dtype=torch.float64), scale=1e5)
    assert deviation.isfinite().all()


def test_length_and_noise_are_those_that_explain_best():
    x = points(15, 1, 0)
    y = torch.sin(4 * x[:, 0])
    process = fitted(x, (y - y.mean()) / y.std(correction=0))
    likelihoods = [
        float(GaussianProcess(x, process.targets, partial(matern, length=length), noise).log_likelihood())
        for length in LENGTHS
        for noise in NOISES
    ]
    assert float(process.log_likelihood()) == max(likelihoods)
    assert process.kernel.keywords["length"] >= 0.4  # a slow wave


@settings(max_examples=30)
@given(st.floats(-5, 5), st.floats(1e-3, 5), st.floats(-5, 5))
def test_expected_improvement_is_the_mean_of_what_falls_below_the_lowest(mean, deviation, lowest):
    # ∫ max(f* - f, 0) p(f) df, in z = (f - μ) / σ, of which nothing is left 12 away from 0
    ends = np.linspace(-12, np.clip((lowest - mean) / deviation, -12, 12), 9)
    pieces = [
        integrate.quad(lambda z: (lowest - mean - deviation * z) * math.exp(-z * z / 2), start, end)[0]
        for start, end in pairwise(ends)
    ]
    expected = sum(pieces) / math.sqrt(2 * math.pi)
    guess, doubt = torch.tensor([[mean], [deviation]], dtype=torch.float64)
    actual = expected_improvement(guess, doubt, lowest)
    assert actual.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_what_is_certain_improves_by_the_gain():
    mean = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    assert expected_improvement(mean, torch.zeros(3, dtype=torch.float64), 0.0).tolist() == [1, 0, 0]


def test_improvement_falls_with_the_guess_grows_with_doubt_and_is_never_negative():
    doubt = torch.linspace(0.01, 3, 100, dtype=torch.float64)
    guess = torch.linspace(-3, 50, 100, dtype=torch.float64)
    assert (expected_improvement(torch.ones_like(doubt), doubt, 0.5).diff() > 0).all()
    falling = expected_improvement(guess, torch.ones_like(guess), 0.5)
    assert (falling.diff() <= 0).all()
    assert (falling >= 0).all()


def wave(config, budget):
    """One dimension, a local minimum at -0.5 and the global one of -1.29 near 1.05."""
    x = config["x"]
    return (x - 1) ** 2 * 0.3 - math.cos(3 * (x - 1.05)) * 1.29


def bowl(config, budget):
    """Two dimensions, with the best learning rate at 10^-2.2."""
    return (config["x"] - 0.3) ** 2 + (math.log10(config["lr"]) + 2.2) ** 2


PROBLEMS = {
    "one dimension": (Space(x=Uniform(-2, 3)), wave, -1.28),
    "two dimensions": (Space(x=Uniform(-1, 1), lr=LogUniform(1e-4, 1)), bowl, 0.02),
}


def needed(trials, goal):
    """Evaluations until the goal is reached; one more than there are if it is not."""
    return next((i for i, trial in enumerate(trials, 1) if trial.score < goal), len(trials) + 1)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_it_needs_less_than_half_the_evaluations_of_chance(problem):
    space, evaluate, goal = PROBLEMS[problem]
    guided = [
        needed(bayesian(space, evaluate, count=15, mode="min", generator=generator(seed)), goal) for seed in range(4)
    ]
    chance = [needed(try_all(random(space, 300, generator(seed)), evaluate), goal) for seed in range(100)]
    assert statistics.fmean(guided) < statistics.fmean(chance) / 2


MIXED = Space(lr=LogUniform(1e-4, 0.1), hidden=Integer(32, 512), activation=Choice("relu", "tanh", "gelu"))


def test_it_finds_the_right_choice_among_other_parameters():
    def evaluate(config, budget):
        return (config["activation"] == "gelu") - abs(math.log10(config["lr"]) + 2.5) + config["hidden"] / 512

    trials = bayesian(MIXED, evaluate, count=18, generator=generator())
    assert max(trials, key=lambda trial: trial.score).config["activation"] == "gelu"
    assert all(1e-4 <= t.config["lr"] <= 0.1 and 32 <= t.config["hidden"] <= 512 for t in trials)


def test_the_largest_is_found_where_the_least_of_the_negative_is():
    space = Space(x=Uniform(0, 1))
    largest = bayesian(space, lambda config, _: config["x"], count=8, generator=generator())
    least = bayesian(space, lambda config, _: -config["x"], count=8, mode="min", generator=generator())
    assert [trial.config for trial in largest] == [trial.config for trial in least]
    assert max(trial.score for trial in largest) > 0.99


@pytest.mark.parametrize("diverged", [math.nan, math.inf, -math.inf])
def test_trainings_that_diverge_do_not_stop_the_search(diverged):
    def evaluate(config, budget):
        return config["x"] ** 2 if config["x"] < 0.6 else diverged

    trials = bayesian(Space(x=Uniform(-0.5, 1)), evaluate, count=12, mode="min", generator=generator())
    assert min(abs(trial.config["x"]) for trial in trials) < 0.05


@pytest.mark.parametrize("score", [0.95, math.nan])
def test_a_score_that_is_always_the_same_still_gives_different_configs(score):  # E-56
    trials = bayesian(MIXED, lambda config, budget: score, count=8, generator=generator())
    assert len({trial.config["lr"] for trial in trials}) == 8


def test_it_starts_at_random_and_hands_the_budget_on():
    seen = []
    trials = bayesian(
        MIXED, lambda config, budget: seen.append(budget) or 0.0, count=6, budget=7, generator=generator()
    )
    assert [trial.config for trial in trials[:STARTS]] == random(MIXED, STARTS, generator())
    assert seen == [7] * 6
    assert len(bayesian(MIXED, lambda config, budget: 0.0, count=2, generator=generator())) == 2


def test_the_same_seed_searches_the_same_way():
    runs = [bayesian(PROBLEMS["two dimensions"][0], bowl, count=8, mode="min", generator=generator(3)) for _ in "ab"]
    assert runs[0] == runs[1]


def test_a_mode_that_is_none_is_named():
    with pytest.raises(ValueError, match="expected `mode` to be 'min' or 'max', got 'least'"):
        bayesian(MIXED, bowl, mode="least")
