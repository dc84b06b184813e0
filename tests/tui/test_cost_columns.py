"""What modules cost, with all that is inside them."""

from __future__ import annotations

import math
from pathlib import Path

from made_runs import made_graph, make_run
from viewer_pilot import add

from tensorscope.events import ModuleInfo
from tensorscope.run.reader import Run
from tui.charts.bars import across
from tui.costs import around, costs, costs_of

MODULES = [
    ModuleInfo("", "Net", 1, 1, bytes=4),
    ModuleInfo("a", "Block", 0, 0),
    ModuleInfo("a.b", "Linear", 10, 10, bytes=40),
    ModuleInfo("ab", "Linear", 5, 5, bytes=10),
]
NAN = math.nan


def test_parameters_are_counted_with_all_that_is_inside() -> None:
    found = costs(MODULES, {}, {})
    assert [(cost.parameters, cost.bytes) for cost in found.values()] == [(16, 54), (10, 40), (10, 40), (5, 10)]


def test_shares_are_of_the_models_own_time() -> None:
    found = costs(MODULES, {"": (3.0, 1.0), "a": (1.0, NAN), "a.b": (0.5, 0.5), "ab": (NAN, NAN)}, {"a": 7})
    assert [found[path].share for path in ("", "a", "a.b", "ab")] == [1.0, 0.25, 0.25, 0.0]
    assert (found["a"].flops, found["ab"].flops) == (7, None)


def test_without_the_models_own_time_shares_are_of_the_slowest_module() -> None:
    found = costs(MODULES, {"a": (2.0, 2.0), "ab": (1.0, 1.0)}, {})
    assert [found[path].share for path in ("a", "ab")] == [1.0, 0.5]
    assert math.isnan(found[""].share)


def test_what_is_around_a_module_ends_with_the_model() -> None:
    assert around("a.b") == ["a.b", "a", ""]
    assert around("") == [""]


def test_the_costs_of_a_run_are_those_that_were_recorded(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", told=True)
    add(folder, "document", "graph", made_graph().to_json())
    found = costs_of(Run(folder))
    assert found[""].share == 1.0
    assert 0.0005 <= found["conv1"].forward < 0.00051
    assert (found["conv1"].parameters, found[""].parameters, found[""].bytes) == (320, 1280, 5120)


def test_a_bar_is_as_long_as_its_share() -> None:
    assert [across(share, 4) for share in (0, 0.001, 0.5, 0.78125, 1, 7)] == ["", "▏", "██", "███▏", "████", "████"]
