"""Rows that are filled while hooks see tensors: quick rows, joins, samples and updates, against numpy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from measuring import (
    EXACT,
    LAYOUTS,
    QUICK,
    WAYS,
    WIDTHS,
    arrays,
    assert_rows_agree,
    kernel_of,
    measured_by,
    oracle,
)

from tensorscope.events import STORED
from tensorscope.live.kernel import BAD, COUNT, HIGH, LARGE, LOW, M2, MEAN, OWN, WIDTH, ZEROS
from tensorscope.live.moments import FEWEST, Moments, join, statistics
from tensorscope.live.stats import Row, moments

every_way = pytest.mark.parametrize("way", WAYS)
NOTHING = np.full(WIDTH, math.nan)


def rows_of(*tensors: torch.Tensor) -> Row:
    """The rows of sites 0, 1, …, each of which saw one tensor."""
    seen = Moments()
    for site, tensor in enumerate(tensors):
        seen.add(site, tensor)
    return seen.rows()()


def stored(phases: list[Moments]) -> dict[str, list[float]]:
    _, fetch = statistics(phases)
    return dict(zip(STORED, fetch().T.tolist(), strict=True))


# --- rows ------------------------------------------------------------------------------------------------------------


@every_way
@given(data=st.data())
def test_a_quick_row_of_floats_is_what_numpy_says(way: str, data: st.DataObject) -> None:
    x = data.draw(arrays(data.draw(st.sampled_from(QUICK))))
    with measured_by(way):
        assert_rows_agree(rows_of(x)[0], oracle(x), quick=way != "torch")


@every_way
@given(data=st.data())
def test_a_row_of_what_is_no_small_float_is_exact(way: str, data: st.DataObject) -> None:
    x = data.draw(arrays(data.draw(st.sampled_from(EXACT))))
    with measured_by(way):
        assert_rows_agree(rows_of(x)[0], oracle(x))


@every_way
@given(data=st.data())
def test_the_layout_of_what_hooks_see_does_not_matter(way: str, data: st.DataObject) -> None:
    x = data.draw(arrays(torch.float32))
    y = LAYOUTS[data.draw(st.sampled_from(list(LAYOUTS)))](x)
    with measured_by(way):
        assert_rows_agree(rows_of(y)[0], oracle(y.contiguous()), quick=way != "torch")
        parameter = torch.nn.Parameter(y)
        assert_rows_agree(rows_of(parameter)[0], oracle(y.contiguous()), quick=way != "torch")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", QUICK, ids=str)
def test_an_outlier_at_a_blocks_beginning_costs_no_digits(width: str, dtype: torch.dtype) -> None:
    for outlier in (1e2, 1e3, 1e4):
        x = torch.randn(20_480).to(dtype)
        x[::2048] = outlier
        x[0] = 1
        with measured_by(width):
            assert_rows_agree(rows_of(x)[0], oracle(x), quick=True)


@every_way
@pytest.mark.parametrize("size", [LARGE - 1, LARGE, LARGE + 1, 300_001])
def test_a_large_tensor_is_what_numpy_says(way: str, size: int) -> None:
    x = torch.randn(size) * 3 + 5
    x[[7, size // 2, size - 1]] = torch.tensor([math.nan, math.inf, 0])
    with measured_by(way):
        assert_rows_agree(rows_of(x)[0], oracle(x), quick=True)


@every_way
@pytest.mark.parametrize("way_back", ["neg view", "sparse", "complex", "quantised", "float8"])
@pytest.mark.filterwarnings("ignore:Sparse", "ignore:.*quantiz")
def test_tensors_of_odd_kinds_are_seen(way: str, way_back: str) -> None:
    plain = torch.tensor([0.0, 1.0, -2.0, 0.0])
    odd = {
        "neg view": torch.complex(plain, -plain).conj().imag,
        "sparse": plain.to_sparse(),
        "complex": torch.complex(plain.abs(), torch.zeros(4)),
        "quantised": torch.quantize_per_tensor(plain, 0.5, 0, torch.qint8),
        "float8": plain.to(torch.float8_e4m3fn),
    }[way_back]
    with measured_by(way):
        assert_rows_agree(rows_of(odd)[0], oracle(plain.abs() if way_back == "complex" else plain))


@every_way
def test_a_tensor_without_data_adds_a_count_and_spoils_nothing(way: str) -> None:
    none, x = torch.empty(5, device="meta"), torch.tensor([1.0, 2.0, 3.0])
    with measured_by(way):
        seen = Moments()
        for site, order in enumerate(((none,), (none, x), (x, none), (none, none))):
            for tensor in order:
                seen.add(site, tensor)
        assert not seen.last_is_bad
        rows = seen.rows()()
    assert rows[:, COUNT].tolist() == [5, 3, 3, 5]
    assert rows[:, BAD].tolist() == [0, 0, 0, 0]
    assert rows[1:3, MEAN].tolist() == [2, 2]
    assert np.isnan(rows[[0, 3], MEAN]).all()


def test_a_tensor_inside_vmap_is_left_alone() -> None:
    seen = Moments()
    torch.vmap(lambda x: (seen.add(0, x), x * 2)[1])(torch.ones(3, 2))
    assert np.isnan(seen.rows()()[0, MEAN])


@every_way
def test_memory_that_was_given_back_is_not_read(way: str) -> None:
    x = torch.ones(100_000)
    x.untyped_storage().resize_(0)
    with measured_by(way):
        assert np.isnan(rows_of(x)[0, MEAN])


@every_way
def test_a_site_that_was_not_seen_has_no_row(way: str) -> None:
    with measured_by(way):
        seen = Moments()
        seen.add(2, torch.ones(3))
        rows = seen.rows()()
    assert rows.shape == (3, WIDTH)
    assert np.isnan(rows[:2]).all()


@every_way
def test_there_is_room_for_any_number_of_sites(way: str) -> None:
    with measured_by(way):
        seen = Moments()
        for site in [*range(FEWEST + 3), 5 * FEWEST, 3]:
            seen.add(site, torch.full((2,), float(site)))
        rows = seen.rows()()
    assert rows[[*range(FEWEST + 3), 5 * FEWEST], MEAN].tolist() == [*map(float, range(FEWEST + 3)), 5.0 * FEWEST]
    assert rows[3, COUNT] == 4
    assert np.isnan(rows[FEWEST + 3 : 5 * FEWEST]).all()


@every_way
@given(data=st.data())
def test_the_last_tensor_is_known_to_be_bad(way: str, data: st.DataObject) -> None:
    x = data.draw(arrays(data.draw(st.sampled_from((*QUICK, torch.float64, torch.int32)))))
    with measured_by(way):
        seen = Moments()
        seen.add(0, torch.tensor([math.nan]))
        assert seen.last_is_bad
        seen.add(0, x)
        assert seen.last_is_bad == bool(oracle(x)[BAD])


# --- joins -----------------------------------------------------------------------------------------------------------


def _joined_by_kernel(into: Row, other: Row) -> None:
    kernel_of("plain").join(into.ctypes.data, other.ctypes.data)


joiners = pytest.mark.parametrize("joiner", [join, _joined_by_kernel], ids=["python", "kernel"])
Joiner = Callable[[Row, Row], None]
parts_of_one = st.lists(arrays(torch.float32), max_size=5)


@joiners
@given(parts=parts_of_one)
def test_joined_rows_are_the_row_of_everything(joiner: Joiner, parts: list[torch.Tensor]) -> None:
    row = NOTHING.copy()
    for part in parts:
        joiner(row, moments(part))
    if parts:
        assert_rows_agree(row, oracle(torch.cat(parts)))
    else:
        assert np.isnan(row).all()


@joiners
@given(parts=parts_of_one, order=st.randoms(use_true_random=False), cut=st.integers(0, 5))
def test_neither_order_nor_grouping_matters(joiner: Joiner, parts: list[torch.Tensor], order: object, cut: int) -> None:
    shuffled = list(parts)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    whole, left, right = (NOTHING.copy() for _ in range(3))
    for part in parts:
        joiner(whole, moments(part))
    for place, part in enumerate(shuffled):
        joiner(left if place < cut else right, moments(part))
    joiner(left, right)
    if parts:
        assert_rows_agree(left, whole)
    else:
        assert np.isnan(left).all()


@given(st.lists(st.one_of(arrays(torch.float32).map(moments), st.just(NOTHING)), max_size=5))
def test_both_joins_are_the_same_to_rounding(rows: list[Row]) -> None:
    by_python, by_kernel = NOTHING.copy(), NOTHING.copy()
    for row in rows:
        join(by_python, row)
        _joined_by_kernel(by_kernel, row)
    np.testing.assert_allclose(by_kernel, by_python, rtol=1e-12)


@joiners
def test_the_callers_own_number_stays_where_rows_are_joined(joiner: Joiner) -> None:
    row = NOTHING.copy()
    row[OWN] = 0.25
    joiner(row, moments(torch.ones(3)))
    joiner(row, moments(torch.ones(3)))
    assert (row[COUNT], row[OWN]) == (6, 0.25)


@joiners
def test_joining_nothing_changes_nothing(joiner: Joiner) -> None:
    row = moments(torch.tensor([1.0, math.nan, 3.0]))
    before = row.copy()
    joiner(row, NOTHING.copy())
    np.testing.assert_array_equal(row, before)


@every_way
@given(data=st.data())
def test_a_site_seen_again_gains_what_it_is_then(way: str, data: st.DataObject) -> None:
    parts = data.draw(st.lists(arrays(torch.float32), min_size=1, max_size=4))
    with measured_by(way):
        seen = Moments()
        for part in parts:
            seen.add(0, part)
        assert_rows_agree(seen.rows()()[0], oracle(torch.cat(parts)), quick=True)


@every_way
def test_a_repeat_is_the_same_tensor_at_one_more_site(way: str) -> None:
    x, y = torch.tensor([1.0, 2.0, math.nan]), torch.tensor([5.0])
    with measured_by(way):
        seen = Moments()
        seen.add(2, y)
        seen.add(0, x)
        seen.repeat(1)
        seen.repeat(2)
        rows = seen.rows()()
    np.testing.assert_array_equal(rows[0], rows[1])
    assert_rows_agree(rows[2], oracle(torch.cat([x, y])))


@every_way
def test_repeating_before_anything_was_seen_adds_nothing(way: str) -> None:
    with measured_by(way):
        seen = Moments()
        seen.repeat(0)
        assert np.isnan(seen.rows()()).all()


# --- what is stored --------------------------------------------------------------------------------------------------


@every_way
def test_one_phase_is_stored_as_it_is(way: str) -> None:
    with measured_by(way):
        seen = Moments()
        seen.add(0, torch.tensor([0.0, 2.0, 4.0, math.inf]))
        seen.set_own(0, 0.5)
        sites, fetch = statistics([seen])
    assert sites == (0,)
    assert fetch()[0].tolist() == pytest.approx([4, 2, math.sqrt(8 / 3), 0, 4, 0.25, 1, 0.5])


@every_way
@given(data=st.data())
def test_several_phases_are_stored_as_one(way: str, data: st.DataObject) -> None:
    parts = data.draw(st.lists(st.lists(arrays(torch.float32), max_size=3), min_size=2, max_size=3))
    with measured_by(way):
        phases = [Moments() for _ in parts]
        for phase, of_phase in zip(phases, parts, strict=True):
            for part in of_phase:
                phase.add(1, part)
                phase.add(0, torch.ones(2))
        found = stored(phases)
    everything = [part for of_phase in parts for part in of_phase]
    if not everything:
        assert found["count"] == []
        return
    expected, joined = oracle(torch.cat(everything)), statistics(phases)[1]()[1]
    good = expected[COUNT] - expected[BAD]
    assert found["count"] == [2 * len(everything), expected[COUNT]]
    assert joined[[0, 6]].tolist() == expected[[COUNT, BAD]].tolist()
    if good:
        std = math.sqrt(expected[M2] / good)
        assert joined[1] == pytest.approx(expected[MEAN], rel=1e-12, abs=1e-6 * std)
        assert joined[2] == pytest.approx(std, rel=1e-5, abs=1e-13 * max(-expected[LOW], expected[HIGH]))
        assert joined[[3, 4]].tolist() == expected[[LOW, HIGH]].tolist()
    assert joined[5] == pytest.approx(expected[ZEROS] / expected[COUNT] if expected[COUNT] else math.nan, nan_ok=True)


def test_without_a_phase_nothing_is_stored() -> None:
    sites, fetch = statistics([])
    assert sites == ()
    assert fetch().shape == (0, len(STORED))


def test_what_is_stored_stays_within_float32() -> None:
    seen = Moments()
    seen.add(0, torch.tensor([1e300, -1e300, 3e300], dtype=torch.float64))
    row = dict(zip(STORED, statistics([seen])[1]()[0].tolist(), strict=True))
    largest = float(np.finfo(np.float32).max)
    assert (row["mean"], row["std"], row["min"], row["max"]) == (largest, largest, -largest, largest)
    assert row["nonfinite"] == 0


@pytest.mark.parametrize("number", [0.25, torch.tensor(0.25)], ids=["float", "tensor"])
def test_a_sites_own_number_waits_beside_what_is_measured(number: float | torch.Tensor) -> None:
    for numbers_first in (True, False):
        seen = Moments()
        if numbers_first:
            seen.add(1, torch.ones(2))
        seen.add(0, torch.ones(3))
        seen.set_own(0, number)
        if not numbers_first:
            seen.add(1, torch.ones(2))
        assert stored([seen])["dead_fraction"] == pytest.approx([0.25, math.nan], nan_ok=True)
        assert stored([seen, Moments()])["count"] == [3, 2]
