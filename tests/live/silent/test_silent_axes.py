"""What a reshape does to axes, against what it does to the indices of a tensor."""

from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tensorscope.live.silent.axes import Axis, Kind, merged, reshaped

Sizes = tuple[int, ...]


def axes_of(sizes: Sizes) -> list[Axis]:
    return [Axis(size, Kind.INPUT, leading=place == 0) for place, size in enumerate(sizes)]


def kinds(before: Sizes, after: Sizes) -> str:
    return " ".join(axis.kind.name.lower() for axis in reshaped(axes_of(before), after)[0])


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((4, 5, 6), (4, 5, 6), "input input input"),
        ((4, 5, 6), (20, 6), "merged input"),
        ((4, 5, 6), (4, 5, 2, 3), "input input part part"),
        ((4, 6, 8), (4, 3, 16), "input part merged"),
        ((4, 8), (4, 1, 8), "input inserted input"),
        ((4, 1, 8), (4, 8), "input input"),
        ((4, 1), (4, 1, 1), "input input inserted"),
        ((0, 3), (3, 0), "derived derived"),
    ],
)
def test_cutting_and_joining_keeps_what_axes_are(before: Sizes, after: Sizes, expected: str) -> None:
    assert kinds(before, after) == expected
    assert reshaped(axes_of(before), after)[1] == []


@pytest.mark.parametrize(
    ("before", "after", "mixes_batch"),
    [
        ((32, 64, 7, 7), (224, 448), True),  # the batch absorbed
        ((2, 8, 16), (8, 32), True),  # final states of two directions viewed as rows
        ((4, 10, 6), (10, 4, 6), True),  # a view in place of a transposition
        ((2, 16, 5, 8), (2, 40, 16), False),  # an image as a sequence, not permuted
        ((2, 16, 8, 8), (2, 64, 16), False),
        ((2, 10, 32), (2, 4, 10, 8), False),  # heads, not transposed
        ((2, 16, 32), (2, 4, 16, 8), False),
        ((2, 8, 8, 3), (2, 3, 8, 8), False),  # channels-last
    ],
)
def test_a_transposition_done_by_reshape_is_seen(before: Sizes, after: Sizes, mixes_batch: bool) -> None:
    scrambles = reshaped(axes_of(before), after)[1]
    assert [scramble.mixes_batch for scramble in scrambles] == [mixes_batch]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((4, 8, 16), (8, 4, 16), "merged part input"),  # (n, k·m) -> (n·k, m)
        ((12, 4), (4, 12), "part merged"),  # (n·k, m) -> (n, k·m)
        ((10, 64, 512), (10, 512, 64), "input merged part"),
    ],
)
def test_a_cut_with_the_sizes_of_a_transposition_is_a_cut(before: Sizes, after: Sizes, expected: str) -> None:
    assert kinds(before, after) == expected
    assert [scramble.sure for scramble in reshaped(axes_of(before), after)[1]] == [False]


def test_a_batch_behind_another_axis_is_not_cut() -> None:
    axes = [Axis(8, Kind.DERIVED), Axis(4, Kind.INPUT, leading=True), Axis(3, Kind.WEIGHT)]
    (scramble,) = reshaped(axes, (4, 8, 3))[1]
    assert scramble.sure
    assert scramble.mixes_batch


def test_an_axis_cut_and_joined_again_is_that_axis() -> None:
    before = axes_of((4, 10, 32))
    heads, _ = reshaped(before, (4, 10, 4, 8))
    after, scrambles = reshaped(heads, (4, 10, 32))
    assert after == tuple(before)
    assert scrambles == []


def test_folding_heads_into_the_batch_and_back_loses_nothing() -> None:
    heads, _ = reshaped(axes_of((4, 10, 32)), (4, 10, 4, 8))
    moved = [heads[0], heads[2], heads[1], heads[3]]
    folded, _ = reshaped(moved, (16, 10, 8))
    assert folded[0].holds_batch()
    back, scrambles = reshaped(folded, (4, 4, 10, 8))
    assert back == tuple(moved)
    assert scrambles == []


def test_merging_nothing_but_ones_keeps_one() -> None:
    assert merged(axes_of((1, 1))).size == 1


sizes = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[Sizes, Sizes]:
    """Sizes, and others with as many elements."""
    before = draw(sizes)
    left = prod(before)
    after: list[int] = []
    while left > 1 and len(after) < 4:
        after.append(draw(st.sampled_from([d for d in range(1, left + 1) if left % d == 0])))
        left //= after[-1]
    return before, (*after, left)


@given(reshapes())
def test_the_new_axes_have_the_new_sizes(pair: tuple[Sizes, Sizes]) -> None:
    before, after = pair
    found, _ = reshaped(axes_of(before), after)
    assert tuple(axis.size for axis in found) == after


@given(reshapes())
def test_an_axis_that_is_kept_really_indexes_the_same(pair: tuple[Sizes, Sizes]) -> None:
    before, after = pair
    old = axes_of(before)
    for place, axis in enumerate(reshaped(old, after)[0]):
        if axis.size > 1 and axis in old:
            index = torch.arange(axis.size).view(*(-1 if a is axis else 1 for a in old)).expand(before).reshape(after)
            assert torch.equal(
                index, torch.arange(axis.size).view(*(-1 if p == place else 1 for p in range(len(after)))).expand(after)
            )


@given(sizes, st.data())
def test_reshaping_there_and_back_gives_the_same_axes(before: Sizes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(before)))
    old = axes_of(before)
    folded, _ = reshaped(old, (prod(before[:cut]), *before[cut:]))
    back, scrambles = reshaped(folded, before)
    assert [axis for axis in back if axis.size > 1] == [axis for axis in old if axis.size > 1]
    assert scrambles == []
