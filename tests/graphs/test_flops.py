"""What a captured graph says of the cost of each module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from graph_models import GPT, ResNet, Tagger, Unrolled
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from tensorscope.graphs.graph import Graph
from tensorscope.live.capture import Capture, graph
from tensorscope.live.rehearsal.forward import rehearse
from tensorscope.live.rehearsal.inputs import given

if TYPE_CHECKING:
    from torch import Tensor

MODELS = {
    "resnet": (lambda: ResNet((2, 1, 1, 1), 4), "2 3 64 64"),
    "gpt": (lambda: GPT(3, 16, 2, 50), "int64 2 6"),
    "tagger": (Tagger, "int64 2 6"),
    "unrolled": (Unrolled, "2 5 8"),
}


def captured(model: nn.Module, *inputs: Tensor) -> Graph:
    """The graph of a real forward, as a trace records it."""
    capture = Capture(model, silent=True)
    capture.start(inputs)
    try:
        whole = capture.stop(model(*inputs))
    finally:
        capture.abort()
    assert whole is not None
    return whole


@pytest.mark.parametrize(("make", "dims"), MODELS.values(), ids=MODELS.keys())
def test_every_module_costs_what_a_forward_without_data_counts(make, dims: str) -> None:
    model = make()
    taken = given(model, (dims,), {})
    accounts = rehearse(model, taken, {}).ledger.accounts
    found = captured(model, *taken.made({})[0]).flops
    assert {path: found[path] for path in accounts} == {path: account.flops for path, account in accounts.items()}
    assert found[""] > 0


def test_a_real_forward_costs_what_torch_counts_module_by_module() -> None:
    model, tokens = GPT(2, 16, 2, 50), torch.randint(50, (2, 6))
    with FlopCounterMode(display=False) as counter, nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        model(tokens)
    told = {name.partition(".")[2]: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    found = captured(model, tokens).flops
    assert {path: found[path] for path in told if path in found} == {p: n for p, n in told.items() if p in found}
    assert found[""] == counter.get_total_flops()


def test_a_module_called_twice_costs_both_calls_and_one_never_called_nothing() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.spare = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x)) @ x.T

    assert captured(Twice(), torch.randn(2, 4)).flops == {
        "": 2 * 2 * 2 * 16 + 2 * 2 * 4 * 2, "layer": 2 * 2 * 2 * 16, "spare": 0,
    }  # fmt: skip


def test_a_checkpointed_part_is_counted_once_while_the_forward_runs() -> None:
    class Saving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.layer, x, use_reentrant=False)

    model = Saving()
    assert captured(model, torch.randn(2, 4)).flops["layer"] == 2 * 2 * 16


def test_a_compiled_model_is_counted_by_its_dry_run() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model.compile(backend="eager")
    assert captured(model, torch.randn(3, 4)).flops == {"": 2 * 3 * 24, "0": 2 * 3 * 16, "1": 0, "2": 2 * 3 * 8}


@pytest.mark.parametrize(("make", "dims"), MODELS.values(), ids=MODELS.keys())
def test_the_cost_outlives_storing_folding_and_collapsing(make, dims: str) -> None:
    model = make()
    whole = graph(model, *given(model, (dims,), {}).made({})[0])
    assert Graph.from_json(whole.to_json()).flops == whole.flops
    assert whole.fold().flops[""] == whole.collapse(1).flops[""] == whole.flops[""] > 0
