"""What of a failed program can be run again, the most telling part first."""

from __future__ import annotations

import linecache
from typing import Any

import pytest
import torch
from crashes import Flattened, caught, images
from torch import Tensor, nn

from tensorscope.live.postmortem.crash import Crash, read_crash
from tensorscope.live.postmortem.programs import module_call, programs
from tensorscope.live.postmortem.replay import Program, replay


def crash_of(function: Any, *args: Any, **kwargs: Any) -> Crash:
    """A crash whose traceback begins in the function, not in the tests' own frames."""
    error = caught(function, *args, **kwargs)
    step = error.__traceback__
    assert step is not None
    return read_crash(error.with_traceback(step.tb_next))


def found(function: Any, *args: Any, **kwargs: Any) -> list[Program]:
    return list(programs(crash_of(function, *args, **kwargs)))


def given(program: Program) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in program.given.items()}


def test_the_outermost_modules_call_comes_first_with_its_inputs_by_name() -> None:
    model = Flattened()
    first = found(model, images())[0]
    assert (first.root, first.scope, given(first)) == (model, "program", {"x": (2, 1, 5, 5)})


def test_with_the_users_hooks_it_is_tried_only_after_without() -> None:
    calls = [program for program in found(Flattened(), images()) if program.scope == "program"]
    assert [program.with_hooks for program in calls] == [False, True]


class Mixed(nn.Module):
    def forward(self, ids: Tensor, *rest: Any, mask: Any = None, **options: Any) -> Tensor:
        return ids + torch.zeros(7)


def test_inputs_in_containers_are_named_by_what_leads_to_them() -> None:
    x = torch.zeros(2)
    crash = crash_of(Mixed(), x, (torch.zeros(3), x), mask={"keys": torch.zeros(4)}, more=torch.zeros(5), flag=True)
    assert crash.entry is not None
    names = {"ids": (2,), "args[0][0]": (3,), "args[0][1]": (2,), "mask.keys": (4,), "more": (5,)}
    assert given(module_call(crash.entry)) == names


def test_a_functions_line_comes_with_the_assignments_that_made_its_names() -> None:
    def script() -> Tensor:
        wide = torch.zeros(2, 3)
        tall = wide.t() * 2
        return wide + tall

    lines = found(script)
    assert [(program.scope, given(program)) for program in lines] == [
        ("line", {}),
        ("line", {"wide": (2, 3), "tall": (3, 2)}),
    ]
    assert [step.op for step in replay(lines[0]).steps] == ["zeros", "t", "mul"]
    assert [step.op for step in replay(lines[1]).steps] == []


def test_assignments_are_repeated_only_as_far_back_as_they_compute() -> None:
    rows: list[int] = []

    def counted(known: list[int]) -> list[int]:
        known.append(1)
        return [1, 1]

    def script() -> Tensor:
        count = len(rows + counted(rows))
        wide = torch.zeros(2, count)
        tall = wide.t()
        return wide + tall

    first = found(script)[0]
    assert [step.op for step in replay(first).steps] == ["zeros", "t"]
    assert rows == [1]


def test_an_assignment_that_overwrites_what_it_reads_ends_the_way_back() -> None:
    def script() -> Tensor:
        x = torch.zeros(2, 3)
        x = x.t()
        y = x * 2
        return y + torch.zeros(7)

    first = found(script)[0]
    assert (given(first), [step.op for step in replay(first).steps]) == ({"x": (3, 2)}, ["mul", "zeros"])


def test_a_function_that_is_given_all_that_it_uses_is_run_from_its_callers_line() -> None:
    def loss(predictions: Tensor, targets: Tensor) -> Tensor:
        return (predictions - targets).mean()

    def train() -> Tensor:
        outputs = torch.zeros(4, 2)
        return loss(outputs, torch.zeros(4, 3))

    first = found(train)[0]
    assert [step.op for step in replay(first).steps] == ["zeros", "zeros"]


@pytest.mark.parametrize("call", ["backward", "step", "next"])
def test_a_function_that_does_more_than_compute_is_not_called_again(call: str) -> None:
    class Worker:
        def __init__(self) -> None:
            self.done = 0

        def backward(self) -> None:
            self.done += 1

        step = next = backward

    worker = Worker()
    space: dict[str, Any] = {"torch": torch, "worker": worker}
    inner = f"def inner(x):\n    worker.{call}()\n    return x + torch.zeros(7)\n"
    exec(f"{inner}def outer():\n    return inner(torch.zeros(2))", space)
    for program in found(space["outer"]):
        replay(program)
    assert worker.done == 1


