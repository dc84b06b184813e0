"""Regularization: torch's numbers for torch's seed, nothing in evaluation, the mean kept, no errors of the book."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import float_dtypes, shapes, tensors, values
from tolerances import assert_close

from reference_models.mlp import MLP
from reference_models.optimizers import SGD, AdamW
from reference_models.regularization import (
    Curriculum,
    Dropout,
    EarlyStopping,
    FeatureDropout,
    GaussianNoise,
    decay_groups,
    dropout,
    feature_dropout,
)
from tensorscope import ShapeError

probabilities = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
anything = tensors(dtype=float_dtypes, elements=values(non_finite=True))
batches = tensors(shapes(axes=3).map(lambda rest: (3, *rest) if rest else (3, 4)), float_dtypes, values())
MODULES = {"dropout": Dropout, "features": FeatureDropout, "noise": GaussianNoise}


def seeded(function, x):
    """Value and gradient from the same random state each time."""
    torch.manual_seed(7)
    x = x.detach().clone().requires_grad_()
    y = function(x)
    (y * torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).reshape(y.shape)).sum().backward()
    return y.detach(), x.grad


@given(x=anything, p=probabilities)
def test_dropout_equals_torchs_in_value_and_gradient_for_the_same_seed(x, p):
    ours, theirs = seeded(lambda x: dropout(x, p), x), seeded(lambda x: F.dropout(x, p), x)
    for actual, expected in zip(ours, theirs, strict=True):
        assert_close(actual, expected)


@given(x=batches, p=probabilities)
def test_feature_dropout_equals_torchs_in_value_and_gradient_for_the_same_seed(x, p):
    ours = seeded(lambda x: feature_dropout(x, p), x)
    theirs = seeded(lambda x: torch.feature_dropout(x, p, True), x)
    for actual, expected in zip(ours, theirs, strict=True):
        assert_close(actual, expected)


@pytest.mark.parametrize("name", MODULES)
@given(x=batches, p=probabilities)
def test_in_evaluation_a_module_gives_its_very_input(name, x, p):
    module = MODULES[name](p).eval()
    assert module(x) is x


@pytest.mark.parametrize("name", MODULES)
def test_in_training_it_follows_torchs_generator_and_leaves_its_input_alone(name):
    module, x = MODULES[name](0.5), torch.ones(20, 20)
    first, second = module(x), module(x)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(module(x), first)
    assert torch.equal(x, torch.ones(20, 20))


@pytest.mark.parametrize("name", MODULES)
def test_zero_of_it_changes_nothing_while_training(name):
    x = torch.randn(4, 5)
    assert torch.equal(MODULES[name](0.0)(x), x)


def test_all_of_it_leaves_nothing():
    for drop in (dropout, feature_dropout):
        assert torch.equal(drop(torch.ones(3, 4), 1.0), torch.zeros(3, 4))


@settings(max_examples=10)
@given(p=st.floats(0.05, 0.9), seed=st.integers(0, 1000))
def test_dropping_keeps_the_mean(p, seed):
    generator = torch.Generator().manual_seed(seed)
    count = 40_000
    # A number that is kept is 1 / (1 - p), so that one has the variance p / (1 - p); six deviations of the mean.
    bound = 6 * math.sqrt(p / (1 - p) / count)
    for drop, x in ((dropout, torch.ones(count)), (feature_dropout, torch.ones(200, count // 200))):
        assert abs(drop(x, p, generator=generator).mean() - 1) < bound


@given(p=st.floats(0, 0.99), scale=st.sampled_from([-2.0, 0.5, 8.0]))
def test_what_is_left_is_scaled_up_and_dropping_is_linear(p, scale):
    x = torch.randn(50, dtype=torch.float64)
    (y, slope), (scaled, _) = seeded(lambda x: dropout(x, p), x), seeded(lambda x: dropout(x * scale, p), x)
    assert_close(scaled, y * scale)
    left = y != 0
    assert_close(y[left], x[left] / (1 - p))
    assert (slope[~left] == 0).all()


def test_a_dropped_feature_is_gone_everywhere_in_its_sample_and_scaled_otherwise():
    y = feature_dropout(torch.ones(50, 8, 3, 3), 0.3)
    assert_close(y, y[:, :, :1, :1].expand_as(y).clone())
    assert y.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert (y[:, 0, 0, 0] != y[:, 1, 0, 0]).any()


def test_a_generator_of_ones_own_leaves_torchs_alone():
    before = torch.get_rng_state()
    first, second = (dropout(torch.ones(30), generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("std", [0.1, 3.0])
def test_noise_has_mean_zero_and_its_standard_deviation(std):
    """E-54: the book's is uniform from 0 to σ, whose mean is σ/2."""
    noise = GaussianNoise(std)(torch.zeros(40_000))
    assert abs(noise.mean()) < 6 * std / 200
    assert noise.std() == pytest.approx(std, rel=0.05)
    x = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    y = GaussianNoise(std)(x)
    y.sum().backward()
    assert y.dtype is torch.bfloat16
    assert x.grad.tolist() == [1, 1, 1]


