"""Pooling against torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import float_dtypes, tensors, values
from tolerances import assert_close

from reference_models.pooling import (
    AvgPool2d,
    Flatten,
    GlobalAvgPool2d,
    MaxPool2d,
    avg_pool2d,
    global_avg_pool2d,
    max_pool2d,
)

small = values(largest=10.0)


@st.composite
def poolings(draw, dtypes=float_dtypes, dilation=2):
    """Images and settings of a pooling that go together; numbers repeat, so that there are ties."""
    size, apart = draw(st.integers(1, 4)), draw(st.integers(1, dilation))
    padding = draw(st.integers(0, size // 2))
    # The first patch has to see a pixel, so there are at least as many as taps are apart.
    least = max(apart, apart * (size - 1) + 1 - 2 * padding)
    sides = draw(st.integers(least, least + 4)), draw(st.integers(least, least + 4))
    elements = st.one_of(st.integers(-2, 2).map(float), small)
    images = draw(tensors((draw(st.integers(0, 2)), draw(st.integers(1, 2)), *sides), draw(dtypes), elements))
    return images, (size, draw(st.one_of(st.none(), st.integers(1, 4))), padding), apart


def flowing_back(y, images):
    """The gradient of the images, when each output's is another number that all float types have."""
    flow = (torch.arange(y.numel(), dtype=y.dtype) % 7).reshape(y.shape)
    return torch.autograd.grad(y, images, flow)[0]


@settings(max_examples=25)
@given(poolings())
def test_the_largest_equal_torchs_in_value_and_gradient(case):
    images, how, dilation = case
    images.requires_grad_()
    ours, theirs = max_pool2d(images, *how, dilation), F.max_pool2d(images, *how, dilation)
    assert torch.equal(ours, theirs)
    assert_close(flowing_back(ours, images), flowing_back(theirs, images), scale=10)


@settings(max_examples=25)
@given(poolings(dilation=1))
def test_means_equal_torchs_in_value_and_gradient(case):
    images, how, _ = case
    images.requires_grad_()
    ours, theirs = avg_pool2d(images, *how), F.avg_pool2d(images, *how)
    assert_close(ours.detach(), theirs.detach(), scale=10)
    assert_close(flowing_back(ours, images), flowing_back(theirs, images), scale=10)


@settings(max_examples=20)
@given(tensors((1, 2, 4, 6), torch.float32, values(largest=1e30, non_finite=True)))
def test_pooling_of_what_is_not_finite_is_torchs(images):
    assert_close(max_pool2d(images, 2), F.max_pool2d(images, 2))
    assert_close(avg_pool2d(images, 2), F.avg_pool2d(images, 2))


@settings(max_examples=15)
@given(tensors(st.tuples(*[st.integers(0, 2)] * 2, *[st.integers(1, 5)] * 2), float_dtypes, small))
def test_the_mean_of_a_whole_channel_is_torchs(images):
    images.requires_grad_()
    ours, theirs = global_avg_pool2d(images), F.adaptive_avg_pool2d(images, 1).flatten(1)
    assert_close(ours.detach(), theirs.detach(), scale=10)
    assert_close(flowing_back(ours, images), flowing_back(theirs, images), scale=10)
    assert torch.equal(GlobalAvgPool2d()(images), ours)


@settings(max_examples=12)
@given(poolings(st.just(torch.float64)), st.floats(0, 8), st.floats(-8, 8))
def test_pooling_of_scaled_and_moved_images_is_scaled_and_moved(case, factor, place):
    images, (size, stride, _), _ = case
    images = F.pad(images, [size] * 4)  # so that every patch size fits without padding
    for pool in (max_pool2d, avg_pool2d):
        assert_close(pool(factor * images + place, size, stride), factor * pool(images, size, stride) + place, scale=10)


@pytest.mark.parametrize("pool", [max_pool2d, avg_pool2d], ids=["max", "avg"])
def test_pooling_that_could_see_padding_alone_is_refused(pool):
    with pytest.raises(ValueError, match="expected a `padding` of at most half a patch of 3, got 2"):
        pool(torch.zeros(1, 1, 5, 5), 3, 1, 2)
    with pytest.raises(ValueError, match="expected a `padding` of at most half a patch of 3, got -1"):
        pool(torch.zeros(1, 1, 5, 5), 3, 1, -1)
    with pytest.raises(ValueError, match="a kernel that spans 3 does not fit"):
        pool(torch.zeros(1, 1, 2, 5), 3)
    with pytest.raises(ValueError, match="expected a `stride` of at least 1, got 0"):
        pool(torch.zeros(1, 1, 5, 5), 3, 0)


@pytest.mark.parametrize("how", [(2,), (3, 2), (3, 2, 1)], ids=["apart", "overlapping", "padded"])
def test_layers_are_torchs(how):
    images = torch.randn(2, 3, 7, 8)
    assert torch.equal(MaxPool2d(*how)(images), torch.nn.MaxPool2d(*how)(images))
    assert_close(AvgPool2d(*how)(images), torch.nn.AvgPool2d(*how)(images))


def test_layers_print_their_sizes():
    assert str(MaxPool2d(2)) == "MaxPool2d(2)"
    assert str(AvgPool2d(3, 2, 1)) == "AvgPool2d(3, stride=2, padding=1)"


def test_flattening_keeps_the_batch():
    assert Flatten()(torch.zeros(0, 2, 3)).shape == (0, 6)
    assert Flatten()(torch.zeros(3)).shape == (3, 1)
    assert Flatten()(torch.arange(12).reshape(2, 3, 2)).tolist() == [list(range(6)), list(range(6, 12))]
