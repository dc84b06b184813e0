"""The law of provenance for convolutions, pooling, folding, padding and resizing, with every parameter drawn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from provenance_programs import assert_law, watch
from torch import Tensor
from torch.nn import functional as F

LAW = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
CONVS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@st.composite
def images(draw: st.DrawFn, count: int, channels: int) -> tuple[Tensor, Tensor]:
    """Images of two sizes, with as many axes of places as asked for, in a batch or single."""
    side, batched = st.integers(3, 12), draw(st.booleans())
    shapes = [[*([draw(st.integers(1, 3))] * batched), channels, *(draw(side) for _ in range(count))] for _ in range(2)]
    return torch.randn(shapes[0]), torch.randn(shapes[1])


def runs(program: Any, x: Tensor) -> bool:
    watched, result = watch(program, x=x)
    return result is not None and watched.failed is None


def per_axis(draw: st.DrawFn, count: int, low: int, high: int) -> Any:
    return draw(st.one_of(st.integers(low, high), st.tuples(*[st.integers(low, high)] * count)))


def check(program: Any, pair: tuple[Tensor, Tensor]) -> None:
    if runs(program, pair[0]):
        assert_law(program, {"x": pair[0]}, {"x": pair[1]})


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@LAW
@given(st.data())
def test_convolutions(data: st.DataObject) -> None:
    draw, count = data.draw, data.draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 2]))
    weight = torch.randn(4, 2 // groups, *draw(st.tuples(*[st.integers(1, 4)] * count)))
    padding = draw(st.sampled_from(["same", "valid", 0, 1, 2]))
    stride = 1 if padding == "same" else per_axis(draw, count, 1, 3)
    dilation = per_axis(draw, count, 1, 2)

    def program(_: Any, x: Tensor) -> Tensor:
        return CONVS[count](x, weight, None, stride, padding, dilation, groups)

    pair = draw(images(count, 2))
    if runs(program, pair[0]):
        assert_law(program, {"x": pair[0]}, {"x": pair[1]}, unknown=True)


@LAW
@given(st.data())
def test_transposed_convolutions(data: st.DataObject) -> None:
    draw, count = data.draw, data.draw(st.integers(1, 3))
    groups, weight = draw(st.sampled_from([1, 2])), torch.randn(2, 3, *draw(st.tuples(*[st.integers(1, 4)] * count)))
    stride, padding, dilation = per_axis(draw, count, 1, 3), per_axis(draw, count, 0, 1), per_axis(draw, count, 1, 2)
    more = draw(st.integers(0, 1))

    def program(_: Any, x: Tensor) -> Tensor:
        return TRANSPOSED[count](x, weight, None, stride, padding, more, groups, dilation)

    pair = draw(images(count, 2))
    if runs(program, pair[0]):
        assert_law(program, {"x": pair[0]}, {"x": pair[1]}, unknown=True)


@LAW
@given(st.data())
def test_pooling(data: st.DataObject) -> None:
    draw, count = data.draw, data.draw(st.integers(1, 3))
    kernel, stride = per_axis(draw, count, 1, 4), draw(st.one_of(st.none(), st.integers(1, 3)))
    padding, dilation, ceil = draw(st.integers(0, 1)), draw(st.integers(1, 2)), draw(st.booleans())
    largest = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[count]
    mean = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[count]
    norm = {1: F.lp_pool1d, 2: F.lp_pool2d, 3: F.lp_pool3d}[count]
    program = draw(
        st.sampled_from(
            [
                lambda _, x: largest(x, kernel, stride, padding, dilation, ceil_mode=ceil),
                lambda _, x: largest(x, kernel, stride, padding, ceil_mode=ceil, return_indices=True)[1],
                lambda _, x: mean(x, kernel, stride, padding, ceil),
                lambda _, x: norm(x, 2.0, kernel, stride, ceil),
            ]
        )
    )
    check(program, draw(images(count, 2)))


@LAW
@given(st.data())
def test_adaptive_pooling_and_unpooling(data: st.DataObject) -> None:
    draw = data.draw
    size = draw(st.sampled_from([1, 7, (None, 3), (2, None)]))

    def unpooled(_: Any, x: Tensor) -> Tensor:
        halves, places = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(halves, places, 2)

    program = draw(
        st.sampled_from(
            [
                lambda _, x: F.adaptive_avg_pool2d(x, size),
                lambda _, x: F.adaptive_max_pool2d(x, size, return_indices=True)[0],
                unpooled,
            ]
        )
    )
    check(program, draw(images(2, 3)))


@LAW
@given(st.data())
def test_folding_padding_and_resizing(data: st.DataObject) -> None:
    draw = data.draw
    kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    pads = draw(st.lists(st.integers(-1, 3), min_size=4, max_size=4))
    scale = draw(st.sampled_from([0.5, 1, 2, 1.7, (2.0, 3.0)]))

    def refolded(_: Any, x: Tensor) -> Tensor:
        patches = F.unfold(x, kernel, stride=stride)
        return F.fold(patches, x.shape[-2:], kernel, stride=stride)

    program = draw(
        st.sampled_from(
            [
                lambda _, x: F.unfold(x, kernel, padding=1, stride=stride),
                refolded,
                lambda _, x: F.pad(x, tuple(pads)),
                lambda _, x: F.pad(x, (1, 1), "circular") if x.ndim < 4 else F.pad(x, (1, 1, 1, 1), "reflect"),
                lambda _, x: F.interpolate(x, scale_factor=scale),
                lambda _, x: F.interpolate(x, size=(20, 30), mode="bilinear"),
                lambda _, x: F.interpolate(x, size=(x.repeat(1, 1, 2, 2)).shape[2:]),
                lambda _, x: F.pixel_shuffle(x, 2),
                lambda _, x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2),
                lambda _, x: x.unfold(-1, kernel, stride).unfold(-3, kernel, stride),
            ]
        )
    )
    check(program, draw(images(2, 4)))
