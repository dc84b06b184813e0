"""What happens to gradients before an optimizer gets them is seen from a sample."""

from __future__ import annotations

import copy
import functools
import gc
import math
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.amp import GradScaler
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.lr_scheduler import StepLR

from tensorscope.live.clipping import ELEMENTS, PARAMETERS, Clipping, ClipWatch, Comparison
from tensorscope.live.hooks import guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 32), nn.Tanh(), nn.Linear(32, 3))


def backward(model: nn.Module) -> None:
    model(torch.randn(4, 2, 8, 8)).square().sum().backward()


def compared(model: nn.Module, between: Callable[[], object]) -> Comparison | None:
    """What a watch makes of one step in which something happens after backward."""
    watch = ClipWatch()
    seen = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.register_step_pre_hook(lambda o, *_: seen.append(watch.compare(o)))
    watch.watch(model.parameters())
    backward(model)
    between()
    optimizer.step()
    watch.end()
    return seen[0] if seen else None


def read(model: nn.Module, between: Callable[[], object]) -> Clipping | None:
    seen = compared(model, between)
    assert seen is not None
    return seen.read()


def gradients(model: nn.Module) -> Iterator[torch.Tensor]:
    return (p.grad for p in model.parameters() if p.grad is not None)


def norm(model: nn.Module) -> float:
    return float(torch.stack([g.norm() for g in gradients(model)]).norm())


def test_gradients_untouched_or_within_the_limit_have_the_factor_one_exactly(model: nn.Module) -> None:
    assert read(model, lambda: None) == Clipping(1.0)
    assert read(model, lambda: clip_grad_norm_(model.parameters(), 1e6)) == Clipping(1.0)
    assert read(model, lambda: clip_grad_value_(model.parameters(), 1e6)) == Clipping(1.0)


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_clipping_by_norm_is_the_factor_that_torch_used(foreach: bool, dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 3)).to(dtype)
    watch = ClipWatch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch.watch(model.parameters())
    model(torch.randn(4, 16, dtype=dtype)).square().sum().backward()
    before = norm(model)
    clip_grad_norm_(model.parameters(), 0.37 * before, foreach=foreach)
    seen = watch.compare(optimizer)
    assert seen is not None
    done = seen.read()
    assert done is not None
    assert done.factor == pytest.approx(0.37, rel=max(1e-5, 2 * torch.finfo(dtype).eps))  # norm + 1e-6
    assert (done.limit, done.unscale) == (None, 1.0)


def test_clipping_by_value_says_its_limit_and_what_is_left_of_the_norm(model: nn.Module) -> None:
    before: list[float] = []

    def clip() -> None:
        before.append(max(float(g.abs().max()) for g in gradients(model)))
        clip_grad_value_(model.parameters(), 0.05 * before[0])

    done = read(model, clip)
    assert done is not None
    assert done.limit == pytest.approx(0.05 * before[0], rel=1e-6)
    assert 0 < done.factor < 1


def test_gradients_that_are_all_clamped_are_not_taken_for_scaled() -> None:
    model = nn.Linear(8, 4)
    watch = ClipWatch()
    watch.watch(model.parameters())
    model(torch.randn(3, 8)).square().sum().backward()
    clip_grad_value_(model.parameters(), 1e-6)
    seen = watch.compare(torch.optim.SGD(model.parameters()))
    done = seen and seen.read()
    assert done is not None
    assert done.limit == pytest.approx(1e-6)


class TestGradScaler:
    """A scaler's division is told apart from clipping."""

    def step(self, model: nn.Module, clip: float | None = None, *, fused: bool = False, scale: float = 2.0**16):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
        scaler = GradScaler("cpu", init_scale=scale)
        watch, seen = ClipWatch(), []
        optimizer.register_step_pre_hook(lambda o, *_: seen.append(watch.compare(o)))
        StepLR(optimizer, 1)  # wraps `optimizer.step`
        watch.watch(model.parameters())
        scaler.scale(model(torch.randn(4, 2, 8, 8)).square().sum()).backward()
        if clip is not None:
            scaler.unscale_(optimizer)
            clip_grad_norm_(model.parameters(), clip * norm(model))
        scaler.step(optimizer)
        return seen[0].read() if seen else None

    def test_unscaling_alone_is_no_clipping(self, model: nn.Module) -> None:
        assert self.step(model) == Clipping(1.0, unscale=2.0**-16)

    def test_unscaling_and_clipping_are_told_apart(self, model: nn.Module) -> None:
        done = self.step(model, 0.25)
        assert done is not None
        assert done.factor == pytest.approx(0.25, rel=1e-5)
        assert done.unscale == 2.0**-16

    def test_a_scale_that_is_no_power_of_two_is_divided_out(self, model: nn.Module) -> None:
        done = self.step(model, scale=1000.0)
        assert done is not None
        assert (done.factor, done.unscale) == (1.0, pytest.approx(1e-3))

    def test_a_fused_optimizer_that_unscales_by_itself_is_given_untouched_gradients(self, model: nn.Module) -> None:
        assert self.step(model, fused=True) == Clipping(1.0)

    def test_a_fused_optimizer_after_unscaling_and_clipping(self, model: nn.Module) -> None:
        done = self.step(model, 0.5, fused=True)
        assert done is not None
        assert (done.factor, done.unscale) == (pytest.approx(0.5, rel=1e-5), 2.0**-16)

    def test_a_step_that_is_skipped_says_nothing(self, model: nn.Module) -> None:
        assert self.step(model, scale=3e38) is None

    def test_a_scaler_that_is_switched_off_is_none(self, model: nn.Module) -> None:
        optimizer, scaler = torch.optim.SGD(model.parameters()), GradScaler("cpu", enabled=False)
        watch, found = ClipWatch(), []
        optimizer.register_step_pre_hook(lambda o, *_: found.append(watch.compare(o)))
        watch.watch(model.parameters())
        backward(model)
        scaler.step(optimizer)
        assert found[0].read() == Clipping(1.0)

    def test_a_scaler_of_ones_own_is_known_by_its_power_of_two(self, model: nn.Module) -> None:
        def divide() -> None:
            for gradient in gradients(model):
                gradient.div_(1024)

        assert read(model, divide) == Clipping(1.0, unscale=1 / 1024)


