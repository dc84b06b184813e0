"""What a search may try: the maps from the unit interval, and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reference_models.spaces import Choice, Integer, LogUniform, Space, Uniform

units = st.floats(0, 1)
bounds = st.lists(st.floats(-100, 100), min_size=2, max_size=2, unique=True).map(sorted)


@settings(max_examples=25)
@given(units, bounds)
def test_a_uniform_value_is_linear_in_its_place(u, ends):
    low, high = ends
    parameter = Uniform(low, high)
    assert parameter.at(u) == pytest.approx((1 - u) * low + u * high, rel=1e-9, abs=1e-9)
    assert low <= parameter.at(u) <= high


@settings(max_examples=25)
@given(units, st.floats(1e-8, 1.0), st.floats(1.001, 1e8))
def test_the_logarithm_of_a_log_uniform_value_is_linear_in_its_place(u, low, ratio):
    parameter = LogUniform(low, low * ratio)
    assert math.log(parameter.at(u)) == pytest.approx(math.log(low) + u * math.log(ratio), rel=1e-9, abs=1e-9)
    assert low <= parameter.at(u) <= low * ratio
    assert parameter.coordinates(parameter.at(u)) == pytest.approx([u], abs=1e-6)


@settings(max_examples=25)
@given(st.integers(-20, 20), st.integers(0, 30))
def test_every_integer_owns_an_equal_part_of_the_interval_with_its_place_in_the_middle(low, width):
    parameter = Integer(low, low + width)
    numbers = range(low, low + width + 1)
    places = [parameter.coordinates(number)[0] for number in numbers]
    assert [parameter.at(place) for place in places] == list(numbers)
    assert np.allclose(np.diff(places), 1 / (width + 1))
    assert parameter.at(0.0) == low
    assert parameter.at(1.0) == low + width


def test_two_choices_are_always_as_far_apart_as_the_ends_of_a_range():
    parameter = Choice("relu", "tanh", "gelu")
    points = np.array([parameter.coordinates(value) for value in parameter.values])
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    assert np.allclose(distances, 1 - np.eye(3))


DRAWS = torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()


def test_learning_rates_are_drawn_log_uniformly():  # E-56
    drawn = np.log([LogUniform(1e-4, 0.1).at(u) for u in DRAWS])
    assert stats.kstest(drawn, stats.uniform(math.log(1e-4), math.log(1e3)).cdf).pvalue > 0.01
    # and not uniformly, of which nine in ten would be above 0.01
    assert stats.kstest(np.exp(drawn), stats.uniform(1e-4, 0.0999).cdf).pvalue < 1e-9


def test_numbers_are_drawn_uniformly():
    assert stats.kstest([Uniform(-2, 3).at(u) for u in DRAWS], stats.uniform(-2, 5).cdf).pvalue > 0.01


@pytest.mark.parametrize("parameter", [Integer(16, 22), Choice(*"abcdefg")], ids=["integer", "choice"])
def test_each_of_seven_values_is_as_likely_as_another(parameter):
    _, counts = np.unique([parameter.at(u) for u in DRAWS], return_counts=True)
    assert len(counts) == 7
    assert stats.chisquare(counts).pvalue > 0.01


def test_a_grid_has_both_ends_and_even_steps():
    assert Uniform(0, 1).grid(5) == [0, 0.25, 0.5, 0.75, 1]
    assert LogUniform(1e-4, 0.1).grid(4) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])
    assert Integer(32, 512).grid(3) == [32, 272, 512]
    assert Integer(1, 3).grid(9) == [1, 2, 3]
    assert Choice("a", "b").grid(1) == ["a", "b"]
    assert Uniform(0, 1).grid(1) == [0.5]


def test_a_space_maps_every_parameter_by_its_own_place():
    space = Space(lr=LogUniform(1e-4, 1.0), hidden=Integer(0, 9), activation=Choice("relu", "tanh"))
    config = space.at([0.5, 0.35, 0.9])
    assert config == {"lr": pytest.approx(1e-2), "hidden": 3, "activation": "tanh"}
    assert space.coordinates(config) == pytest.approx([0.5, 0.35, 0, math.sqrt(0.5)])
    assert len(space) == 3


MISTAKES = {
    "a range upside down": lambda: Uniform(1, 0),
    "a range of one number": lambda: LogUniform(1e-3, 1e-3),
    "an endless range": lambda: Uniform(0, math.inf),
    "a logarithm of zero": lambda: LogUniform(0, 1),
    "a bound that is no number": lambda: Uniform(math.nan, 1),
    "integers upside down": lambda: Integer(3, 2),
    "nothing to choose from": Choice,
    "the same choice twice": lambda: Choice("a", "a"),
    "no parameters": Space,
    "a grid of no points": lambda: Uniform(0, 1).grid(0),
    "too few places": lambda: Space(x=Uniform(0, 1)).at([]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_searched_is_a_value_error(mistake):
    with pytest.raises(ValueError, match=r"expected|argument"):
        MISTAKES[mistake]()


def test_a_text_has_no_place_in_a_range():
    with pytest.raises(TypeError, match="expected a number as `value`, got 'relu'"):
        Uniform(0, 1).coordinates("relu")