class Meter:
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.count, self.seen = 0, [0]

    def score(self, x: Tensor, y: Tensor) -> Tensor:
        self.count += 1
        self.seen.append(self.count)
        return x @ y


def test_a_method_of_the_users_object_is_not_called_again() -> None:
    meter = Meter()

    def evaluate() -> Tensor:
        x = torch.zeros(2, 3)
        return meter.score(x, x)

    for program in found(evaluate):
        replay(program)
    assert (meter.count, meter.seen) == (1, [0, 1])


def test_a_models_line_in_a_script_is_followed_into_the_model() -> None:
    def script() -> Tensor:
        model = Flattened(36)
        outputs: Tensor = model(images())
        return outputs - torch.zeros(2, 3)

    with_model = [program for program in found(script) if "outputs" not in program.given]
    assert all(any(isinstance(part, Flattened) for part in program.root.modules()) for program in with_model)


def test_a_model_that_the_script_made_is_run_and_not_made_again() -> None:
    def script() -> Tensor:
        model = nn.Linear(5, 2)
        outputs = model(torch.zeros(4, 5))
        return torch.sub(outputs, torch.zeros(4, 3))

    steps = replay(found(script)[0]).steps
    assert [(step.op, step.module) for step in steps] == [("zeros", ""), ("linear", "model"), ("zeros", "")]


def test_a_layer_of_torchs_alone_is_run_from_the_line_that_calls_it_if_that_can_be_repeated() -> None:
    layer = nn.Linear(3, 2)

    def script() -> Tensor:
        x = torch.zeros(2, 8)
        return layer(x.flatten(1))  # type: ignore[no-any-return]

    kinds = [(program.scope, sorted(program.given)) for program in found(script)]
    assert kinds[:2] == [("line", []), ("program", ["input"])]


@pytest.mark.parametrize("line", ["(y := torch.zeros(2)) + torch.zeros(7)", "x + (yield torch.zeros(7))"])
def test_a_line_that_binds_or_waits_is_not_run_again(line: str) -> None:
    space: dict[str, Any] = {"torch": torch}
    body = f"def run():\n    x = torch.zeros(2)\n    return {line}\n"
    linecache.cache["<waits>"] = (len(body), None, body.splitlines(keepends=True), "<waits>")
    exec(compile(body, "<waits>", "exec"), space)

    def drive() -> None:
        made = space["run"]()
        if "yield" in line:
            made.send(None)
            made.send(torch.zeros(7))

    error = caught(drive)
    step = error.__traceback__
    while step is not None and step.tb_frame.f_code.co_filename != "<waits>":
        step = step.tb_next
    assert [p for p in programs(read_crash(error.with_traceback(step))) if p.scope == "line"] == []


def test_code_without_source_leaves_only_the_modules_call() -> None:
    space: dict[str, Any] = {"torch": torch, "nn": nn}
    exec("class Net(nn.Module):\n def forward(self, x):\n  return x + torch.zeros(7)", space)
    assert {program.scope for program in found(space["Net"](), torch.zeros(2))} == {"program"}
    exec("def run():\n return torch.zeros(2) + torch.zeros(7)", space)
    assert found(space["run"]) == []


def test_nothing_is_run_again_of_an_error_without_frames() -> None:
    assert list(programs(read_crash(RuntimeError("shape")))) == []


def test_a_program_that_does_not_hold_the_failed_module_is_left_out() -> None:
    def hidden() -> Any:
        return [Flattened()][0](images())

    failed = read_crash(caught(hidden))
    assert failed.module is not None
    for program in programs(failed):
        assert any(part is failed.module for part in program.root.modules())


def test_a_trainers_model_is_reached_through_the_trainer() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.model = Flattened(36)

        def loss(self, x: Tensor) -> Tensor:
            return self.model(x) - torch.zeros(2, 3)  # type: ignore[no-any-return]

    trainer = Trainer()
    first = found(trainer.loss, images())[0]
    seen = replay(first)
    assert seen.failure is not None
    assert ("linear", "model.fc") in [(step.op, step.module) for step in seen.steps]
    assert trainer.model.norm.num_batches_tracked == 1