def test_the_sum_of_several_backwards_is_what_counts(model: nn.Module) -> None:
    def twice_more() -> None:
        backward(model)
        backward(model)
        clip_grad_norm_(model.parameters(), 0.1 * norm(model))

    done = read(model, twice_more)
    assert done is not None
    assert done.factor == pytest.approx(0.1, rel=1e-5)


def test_adding_noise_or_turning_the_sign_is_neither(model: nn.Module) -> None:
    assert read(model, lambda: [gradient.neg_() for gradient in gradients(model)]) is None

    def disturb() -> None:
        for gradient in gradients(model):
            gradient.add_(torch.randn_like(gradient))

    assert read(model, disturb) is None


def test_gradients_of_zeros_say_nothing() -> None:
    model = nn.Linear(3, 2)
    watch = ClipWatch()
    watch.watch(model.parameters())
    (0 * model(torch.ones(1, 3))).sum().backward()
    seen = watch.compare(torch.optim.SGD(model.parameters()))
    assert seen is not None
    assert seen.read() is None
    assert math.isnan(seen.factor())


def test_a_single_infinite_gradient_does_not_hide_the_factor(model: nn.Module) -> None:
    def spoil() -> None:
        model[0].weight.grad.view(-1)[0] = math.inf

    seen = compared(model, spoil)
    assert seen is not None
    assert seen.read() is None  # it came after the sample: not what backward gave
    before, after = torch.tensor([[1.0, math.inf, 2.0], [0.5, math.nan, 1.0]])
    assert Comparison(before, after, torch.tensor(1.0), 1e-7, 1e-45).read() == Clipping(0.5)


def test_sparse_gradients_say_nothing() -> None:
    model = nn.Embedding(5, 3, sparse=True)
    watch = ClipWatch()
    watch.watch(model.parameters())
    model(torch.tensor([1, 2])).sum().backward()
    assert watch.compare(torch.optim.SparseAdam(model.parameters())) is None


def test_without_a_backward_there_is_nothing_to_compare(model: nn.Module) -> None:
    watch = ClipWatch()
    optimizer = torch.optim.SGD(model.parameters())
    assert watch.compare(optimizer) is None
    watch.watch(model.parameters())
    assert watch.compare(optimizer) is None


def test_each_optimizer_is_compared_by_its_own_parameters(model: nn.Module) -> None:
    first, second = (torch.optim.SGD(part.parameters()) for part in (model[0], model[4]))
    watch = ClipWatch()
    watch.watch(model.parameters())
    backward(model)
    clip_grad_norm_(model[4].parameters(), 1e-3)
    untouched, clipped = watch.compare(first), watch.compare(second)
    assert untouched is not None
    assert clipped is not None
    assert untouched.factor() == 1.0
    assert 0 < clipped.factor() < 0.5
    assert watch.compare(torch.optim.SGD(nn.Linear(1, 1).parameters())) is None


def test_a_transposed_or_replaced_gradient_is_compared_or_left_alone(model: nn.Module) -> None:
    model = model.to(memory_format=torch.channels_last)
    done = read(model, lambda: clip_grad_norm_(model.parameters(), 0.5 * norm(model)))
    assert done is not None
    assert done.factor == pytest.approx(0.5, rel=1e-5)

    def drop() -> None:
        for parameter in model.parameters():
            parameter.grad = None

    assert compared(model, drop) is None


