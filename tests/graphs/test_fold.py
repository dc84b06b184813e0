"""Folding shows what repeats once, keeps what flows, and loses no operation."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
import torch
from graph_models import GPT, Residual, ResNet, SmallCNN, Unrolled, deep
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tensorscope import Graph, graph
from tensorscope.graphs.graph import Call, Flow
from tensorscope.graphs.periods import Run, runs_at


def repeated(found: Graph) -> list[tuple[str, int, Flow]]:
    return [(call.path, call.repeat, call.flow) for call in found.calls if call.repeat > 1]


def pairs(found: Graph) -> list[tuple[str, str]]:
    return [(found.ops[e.source].name, found.ops[e.target].name) for e in found.edges if not e.back]


def backs(found: Graph) -> list[tuple[str, str]]:
    return [(found.ops[e.source].name, found.ops[e.target].name) for e in found.edges if e.back]


def only(found: Graph) -> Call:
    (call,) = [call for call in found.calls if call.repeat > 1]
    return call


def test_blocks_of_a_transformer_become_one() -> None:
    whole = graph(GPT(12, 8, 2, 11), torch.zeros(1, 4, dtype=torch.long))
    folded = whole.fold()
    assert repeated(folded) == [("h.0", 12, Flow.SEQUENCE)]
    assert len(folded.ops) == 10 + (len(whole.ops) - 10) // 12
    block = only(folded)
    assert block.members == tuple(f"h.{i}" for i in range(12))
    inner = next(call for call in folded.calls if call.path == "h.0.attn.q")
    assert inner.members == tuple(f"h.{i}.attn.q" for i in range(12))
    assert folded.fold() is folded
    # The residual around the attention is still there: what enters the block goes to its norm and to its first sum.
    before = next(op.id for op in folded.ops if folded.calls[op.call].path == "drop")
    entered = [folded.ops[edge.target] for edge in folded.edges if edge.source == before]
    assert [(op.name, folded.calls[op.call].path) for op in entered] == [("layer_norm", "h.0.norm1"), ("add", "h.0")]
    assert not backs(folded)


def test_periods_of_a_sequential_become_one() -> None:
    folded = graph(deep(200), torch.ones(2, 16)).fold()
    assert repeated(folded) == [("", 100, Flow.SEQUENCE)]
    assert pairs(folded) == [("input", "linear"), ("linear", "relu"), ("relu", "output")]
    assert only(folded).group
    assert only(folded).members[:3] == ("0", "1", "2")
    assert len(only(folded).members) == 200


def test_a_loop_over_a_cell_is_rolled_with_its_state_fed_back() -> None:
    folded = graph(Unrolled(), torch.ones(2, 60, 8)).fold()
    assert repeated(folded) == [("", 60, Flow.LOOP)]
    assert backs(folded) == [("rnn_tanh_cell", "rnn_tanh_cell")]
    assert pairs(folded) == [
        *[("x", "new_zeros"), ("x", "getitem"), ("getitem", "rnn_tanh_cell"), ("new_zeros", "rnn_tanh_cell")],
        *[("rnn_tanh_cell", "stack"), ("stack", "linear"), ("linear", "output")],
    ]
    assert next(call for call in folded.calls if call.path == "cell").members == ("cell",)


def test_a_loop_written_with_bare_operations_is_rolled() -> None:
    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            h = x[:, 0] * 0
            for step in range(50):
                h = torch.tanh(x[:, step] + h)
            return h

    folded = graph(Bare(), torch.ones(2, 50, 3)).fold()
    assert repeated(folded) == [("", 50, Flow.LOOP)]
    assert backs(folded) == [("tanh", "add")]


def test_one_block_called_again_and_again_is_a_loop() -> None:
    class Albert(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4))

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(6):
                x = x + self.block(x)
            return x

    folded = graph(Albert(), torch.ones(2, 4)).fold()
    assert repeated(folded) == [("", 6, Flow.LOOP)]
    assert sorted(backs(folded)) == [("add", "add"), ("add", "linear")]


def test_branches_side_by_side_fold_in_parallel() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleList(nn.Sequential(nn.Linear(4, 2), nn.ReLU()) for _ in range(8))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([head(x) for head in self.heads], -1)

    folded = graph(Heads(), torch.ones(3, 4)).fold()
    assert repeated(folded) == [("heads.0", 8, Flow.PARALLEL)]
    assert pairs(folded) == [("x", "linear"), ("linear", "relu"), ("relu", "cat"), ("cat", "output")]


def test_queries_keys_and_values_are_no_repetition() -> None:
    folded = graph(GPT(1, 8, 2, 11), torch.zeros(1, 4, dtype=torch.long)).fold()
    assert repeated(folded) == []


def test_blocks_that_are_tapped_differently_stay_apart() -> None:
    class Tapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Tanh()) for _ in range(4))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            a = self.blocks[0](x)
            b = self.blocks[1](a)
            c = self.blocks[2](b)
            return self.blocks[3](c), b.exp(), c.sum()

    assert all(repeat < 4 for _, repeat, _ in repeated(graph(Tapped(), torch.ones(2, 4)).fold()))


def test_stages_of_a_residual_network_fold_each_for_itself() -> None:
    folded = graph(ResNet((3, 4, 6, 3), 4), torch.ones(1, 3, 64, 64)).fold()
    assert repeated(folded) == [
        *[("layer1.0", 3, Flow.SEQUENCE), ("layer2.1", 3, Flow.SEQUENCE)],
        *[("layer3.1", 5, Flow.SEQUENCE), ("layer4.1", 2, Flow.SEQUENCE)],
    ]
    assert folded.modules["layer1.0"].type == Residual.__name__


def test_what_repeats_within_what_repeats_folds_twice() -> None:
    def block() -> nn.Sequential:
        return nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)), nn.ReLU())

    folded = graph(nn.Sequential(*(block() for _ in range(5))), torch.ones(2, 4)).fold()
    assert [repeat for _, repeat, _ in repeated(folded)] == [5, 6]
    assert pairs(folded) == [("input", "linear"), ("linear", "relu"), ("relu", "output")]


def test_little_is_left_as_it_is() -> None:
    whole = graph(SmallCNN(), torch.ones(1, 1, 28, 28))
    assert whole.fold().ops == whole.ops
    assert whole.fold().edges == whole.edges


# -- laws --

LAYERS = st.sampled_from("LRTN")
MADE = {"L": lambda: nn.Linear(4, 4), "R": nn.ReLU, "T": nn.Tanh, "N": lambda: nn.LayerNorm(4)}


def build(plan: Any) -> nn.Module:
    if isinstance(plan, str):
        return MADE[plan]()
    inner, repeats = plan
    return nn.Sequential(*(build(entry) for _ in range(repeats) for entry in inner))


PLANS = st.recursive(
    LAYERS, lambda inner: st.tuples(st.lists(inner, min_size=1, max_size=3), st.integers(1, 6)), max_leaves=6
).filter(lambda plan: not isinstance(plan, str))


@given(PLANS)
def test_folding_loses_no_operation_and_no_module(plan: Any) -> None:
    whole = graph(build(plan), torch.ones(2, 4))
    folded = whole.fold()
    assert folded.operations == whole.operations
    for name in {op.name for op in whole.ops}:
        count = sum(folded.times[op.call] for op in folded.ops if op.name == name)
        assert count == sum(op.name == name for op in whole.ops)
    shown = [path for call in folded.calls if not call.group for path in call.members]
    assert sorted(shown) == sorted(call.path for call in whole.calls)
    # A chain stays a chain.
    assert [(edge.source, edge.target) for edge in folded.edges] == list(itertools.pairwise(range(len(folded.ops))))
    assert Graph.from_json(folded.to_json()) == folded


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(2, 6), st.lists(st.integers(3, 5), max_size=3))
def test_a_repetition_is_found(period: list[int], repeats: int, before: list[int]) -> None:
    tokens = before + period * repeats + [9]
    best = runs_at(tokens, len(before))[0]
    assert best.stop >= len(before) + len(period) * repeats - len(period)
    for run in runs_at(tokens, len(before)):
        shape = [tokens[run.start + i : run.start + i + run.period] for i in range(0, run.stop - run.start, run.period)]
        assert all(turn == shape[0] for turn in shape)


def test_the_run_that_covers_most_comes_first() -> None:
    assert runs_at("aabaabx", 0)[0] == Run(0, 3, 2)
    assert runs_at("aaaa", 0)[0] == Run(0, 1, 4)
    assert runs_at("abab", 0, barred={2}) == []


@pytest.mark.parametrize("size", [600])
def test_folding_is_near_linear(size: int) -> None:
    small, large = (graph(deep(n, 2), torch.ones(1, 2)) for n in (size // 4, size))
    times = []
    for found in (small, large):
        start = time.perf_counter()
        found.fold()
        times.append(time.perf_counter() - start)
    assert times[1] < 16 * times[0] + 0.5
