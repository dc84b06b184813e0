"""Running a failed program again leaves nothing behind: not in its modules, its tensors, or the random state."""

from __future__ import annotations

import copy
import logging
import random
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch
from crashes import Flattened, caught, images
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

from tensorscope.live.postmortem.crash import read_crash
from tensorscope.live.postmortem.programs import module_call
from tensorscope.live.postmortem.replay import Edit, Program, replay

REAL = pytest.mark.parametrize("real", [True, False], ids=["copies", "fakes"])


def failed(model: nn.Module, *args: Any) -> Program:
    """The call of a model that raised."""
    entry = read_crash(caught(model, *args)).entry
    assert entry is not None
    return module_call(entry)


class Careless(nn.Module):
    """Changes all there is to change before it fails."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 2)
        self.register_buffer("count", torch.zeros(1))
        self.plain, self.seen, self.cache = torch.zeros(2), [1], {"steps": [0]}
        self.calls = 0

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        self.late = x
        self.seen.append(2)
        self.cache["steps"].append(len(self.seen))
        self.count += 1
        self.plain.add_(1)
        x.mul_(2)
        with torch.no_grad():
            self.fc.weight.fill_(7)
        self.eval()
        self.train()
        self.drop.p = 0.9
        self.fc.register_forward_hook(lambda *_: None)
        self.extra = nn.Linear(1, 1)
        print("running", random.random(), np.random.rand(), torch.rand(1))
        return self.fc(self.drop(self.norm(x)))


def state(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that a run could change, copied."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        plain = {
            key: value for key, value in vars(module).items() if not key.startswith(("_modules", "_param", "_buff"))
        }
        found[path] = (type(module), set(vars(module)), copy.deepcopy(plain), set(module._modules))
    return found | {key: value.clone() for key, value in model.state_dict().items()}


def same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return isinstance(after, Tensor) and torch.equal(before, after)
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(same(before[key], after[key]) for key in before)
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(same, before, after))
    return bool(before == after)


@pytest.fixture
def careless() -> tuple[Careless, Tensor, Program]:
    """A model whose call failed, its state as the failed call left it."""
    model, x = Careless(), torch.randn(5, 3)
    return model, x, failed(model, x)


@REAL
def test_a_replay_leaves_modules_inputs_and_random_state_as_they_were(
    real: bool, careless: tuple[Careless, Tensor, Program], capfd: pytest.CaptureFixture[str]
) -> None:
    model, x, program = careless
    capfd.readouterr()
    versions = [x._version, *(weight._version for weight in model.state_dict(keep_vars=True).values())]
    before, given = state(model), x.clone()
    kept = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    seen = replay(program, real=real)
    assert seen.failure is not None
    assert same(before, state(model))
    assert torch.equal(x, given)
    assert [x._version, *(w._version for w in model.state_dict(keep_vars=True).values())] == versions
    assert random.getstate() == kept[0]
    assert str(np.random.get_state()) == kept[1]
    assert torch.equal(torch.get_rng_state(), kept[2])
    assert capfd.readouterr() == ("", "")
    assert not nn_module._global_forward_hooks
    assert not nn_module._global_forward_pre_hooks
    assert not nn_module._global_forward_hooks_always_called


@REAL
@pytest.mark.parametrize(
    "kind",
    [
        nn.Identity,
        nn.Bilinear,
        pytest.param(
            ValueError,
        ),
    ],
)
def test_classes_are_swapped_back_whatever_takes_their_place(
    real: bool, kind: Any, careless: tuple[Careless, Tensor, Program]
) -> None:
    model, _, program = careless
    before, own = state(model), vars(model.fc)

    def make(_: nn.Module) -> nn.Module:
        if kind is ValueError:
            raise ValueError("cannot be made")
        return nn.Bilinear(1, 1, 1) if kind is nn.Bilinear else nn.Identity()

    edit = Edit(modules={"norm": lambda _: nn.LayerNorm(3), "fc": make}, settings={"drop": {"p": 0.1}})
    if kind is ValueError:
        with pytest.raises(ValueError, match="cannot be made"):
            replay(program, edit, real=real)
    else:
        replay(program, edit, real=real)
    assert type(model.fc) is nn.Linear
    assert type(model.norm) is nn.BatchNorm1d
    assert vars(model.fc) is own
    assert same(before, state(model))


@REAL
def test_a_change_that_raises_in_the_middle_is_a_failure_and_leaves_nothing(
    real: bool, careless: tuple[Careless, Tensor, Program]
) -> None:
    model, _, program = careless

    def refuse(_: Any) -> Any:
        raise ZeroDivisionError("no such change")

    before = state(model)
    failure = replay(program, Edit(entering={"norm": refuse}), real=real).failure
    assert failure is not None
    assert isinstance(failure.error, ZeroDivisionError)
    assert same(before, state(model))


def test_an_interrupt_goes_through_and_leaves_nothing() -> None:
    class Interrupted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.fc.weight.data.zero_()
            raise KeyboardInterrupt

    model, x = Interrupted(), torch.zeros(1, 2)
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        replay(Program(model, lambda convert: model(convert(x)), {"x": x}))
    assert same(before, state(model))
    assert not nn_module._global_forward_hooks


def test_the_users_hooks_fire_only_where_they_are_part_of_the_program() -> None:
    model, fired = Flattened(), []
    model.conv.register_forward_hook(lambda *_: fired.append("hook"))
    program = failed(model, images())
    fired.clear()
    replay(program)
    assert fired == []
    assert len(model.conv._forward_hooks) == 1


def test_the_users_global_hooks_do_not_fire_and_are_there_afterwards() -> None:
    program, fired = failed(Flattened(), images()), []
    handle = nn_module.register_module_forward_hook(lambda *_: fired.append("hook"))
    try:
        replay(program)
        assert fired == []
        assert list(nn_module._global_forward_hooks) == [handle.id]
    finally:
        handle.remove()


@REAL
def test_weights_that_two_modules_share_stay_shared(real: bool) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 3), nn.Linear(3, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: Tensor) -> Tensor:
            assert self.head.weight is self.embed.weight
            return self.head(self.embed(ids)) + ids.new_zeros(5)  # type: ignore[no-any-return]

    model = Tied()
    failure = replay(failed(model, torch.zeros(2, 4, dtype=torch.long)), real=real).failure
    assert failure is not None
    assert failure.op == "add"
    assert model.head.weight is model.embed.weight


def test_two_replays_at_once_put_back_what_was_there_before_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    stdout, began, entered, ended = sys.stdout, threading.Event(), threading.Event(), threading.Event()

    def first(_: Any) -> None:
        began.set()
        entered.wait(0.3)  # where the second has to wait for the first, it does not come

    def second(_: Any) -> None:
        entered.set()
        ended.wait(0.3)

    later = threading.Thread(target=lambda: began.wait() and replay(Program(nn.Identity(), second, {})))
    later.start()
    replay(Program(nn.Identity(), first, {}))
    ended.set()
    later.join()
    left = list(nn_module._global_forward_hooks), logging.getLogger("torch._subclasses.fake_tensor").disabled
    for hooks in (nn_module._global_forward_hooks, nn_module._global_forward_pre_hooks):
        hooks.clear()
    logging.getLogger("torch._subclasses.fake_tensor").disabled = False
    assert left == ([], False)
    assert sys.stdout is stdout
