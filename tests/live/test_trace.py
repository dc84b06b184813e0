"""Tracing does no harm, survives whatever a training does, and refuses wrong input."""

from __future__ import annotations

import copy
import gc
import io
import math
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from trace_models import MODELS, Recurrent, Small, data, hooks_of, train

import tensorscope
from tensorscope import ModelError, RunError, TensorscopeError, open_run

# --- do no harm ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MODELS)
def test_outputs_gradients_and_random_state_are_bit_identical(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(3)
    bare = make()
    model = copy.deepcopy(bare)
    torch.manual_seed(4)
    expected = train(bare)
    state = torch.get_rng_state()
    torch.manual_seed(4)
    with tensorscope.trace(model, tmp_path / "run", every=1):
        seen = train(model)
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), bare.state_dict().values(), strict=True))


def test_the_model_itself_is_left_as_it_was(tmp_path: Path) -> None:
    model = Small()
    before, pickled = hooks_of(model), pickle.dumps(model)
    trace = tensorscope.trace(model, tmp_path / "run", every=1)
    assert list(model.state_dict()) == list(Small().state_dict())
    assert isinstance(model, Small)
    assert pickle.dumps(model) == pickled
    model(data()[0])
    buffer = io.BytesIO()
    torch.save(model, buffer)
    twin = copy.deepcopy(model)
    trace.close()
    assert hooks_of(model) == hooks_of(twin) == before


def test_hooks_are_gone_after_an_exception_and_the_run_says_so(tmp_path: Path) -> None:
    model = Small()
    before = hooks_of(model)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):  # noqa: SIM117, PT012
        with tensorscope.trace(model, tmp_path / "run", every=1):
            train(model, 2)
            model(torch.randn(4, 1, 9, 9))
    assert hooks_of(model) == before
    run = open_run(tmp_path / "run")
    assert run.status == "died"
    assert run.meta["error"].startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")
    assert len(run.steps) >= 2


def test_an_exception_in_the_first_pass_leaves_nothing_behind(tmp_path: Path) -> None:
    model = Small()
    before = hooks_of(model)
    with tensorscope.trace(model, tmp_path / "run", every=1):
        with pytest.raises(RuntimeError):
            model(torch.randn(4, 1, 9, 9))
        assert not torch.overrides._get_current_function_mode_stack()
        train(model, 2)
    assert hooks_of(model) == before
    run = open_run(tmp_path / "run")
    assert run.graph is not None
    assert not run.notes


def test_ctrl_c_leaves_an_interrupted_run(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with tensorscope.trace(Small(), tmp_path / "run"):
            raise KeyboardInterrupt
    assert open_run(tmp_path / "run").status == "interrupted"


def test_leaving_by_sys_exit_is_no_death(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):  # noqa: SIM117
        with tensorscope.trace(Small(), tmp_path / "run"):
            raise SystemExit(0)
    assert open_run(tmp_path / "run").status == "finished"


def test_nothing_is_kept_alive(tmp_path: Path) -> None:
    model = Small()
    refs = []
    with tensorscope.trace(model, tmp_path / "run", every=1) as trace:
        x, y = data()
        out = model(x)
        loss = nn.functional.cross_entropy(out, y)
        loss.backward()
        trace.log(loss=loss)
        refs = [weakref.ref(out), weakref.ref(loss), weakref.ref(x)]
        del out, loss, x, y
        gc.collect()
        assert [ref() for ref in refs] == [None] * 3
    model_ref = weakref.ref(model)
    del model, trace
    gc.collect()
    assert model_ref() is None


def test_a_failure_while_measuring_is_a_note_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorscope.live.moments import Moments

    def broken(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(Moments, "add", broken)
    torch.manual_seed(0)
    bare = Small()
    model = copy.deepcopy(bare)
    torch.manual_seed(1)
    expected = train(bare)
    torch.manual_seed(1)
    with tensorscope.trace(model, tmp_path / "run", every=1) as trace:
        seen = train(model, on_step=lambda _, loss: trace.log(loss=loss))
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))
    run = open_run(tmp_path / "run")
    assert run.notes[0][1].startswith("not measured: ZeroDivisionError: ours")
    assert len(run.notes) <= 20
    assert len(run.scalars("loss")[0]) == 6


def test_two_models_are_traced_side_by_side(tmp_path: Path) -> None:
    a, b = Small(), Recurrent()
    with tensorscope.trace(a, tmp_path / "a", every=1), tensorscope.trace(b, tmp_path / "b", every=1):
        train(a, 2)
        train(b, 3)
    assert len(open_run(tmp_path / "a").steps) == 2
    assert len(open_run(tmp_path / "b").steps) == 3
    assert "lstm" not in open_run(tmp_path / "a").sites


# --- wrong input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (
            Small,
            "`trace` takes a `torch.nn.Module`, got the class `Small`\n\nhint: make one first: `trace(Small(...))`",
        ),
        (42, "`trace` takes a `torch.nn.Module`, got a `int`\n\nhint: pass the model itself"),
        (lambda x: x, "`trace` takes a `torch.nn.Module`, got a `function`\n\nhint: pass the model itself"),
    ],
)
def test_what_is_no_model_is_refused(thing: Any, text: str) -> None:
    with pytest.raises(ModelError) as caught:
        tensorscope.trace(thing)
    assert str(caught.value) == text


@pytest.mark.parametrize("options", [{"every": 0}, {"every": 1.5}, {"every": True}, {"overhead": 0}, {"overhead": -1}])
def test_settings_out_of_range_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TensorscopeError):
        tensorscope.trace(Small(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_what_is_not_one_number_is_refused(tmp_path: Path) -> None:
    with tensorscope.trace(Small(), tmp_path / "run") as trace:
        with pytest.raises(TensorscopeError) as caught:
            trace.log(loss=torch.ones(3))
        assert str(caught.value) == (
            "`loss` is not one number\n  got  a tensor of shape (3,)\n\nhint: log one number, such as `loss.mean()`"
        )
        with pytest.raises(TensorscopeError, match="`name` is not one number"):
            trace.log(name="fc1")  # type: ignore[arg-type]
        trace.log(a=1, b=True, c=torch.tensor([2]), d=torch.tensor(3.0, requires_grad=True), e=math.nan)


def test_a_closed_trace_logs_no_more_and_closes_again(tmp_path: Path) -> None:
    trace = tensorscope.trace(Small(), tmp_path / "run")
    trace.close()
    trace.close()
    with pytest.raises(RunError, match="is closed"):
        trace.log(loss=1.0)


def test_the_default_path_names_model_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = []
    for _ in range(2):
        with tensorscope.trace(Small()) as trace:
            paths.append(trace.path)
    assert all(path.parent == Path("runs") and path.name.startswith("Small-") for path in paths)
    assert paths[0] != paths[1]


def test_a_default_path_is_found_by_looking_at_few_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.chdir(tmp_path)
    with_name = Path.with_name
    monkeypatch.setattr(Path, "with_name", lambda path, name: (tried.append(name), with_name(path, name))[1])
    with tensorscope.trace(Small()):
        pass
    assert len(tried) < 20
