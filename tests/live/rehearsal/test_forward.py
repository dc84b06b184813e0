"""Forwards without data: what they count, what they refuse, and that nothing of them lasts."""

from __future__ import annotations

import copy
import random

import pytest
import torch
import torch.nn.functional as F
from graph_models import GPT, ResNet, Tagger
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from torch.utils.flop_counter import FlopCounterMode

from tensorscope.live.rehearsal.forward import perform, rehearse
from tensorscope.live.rehearsal.inputs import given


class Wrapped(nn.Module):
    """A function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> object:
        return self.function(*args)


def flops(model: nn.Module, *dims: str, **sizes: int) -> int:
    done = rehearse(model, given(model, dims, {}), sizes)
    assert done.error is None, done.error
    return done.ledger.accounts[""].flops


@pytest.mark.parametrize(
    ("model", "dims", "counted"),
    [
        (nn.Linear(3, 5), "7 3", 2 * 7 * 3 * 5),
        (nn.Linear(3, 5), "2 7 3", 2 * 14 * 3 * 5),
        (nn.Conv2d(3, 8, 5), "2 3 12 14", 2 * 2 * 8 * 8 * 10 * 3 * 25),
        (nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), "2 4 12 12", 2 * 2 * 8 * 6 * 6 * 2 * 9),
        (nn.Conv1d(4, 8, 3), "2 4 12", 2 * 2 * 8 * 10 * 4 * 3),
        (nn.ConvTranspose2d(4, 8, 2, 2), "2 4 6 6", 2 * 2 * 4 * 8 * 36 * 4),
        (nn.Bilinear(3, 4, 5), ("6 3", "6 4"), 2 * 6 * 5 * 3 * (4 + 1)),
        (nn.LSTM(3, 4), "7 2 3", 2 * 14 * 16 * (3 + 4)),
        (nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True), "2 7 3", 2 * 14 * 2 * (16 * 7 + 16 * (8 + 4))),
        (nn.GRU(3, 4), "7 2 3", 2 * 14 * 12 * 7),
        (nn.RNN(3, 4), "7 2 3", 2 * 14 * 4 * 7),
        (nn.LSTMCell(3, 4), "2 3", 2 * 2 * 16 * 7),
        (Wrapped(lambda a, b: a @ b), ("3 4", "4 5"), 2 * 3 * 4 * 5),
        (Wrapped(lambda a, b: a @ b), ("2 3 4", "2 4 5"), 2 * 2 * 3 * 4 * 5),
        (Wrapped(lambda a, b: a @ b), ("3 4", "4"), 2 * 3 * 4),
        (Wrapped(lambda a, b: torch.einsum("bik,bkj->bij", a, b)), ("2 3 4", "2 4 5"), 2 * 2 * 3 * 4 * 5),
        (Wrapped(lambda q, k: F.scaled_dot_product_attention(q, k, k)), ("2 3 5 8", "2 3 7 8"), 2 * 2 * 3 * 5 * 7 * 16),
        (nn.Sequential(nn.ReLU(), nn.LayerNorm(4), nn.Dropout()), "2 4", 0),
    ],
    ids=str,
)
def test_flops_are_those_worked_out_by_hand(model: nn.Module, dims: str | tuple[str, ...], counted: int) -> None:
    assert flops(model, *((dims,) if isinstance(dims, str) else dims)) == counted


def test_an_attention_layer_counts_its_four_projections_and_two_products() -> None:
    model = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    projections, products = 4 * 2 * (2 * 5) * 16 * 16, 2 * 2 * (2 * 4) * 5 * 5 * 4
    assert flops(model, "2 5 16", "2 5 16", "2 5 16") == projections + products


@pytest.mark.parametrize(
    ("model", "dims"), [(ResNet((1, 1, 1, 1), 4), "2 3 64 64"), (GPT(2, 16, 2, 50), "int64 2 6")], ids=["resnet", "gpt"]
)
def test_flops_without_data_are_those_that_torch_counts_for_real(model: nn.Module, dims: str) -> None:
    taken = given(model, (dims,), {})
    args, _, _ = taken.made({})
    with FlopCounterMode(display=False) as counter:
        model(*args)
    assert flops(model, dims) == counter.get_total_flops()
    real = perform(model, taken, {})
    assert real.ledger.accounts[""].flops == counter.get_total_flops()


def test_operations_are_booked_on_every_module_around_them() -> None:
    model = GPT(2, 16, 2, 50)
    accounts = rehearse(model, given(model, ("int64 2 6",), {}), {}).ledger.accounts
    assert accounts["h.0"].flops == accounts["h.1"].flops == accounts["h.0.attn"].flops + accounts["h.0.mlp"].flops
    assert accounts[""].flops == 2 * accounts["h.0"].flops + accounts["head"].flops


def test_a_module_called_twice_has_one_account() -> None:
    layer = nn.Linear(4, 4)
    model = Wrapped(lambda x: layer(layer(x)))
    model.layer = layer
    account = rehearse(model, given(model, ("2 4",), {}), {}).ledger.accounts["layer"]
    assert (account.number, account.flops) == (2, 2 * 2 * 2 * 16)


@pytest.mark.parametrize("layer", [nn.LSTM(3, 4, 2), nn.GRU(3, 4), nn.RNN(3, 4, nonlinearity="relu")], ids=str)
@pytest.mark.parametrize("dims", ["seq batch 3", "seq 3"])
def test_recurrent_layers_keep_the_sequence_a_symbol(layer: nn.Module, dims: str) -> None:
    taken = given(layer, (dims,), {})
    sizes = {"seq": 7, "batch": 2} if "batch" in dims else {"seq": 7}
    done = rehearse(layer, taken, sizes, sizes)
    assert done.error is None
    shape = done.ledger.accounts[""].outputs[0].shape
    real = layer(torch.zeros(*sizes.values(), 3))[0].shape
    assert [done.symbols.text(size)[0] or size for size in shape] == [*sizes, 4]
    assert len(shape) == len(real)


def test_a_recurrent_layer_with_a_wrong_state_fails_as_torch_would() -> None:
    model = Wrapped(F.linear)
    assert rehearse(model, given(model, ("2 3", "4 5"), {}), {}).error is not None
    lstm = nn.LSTM(3, 4)
    bad = rehearse(lstm, given(lstm, ("7 2 3", ("1 3 4", "1 3 4")), {}), {})
    assert "Expected hidden[0] size (1, 2, 4)" in str(bad.error)


def test_a_position_beyond_the_table_is_refused_and_one_within_is_not() -> None:
    model = GPT(1, 8, 2, 50)
    taken = given(model, ("int64 batch seq",), {})
    assert rehearse(model, taken, {"batch": 2, "seq": 1024}).runs
    beyond = rehearse(model, taken, {"batch": 2, "seq": 1025})
    assert isinstance(beyond.error, IndexError)
    assert beyond.ledger.accounts["wpe"].outputs == ()


def test_ids_beyond_the_vocabulary_are_refused_if_they_are_known() -> None:
    model = nn.Embedding(5, 3)
    assert rehearse(model, given(model, (torch.tensor([0, 4]),), {}), {"seq": 2}).runs
    assert isinstance(rehearse(model, given(model, (torch.tensor([0, 5]),), {}), {"seq": 2}).error, IndexError)


@pytest.mark.parametrize(
    ("positions", "longest"),
    [
        (lambda x: torch.arange(x.shape[1]), 10),
        (lambda x: torch.arange(2, x.shape[1] + 2), 8),
        (lambda x: torch.arange(x.shape[1]).unsqueeze(0).expand(x.shape[0], -1) + 1, 9),
        (lambda x: torch.arange(0, 2 * x.shape[1], 2), 5),
        (lambda x: torch.cat([torch.arange(3), torch.arange(x.shape[1])]), 10),
        (lambda x: torch.arange(x.shape[1] - 1, -1, -1).flip(0), None),  # not followed: nothing is refused
    ],
)
def test_positions_are_followed_to_the_table(positions, longest: int | None) -> None:
    table = nn.Embedding(10, 4)
    model = Wrapped(lambda x: table(positions(x)))
    model.table = table
    taken = given(model, ("batch seq",), {})
    if longest is None:
        assert rehearse(model, taken, {"batch": 2, "seq": 99}).runs
    else:
        assert rehearse(model, taken, {"batch": 2, "seq": longest}).runs
        assert not rehearse(model, taken, {"batch": 2, "seq": longest + 1}).runs


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("broken", [False, True])
def test_nothing_of_it_lasts(symbolic: bool, broken: bool) -> None:
    model = Tagger()
    model.seen = []
    model.register_forward_hook(lambda *_: pytest.fail("a hook of the user's fired"))
    before = copy.deepcopy(model.state_dict())
    state, drawn = torch.get_rng_state(), random.getstate()
    sizes = {"batch": 2, "seq": 3}
    dims = "float32 batch seq" if broken else "int64 batch seq"
    done = rehearse(model, given(model, (dims,), {}), sizes, sizes if symbolic else ())
    assert done.runs is not broken
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == drawn
    assert not hasattr(torch.SymInt, "__divmod__")
    assert torch._C._len_torch_function_stack() == torch._C._len_torch_dispatch_stack() == 0
    assert not nn_module._global_forward_hooks
    assert not nn_module._global_forward_pre_hooks
    assert len(model._forward_hooks) == 1
