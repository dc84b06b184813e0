"""Statistics against numpy in float64, on odd tensors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import FLOATS, INTEGERS, dtypes, shapes, tensors, values

from tensorscope import measure
from tensorscope.events import STORED, Stats
from tensorscope.live.stats import _device_row, count_bins, measure_row, real, sample
from tensorscope.run.merge import merge, merge_rows
from tensorscope.run.schema import BINS

ODD = values(largest=3e38, non_finite=True)


def oracle(x: torch.Tensor) -> tuple[float, ...]:
    """The row that numpy computes in long double."""
    wide = x.abs() if x.is_complex() else x
    numbers = wide.double().numpy().astype(np.longdouble).reshape(-1)
    finite = numbers[np.isfinite(numbers)]
    bad = float(numbers.size - finite.size)
    if not finite.size:
        return (float(numbers.size), math.nan, math.nan, math.nan, math.nan, bad)
    summary = (finite.mean(), finite.std(), finite.min(), finite.max())
    return (float(numbers.size), *(float(number) for number in summary), bad)


def assert_rows_agree(row: tuple[float, ...], expected: tuple[float, ...]) -> None:
    size = max(abs(expected[3]), abs(expected[4]), 0.0) if not math.isnan(expected[3]) else 0.0
    assert row[0] == expected[0]
    assert row[5] == expected[5]
    # Mean and std are exact up to the size of what was summed: float32 sums on the quick path.
    assert row[1] == pytest.approx(expected[1], rel=1e-5, abs=1e-5 * size, nan_ok=True)
    assert row[2] == pytest.approx(expected[2], rel=1e-4, abs=1e-6 * size, nan_ok=True)
    assert row[3:5] == pytest.approx(expected[3:5], rel=1e-6, abs=0, nan_ok=True)


@given(tensors(dtype=dtypes))
def test_a_row_is_what_numpy_says_for_every_dtype(x: torch.Tensor) -> None:
    assert_rows_agree(measure_row(x), oracle(x))


@given(tensors(dtype=torch.float32, elements=ODD))
def test_a_row_is_what_numpy_says_at_the_ends_of_float32_and_beyond(x: torch.Tensor) -> None:
    assert_rows_agree(measure_row(x), oracle(x))


@given(tensors(dtype=torch.float64, elements=st.floats(width=64)))
def test_a_row_is_what_numpy_says_for_any_float64(x: torch.Tensor) -> None:
    expected = oracle(x)
    if np.isfinite(expected[1:3]).all():  # a mean of squares may leave even the long double
        assert_rows_agree(measure_row(x), expected)


@given(tensors(dtype=st.sampled_from((torch.float32, torch.bfloat16, torch.float16)), elements=values(non_finite=True)))
def test_the_row_that_waits_for_nothing_says_the_same(x: torch.Tensor) -> None:
    assert_rows_agree(tuple(_device_row(real(x)).tolist()), oracle(x))


@given(st.integers(1, 3000), st.floats(1e3, 1e6), st.floats(1e-3, 1.0))
def test_a_small_spread_around_a_large_mean_does_not_cancel(size: int, centre: float, spread: float) -> None:
    x = torch.linspace(-1, 1, size, dtype=torch.float64).mul(spread).add(centre).float()
    assert_rows_agree(measure_row(x), oracle(x))
    assert measure_row(x)[2] == pytest.approx(oracle(x)[2], rel=1e-6)


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e-20, 1e-10, 1e10, 1e25, 1e38])
def test_size_does_not_matter(scale: float) -> None:
    x = torch.tensor([1.0, -2.0, 3.0]) * scale
    assert measure_row(x)[2] == pytest.approx(oracle(x)[2], rel=1e-5)


def test_complex_numbers_count_by_magnitude() -> None:
    assert measure(torch.tensor([3 + 4j, 0j])).max == 5


@pytest.mark.filterwarnings("ignore:Sparse")
def test_sparse_tensors_count_what_is_not_stored() -> None:
    dense = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, -4.0]])
    for layout in (dense.to_sparse(), dense.to_sparse_csr()):
        stats = measure(layout)
        assert_rows_agree((stats.count, stats.mean, stats.std, stats.min, stats.max, stats.nonfinite), oracle(dense))
        assert stats.zero_fraction == pytest.approx(4 / 6)
        row = tuple(_device_row(real(layout), 4).tolist())
        assert_rows_agree(row, oracle(dense))


@pytest.mark.filterwarnings("ignore:Sparse")
def test_an_embedding_gradient_that_is_all_zeros_has_zeros() -> None:
    empty = torch.sparse_coo_tensor(torch.empty(1, 0, dtype=torch.long), torch.empty(0), (5,))
    assert measure(empty) == Stats(5, 0.0, 0.0, 0.0, 0.0, 1.0, 0, histogram=measure(empty).histogram)
    assert tuple(_device_row(real(empty), 5).tolist())[:5] == (5, 0, 0, 0, 0)


@pytest.mark.filterwarnings("ignore:.*quantiz")
def test_quantised_tensors_count_by_what_they_stand_for() -> None:
    x = torch.quantize_per_tensor(torch.tensor([-1.0, 0.0, 2.0]), 0.5, 0, torch.qint8)
    assert measure(x).max == 2


@pytest.mark.filterwarnings("ignore:.*nested tensors")
def test_nested_tensors_count_by_their_values() -> None:
    parts = [torch.ones(2, 3), torch.full((4, 3), 2.0)]
    row = measure_row(torch.nested.nested_tensor(parts, layout=torch.jagged))
    assert_rows_agree(row, oracle(torch.cat(parts)))


@pytest.mark.parametrize("device", ["meta", "fake"])
def test_a_tensor_without_data_has_a_count_alone(device: str) -> None:
    if device == "meta":
        x = torch.empty(3, 4, device="meta")
    else:
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode():
            x = torch.empty(3, 4)
    stats = measure(x)
    assert stats.count == 12
    assert math.isnan(stats.mean)
    assert sample(x) is None


def test_a_tensor_inside_vmap_is_left_alone() -> None:
    seen = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(measure_row(x))
        return x * 2

    torch.vmap(look)(torch.ones(3, 2))
    assert math.isnan(seen[0][1])


def test_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="takes a tensor, got list"):
        measure([1.0])  # type: ignore[arg-type]


@given(tensors(dtype=dtypes, elements=values(non_finite=True)))
def test_measuring_changes_nothing(x: torch.Tensor) -> None:
    before, version = x.clone(), x._version
    measure(x)
    assert x._version == version
    assert torch.equal(torch.nan_to_num(x.double()), torch.nan_to_num(before.double()))


@given(tensors(dtype=torch.float32, elements=ODD))
def test_zero_fraction_and_histogram_count_every_element(x: torch.Tensor) -> None:
    stats = measure(x)
    if not x.numel():
        return
    assert stats.zero_fraction == pytest.approx((x == 0).sum().item() / x.numel())
    if stats.histogram is not None:
        assert sum(stats.histogram.counts) == stats.count - stats.nonfinite
        assert stats.histogram.edges[0] == pytest.approx(stats.min)
        assert stats.histogram.edges[-1] == pytest.approx(stats.max)
        assert list(stats.histogram.edges) == sorted(stats.histogram.edges)
    else:
        assert stats.nonfinite == stats.count


@given(st.lists(st.floats(width=64), max_size=30))
def test_bins_hold_every_finite_number_once(numbers: list[float]) -> None:
    with np.errstate(all="raise", under="ignore"):
        row = count_bins(np.array(numbers))
    finite = [number for number in numbers if math.isfinite(number)]
    assert row[2:].sum() == len(finite)
    assert len(row) == 2 + BINS
    if finite:
        assert (row[0], row[1]) == (min(finite), max(finite))


@given(shapes(axes=3, side=40))
def test_a_sample_is_small_spread_out_and_its_own_memory(shape: tuple[int, ...]) -> None:
    x = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
    few = sample(x)
    assert few is not None
    assert few.numel() == x.numel() if x.numel() <= 1024 else 1 <= few.numel() <= 1024
    assert torch.equal(few, few.unique())
    if x.numel():
        assert few.data_ptr() != x.data_ptr()


def test_a_sample_sees_every_index_of_every_axis() -> None:
    x = torch.arange(64).expand(4096, 64).contiguous()  # a stride of 64·k would see one column only
    few = sample(x)
    assert few is not None
    assert len(few.unique()) == 64


def row_of(x: torch.Tensor, dead: float = math.nan) -> list[float]:
    stats = measure(x)
    values = {name: getattr(stats, name) for name in STORED} | {"dead_fraction": dead}
    if not stats.count:
        values["zero_fraction"] = math.nan
    return [values[name] for name in STORED]


@given(st.lists(tensors(shape=shapes(axes=1, side=6), elements=values(non_finite=True)), min_size=1, max_size=4))
def test_merged_rows_are_the_row_of_everything(parts: list[torch.Tensor]) -> None:
    parts = [part.reshape(-1) for part in parts]
    with np.errstate(all="raise"):
        merged = merge(np.array([row_of(part) for part in parts]))
    expected = row_of(torch.cat(parts))
    assert merged.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-4, nan_ok=True)


def test_rows_of_one_site_are_merged_in_the_order_of_first_sight() -> None:
    rows = np.array([row_of(torch.tensor([float(n)])) for n in (1, 2, 3)])
    series, merged = merge_rows((7, 5, 7), rows)
    assert series == (7, 5)
    assert merged[:, STORED.index("mean")].tolist() == [2, 2]
    assert merged[:, STORED.index("count")].tolist() == [2, 1]


def test_every_dtype_is_tried() -> None:
    assert len(FLOATS) == 4
    assert len(INTEGERS) == 5
