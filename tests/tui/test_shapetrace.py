"""The shape trace: of a recorded graph, and of a first forward that did not end."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import LAYERS, SHAPES, made_graph, made_report, make_run
from viewer_pilot import add, add_reports

from tensorscope.graphs.graph import Call, Edge, Graph, Module, Op, Role, Value
from tensorscope.run.reader import open_run
from tui.shapetrace import AskShapes, ShapeRow, changed_axes, of_graph


def said(row: ShapeRow) -> str:
    taken, given = (" ".join(str(value.dims) for value in values) for values in (row.ins, row.outs))
    return f"{row.label} {row.name}: {taken} → {given}{' ✗' if row.failed else ''}"


def test_every_module_call_has_what_went_in_and_came_out() -> None:
    rows = of_graph(made_graph()).modules
    assert said(rows[0]) == "SimpleCNN SimpleCNN: (64, 1, 28, 28) → (64, 10)"
    assert [row.label for row in rows[1:]] == list(LAYERS)
    assert [row.outs[0].dims for row in rows[1:]] == list(SHAPES)
    assert [row.ins for row in rows[2:]] == [row.outs for row in rows[1:-1]]
    assert rows[1].outs[0].names == ("batch", "channels", "height", "width")


def test_every_operation_has_its_module_its_line_and_its_weights() -> None:
    rows = of_graph(made_graph()).ops
    assert said(rows[0]) == "SimpleCNN input images:  → (64, 1, 28, 28)"
    assert [said(row) for row in rows[3:5]] == [
        "pool1 pad: (64, 32, 26, 26) → (64, 32, 26, 26)",
        "pool1 max_pool2d: (64, 32, 26, 26) → (64, 32, 13, 13)",
    ]
    assert (rows[1].where, rows[1].weights) == ("model.py:21", ("conv1.weight",))
    assert said(rows[-1]) == "SimpleCNN output: (64, 10) → "


def test_nested_and_repeated_calls_are_told_apart() -> None:
    value = [Value((n,)) for n in range(5)]
    calls = (Call(0, "", -1), Call(1, "block", 0), Call(2, "block.fc", 1), Call(3, "block.fc", 1, number=1))
    ops = (
        Op(0, "x", 0, (value[0],), Role.INPUT), Op(1, "a", 2, (value[1],)), Op(2, "b", 3, (value[2],)),
        Op(3, "add", 1, (value[3],)), Op(4, "output", 0, (value[3],), Role.OUTPUT),
    )  # fmt: skip
    edges = (
        Edge(0, 1, value[0]), Edge(1, 2, value[1]), Edge(0, 3, value[0], slot=1), Edge(2, 3, value[2]),
        Edge(3, 4, value[3]),
    )  # fmt: skip
    graph = Graph("Net", ops, edges, calls, {"": Module("", "Net"), "block.fc": Module("block.fc", "Linear")})
    assert [said(row) for row in of_graph(graph).modules] == [
        "Net Net: (0,) → (3,)",
        "block : (0,) → (3,)",
        "block.fc Linear: (0,) → (1,)",
        "block.fc#1 Linear: (1,) → (2,)",
    ]
    assert said(of_graph(graph).ops[3]) == "block add: (2,) (0,) → (3,)"


def test_a_result_that_nobody_takes_is_still_shown() -> None:
    value = Value((2, 3))
    graph = Graph("Net", (Op(0, "linear", 1, (value,)),), (), (Call(0, "", -1), Call(1, "probe", 0)), {})
    assert [said(row) for row in of_graph(graph).modules] == ["Net :  → (2, 3)", "probe :  → (2, 3)"]


def test_the_call_that_raised_later_is_marked() -> None:
    trace = of_graph(made_graph(), made_report())
    assert [row.label for row in trace.modules if row.failed] == ["fc1"]
    assert [row.label for row in trace.ops if row.failed] == ["fc1"]


def test_a_forward_that_did_not_end_shows_the_shapes_seen_and_where_the_error_came_from(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=0, layers=LAYERS[:7], status="died")
    add_reports(folder)
    trace = AskShapes().answer(open_run(folder))
    assert not trace.whole
    assert said(trace.modules[0]) == "input : () → (64, 1, 28, 28)".replace("()", "")
    assert [row.label for row in trace.modules[1:-1]] == list(LAYERS[:7])
    assert said(trace.modules[-1]) == "fc1 linear: (4, 1600) (128, 4096) →  ✗"
    assert said(trace.ops[0]) == "x input:  → (4, 1, 28, 28)"
    assert said(trace.ops[1]) == "conv1 conv2d: (4, 1, 28, 28) → (4, 32, 26, 26)"
    assert trace.ops[1].where == "model.py:21"
    assert said(trace.ops[-1]) == said(trace.modules[-1])


def test_without_any_record_the_report_alone_is_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=0, layers=(), status="died")
    add_reports(folder, made_report(origin=(), module=""))
    trace = AskShapes().answer(open_run(folder))
    assert [row.label for row in trace.ops] == ["input", "<root>"]


def test_the_graph_is_read_once_and_again_when_there_is_a_new_report(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=1)
    run = open_run(folder)
    assert not AskShapes().answer(run).whole
    add(folder, "document", "graph", made_graph().to_json())
    trace = AskShapes().answer(run)
    assert trace.whole
    assert AskShapes().answer(run) is trace
    add_reports(folder)
    assert any(row.failed for row in AskShapes().answer(run).modules)


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ((4, 1, 28, 28), (4, 32, 26, 26), {1, 2, 3}),
        ((4, 32), (4, 32), set()),
        ((4, 64, 5, 5), (4, 1600), {1}),
        ((4, 7), (4, 7, 32), {2}),
        ((4, 7, 32), (4, 32), set()),
        ((2, 7, 32), (2, 7, 4, 8), {2, 3}),
        ((), (1,), {0}),
        ((3,), (), set()),
        ((2, 2), (2, 2, 2), {2}),
    ],
)
def test_changed_axes_are_those_that_are_not_as_they_were(
    before: tuple[int, ...], after: tuple[int, ...], changed: set[int]
) -> None:
    assert changed_axes(before, after) == changed


dims = st.lists(st.integers(0, 3), max_size=6).map(tuple)


@given(dims, dims)
def test_axes_that_did_not_change_are_found_in_what_was_before(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    changed = changed_axes(before, after)
    assert changed <= set(range(len(after)))
    kept = iter(before)
    assert all(after[axis] in kept for axis in range(len(after)) if axis not in changed)


def test_a_graph_of_ten_thousand_calls_has_a_row_for_each() -> None:
    trace = of_graph(made_graph(blocks=5000))
    assert len(trace.modules) == 10_001
    assert len(trace.ops) == 10_002
