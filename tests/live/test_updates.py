"""Samples of tensors, and by how much a parameter changed, against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from measuring import WAYS, WIDTHS, arrays, assert_rows_agree, measured_by, oracle

from tensorscope.live.kernel import COUNT, HIGH, LOW, M2, MEAN
from tensorscope.live.moments import Moments, take_before
from tensorscope.live.stats import SAMPLE, sample_stride

every_way = pytest.mark.parametrize("way", WAYS)


@every_way
def test_samples_are_kept_as_they_were(way: str) -> None:
    x = torch.randn(5000)
    with measured_by(way):
        seen = Moments()
        assert not seen.has_samples
        seen.keep_sample(3, x)
        seen.keep_sample(1, torch.empty(3, device="meta"))
        before = x.clone()
        x.zero_()
        sites, fetch = seen.samples()
    assert seen.has_samples
    assert sites == (3,)
    np.testing.assert_array_equal(fetch()[0], before[:: sample_stride(5000)].double().numpy())


@every_way
@given(data=st.data())
def test_the_change_of_a_small_parameter_is_exact(way: str, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from((torch.float64, torch.float32, torch.bfloat16, torch.float16)))
    x = data.draw(arrays(dtype, non_finite=False))[:SAMPLE]
    parameter = torch.nn.Parameter(x.clone().reshape(-1, 1).t())
    with measured_by(way):
        before = take_before(parameter)
        with torch.no_grad():
            parameter.mul_(0.75)
        seen = Moments()
        seen.change(0, before, parameter)
        row = seen.rows()()[0]
    assert_rows_agree(row, oracle(parameter.detach().reshape(-1).double() - x.double()))


@every_way
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("shape", [(300, 211), (1024, 1024), (64, 32, 3, 3)], ids=str)
def test_the_sampled_update_of_a_large_parameter_is_near(
    way: str, optimizer: type[torch.optim.Optimizer], shape: tuple[int, ...]
) -> None:
    parameter = torch.nn.Parameter(torch.randn(shape))
    stepper = optimizer([parameter], lr=1e-3)  # type: ignore[call-arg]
    with measured_by(way):
        seen = Moments()
        for step in range(3):
            parameter.grad = torch.randn(shape) * torch.rand(shape[-1])
            before, was = take_before(parameter), parameter.detach().clone()
            stepper.step()
            seen.change(step, before, parameter)
        row = seen.rows()()[-1]
    update = (parameter.detach() - was).double()
    rms = math.sqrt(row[M2] / row[COUNT] + row[MEAN] ** 2)
    assert SAMPLE / 4 <= row[COUNT] <= SAMPLE
    assert rms == pytest.approx(float(update.square().mean().sqrt()), rel=0.1)
    assert update.min() <= row[LOW] <= row[HIGH] <= update.max()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_changed_parameter_may_be_transposed(width: str) -> None:
    parameter = torch.nn.Parameter(torch.randn(40, 30).t())
    with measured_by(width):
        before = take_before(parameter)
        assert before.count == 1200
        with torch.no_grad():
            parameter.add_(torch.arange(1200).reshape(30, 40))
        seen = Moments()
        seen.change(0, before, parameter)
    assert seen.rows()()[0, HIGH] <= 1199.001


@every_way
@pytest.mark.parametrize("other", [torch.zeros(2000), torch.zeros(3), torch.empty(10, device="meta")])
def test_a_parameter_that_got_other_memory_meanwhile_is_left_alone(way: str, other: torch.Tensor) -> None:
    with measured_by(way):
        before, seen = take_before(torch.nn.Parameter(torch.ones(10))), Moments()
        seen.change(0, before, torch.nn.Parameter(other))
    assert np.isnan(seen.rows()()).all()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_parameter_whose_type_the_kernel_does_not_read_any_more_is_left_alone(width: str) -> None:
    with measured_by(width):
        before, seen = take_before(torch.nn.Parameter(torch.ones(10))), Moments()
        seen.change(0, before, torch.nn.Parameter(torch.zeros(10).to(torch.float8_e4m3fn)))
    assert np.isnan(seen.rows()()).all()


@every_way
def test_a_parameter_whose_memory_was_swapped_changes_by_what_it_holds(way: str) -> None:
    parameter = torch.nn.Parameter(torch.ones(10))
    with measured_by(way):
        before = take_before(parameter)
        parameter.data = torch.full((10,), 3.0, dtype=torch.float64)
        seen = Moments()
        seen.change(0, before, parameter)
    assert seen.rows()()[0, MEAN] == 2


@every_way
def test_an_empty_parameter_changes_by_nothing(way: str) -> None:
    parameter = torch.nn.Parameter(torch.empty(0, 4))
    with measured_by(way):
        seen = Moments()
        seen.change(0, take_before(parameter), parameter)
    assert seen.rows()()[0, COUNT] == 0
