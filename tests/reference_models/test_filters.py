"""Signals and fixed kernels against numpy's and scipy's, and the laws of convolution."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import float_dtypes, tensors, values
from tolerances import assert_close

from reference_models.filters import KERNELS, convolve, correlate, filter_images, fixed_kernel

small = values(largest=10.0)
lengths = st.integers(1, 9).map(lambda n: (n,))
signals = tensors(lengths, torch.float64, small)


@settings(max_examples=20)
@given(signals, signals)
def test_convolution_of_signals_is_numpys(signal, kernel):
    assert_close(convolve(signal, kernel), torch.from_numpy(np.convolve(signal.numpy(), kernel.numpy())), scale=1e3)


@settings(max_examples=20)
@given(signals, st.data())
def test_correlation_of_signals_is_numpys(signal, data):
    kernel = data.draw(tensors(st.integers(1, len(signal)).map(lambda n: (n,)), torch.float64, small))
    wanted = torch.from_numpy(np.correlate(signal.numpy(), kernel.numpy(), "valid"))
    assert_close(correlate(signal, kernel), wanted, scale=1e3)


@settings(max_examples=12)
@given(signals, signals, signals)
def test_convolution_commutes_and_associates(a, b, c):
    assert_close(convolve(a, b), convolve(b, a), scale=1e3)
    assert_close(convolve(convolve(a, b), c), convolve(a, convolve(b, c)), scale=1e5)


def test_correlation_with_a_kernel_turned_around_is_convolution():
    signal, kernel = torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([1.0, 0.0, -1.0])
    assert correlate(signal, kernel).tolist() == [-3, -6]
    assert convolve(signal, kernel).tolist() == [1, 2, 3, 6, -4, -8]


@settings(max_examples=12)
@given(tensors(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(2, 5)), torch.float64, small))
def test_signals_in_a_batch_do_not_meet(batch):
    kernel = torch.tensor([2.0, -1.0], dtype=torch.float64)
    y = convolve(batch, kernel)
    assert y.shape == (*batch.shape[:2], batch.shape[2] + 1)
    for place in np.ndindex(*batch.shape[:2]):
        assert_close(y[place], convolve(batch[place], kernel), scale=10)


def test_the_gradient_of_convolution_is_right():
    operands = [torch.randn(2, 4, dtype=torch.float64), torch.randn(3, dtype=torch.float64)]
    for operation in (convolve, correlate):
        assert torch.autograd.gradcheck(operation, [operand.requires_grad_() for operand in operands])


def test_signals_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="expected a kernel of 1 to 2 taps, got 3"):
        correlate(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="expected a kernel of 1 to 2 taps, got 0"):
        correlate(torch.zeros(2), torch.zeros(0))
    with pytest.raises(ValueError, match="expected numbers to convolve, got 0 and 3 of them"):
        convolve(torch.zeros(0), torch.zeros(3))


# --- fixed kernels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "axis"), [("x", 1), ("y", 0)], ids=["rightwards", "downwards"])
@given(tensors(st.tuples(st.just(1), st.just(1), *[st.integers(1, 6)] * 2), torch.float64, small))
@settings(max_examples=20)
def test_edges_are_scipys(name, axis, images):
    for family in ("sobel", "prewitt"):
        ours = filter_images(images, fixed_kernel(f"{family}_{name}").double(), padding=1)
        theirs = getattr(scipy.ndimage, family)(images[0, 0].numpy(), axis, mode="constant")
        assert_close(ours[0, 0], torch.from_numpy(theirs), scale=10)


@settings(max_examples=12)
@given(tensors(st.tuples(st.integers(0, 2), st.integers(1, 3), *[st.integers(3, 6)] * 2), float_dtypes, small))
def test_a_kernel_slides_over_each_channel_by_itself(images):
    kernel = fixed_kernel("sharpen").to(images.dtype)
    apart = [filter_images(images[:, c : c + 1], kernel) for c in range(images.shape[1])]
    assert_close(filter_images(images, kernel), torch.cat(apart, 1), scale=10)


def test_the_identity_leaves_images_alone():
    images = torch.randn(2, 3, 5, 4)
    assert torch.equal(filter_images(images, fixed_kernel("identity"), padding=1), images)


@pytest.mark.parametrize("name", KERNELS)
def test_a_flat_image_stays_flat_and_has_no_edges(name):
    kernel, total = fixed_kernel(name), 0 if name.startswith(("sobel", "prewitt")) else 1
    assert kernel.shape == (3, 3)
    assert torch.equal(filter_images(torch.full((1, 1, 5, 5), 7.0), kernel), torch.full((1, 1, 3, 3), 7.0 * total))


def test_the_gaussian_is_two_blurs_of_signals():
    blur = torch.tensor([1.0, 2.0, 1.0]) / 4
    assert torch.equal(torch.outer(blur, blur), fixed_kernel("gaussian"))


def test_an_unknown_kernel_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"expected one of identity, sobel_x, .*, sharpen, got 'laplace'"):
        fixed_kernel("laplace")
