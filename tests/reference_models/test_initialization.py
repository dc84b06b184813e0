"""Initial weights: torch's own, variance kept through ten layers, and what happens where it is not."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import assert_close
from torch import nn

from reference_models.activations import relu, sigmoid, tanh
from reference_models.convolution import Conv2d
from reference_models.initialization import (
    fan_in_out,
    kaiming_normal,
    kaiming_uniform,
    normal,
    uniform,
    xavier_normal,
    xavier_uniform,
    zeros,
)
from reference_models.losses import mse
from reference_models.mlp import Linear

WEIGHTS = {
    "he, uniform": (lambda *shape, **kw: kaiming_uniform(*shape, a=0, **kw), nn.init.kaiming_uniform_),
    "he, normal": (kaiming_normal, nn.init.kaiming_normal_),
    "he, normal, leaky": (
        lambda *shape, **kw: kaiming_normal(*shape, a=0.3, **kw),
        lambda x, **kw: nn.init.kaiming_normal_(x, a=0.3, **kw),
    ),
    "xavier, uniform": (xavier_uniform, nn.init.xavier_uniform_),
    "xavier, normal": (xavier_normal, nn.init.xavier_normal_),
    "xavier, gain": (
        lambda *shape, **kw: xavier_normal(*shape, gain=5 / 3, **kw),
        lambda x, **kw: nn.init.xavier_normal_(x, gain=5 / 3, **kw),
    ),
    "uniform": (
        lambda *shape, **kw: uniform(*shape, bound=0.1, **kw),
        lambda x, **kw: nn.init.uniform_(x, -0.1, 0.1, **kw),
    ),
    "normal": (normal, nn.init.normal_),
    "normal, bert": (
        lambda *shape, **kw: normal(*shape, std=0.02, **kw),
        lambda x, **kw: nn.init.normal_(x, std=0.02, **kw),
    ),
}


@pytest.mark.parametrize("name", WEIGHTS)
@settings(max_examples=15)
@given(shape=st.lists(st.integers(1, 6), min_size=2, max_size=5), seed=st.integers(0, 9))
def test_a_generator_gives_the_weights_that_torch_draws(name, shape, seed):
    before = torch.get_rng_state()
    ours, theirs = WEIGHTS[name]
    weight = ours(*shape, generator=torch.Generator().manual_seed(seed))
    assert_close(weight, theirs(torch.empty(shape), generator=torch.Generator().manual_seed(seed)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", WEIGHTS)
def test_without_one_the_global_seed_decides(name):
    weights = []
    for _ in range(2):
        torch.manual_seed(5)
        weights.append(WEIGHTS[name][0](3, 4))
    assert torch.equal(*weights)
    assert not torch.equal(weights[0], WEIGHTS[name][0](3, 4))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: Linear(20, 30), lambda: nn.Linear(20, 30)),
        (lambda: Conv2d(4, 6, 3), lambda: nn.Conv2d(4, 6, 3)),
        (lambda: Conv2d(4, 6, 5, groups=2), lambda: nn.Conv2d(4, 6, 5, groups=2)),
    ],
    ids=["linear", "conv", "conv in groups"],
)
def test_layers_start_from_the_weights_that_torchs_start_from(ours, theirs):
    torch.manual_seed(3)
    mine = ours()
    torch.manual_seed(3)
    torchs = theirs()
    assert_close(mine.weight.detach(), torchs.weight.detach())
    assert_close(mine.bias.detach(), torchs.bias.detach())


def test_fans_are_counted_over_the_axes_after_the_first():
    assert fan_in_out((64, 32, 3, 3)) == (288, 576)  # erratum E-16
    assert fan_in_out((10, 128)) == (128, 10)
    for make in (lambda: fan_in_out((3,)), lambda: kaiming_normal(3), xavier_uniform):
        with pytest.raises(ValueError, match="has no fan"):
            make()


def test_spreads_are_those_of_the_book():
    he, xavier = kaiming_normal(400, 800), xavier_normal(400, 800)
    assert float(he.std()) == pytest.approx(math.sqrt(2 / 800), rel=0.01)
    assert float(xavier.std()) == pytest.approx(math.sqrt(2 / 1200), rel=0.01)
    for normally, uniformly in ((he, kaiming_uniform(400, 800, a=0)), (xavier, xavier_uniform(400, 800))):
        assert float(uniformly.std()) == pytest.approx(float(normally.std()), rel=0.01)
        assert abs(uniformly.mean()) < 1e-3


def test_weights_fill_their_range():
    weight = kaiming_uniform(500, 100)
    assert 0.099 < float(weight.abs().max()) <= 1 / math.sqrt(100)


def test_weights_without_inputs_or_outputs_are_empty():
    for make in (kaiming_uniform, kaiming_normal, xavier_uniform, xavier_normal, zeros):
        assert make(3, 0).shape == (3, 0)
        assert make(0, 0, 2).shape == (0, 0, 2)
    assert uniform(2, 3, bound=0.0).abs().sum() == normal(2, 3, std=0.0).abs().sum() == zeros(2, 3).sum() == 0


@pytest.mark.parametrize("number", [-1.0, math.nan], ids=str)
def test_a_spread_below_zero_is_refused(number):
    with pytest.raises(ValueError, match=f"expected `bound` of at least 0, got {number}"):
        uniform(3, bound=number)
    with pytest.raises(ValueError, match=f"expected `std` of at least 0, got {number}"):
        normal(3, std=number)
    with pytest.raises(ValueError, match="at least 0"):
        xavier_normal(3, 3, gain=number)


# --- ten layers ------------------------------------------------------------------------------------------------------

STACKS = {
    "relu, he normal": (relu, kaiming_normal),
    "relu, he uniform": (relu, lambda *shape: kaiming_uniform(*shape, a=0)),
    "tanh, xavier normal": (tanh, xavier_normal),
    "tanh, xavier uniform": (tanh, xavier_uniform),
}


@pytest.mark.parametrize("name", STACKS)
def test_ten_layers_keep_the_variance(name):
    bend, draw = STACKS[name]
    # Tanh keeps the variance of what it hardly bends; larger numbers it shrinks to about 1/(2 · layers).
    x = start = torch.randn(256, 400) * (0.3 if bend is tanh else 1)
    for _ in range(10):
        x = bend(x @ draw(400, 400).T)
    assert 0.3 <= float(x.square().mean() / start.square().mean()) <= 3


def gradient_norms(bend, draw, seed):
    """Norms of the gradients of ten layers of 64 and an output, first layer first."""
    torch.manual_seed(seed)
    weights = [draw(64, 64).requires_grad_() for _ in range(10)] + [draw(1, 64).requires_grad_()]
    x, target = torch.randn(256, 64), torch.randn(256, 1)
    for weight in weights[:-1]:
        x = bend(x @ weight.T)
    gradients = torch.autograd.grad(mse(x @ weights[-1].T, target), weights)
    return [float(gradient.norm()) for gradient in gradients]


@pytest.mark.parametrize(
    ("bend", "draw", "least", "most"),
    [
        (sigmoid, kaiming_uniform, 1e-10, 1e-8),  # 2.5e-9 in the specification
        (sigmoid, xavier_uniform, 1e-8, 5e-6),  # 4.3e-7
        (tanh, xavier_uniform, 0.1, 5),  # 0.53
        (relu, kaiming_normal, 0.03, 3),  # 0.39
    ],
    ids=["sigmoid, default", "sigmoid, xavier", "tanh, xavier", "relu, he"],
)
def test_gradients_vanish_behind_ten_sigmoids_alone(bend, draw, least, most):
    for seed in range(3):
        norms = gradient_norms(bend, draw, seed)
        assert least < norms[0] / norms[-1] < most
        assert (norms[0] < 1e-6) == (bend is sigmoid and draw is kaiming_uniform) or draw is xavier_uniform


def test_gradients_explode_where_weights_start_from_a_standard_normal():
    for seed in range(3):
        assert all(norm > 1e12 for norm in gradient_norms(relu, normal, seed))  # about 1e14 in the specification


def test_layers_of_zeros_never_get_a_gradient():
    assert gradient_norms(relu, zeros, 0) == [0] * 11  # erratum E-40
