"""Running a failed program again: what it shows, what can be changed, and that nothing of it lasts."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from crashes import Flattened, caught, images
from torch import Tensor, nn
from torch.nn import functional as F

from tensorscope.live.postmortem import replay as replay_module
from tensorscope.live.postmortem.crash import read_crash
from tensorscope.live.postmortem.programs import module_call
from tensorscope.live.postmortem.replay import Edit, Program, Replay, is_small, named_tensors, replay

REAL = pytest.mark.parametrize("real", [True, False], ids=["copies", "fakes"])


def failed(model: nn.Module, *args: Any, **kwargs: Any) -> Program:
    """The call of a model that raised."""
    entry = read_crash(caught(model, *args, **kwargs)).entry
    assert entry is not None
    return module_call(entry)


def ops(seen: Replay) -> list[str]:
    return [step.op for step in seen.steps]


# -- what it shows --


@REAL
def test_steps_are_the_operations_in_order_with_their_modules_and_shapes(real: bool) -> None:
    model = Flattened()
    seen = replay(failed(model, images()), real=real)
    told = [(step.op, step.module, step.shapes) for step in seen.steps]
    assert told == [
        ("conv2d", "conv", ((2, 4, 3, 3),)),
        ("add_", "norm", ((),)),
        ("batch_norm", "norm", ((2, 4, 3, 3),)),
        ("flatten", "", ((2, 36),)),
    ]
    assert [step.sources for step in seen.steps] == [(), (), (0,), (2,)]
    place = seen.steps[0].place
    assert place is not None
    assert place.text == "x = self.norm(self.conv(x))"


@REAL
def test_a_failure_is_the_torch_function_with_what_it_was_given(real: bool) -> None:
    model = Flattened()
    failure = replay(failed(model, images()), real=real).failure
    assert failure is not None
    assert (failure.op, failure.module, failure.func) == ("linear", "fc", F.linear)
    assert [tuple(value.shape) for value in failure.args] == [(2, 36), (2, 9), (2,)]
    assert failure.place is not None
    assert failure.place.expression == "self.fc(x.flatten(1))"
    assert isinstance(failure.error, RuntimeError)


@REAL
def test_arguments_are_kept_without_their_tensors(real: bool) -> None:
    flatten = replay(failed(Flattened(), images()), real=real).steps[-1]
    assert (flatten.args, flatten.kwargs) == ((None, 1), {})


def test_weights_and_inputs_are_known_by_name() -> None:
    seen = replay(failed(Flattened(), images()))
    names = [path for path, _ in seen.weights]
    assert names[:2] == ["conv.weight", "conv.bias"]
    assert "norm.running_mean" in names
    path, weight = seen.weights[0]
    assert (seen.weight(weight), seen.argument(weight)) == (path, "")
    assert [(name, tuple(tensor.shape)) for name, tensor in seen.given] == [("x", (2, 1, 5, 5))]
    assert (seen.argument(seen.given[0][1]), seen.weight(seen.given[0][1])) == ("x", "")


def test_an_error_that_no_torch_function_raised_has_no_function() -> None:
    class Unpacking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            batch, seq, dim = x.shape
            return x.view(batch, seq * dim)

    failure = replay(failed(Unpacking(), torch.zeros(2, 3))).failure
    assert failure is not None
    assert (failure.func, failure.op, failure.args) == (None, "", ())
    assert failure.place is not None
    assert failure.place.text == "batch, seq, dim = x.shape"


def test_backward_is_as_far_as_a_program_is_run() -> None:
    class Trained(nn.Module):
        def forward(self, x: Tensor) -> None:
            (x * 2).sum().backward()  # type: ignore[no-untyped-call]
            raise AssertionError("not reached")

    model, x = Trained(), torch.zeros(2, requires_grad=True)
    seen = replay(Program(model, lambda convert: model(convert(x)), {"x": x}))
    assert (seen.failure, ops(seen), x.grad) == (None, ["mul", "sum"], None)


def test_what_other_threads_do_meanwhile_is_not_written_down() -> None:
    class Threaded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            worker = threading.Thread(target=x.cos)
            worker.start()
            worker.join()
            return x.sin()

    model, x = Threaded(), torch.zeros(2)
    assert ops(replay(Program(model, lambda convert: model(convert(x)), {"x": x}))) == ["sin"]


@pytest.mark.parametrize(("weights", "inputs", "small"), [(10, 10, True), (11, 10, False), (10, 11, False)])
def test_small_is_what_has_few_weights_and_inputs(
    weights: int, inputs: int, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "_SMALL_MODEL", 10)
    monkeypatch.setattr(replay_module, "_SMALL_INPUT", 10)
    root = nn.Linear(weights, 1, bias=False)
    assert is_small(Program(root, lambda _: None, {"x": torch.zeros(inputs)})) is small
    assert is_small(Program(root.to("meta"), lambda _: None, {"x": torch.zeros(inputs)})) is (inputs <= 10)


def test_tensors_in_an_argument_are_named_by_what_leads_to_them() -> None:
    x = torch.zeros(1)
    value = {"ids": x, "pair": (x, [x, 3])}
    assert [name for name, _ in named_tensors("batch", value)] == ["batch.ids", "batch.pair[0]", "batch.pair[1][0]"]


# -- changes --


class Repeated(nn.Module):
    """Two blocks run the same failing line."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight) @ self.weight.t()


def turned(func: Any, args: Any, kwargs: Any) -> Any:
    return func, (args[0], args[1].t()), kwargs


@REAL
def test_a_call_is_changed_in_every_module_that_runs_the_line_or_in_one(real: bool) -> None:
    program = failed(Repeated(), torch.zeros(4, 2))
    failure = replay(program, real=real).failure
    assert failure is not None
    assert failure.place is not None
    place = (failure.place.code, failure.place.lasti, failure.op)
    second = ast_second(failure.place)
    everywhere: Any = {(*place, None): turned, (*second, None): turned}
    assert replay(program, Edit(calls=everywhere), real=real).failure is None
    only: Any = {(*place, "blocks.0"): turned, (*second, "blocks.0"): turned}
    then = replay(program, Edit(calls=only), real=real).failure
    assert then is not None
    assert then.module == "blocks.1"


def ast_second(place: Any) -> tuple[Any, int, str]:
    """The other product on the line."""
    import dis

    offsets = [step.offset for step in dis.get_instructions(place.code) if step.opname == "BINARY_OP"]
    return place.code, next(offset for offset in offsets if offset != place.lasti), "matmul"


@REAL
def test_a_module_is_replaced_by_what_is_made_of_it(real: bool) -> None:
    model = Flattened()
    made: list[nn.Module] = []

    def wider(old: nn.Module) -> nn.Module:
        made.append(old)
        return nn.Linear(36, 2)

    assert replay(failed(model, images()), Edit(modules={"fc": wider}), real=real).failure is None
    assert made == [model.fc]


@REAL
def test_arguments_settings_and_inputs_are_changed(real: bool) -> None:
    program = failed(Flattened(), images())
    narrow = Edit(entering={"fc": lambda args: (args[0][:, :9],)})
    assert replay(program, narrow, real=real).failure is None
    smaller = Edit(given={"x": lambda x: x[..., :3, :3]})
    failure = replay(program, smaller, real=real).failure
    assert failure is not None
    assert tuple(failure.args[0].shape) == (2, 4)
    strided = Edit(settings={"conv": {"stride": (2, 2)}})
    failure = replay(program, strided, real=real).failure
    assert failure is not None
    assert tuple(failure.args[0].shape) == (2, 16)
