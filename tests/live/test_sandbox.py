"""A place to run a forward in which nothing lasts: weights copied or imagined, and everything put back."""

from __future__ import annotations

import logging
import random
import warnings
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.nn.modules import module as nn_module

from tensorscope.live.sandbox import copied, imagined, kept_random_state, quiet

Place = Callable[[nn.Module], AbstractContextManager[Any]]
BOTH = pytest.mark.parametrize("place", [copied, imagined])


class Model(nn.Module):
    """Keeps tensors and other things in every way that there is."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("count", torch.zeros(1))
        self.plain = torch.ones(2)
        self.history: list[Any] = [1]
        self.cache: dict[str, Any] = {"keys": [torch.zeros(2)]}
        self.seen = {1}
        self.ordered: OrderedDict[str, list[int]] = OrderedDict(a=[1])
        self.default: defaultdict[str, list[int]] = defaultdict(list)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)  # type: ignore[no-any-return]


def state(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        yield vars(module)
        yield {key: str(value) for key, value in vars(module).items()}
        yield {key: id(value) for key, value in vars(module).items()}


@BOTH
def test_weights_are_others_within_and_the_same_afterwards(place: Place) -> None:
    model = Model()
    weight, before = model.fc.weight, list(state(model))
    with place(model):
        assert model.fc.weight is not weight
        assert isinstance(model.fc.weight, nn.Parameter)
        assert model.fc.weight.shape == weight.shape
        assert model.plain is not before[0]["plain"]
    assert model.fc.weight is weight
    assert list(state(model)) == before


def disturb(model: Model) -> None:
    """Change all that a forward could, and fail."""
    model.count += 1
    model.plain.mul_(3)
    model.history.append(2)
    model.cache["keys"].append(3)
    model.cache["values"] = 4
    model.seen.add(2)
    model.ordered["a"].append(2)
    model.default["b"].append(1)
    model.extra = nn.Linear(1, 1)
    model.late = 5  # type: ignore[assignment]
    del model.fc.bias
    model.train(False)
    model.fc.weight.data.zero_()
    model.register_forward_hook(lambda *_: None)
    raise ZeroDivisionError


@BOTH
def test_what_is_done_within_is_gone_also_after_an_error(place: Place) -> None:
    model = Model()
    before = [str(part) for part in state(model)]
    with pytest.raises(ZeroDivisionError), place(model):
        disturb(model)
    assert [str(part) for part in state(model)] == before


class Held:
    def __init__(self) -> None:
        self.entries: list[int] = []


@pytest.mark.parametrize("change", [
    lambda model: model.recent.append(1),
    lambda model: model.counts.update(["a"]),
    lambda model: model.held.entries.append(1),
])  # fmt: skip
def test_other_things_that_a_model_keeps_are_as_they_were(change: Callable[[Any], None]) -> None:
    model: Any = Model()
    model.recent, model.counts, model.held = deque(maxlen=3), Counter[str](), Held()
    with copied(model):
        change(model)
    assert (list(model.recent), dict(model.counts), model.held.entries) == ([], {}, [])


def test_copies_are_equal_and_imagined_weights_have_no_data() -> None:
    model, x = Model(), torch.randn(4, 3)
    result = model(x)
    with copied(model) as convert:
        assert torch.equal(model(convert(x)), result)
        assert convert(x) is not x
    with imagined(model) as convert:
        assert isinstance(model(convert(x)), FakeTensor)
        assert model(convert(x)).shape == (4, 2)


@BOTH
def test_one_tensor_in_two_places_stays_one(place: Any) -> None:
    model, x = Model(), torch.zeros(1, 3)
    model.twin = model.fc.weight
    with place(model) as convert:
        assert model.twin is model.fc.weight
        given = convert({"a": x, "b": [x, model]})
        assert given["a"] is given["b"][0]
        assert given["b"][1] is model


@given(st.sampled_from([torch.float32, torch.float16, torch.int64, torch.bool, torch.complex64]), st.booleans(),
       st.lists(st.integers(0, 3), max_size=3))  # fmt: skip
def test_what_is_made_of_a_tensor_is_like_it(dtype: torch.dtype, grad: bool, shape: list[int]) -> None:
    x = torch.zeros(shape, dtype=dtype, requires_grad=grad and dtype.is_floating_point)
    for place in (copied, imagined):
        with place(nn.Identity()) as convert:
            twin = convert(x)
        assert (twin.shape, twin.dtype, twin.device, twin.stride()) == (x.shape, x.dtype, x.device, x.stride())
        assert (twin.requires_grad, twin.is_leaf) == (x.requires_grad, True)


def test_weights_of_the_meta_device_are_imagined_where_inputs_are() -> None:
    model = nn.Linear(3, 2, device="meta")
    with imagined(model) as convert:
        assert model(convert(torch.zeros(1, 3))).device.type == "cpu"
    assert model.weight.is_meta


@BOTH
def test_generators_go_on_as_if_nothing_had_run(place: Place) -> None:
    expected = kept(lambda: None)
    assert kept(lambda: drawn(place)) == expected


def drawn(place: Place) -> None:
    with place(nn.Dropout()):
        random.random()
        np.random.rand()
        torch.manual_seed(5)


def kept(between: Callable[[], Any]) -> tuple[Any, ...]:
    """What the generators give after something has run."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    between()
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_generators_are_put_back_after_an_error() -> None:
    before = random.getstate(), torch.get_rng_state()
    with pytest.raises(ValueError, match="invalid literal"), kept_random_state():
        int(f"x{random.random()}{torch.rand(1)}")
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_the_users_hooks_are_out_of_the_way_and_torchs_own_are_not() -> None:
    fired: list[str] = []
    model = nn.utils.spectral_norm(nn.Linear(3, 2))
    model.register_forward_hook(lambda *_: fired.append("own"))
    everywhere = nn_module.register_module_forward_hook(lambda *_: fired.append("global"))
    try:
        with copied(model) as convert:
            model(convert(torch.zeros(1, 3)))
        assert fired == []
        with copied(model, with_hooks=True) as convert:
            model(convert(torch.zeros(1, 3)))
        assert fired == ["own"]
        model(torch.zeros(1, 3))
        assert sorted(fired[1:]) == ["global", "own"]
    finally:
        everywhere.remove()


def test_gradients_are_off_on_copies() -> None:
    model = Model()
    with copied(model) as convert:
        assert not model(convert(torch.zeros(1, 3))).requires_grad
    assert torch.is_grad_enabled()


def test_warnings_and_torchs_logger_are_quiet_within_only() -> None:
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    with quiet():
        warnings.warn("not heard", stacklevel=1)
        within = logger.disabled
    assert (within, logger.disabled) == (True, False)
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*is deprecated")
def test_scripted_parts_are_left_as_they_are() -> None:
    model = nn.Sequential(torch.jit.script(nn.Linear(3, 2)), nn.Linear(2, 2))
    with copied(model) as convert:
        assert model(convert(torch.zeros(1, 3))).shape == (1, 2)
