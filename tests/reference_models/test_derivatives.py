"""Derivatives by formula: what autograd makes of the functions, and the book's figures."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from strategies import float_dtypes, tensors, values
from tolerances import assert_close

from reference_models.activations import MODULES, activation
from reference_models.derivatives import (
    DERIVATIVES,
    elu_derivative,
    leaky_relu_derivative,
    sigmoid_derivative,
    softplus_derivative,
    tanh_derivative,
)

wide = torch.linspace(-30, 30, 60_001, dtype=torch.float64)


def autograds(name, x):
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(activation(name)(x).sum(), x)[0]


def test_every_activation_has_a_derivative():
    assert DERIVATIVES.keys() == MODULES.keys()


@settings(max_examples=30)
@given(st.one_of(tensors(dtype=float_dtypes), tensors(dtype=torch.float32, elements=values(largest=1e30))))
def test_they_are_autograds(x):
    for name, derivative in DERIVATIVES.items():
        note(name)
        assert_close(derivative(x), autograds(name, x))


@pytest.mark.parametrize("name", DERIVATIVES)
def test_it_is_the_slope_between_two_near_points(name):
    x, h = torch.linspace(-6, 6, 98, dtype=torch.float64), 1e-6  # 0, where rectifiers have a corner, is left out
    apart = (activation(name)(x + h) - activation(name)(x - h)) / (2 * h)
    assert torch.allclose(DERIVATIVES[name](x), apart, atol=1e-8)


@given(st.floats(0, 2))
@settings(max_examples=10)
def test_a_leak_is_the_slope_left_of_zero(slope):
    x = torch.tensor([-2.0, 3.0], dtype=torch.float64)
    assert leaky_relu_derivative(x, slope).tolist() == [slope, 1]
    assert_close(elu_derivative(x, slope), torch.tensor([slope * torch.exp(x[0]), 1], dtype=torch.float64))


def test_a_sigmoid_is_at_most_a_quarter_steep():
    assert sigmoid_derivative(torch.zeros(())) == 0.25
    assert sigmoid_derivative(wide).max() <= 0.25
    assert pytest.approx(9.5e-7, rel=0.01) == 0.25**10


def test_ten_sigmoids_let_less_than_a_millionth_through():
    x = y = torch.linspace(-5, 5, 101, dtype=torch.float64, requires_grad=True)
    for _ in range(10):
        y = activation("sigmoid")(y)
    assert 0 < torch.autograd.grad(y.sum(), x)[0].max() < 0.25**10


def test_tanh_is_at_most_one_steep():
    assert tanh_derivative(torch.zeros(())) == 1
    assert tanh_derivative(wide).max() <= 1


def test_softplus_is_as_steep_as_a_sigmoid_is_high():
    assert torch.equal(softplus_derivative(wide), torch.sigmoid(wide))


@pytest.mark.parametrize(
    ("name", "lowest", "highest"), [("gelu", -0.13, 1.13), ("silu", -0.10, 1.10), ("mish", -0.12, 1.09)]
)
def test_weighted_numbers_fall_a_little_left_of_zero(name, lowest, highest):
    slopes = DERIVATIVES[name](wide)
    assert slopes.min() == pytest.approx(lowest, abs=0.01)
    assert slopes.max() == pytest.approx(highest, abs=0.01)
