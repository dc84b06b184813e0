"""Looking for the origin leaves the program as it was: weights, gradients, buffers, random state, hooks, memory."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from origin_programs import PROGRAMS, around
from test_origin_models import BODIES
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

from tensorscope.live.origin import find_origin, remember
from tensorscope.run.origin import Direction, Origin


def facts(model: nn.Module) -> dict[str, Any]:
    """All about a model that a pass could change."""
    tensors = {name: (t, t._version, t.data_ptr()) for name, t in model.state_dict(keep_vars=True).items()}
    found: dict[str, Any] = {name: (id(t), version, place) for name, (t, version, place) in tensors.items()}
    found |= {f"{name} values": t.detach().clone() for name, (t, _, _) in tensors.items()}
    grads = {name: p.grad for name, p in model.named_parameters()}
    found |= {f"{name} gradient": (id(g), None if g is None else g._version) for name, g in grads.items()}
    for path, module in model.named_modules():
        attributes = {key: str(value) for key, value in vars(module).items() if not key.startswith("_modules")}
        found[f"module {path}"] = (module.training, type(module), set(vars(module)), attributes)
    found["numbers"] = (random.getstate(), str(np.random.get_state()), torch.get_rng_state())
    found["modes"] = (torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch._C._len_torch_function_stack())
    found["hooks"] = [len(hooks) for hooks in (nn_module._global_forward_hooks, nn_module._global_forward_pre_hooks,
                                               nn_module._global_forward_hooks_always_called)]  # fmt: skip
    return found


def same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return torch.equal(before.nan_to_num(7), after.nan_to_num(7))
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(same(before[key], after[key]) for key in before)
    if isinstance(before, tuple | list):
        return len(before) == len(after) and all(map(same, before, after))
    return bool(before == after)


def left_alone(model: nn.Module, x: Tensor) -> Origin:
    """Look for the origin, and check that nothing has changed."""
    pass_ = remember(model, (x,), {})
    model(x).square().sum().backward()
    before, given, version = facts(model), x.clone(), x._version
    found = find_origin(pass_, model)
    assert same(before, facts(model))
    assert same(given, x)
    assert x._version == version
    return found


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_models_are_as_they_were(body: Callable[[], nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(6, 6), body(), around(PROGRAMS["sqrt_at_zero"].run), nn.Linear(6, 2))
    assert left_alone(model, torch.randn(3, 5, 6)).op == "sqrt"


@pytest.mark.parametrize(
    "name", ["divides_in_place", "sqrt_in_place", "checkpointed_backward_reentrant", "own_function"]
)
def test_sick_programs_are_as_they_were(name: str) -> None:
    left_alone(around(PROGRAMS[name].run), torch.randn(4, 6))


class Careless(nn.Module):
    """Changes all that there is to change."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.fc = nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 6)
        self.register_buffer("count", torch.zeros(1))
        self.plain, self.seen = torch.zeros(2), [1]
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(2)
        self.count += 1  # type: ignore[operator,misc]
        self.plain.add_(1)
        self.drop.p = 0.3
        print("running", random.random(), np.random.rand())
        y = self.fc(self.drop(self.norm(x)))
        self.kept = y
        return y + (y * 0).sqrt()


def test_a_careless_model_is_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    model, x = Careless(), torch.randn(4, 6)
    pass_ = remember(model, (x,), {})
    model(x).square().sum().backward()
    before = facts(model)
    capfd.readouterr()
    assert find_origin(pass_, model).op == "sqrt"
    assert capfd.readouterr() == ("", "")
    assert same(before, facts(model))
    assert model.calls == 1


class Writes(nn.Module):
    """Writes to its own weights in the forward."""

    def __init__(self, how: Callable[[nn.Parameter], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, 6))
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.how(self.weight)
        y = x @ self.weight
        return y + (y * 0).sqrt()