def test_few_hooks_are_spread_over_all_parameters_and_taken_off_without_a_trace() -> None:
    layers = nn.Sequential(*(nn.Linear(40, 40) for _ in range(50)))
    layers[0].requires_grad_(False)
    watch = ClipWatch()
    watch.watch(layers.parameters())
    hooked = [name for name, p in layers.named_parameters() if p._post_accumulate_grad_hooks]
    assert len(hooked) == PARAMETERS
    assert {int(name.split(".")[0]) // 10 for name in hooked} == {0, 1, 2, 3}
    layers(torch.randn(2, 40)).sum().backward()
    seen = watch.compare(torch.optim.SGD(layers.parameters()))
    assert seen is not None
    assert 0 < seen.before.numel() <= PARAMETERS * ELEMENTS
    watch.end()
    assert all(p._post_accumulate_grad_hooks is None for p in layers.parameters())


def test_other_parameters_are_chosen_when_one_is_frozen_or_gone() -> None:
    layers = nn.Sequential(*(nn.Linear(2, 2) for _ in range(8)))
    watch = ClipWatch()

    def hooked() -> set[str]:
        watch.watch(layers.parameters())
        return {name for name, p in layers.named_parameters() if p._post_accumulate_grad_hooks}

    assert hooked() == hooked() == {"0.weight", "2.weight", "4.weight", "6.weight"}
    layers[0].weight.requires_grad_(False)
    assert hooked() == {"0.bias", "2.bias", "4.bias", "6.bias"}
    watch.end()
    layers[2] = nn.Linear(2, 2, bias=False)
    gc.collect()
    assert "2.bias" not in hooked()
    assert len(hooked()) == PARAMETERS


def test_hooks_of_the_users_own_stay_and_fire() -> None:
    weight = nn.Parameter(torch.ones(3))
    fired = []
    weight.register_post_accumulate_grad_hook(lambda _: fired.append(1))
    watch = ClipWatch()
    for _ in range(3):
        watch.watch([weight])
        weight.square().sum().backward()
    watch.end()
    weight.square().sum().backward()
    assert (len(fired), len(weight._post_accumulate_grad_hooks)) == (4, 1)


def test_a_failure_to_look_does_not_reach_the_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = []
    listener = SimpleNamespace(failed=failures.append)
    watch = ClipWatch(functools.partial(guarded, listener))
    monkeypatch.setattr(watch, "_keep", lambda _: 1 / 0)
    weight = nn.Parameter(torch.ones(3))
    watch.watch([weight])
    weight.sum().backward()
    assert [type(error) for error in failures] == [ZeroDivisionError]


def test_an_optimizer_that_steps_within_backward_is_left_in_peace() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    watch = ClipWatch()
    seen = []
    optimizer.register_step_pre_hook(lambda o, *_: seen.append(watch.compare(o)))

    def step(_: torch.Tensor) -> None:
        optimizer.step()
        optimizer.zero_grad()

    weight.register_post_accumulate_grad_hook(step)
    watch.watch([weight])
    weight.sum().backward()
    assert seen == [None]
    assert weight.tolist() == [0.5] * 3


def test_watching_changes_no_number_and_keeps_nothing_alive(model: nn.Module) -> None:
    twin = copy.deepcopy(model)
    watch = ClipWatch()
    for one in (model, twin):
        torch.manual_seed(1)
        optimizer = torch.optim.Adam(one.parameters())
        for _ in range(3):
            if one is model:
                watch.watch(one.parameters())
            optimizer.zero_grad()
            backward(one)
            clip_grad_norm_(one.parameters(), 0.1)
            if one is model:
                watch.compare(optimizer)
            optimizer.step()
    state = torch.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state())


def test_between_steps_no_gradient_is_kept_alive_and_afterwards_no_parameter() -> None:
    layer = nn.Linear(100, 100)
    watch = ClipWatch()
    watch.watch(layer.parameters())
    layer(torch.ones(1, 100)).sum().backward()
    gradient, weight = weakref.ref(layer.weight.grad), weakref.ref(layer.weight)
    layer.zero_grad()
    gc.collect()
    assert gradient() is None
    watch.end()
    del layer
    gc.collect()
    assert weight() is None


Numbers = st.lists(st.floats(-1e3, 1e3, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3), min_size=2, max_size=30)


@given(Numbers, st.floats(1e-3, 1.0, exclude_max=True), st.sampled_from([1.0, 3.0, 1024.0, 65536.0]))
def test_a_factor_is_found_whatever_the_gradients_and_the_scale(
    values: list[float], factor: float, scale: float
) -> None:
    before = torch.tensor(values)
    after = (before / scale) * factor
    done = Comparison(before, after, torch.tensor(scale), 2**-23, 1e-45).read()
    expected = Clipping(pytest.approx(factor, rel=1e-5), None, 1 / scale) if before.any() else None
    assert done == expected


@given(Numbers, st.floats(0.01, 0.99))
def test_a_clamp_is_found_wherever_it_clamps_some_and_not_all(values: list[float], share: float) -> None:
    sizes = sorted({abs(value) for value in values})
    if len(sizes) < 2 or sizes[-2] == 0:
        return
    before = torch.tensor(values)
    limit = float(np.float32(share * sizes[-1]))
    done = Comparison(before, before.clamp(-limit, limit), None, 2**-23, 1e-45).read()
    assert done is not None
    assert done.limit == pytest.approx(limit)
    assert done.factor == pytest.approx(float(before.clamp(-limit, limit).norm() / before.norm()), rel=1e-5)
