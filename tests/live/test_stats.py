"""Single tensors against numpy in long double: every dtype, layout and way of measuring, on odd numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from measuring import EXACT, LAYOUTS, QUICK, WAYS, arrays, assert_rows_agree, measured_by, oracle
from strategies import shapes, tensors, values
from torch._subclasses.fake_tensor import FakeTensorMode

from tensorscope import measure
from tensorscope.events import Stats
from tensorscope.live.kernel import BAD, COUNT, HIGH, LOW, M2, MEAN, WIDTH, ZEROS
from tensorscope.live.stats import (
    SAMPLE,
    Row,
    count_bins,
    has_data,
    is_dense,
    moments,
    sample,
    sample_stride,
    stored_values,
    torch_moments,
)
from tensorscope.run.schema import BINS

DTYPES = (*QUICK, *EXACT)
EIGHT_BIT = [getattr(torch, name) for name in dir(torch) if name.startswith("float8")]
every_way = pytest.mark.parametrize("way", WAYS)


def row_of(stats: Stats) -> Row:
    """The moments that a summary tells."""
    good = stats.count - stats.nonfinite
    zeros = 0 if math.isnan(stats.zero_fraction) else round(stats.zero_fraction * stats.count)
    with np.errstate(over="ignore"):
        squares = float(np.float64(stats.std) ** 2 * good) if good else math.nan
    return np.array([stats.count, stats.mean, squares, stats.min, stats.max, zeros, stats.nonfinite, math.nan])


@every_way
@given(data=st.data())
def test_an_exact_row_is_what_numpy_says_for_every_dtype(way: str, data: st.DataObject) -> None:
    x = data.draw(arrays(data.draw(st.sampled_from(DTYPES))))
    with measured_by(way):
        assert_rows_agree(moments(x), oracle(x))


@every_way
@given(data=st.data())
def test_the_layout_does_not_matter(way: str, data: st.DataObject) -> None:
    x = data.draw(arrays(data.draw(st.sampled_from((torch.float32, torch.float64, torch.int16)))))
    y = LAYOUTS[data.draw(st.sampled_from(list(LAYOUTS)))](x)
    with measured_by(way):
        assert_rows_agree(moments(*stored_values(y)), oracle(y.contiguous()))


@every_way
@given(x=arrays(torch.float32), absent=st.integers(1, 5000))
def test_elements_that_are_not_stored_are_zeros(way: str, x: torch.Tensor, absent: int) -> None:
    with measured_by(way):
        assert_rows_agree(moments(x, absent), oracle(torch.cat([x, torch.zeros(absent)])))


@given(st.data())
def test_torch_computes_the_same_row_as_the_kernel(data: st.DataObject) -> None:
    x = data.draw(arrays(data.draw(st.sampled_from(DTYPES))))
    assert_rows_agree(torch_moments(x).numpy(), moments(x))


@every_way
@pytest.mark.parametrize("dtype", [*DTYPES, *EIGHT_BIT, torch.uint16, torch.uint32, torch.uint64], ids=str)
def test_every_dtype_is_measured(way: str, dtype: torch.dtype) -> None:
    x = torch.tensor([1, 1, 0, 1]).to(dtype)
    expected = [4, 0.75, 0.75, 0, 1, 1, 0]
    if dtype is getattr(torch, "float8_e8m0fnu", None):  # powers of two alone: there is no zero
        x, expected = torch.tensor([1.0, 2.0, 2.0, 1.0]).to(dtype), [4, 1.5, 1, 1, 2, 0, 0]
    with measured_by(way):
        assert moments(*stored_values(x))[:7].tolist() == expected


@every_way
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, *EIGHT_BIT], ids=str)
def test_every_bit_pattern_of_a_small_float_is_read_right(way: str, dtype: torch.dtype) -> None:
    bits = torch.arange(1 << 8 * dtype.itemsize).to(torch.uint8 if dtype.itemsize == 1 else torch.uint16)
    with measured_by(way):
        for part in bits.split(64):
            x = part.view(dtype)
            assert_rows_agree(moments(*stored_values(x)), oracle(x.float()))


@given(st.data())
def test_measure_is_exact_to_the_ends_of_float64(data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.floats(width=64), max_size=40))
    x = torch.tensor(numbers, dtype=torch.float64)
    wide = np.array(numbers, np.longdouble)
    finite = wide[np.isfinite(wide)]
    stats = measure(x)
    assert (stats.count, stats.nonfinite) == (len(numbers), len(numbers) - len(finite))
    if len(finite):
        size = float(np.abs(finite).max())
        assert (stats.min, stats.max) == (finite.min(), finite.max())
        assert stats.mean == pytest.approx(float(finite.mean()), rel=1e-12, abs=1e-14 * size)
        assert stats.std == pytest.approx(float(finite.std()), rel=1e-9, abs=1e-13 * size)


@every_way
@given(data=st.data())
def test_a_summary_is_what_numpy_says(way: str, data: st.DataObject) -> None:
    x = data.draw(arrays(data.draw(st.sampled_from((*QUICK, torch.int64, torch.bool)))))
    with measured_by(way):
        assert_rows_agree(row_of(measure(x)), oracle(x))


@given(st.integers(1, 5000), st.floats(1e3, 1e6), st.floats(1e-3, 1.0))
def test_a_small_spread_around_a_large_mean_does_not_cancel(size: int, centre: float, spread: float) -> None:
    x = torch.linspace(-1, 1, size, dtype=torch.float64).mul(spread).add(centre).float()
    assert measure(x).std == pytest.approx(math.sqrt(oracle(x)[M2] / size), rel=1e-9, abs=1e-13 * centre)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("dtype", [torch.complex32, torch.complex64, torch.complex128], ids=str)
def test_complex_numbers_count_by_magnitude(dtype: torch.dtype) -> None:
    x = torch.tensor([3 + 4j, 0j, complex(math.nan, 1), complex(1, math.inf)]).to(dtype)
    assert moments(*stored_values(x))[:7].tolist() == [4, 2.5, 12.5, 0, 5, 1, 2]


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize(("dtype", "size"), [(torch.complex32, 6e4), (torch.complex64, 3e38)], ids=str)
def test_a_magnitude_beyond_its_parts_range_is_finite(dtype: torch.dtype, size: float) -> None:
    stats = measure(torch.tensor([complex(size, size)]).to(dtype))
    assert stats.nonfinite == 0
    assert stats.max == pytest.approx(math.sqrt(2) * size, rel=1e-2)


def test_a_negative_view_counts_as_what_it_shows() -> None:
    x = torch.tensor([1 + 2j, 3 - 4j]).conj().imag
    assert x.is_neg()
    assert (measure(x).min, measure(x).max) == (-2, 4)


@every_way
@pytest.mark.filterwarnings("ignore:Sparse")
@given(x=tensors(shape=(4, 6), elements=values(non_finite=True)))
def test_sparse_tensors_count_what_is_not_stored(way: str, x: torch.Tensor) -> None:
    x = torch.where(x.abs() > 50, x, 0)
    layouts = [x.to_sparse(), x.to_sparse(1), x.to_sparse_csr(), x.to_sparse_csc(), x.to_sparse_bsr((2, 3))]
    with measured_by(way):
        for sparse in layouts:
            assert_rows_agree(row_of(measure(sparse)), oracle(torch.where(x == 0, 0, x)))


@pytest.mark.filterwarnings("ignore:Sparse")
@every_way
def test_entries_of_a_sparse_gradient_that_meet_are_added_up(way: str) -> None:
    x = torch.sparse_coo_tensor(torch.tensor([[1, 1, 4]]), torch.tensor([2.0, 3.0, 0.0]), (6,))
    with measured_by(way):
        assert_rows_agree(moments(*stored_values(x)), oracle(torch.tensor([0, 5.0, 0, 0, 0, 0])))


@pytest.mark.filterwarnings("ignore:Sparse")
@every_way
def test_a_sparse_gradient_that_stores_nothing_is_zeros(way: str) -> None:
    empty = torch.sparse_coo_tensor(torch.empty(1, 0, dtype=torch.long), torch.empty(0), (5,))
    with measured_by(way):
        assert measure(empty) == Stats(5, 0.0, 0.0, 0.0, 0.0, 1.0, 0)


@pytest.mark.filterwarnings("ignore:.*quantiz")
def test_quantised_tensors_count_by_what_they_stand_for() -> None:
    x = torch.quantize_per_tensor(torch.tensor([-1.0, 0.0, 2.0]), 0.5, 0, torch.qint8)
    assert_rows_agree(row_of(measure(x)), oracle(torch.tensor([-1.0, 0.0, 2.0])))


@pytest.mark.filterwarnings("ignore:.*nested tensors")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided], ids=str)
def test_nested_tensors_count_by_their_values(layout: torch.layout) -> None:
    parts = [torch.ones(2, 3), torch.full((4, 3), 2.0)]
    stats = measure(torch.nested.nested_tensor(parts, layout=layout))
    assert_rows_agree(row_of(stats), oracle(torch.cat([part.flatten() for part in parts])))


def test_tensors_of_mkldnn_are_read() -> None:
    assert measure(torch.tensor([1.0, 3.0]).to_mkldnn()).mean == 2


class Plain(torch.Tensor):
    """A subclass that is a tensor like others."""


class Wrapper(torch.Tensor):
    """A subclass that has no memory of its own."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Wrapper:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return cls(function(*(a.inner if isinstance(a, Wrapper) else a for a in args), **(kwargs or {})))


