"""Looking for silent mistakes changes nothing, and leaves nothing behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tensorscope import diagnose, open_run, trace
from tensorscope.live.silent import mistakes
from tensorscope.live.silent.watch import Watch


class Net(nn.Module):
    """A network with dropout, so that the random state matters."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(F.dropout(torch.tanh(self.a(x)), 0.3))
        return out


def stack() -> int:
    return int(torch._C._len_torch_function_stack())


def train(model: nn.Module, steps: int = 3, loss: Callable[[Tensor, Tensor], Tensor] | None = None) -> list[Tensor]:
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    for _ in range(steps):
        x, y = torch.randn(6, 5), torch.randn(6)
        optimizer.zero_grad()
        value = (loss or (lambda out, y: ((out - y) ** 2).mean()))(model(x), y)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seen += [value.detach(), torch.rand(2), *(p.detach().clone() for p in model.parameters())]
    return seen


def fresh() -> Net:
    torch.manual_seed(0)
    return Net()


def test_a_traced_training_with_a_mistake_gives_the_same_bits(tmp_path: Path) -> None:
    plain = train(fresh())
    model = fresh()
    with trace(model, tmp_path / "run", every=1) as session:
        traced = train(model)
        assert [finding.rule for finding in session.findings()] == ["loss_broadcasting"]
    assert all(torch.equal(a, b) for a, b in zip(plain, traced, strict=True))
    assert stack() == 0


def test_findings_are_in_the_run_after_closing(tmp_path: Path) -> None:
    with trace(model := fresh(), tmp_path / "run", every=1):
        train(model)
    run = open_run(tmp_path / "run")
    (found,) = diagnose(run)
    assert run.findings == [found]
    assert (found.site, found.first_step) == ("loss", 0)
    assert "(6, 1) and (6,) broadcast to (6, 6)" in found.summary
    assert "test_silent_harmless.py:" in found.summary
    run.close()


def test_the_mode_is_gone_when_the_optimizer_steps(tmp_path: Path) -> None:
    model = fresh()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    depths = []
    optimizer.register_step_post_hook(lambda *_: depths.append(stack()))
    with trace(model, tmp_path / "run", every=1):
        for _ in range(2):
            loss = model(torch.randn(6, 5)).mean()
            depths.append(stack())
            loss.backward()
            optimizer.step()
    assert depths == [1, 0, 0, 0]


def test_closing_between_forward_and_step_takes_the_mode_off(tmp_path: Path) -> None:
    model = fresh()
    with trace(model, tmp_path / "run", every=1):
        model(torch.randn(6, 5))
        assert stack() == 1
    assert stack() == 0


class Counting(TorchFunctionMode):
    """Counts what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += 1
        return func(*args, **(kwargs or {}))


def test_a_mode_around_the_forward_keeps_its_place(tmp_path: Path) -> None:
    model = fresh()
    with trace(model, tmp_path / "run", every=1), Counting() as mode:
        model(torch.randn(6, 5))
        assert torch._C._get_function_stack_at(stack() - 1) is mode
        assert stack() == 1
    assert stack() == 0


def test_a_mode_entered_before_the_step_and_left_after_it_stays(tmp_path: Path) -> None:
    model = fresh()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with trace(model, tmp_path / "run", every=1):
        out = model(torch.randn(6, 5))
        with Counting() as mode:
            out.mean().backward()
            optimizer.step()
            assert stack() == 1
            before = mode.seen
            torch.ones(2) + 1
            assert mode.seen > before
    assert stack() == 0


def test_a_failing_watch_leaves_the_training_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, *_: object) -> None:
        raise ValueError("broken")

    plain = train(fresh())
    monkeypatch.setattr(Watch, "see", broken)
    with trace(model := fresh(), tmp_path / "run", every=1) as session:
        assert all(torch.equal(a, b) for a, b in zip(plain, train(model), strict=True))
        assert session.findings() == []
    run = open_run(tmp_path / "run")
    assert run.graph is not None
    run.close()


def test_nothing_is_kept_alive(tmp_path: Path) -> None:
    model = fresh()
    with trace(model, tmp_path / "run", every=1):
        out = model(torch.randn(6, 5))
        loss = ((out - torch.randn(6)) ** 2).mean()
        gone = [weakref.ref(out), weakref.ref(loss)]
        del out, loss
        gc.collect()
        assert [ref() for ref in gone] == [None, None]


def test_looking_at_a_model_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert mistakes(model, (torch.randn(3, 4),), {}) == []
    torch.set_rng_state(state)
    torch.randn(3, 4)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    mistakes(model, (torch.randn(3, 4),), {})
    assert torch.equal(torch.get_rng_state(), after)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert stack() == 0


def test_a_model_that_raises_has_no_silent_mistakes() -> None:
    assert mistakes(nn.Linear(3, 2), (torch.randn(2, 4),), {}) == []


def test_a_model_without_data_is_looked_at_too() -> None:
    flat = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(0, 1), nn.Flatten(1)).to("meta")
    assert mistakes(flat, (torch.randn(2, 1, 5, 5, device="meta"),), {})[0].rule == "batch_mixing"


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, while it compiles
def test_a_compiled_loss_is_compiled_once(tmp_path: Path) -> None:
    compiled = torch.compile(lambda out, y: ((out[:, 0] - y) ** 2).mean(), backend="eager")
    from torch._dynamo.utils import counters

    with trace(model := fresh(), tmp_path / "run", every=1):
        counters.clear()
        train(model, loss=compiled)
    assert counters["stats"]["unique_graphs"] == 1