@pytest.mark.parametrize("how", [
    lambda w: w.mul_(0.5), lambda w: w.data.clamp_(-1, 1), lambda w: w[0].fill_(2), lambda w: w.view(-1)[3:].zero_(),
    lambda w: torch.add(w, 1, out=w), lambda w: torch._foreach_mul_([w], 0.5), lambda w: w.copy_(w.clone()),
    lambda w: w.__setitem__(0, 3.0), nn.init.uniform_,
], ids=["mul", "data", "row", "view", "out", "foreach", "copy", "setitem", "init"])  # fmt: skip
def test_weights_that_the_forward_writes_to_are_copied_first(how: Callable[[nn.Parameter], Any]) -> None:
    found = left_alone(Writes(how), torch.randn(4, 6))
    assert (found.direction, found.op, found.sure) == (Direction.BACKWARD, "sqrt", True)


def test_an_embedding_that_renormalises_its_weights_is_as_it_was() -> None:
    model = nn.Sequential(nn.Embedding(5, 6, max_norm=1.0), *around(PROGRAMS["sqrt_at_zero"].run))
    assert left_alone(model, torch.randint(0, 5, (4,))).op == "sqrt"


def test_parameters_that_are_not_written_to_are_not_copied() -> None:
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(6))

        def forward(self, x: Tensor) -> Tensor:
            places.append(self.weight.data_ptr())
            return (x * self.weight * 0).sqrt()

    places: list[int] = []
    left_alone(Looks(), torch.randn(4, 6))
    assert len(places) > 1
    assert len(set(places)) == 1


def test_a_parameter_that_is_not_registered_is_not_written_to() -> None:
    class Hides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 6)
            self.hidden = [nn.Parameter(torch.zeros(6))]

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.hidden[0] += 1
            y = self.fc(x)
            return y + (y * 0).sqrt() + self.hidden[0]

    model = Hides()
    assert left_alone(model, torch.randn(4, 6)).op == "sqrt"
    assert torch.equal(model.hidden[0].detach(), torch.ones(6))


def test_hooks_of_the_users_do_not_fire() -> None:
    fired: list[str] = []
    model = around(PROGRAMS["sqrt_at_zero"].run)
    model[0].register_forward_hook(lambda *_: fired.append("module"))
    model[1].register_full_backward_hook(lambda *_: fired.append("backward"))
    model[0].weight.register_hook(lambda _: fired.append("gradient"))
    model[0].weight.register_post_accumulate_grad_hook(lambda _: fired.append("accumulated"))
    everywhere = nn_module.register_module_forward_hook(lambda *_: fired.append("global"))
    x = torch.randn(4, 6)
    try:
        pass_ = remember(model, (x,), {})
        model(x).sum().backward()
        assert {"module", "backward", "gradient", "accumulated", "global"} <= set(fired)
        fired.clear()
        assert find_origin(pass_, model).op == "sqrt"
    finally:
        everywhere.remove()
    assert fired == []


def test_a_generator_of_the_users_goes_on_where_it_was() -> None:
    generator = torch.Generator().manual_seed(3)
    model, x = around(lambda y: y + torch.rand(6, generator=generator) + (y * 0).sqrt()), torch.randn(4, 6)
    pass_ = remember(model, (x,), {})
    model(x).sum().backward()
    state = generator.get_state()
    assert find_origin(pass_, model).op == "sqrt"
    assert torch.equal(generator.get_state(), state)


def test_no_tensor_is_kept_alive() -> None:
    made: list[weakref.ref[Tensor]] = []

    def keep(x: Tensor) -> Tensor:
        y = x * 0
        made.append(weakref.ref(y))
        return x + y.sqrt()

    model, x = around(keep), torch.randn(4, 6)
    pass_ = remember(model, (x,), {})
    model(x).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters()), "asking makes Python's side of it"
    gc.collect()
    before = sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())
    gc.disable()
    try:
        found = find_origin(pass_, model)
        alive = [one() for one in made if one() is not None]
        after = sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())
    finally:
        gc.enable()
    assert found.op == "sqrt"
    assert (alive, after) == ([], before)


