"""Sites are strings that remember their parts; stats derive what they do not store."""

from __future__ import annotations

import math
import pickle

import pytest

from tensorscope.events import MAX_CALLS, Kind, Shape, Site, Stats


@pytest.mark.parametrize(
    ("site", "text"),
    [
        (Site("blocks.3.attn"), "blocks.3.attn"),
        (Site("blocks.3.attn").grad, "blocks.3.attn:grad"),
        (Site("fc.weight", Kind.PARAMETER), "fc.weight"),
        (Site("fc.weight", Kind.PARAMETER).grad, "fc.weight:grad"),
        (Site(""), "<root>"),
        (Site("", Kind.INPUT), "<root>:input"),
        (Site("", Kind.INPUT, place="mask"), "<root>:input[mask]"),
        (Site("lstm", place="1.0").grad, "lstm[1.0]:grad"),
        (Site("relu", call=1), "relu#1"),
        (Site("cell", call=MAX_CALLS - 1), f"cell#{MAX_CALLS - 1}+"),
    ],
)
def test_a_site_reads_as_its_place(site: Site, text: str) -> None:
    assert site == text
    assert {site: 1}[text] == 1


def test_the_module_of_a_parameter_is_the_one_that_holds_it() -> None:
    assert Site("blocks.0.fc.weight", Kind.PARAMETER).module == "blocks.0.fc"
    assert Site("blocks.0.fc").module == "blocks.0.fc"


def test_a_site_keeps_its_parts_through_a_pickle() -> None:
    site = Site("lstm", place="1", call=2).grad
    copy = pickle.loads(pickle.dumps(site))
    assert (copy, copy.path, copy.kind, copy.place, copy.call, copy.gradient) == (
        site,
        "lstm",
        Kind.OUTPUT,
        "1",
        2,
        True,
    )


def test_norms_follow_from_mean_and_std() -> None:
    stats = Stats(4, 3.0, 4.0, 0.0, 9.0, 0.0, 0)
    assert stats.rms == 5.0
    assert stats.l2 == 10.0


def test_a_tensor_without_finite_elements_has_norm_zero() -> None:
    assert Stats(3, math.nan, math.nan, math.nan, math.nan, 0.0, 3).l2 == 0.0


def test_a_shape_shows_its_names() -> None:
    assert str(Shape(0, (64, 1, 28), ("batch", "", "width"))) == "(batch=64, 1, width=28)"
    assert str(Shape(0, (64, 1))) == "(64, 1)"
    assert str(Shape(0, ())) == "()"
