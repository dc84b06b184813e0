"""Axes are trees that are evaluated for other input sizes."""

from __future__ import annotations

import sys

import pytest

from tensorscope.live.postmortem.axes import Axis, InputAxis, Kind, Rule, alike, preferred

HEIGHT, WIDTH = InputAxis("x", 2), InputAxis("x", 3)
height = Axis(28, Kind.INPUT, "height", source=HEIGHT)
width = Axis(28, Kind.INPUT, "width", source=WIDTH)
channels = Axis(64, Kind.WEIGHT, "conv.out_channels")
half = Axis(14, Kind.WINDOW, "pool", (height,), 3, "pool", Rule(lambda n: n // 2, "{0} // 2"))
crop = Axis(8, Kind.WINDOW, "crop", (height,), 4, rule=Rule(lambda n: n - 20))
flat = Axis(64 * 14 * 28, Kind.PRODUCT, "flatten", (channels, half, width), 5, rule=Rule(lambda c, h, w: c * h * w))


def test_present_sizes_give_the_present_size() -> None:
    assert [axis.at({}) for axis in (height, channels, half, flat)] == [28, 64, 14, 64 * 14 * 28]


def test_other_sizes_are_carried_through_every_rule() -> None:
    assert flat.at({HEIGHT: 10, WIDTH: 3}) == 64 * 5 * 3
    assert flat.at({WIDTH: 1}) == 64 * 14


def test_what_would_not_be_positive_is_none() -> None:
    assert crop.at({HEIGHT: 21}) == 1
    assert crop.at({HEIGHT: 20}) is None
    assert crop.at({HEIGHT: 5}) is None
    assert half.at({HEIGHT: 1}) is None


def test_an_axis_without_a_rule_is_known_while_its_parts_stay() -> None:
    part = Axis(7, Kind.PART, "view", (height,), 6)
    assert part.at({WIDTH: 5}) == 7
    assert part.at({HEIGHT: 27}) is None


def test_what_depends_on_values_is_never_known() -> None:
    unknown = Axis(3, Kind.UNKNOWN, "nonzero")
    both = Axis(6, Kind.SUM, "cat", (unknown, unknown), rule=Rule(lambda a, b: a + b))
    assert unknown.at({}) is both.at({}) is None


def test_a_tree_tells_its_steps_inputs_and_weights() -> None:
    assert flat.steps() == [5, 3]
    assert flat.inputs() == {HEIGHT, WIDTH}
    assert flat.weights() == [channels]
    assert flat.tree()[-1] is flat
    assert (flat.varies, channels.varies) == (True, False)


def test_shared_parts_are_visited_once_and_depth_is_unbounded() -> None:
    axis = height
    for step in range(3 * sys.getrecursionlimit()):
        axis = Axis(axis.size, Kind.SUM, "cat", (axis, axis), step, rule=Rule(lambda one, _: one))
    assert axis.at({HEIGHT: 5}) == 5
    assert len(axis.tree()) == 3 * sys.getrecursionlimit() + 1
    assert repr(axis) == "Axis(28, SUM, 'cat')"


def test_pieces_of_one_split_are_alike_and_equal_sizes_are_not() -> None:
    def piece(step: int) -> Axis:
        return Axis(8, Kind.PART, "chunk", (channels,), step)

    assert alike(piece(1), piece(1))
    assert not alike(piece(1), piece(2))
    assert not alike(height, width)
    assert alike(height, height)


@pytest.mark.parametrize("axes", [(channels, height), (height, channels), (Axis(28, Kind.UNKNOWN, ""), height)])
def test_an_axis_of_an_input_tells_more_than_another(axes: tuple[Axis, ...]) -> None:
    assert preferred(axes) is height