def test_a_training_goes_on_bit_by_bit_as_without() -> None:
    def train(look: bool) -> list[Tensor]:
        torch.manual_seed(1)
        model = nn.Sequential(
            nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.ReLU(inplace=True), nn.Linear(6, 2)
        )
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(5):
            x = torch.randn(8, 6)
            pass_ = remember(model, (x,), {})
            optimizer.zero_grad()
            F.mse_loss(model(x), torch.randn(8, 2)).backward()
            if look:
                find_origin(pass_, model)
            optimizer.step()
        return [*(t.detach().clone() for t in model.state_dict().values()), torch.rand(3)]

    assert all(map(torch.equal, train(look=False), train(look=True)))


# --- what cannot be run again -----------------------------------------------------------------------------------------


def test_a_forward_that_raises_the_second_time_says_so() -> None:
    calls: list[int] = []

    def once(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 1:
            raise KeyError("only once")
        return x / (x * 0)

    model, x = around(once), torch.randn(4, 6)
    found = left_alone(model, x)
    assert (found.direction, found.sure) == (Direction.UNKNOWN, False)
    assert "KeyError: 'only once'" in found.note


def test_of_a_forward_that_raises_the_second_time_a_bad_input_is_told() -> None:
    calls: list[int] = []

    def once(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 1:
            raise KeyError("only once")
        return x

    model, x = around(once), torch.randn(4, 6)
    x[0, 0] = float("nan")
    found = left_alone(model, x)
    assert (found.direction, found.site, found.sure) == (Direction.INPUT, "input", False)


def test_a_forward_that_is_finite_the_second_time_leaves_doubt() -> None:
    def lucky(x: Tensor) -> Tensor:
        return x / (0.0 if random.random() < draws.pop(0) else 1.0)

    draws = [1.0, 0.0, 0.0]
    model, x = around(lucky), torch.randn(4, 6)
    found = left_alone(model, x)
    assert (found.direction, found.sure) == (Direction.LOSS, False)
    assert "Python's" in found.note


def test_an_input_that_was_written_to_afterwards_leaves_doubt() -> None:
    model, x = around(torch.tanh), torch.randn(4, 6)
    pass_ = remember(model, (x,), {})
    (model(x).sum() * float("nan")).backward()
    x.zero_()
    found = find_origin(pass_, model)
    assert (found.direction, found.sure) == (Direction.LOSS, False)
    assert "written to" in found.note


def test_several_passes_leave_doubt() -> None:
    model, x = around(torch.tanh), torch.randn(4, 6)
    pass_ = remember(model, (x,), {})
    (model(x).sum() * float("nan")).backward()
    assert find_origin(pass_, model).sure
    assert not find_origin(pass_, model, passes=4).sure
    assert find_origin(pass_, model, step=7).step == 7


def test_a_gradient_that_was_finite_behind_a_module_is_laid_to_that_modules_backward() -> None:
    model, x = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)), torch.randn(4, 6)
    pass_ = remember(model, (x,), {})
    model(x).sum().backward()
    weight = model[0].weight
    weight.grad = torch.full_like(weight, float("inf"))
    found = find_origin(pass_, model)
    assert (found.direction, found.module, found.sure) == (Direction.BACKWARD, "0", False)


def test_remembering_copies_no_tensor() -> None:
    model, x = nn.Linear(3, 3), torch.randn(2, 3)
    pass_ = remember(model, (x,), {})
    assert pass_.args[0] is x
    assert pass_.module is model


def test_the_same_is_found_in_data_parallel_wrappers() -> None:
    model = nn.DataParallel(around(PROGRAMS["sqrt_at_zero"].run))
    found = left_alone(model, torch.randn(4, 6))
    assert (found.op, found.module) == ("sqrt", "module.1")