def test_what_cannot_be_dropped_is_refused():
    for p in (-0.1, 1.1, float("nan")):
        for make in (Dropout, FeatureDropout, lambda p: dropout(torch.ones(2), p)):
            with pytest.raises(ValueError, match="`p` takes a probability, got"):
                make(p)
    with pytest.raises(TypeError, match=r"expected a float tensor to drop from, got torch\.int64"):
        dropout(torch.ones(3, dtype=torch.long))
    with pytest.raises(ValueError, match="`std` takes a number of at least 0, got -1"):
        GaussianNoise(-1)
    with pytest.raises(ShapeError, match="`x` has 1 axis"):
        feature_dropout(torch.ones(3))


# ---- early stopping


def test_the_books_patience_stops_at_the_tenth_epoch_without_progress():
    stopping = EarlyStopping()
    losses = [1.0, 0.5, *[0.4995] * 10]
    assert [stopping.update(loss) for loss in losses] == [False] * 11 + [True]
    assert (stopping.best, stopping.best_at) == (0.5, 1)


@given(st.lists(st.one_of(st.integers(-5, 5).map(float), st.just(float("nan"))), max_size=30), st.integers(1, 5))
def test_it_stops_when_the_last_scores_are_all_no_better_than_one_before(scores, patience):
    stopping = EarlyStopping(patience, min_delta=0.5)
    mirrored = EarlyStopping(patience, min_delta=0.5, mode="max")
    for at, score in enumerate(scores):
        stopped = stopping.update(score)
        assert mirrored.update(-score) == stopped
        finite = [(s, place) for place, s in enumerate(scores[: at + 1]) if not math.isnan(s)]
        best, place = min(finite, default=(math.inf, -1))
        assert (stopping.best, stopping.best_at) == (best, place)
        assert stopping.stale == at - place
        assert stopped == stopping.stop == (at - place >= patience)


def test_settings_that_never_stop_or_never_go_on_are_refused():
    for setting, name in [
        ({"patience": 0}, "patience"),
        ({"min_delta": -1.0}, "min_delta"),
        ({"min_delta": float("nan")}, "min_delta"),
        ({"mode": "least"}, "mode"),
    ]:
        with pytest.raises(ValueError, match=f"`{name}` takes"):
            EarlyStopping(**setting)


# ---- curriculum


@given(
    st.lists(st.floats(allow_nan=False, width=32), max_size=30), st.floats(0, 1), st.integers(1, 8), st.integers(0, 12)
)
def test_a_curriculum_has_the_easiest_samples_and_never_fewer_than_the_epoch_before(scores, start, epochs, epoch):
    difficulty = torch.tensor(scores)
    curriculum = Curriculum(difficulty, start, epochs)
    now, later = curriculum.samples(epoch), curriculum.samples(epoch + 1)
    assert torch.equal(later[: len(now)], now)
    assert len(now) >= min(1, len(scores))
    assert now.unique().numel() == len(now)
    left_out = torch.ones(len(scores), dtype=torch.bool).scatter(0, now, False)
    if len(now) and left_out.any():
        assert difficulty[now].max() <= difficulty[left_out].min()
    if epoch >= epochs:
        assert len(now) == len(scores)


def test_a_curriculum_grows_once_an_epoch_however_often_it_is_asked():
    """E-54: the book's threshold grows when the epoch ends and when it is asked for."""
    curriculum = Curriculum(torch.arange(100.0).flip(0), start=0.2, epochs=4)
    for _ in range(3):
        assert [len(curriculum.samples(epoch)) for epoch in range(6)] == [20, 40, 60, 80, 100, 100]
    assert curriculum.samples(0)[:3].tolist() == [99, 98, 97]


def test_scores_that_cannot_be_ranked_are_refused():
    with pytest.raises(ValueError, match="`difficulty` takes a score for each sample, got NaN"):
        Curriculum(torch.tensor([1.0, float("nan")]))
    with pytest.raises(ValueError, match="`start` takes a share from 0 to 1, got 2"):
        Curriculum(torch.ones(3), start=2)
    with pytest.raises(ValueError, match="`epochs` takes a number from 1 on, got 0"):
        Curriculum(torch.ones(3), epochs=0)


# ---- decay


@given(st.lists(st.integers(1, 5), min_size=2, max_size=4))
def test_weights_decay_and_biases_do_not_and_each_parameter_is_in_one_group(sizes):
    """E-54: the book's penalty hits biases."""
    model = torch.nn.Sequential(MLP(*sizes), torch.nn.LayerNorm(sizes[-1]))
    decayed, spared = decay_groups(model, 0.1)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert all(parameter.ndim == 2 for parameter in decayed["params"])
    assert all(parameter.ndim == 1 for parameter in spared["params"])
    assert {*map(id, decayed["params"]), *map(id, spared["params"])} == {*map(id, model.parameters())}
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    AdamW(decay_groups(model, 0.1), lr=0.5).step()
    for old, new in zip(before, model.parameters(), strict=True):
        assert_close(new.detach(), old * 0.95 if old.ndim == 2 else old)


def test_decay_of_a_group_is_the_slope_of_half_the_squared_weights():
    model = MLP(3, 4, 2)
    twin = MLP(3, 4, 2)
    twin.load_state_dict(model.state_dict())
    x = torch.randn(5, 3)
    model(x).square().sum().backward()
    penalty = sum((parameter**2).sum() for parameter in twin.parameters() if parameter.ndim == 2) * 0.3 / 2
    (twin(x).square().sum() + penalty).backward()
    SGD(decay_groups(model, 0.3), 0.01).step()
    SGD(twin.parameters(), 0.01).step()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert_close(ours.detach(), theirs.detach())