class Sharded(Wrapper):
    """A wrapper that says which part is here, as DTensor does."""

    def __init__(self, inner: torch.Tensor) -> None:
        super().__init__(inner)
        self._local_tensor = inner


def test_a_subclass_is_a_tensor_too() -> None:
    assert measure(torch.tensor([1.0, 3.0]).as_subclass(Plain)).mean == 2


def test_of_a_tensor_spread_over_processes_the_part_that_is_here_counts() -> None:
    x = Sharded(torch.tensor([1.0, 3.0]))
    assert has_data(x)
    assert moments(*stored_values(x))[MEAN] == 2


def _freed(offset: int) -> torch.Tensor:
    x = torch.ones(12)[offset:]
    x.untyped_storage().resize_(0)
    return x


def _fake() -> torch.Tensor:
    with FakeTensorMode():
        return torch.empty(3, 4)


WITHOUT_DATA = {
    "meta": lambda: torch.empty(3, 4, device="meta"),
    "a meta parameter": lambda: torch.nn.Parameter(torch.empty(3, 4, device="meta")),
    "fake": _fake,
    "wrapper": lambda: Wrapper(torch.ones(3, 4)),
    "functional": lambda: torch._to_functional_tensor(torch.ones(3, 4)),
    "memory given back": lambda: _freed(0),
}


