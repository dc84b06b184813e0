"""Activations: equal to torch's own in value and slope, over everything a float can be."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from strategies import float_dtypes, shapes, tensors, values
from tolerances import assert_close

from reference_models.activations import ReLU, log_softmax, relu, softmax

PAIRS = {relu: F.relu, log_softmax: lambda x: F.log_softmax(x, -1), softmax: lambda x: F.softmax(x, -1)}
anything = tensors(dtype=float_dtypes, elements=values(non_finite=True))


def slopes(function, x):
    """Value, and gradient of a weighted sum of the values."""
    x = x.detach().clone().requires_grad_()
    y = function(x)
    (y * torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).reshape(y.shape)).sum().backward()
    return y.detach(), x.grad


@pytest.mark.parametrize("ours", PAIRS, ids=lambda f: f.__name__)
@given(x=anything)
def test_it_equals_torch_in_value_and_gradient(ours, x):
    assume(ours is relu or (x.ndim and x.shape[-1]))
    for actual, expected in zip(slopes(ours, x), slopes(PAIRS[ours], x), strict=True):
        assert_close(actual, expected)


@pytest.mark.parametrize("ours", PAIRS, ids=lambda f: f.__name__)
@given(x=tensors(shapes(smallest=1), elements=values(largest=1e30)))
def test_it_equals_torch_on_numbers_of_any_size(ours, x):
    assume(x.ndim)
    for actual, expected in zip(slopes(ours, x), slopes(PAIRS[ours], x), strict=True):
        assert_close(actual, expected)


def test_the_rectifier_keeps_nan_and_has_no_slope_at_zero():
    x = torch.tensor([float("nan"), -0.0, 0.0, -float("inf"), float("inf")], requires_grad=True)
    y = relu(x)
    y[1:4].sum().backward()
    assert_close(y.detach(), torch.tensor([float("nan"), 0.0, 0.0, 0.0, float("inf")]))
    assert x.grad.tolist() == [0, 0, 0, 0, 0]
    assert ReLU()(torch.tensor([-1, 2])).tolist() == [0, 2]


@given(tensors(shapes(smallest=1), torch.float64, values(largest=1e4)))
def test_probabilities_sum_to_one_and_do_not_change_with_a_shift(x):
    assume(x.ndim)
    assert_close(softmax(x).sum(-1), torch.ones(x.shape[:-1], dtype=x.dtype))
    assert_close(softmax(x + 7), softmax(x))
