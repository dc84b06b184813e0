"""The graph as data: how it is stored, counted, collapsed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from graph_models import GPT, SmallCNN, Unrolled
from torch import Tensor, nn

from tensorscope import Graph, GraphError, graph
from tensorscope.graphs.graph import Role, Value


def gpt(layers: int = 3) -> Graph:
    return graph(GPT(layers, 8, 2, 11), torch.zeros(1, 4, dtype=torch.long))


@pytest.mark.parametrize("fold", [False, True])
def test_a_stored_graph_is_the_same_when_read(fold: bool) -> None:
    for found in (gpt(), graph(Unrolled(), torch.ones(1, 9, 8)), graph(SmallCNN(), torch.ones(1, 1, 28, 28), depth=1)):
        stored = found.fold() if fold else found
        read = Graph.from_json(stored.to_json())
        assert read == stored
        assert read.to_dot() == stored.to_dot()


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "JSONDecodeError"), ("[]", "TypeError"), ("{}", "KeyError"), ('{"version": 99}', "newer than 1")],
)
def test_what_is_no_graph_is_refused(text: str, reason: str) -> None:
    with pytest.raises(GraphError, match="not a stored graph") as caught:
        Graph.from_json(text)
    assert reason in str(caught.value)


def test_a_stored_loop_is_small() -> None:
    text = graph(Unrolled(), torch.ones(1, 90, 8)).fold().to_json()
    assert len(text) < 3000
    assert json.loads(text)["folded"]


def test_a_stored_graph_is_drawn_without_torch(tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(gpt().to_json())
    code = (
        "import sys, pathlib; from tensorscope.graphs.graph import Graph\n"
        f"read = Graph.from_json(pathlib.Path({str(tmp_path / 'graph.json')!r}).read_text())\n"
        f"read.save({str(tmp_path / 'graph.svg')!r}); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "False"
    assert (tmp_path / "graph.svg").read_text().startswith("<?xml")


def test_a_value_reads_like_a_shape() -> None:
    assert str(Value((4, 1, 28))) == "(4, 1, 28)"
    assert str(Value((4, 1, 28), "float32", ("batch", "", ""))) == "(batch=4, 1, 28)"
    assert str(Value(())) == "()"


def test_a_graph_says_what_it_holds() -> None:
    assert (
        repr(gpt()) == f"<Graph GPT: {gpt().operations} operations, {len(gpt().modules)} modules, 1 inputs, 1 outputs>"
    )


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("depth", [0, 1, 2, 3, 9])
def test_collapsing_keeps_the_count_of_operations(depth: int, fold: bool) -> None:
    whole = gpt()
    shallow = (whole.fold() if fold else whole).collapse(depth)
    assert shallow.operations == whole.operations
    assert [op.id for op in shallow.ops] == list(range(len(shallow.ops)))
    assert all(call.parent < call.id == position for position, call in enumerate(shallow.calls))
    assert {op.role for op in shallow.ops} >= {Role.INPUT, Role.OUTPUT}
    assert Graph.from_json(shallow.to_json()) == shallow


def test_collapsing_deeper_than_the_model_changes_nothing() -> None:
    whole = gpt()
    assert whole.collapse(9).ops == whole.ops
    assert whole.collapse(9).edges == whole.edges


def test_a_collapsed_module_keeps_its_tensors_apart() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return (x + 1) * 2, x.sum()

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two, self.fc = Two(), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            left, right = self.two(x)
            return self.fc(left) * right

    shallow = graph(Around(), torch.ones(2, 3), depth=1)
    two = next(op for op in shallow.ops if op.name == "Two")
    assert [str(value) for value in two.outputs] == ["(2, 3)", "()"]
    leaving = [
        (edge.port, str(edge.value), shallow.ops[edge.target].name) for edge in shallow.edges if edge.source == two.id
    ]
    assert leaving == [(0, "(2, 3)", "linear"), (1, "()", "mul")]
    # What holds a single operation is that operation.
    assert [op.role for op in shallow.ops if op.name == "linear"] == [Role.OP]