@every_way
@pytest.mark.parametrize("name", WITHOUT_DATA)
def test_a_tensor_without_data_has_a_count_alone(way: str, name: str) -> None:
    x = WITHOUT_DATA[name]()
    with measured_by(way):
        stats = measure(x)
    assert (stats.count, stats.nonfinite, stats.histogram) == (12, 0, None)
    assert all(math.isnan(n) for n in (stats.mean, stats.std, stats.min, stats.max, stats.zero_fraction))
    assert sample(x) is None


def test_tensors_inside_transforms_are_left_alone() -> None:
    seen = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(measure(x))
        return (x * 2).sum()

    torch.vmap(look)(torch.ones(3, 2))
    torch.func.grad(look)(torch.ones(2))
    assert [math.isnan(stats.mean) for stats in seen] == [True, True]


@pytest.mark.parametrize("thing", [[1.0], 1.0, None, np.ones(2)])
def test_something_else_is_refused(thing: object) -> None:
    with pytest.raises(TypeError, match=f"takes a tensor, got {type(thing).__name__}"):
        measure(thing)  # type: ignore[arg-type]


@every_way
@given(data=st.data())
def test_measuring_changes_nothing(way: str, data: st.DataObject) -> None:
    x = data.draw(arrays(data.draw(st.sampled_from(DTYPES))))
    before, version = x.numpy(force=True).tobytes() if x.dtype is not torch.bfloat16 else x.clone(), x._version
    with measured_by(way):
        measure(x)
        sample(x)
    assert x._version == version
    after = x.numpy(force=True).tobytes() if x.dtype is not torch.bfloat16 else x
    assert (
        after == before if isinstance(after, bytes) else torch.equal(after.view(torch.int16), before.view(torch.int16))
    )


@given(st.data())
def test_histograms_count_every_finite_element(data: st.DataObject) -> None:
    x = data.draw(arrays(data.draw(st.sampled_from(DTYPES))))
    stats = measure(x)
    if stats.histogram is None:
        assert stats.nonfinite == stats.count
        return
    assert sum(stats.histogram.counts) == stats.count - stats.nonfinite
    assert (stats.histogram.edges[0], stats.histogram.edges[-1]) == (stats.min, stats.max)
    assert list(stats.histogram.edges) == sorted(stats.histogram.edges)


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
    assert few.numel() == x.numel() if x.numel() <= SAMPLE else SAMPLE / 8 <= few.numel() <= SAMPLE
    assert torch.equal(few, few.unique())
    if x.numel():
        assert few.data_ptr() != x.data_ptr()


def test_a_sample_sees_every_index_of_every_axis() -> None:
    x = torch.arange(64).expand(4096, 64).contiguous()  # a stride of 64·k would see one column only
    few = sample(x)
    assert few is not None
    assert len(few.unique()) == 64


@given(st.integers(0, 10_000_000))
def test_a_stride_keeps_few_elements_and_shares_no_factor_with_their_number(count: int) -> None:
    stride = sample_stride(count)
    assert -(-count // stride) <= SAMPLE
    assert stride == 1 or math.gcd(stride, count) == 1


@given(shapes(axes=4, side=4), st.randoms())
def test_dense_is_what_fills_its_memory_without_a_gap(shape: tuple[int, ...], random: object) -> None:
    whole = torch.arange(math.prod(shape)).reshape(shape)
    order = random.sample(range(len(shape)), len(shape))  # type: ignore[attr-defined]
    assert is_dense(whole.permute(order))
    part = whole[tuple(slice(None, None, random.choice([1, 2])) for _ in shape)]  # type: ignore[attr-defined]
    places = {*(part.reshape(-1)).tolist()}
    filled = not places or max(places) - min(places) + 1 == len(places)
    assert is_dense(part) == filled


def test_a_row_has_eight_places() -> None:
    assert sorted([COUNT, MEAN, M2, LOW, HIGH, ZEROS, BAD]) == list(range(WIDTH - 1))
