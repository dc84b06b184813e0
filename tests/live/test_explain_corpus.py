"""Reports on programs as users write them, each with one mistake; and none on errors about something else."""

from __future__ import annotations

import contextlib
import io
import random
import warnings
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from shape_programs import CORPUS, UNRELATED
from shape_programs.judgement import ASKED, fix_runs, judge
from shape_programs.record import Case, Started, repaired, start
from torch import Tensor, nn

from tensorscope import explain
from tensorscope.reports import WIDTH, ShapeReport

BY_NAME = {case.name: case for case in (*CORPUS, *UNRELATED)}


def each(cases: tuple[Case, ...]) -> pytest.MarkDecorator:
    """Parametrise over programs; those that take seconds are slow tests."""
    slow = pytest.mark.slow
    return pytest.mark.parametrize("name", [pytest.param(c.name, marks=[slow] if c.slow else []) for c in cases])


@dataclass
class Outcome:
    report: ShapeReport | None
    printed: str
    again: ShapeReport | None
    changed: list[str] = field(default_factory=list)


@cache
def explained(name: str) -> Outcome:
    """Explain a program's error once, and note what that changed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = start(BY_NAME[name].build)
        error = started.fail()
    before, traceback = state(started), error.__traceback__
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        report, again = explain(error), explain(error)
    after = state(started)
    changed = [key for key in before.keys() | after.keys() if not same(before.get(key), after.get(key))]
    if error.__traceback__ is not traceback:
        changed.append("traceback")
    return Outcome(report, out.getvalue(), again, changed)


def state(started: Started) -> dict[str, Any]:
    """All that explaining must leave as it is."""
    found: dict[str, Any] = {
        "random": random.getstate(),
        "numpy": str(np.random.get_state()),
        "torch": torch.get_rng_state(),
        "grad mode": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "default dtype": torch.get_default_dtype(),
        "global hooks": len(torch.nn.modules.module._global_forward_hooks),
    }
    for index, model in enumerate(started.models):
        for path, module in model.named_modules():
            found |= {f"{index}:{path}:{key}": value for key, value in module_state(module).items()}
    tensors = [part for part in started.inputs if isinstance(part, Tensor)]
    found |= {f"input {i}": kept(tensor) for i, tensor in enumerate(tensors)}
    found |= {f"input {i} version": tensor._version for i, tensor in enumerate(tensors)}
    return found


def module_state(module: nn.Module) -> dict[str, Any]:
    """A module's own tensors, flags, hooks and plain attributes."""
    found: dict[str, Any] = {key: len(value) for key, value in vars(module).items() if key.endswith("_hooks")}
    for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        found |= {key: kept(tensor), f"{key} type": type(tensor), f"{key} needs grad": tensor.requires_grad}
        found[f"{key} grad"] = None if tensor.grad is None else kept(tensor.grad)
    plain = {key: value for key, value in vars(module).items() if isinstance(value, int | float | str | bool)}
    lists = {key: len(value) for key, value in vars(module).items() if isinstance(value, list)}
    return found | plain | lists | {"forward": "forward" in vars(module)}


def kept(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        if before.device != after.device or before.dtype != after.dtype or before.shape != after.shape:
            return False
        return before.is_meta or torch.equal(before.nan_to_num(), after.nan_to_num())
    return type(before) is type(after) and bool(before == after)


# -- the programs themselves --


@each(tuple(case for case in CORPUS if case.fixed))
@pytest.mark.filterwarnings("ignore")
def test_the_repaired_twin_of_a_program_runs(name: str) -> None:
    start(repaired(BY_NAME[name])).run()


# -- what a report says --


@each(CORPUS)
def test_a_report_names_module_op_operands_line_origin_and_fix(name: str) -> None:
    case, report = BY_NAME[name], explained(name).report
    assert report is not None
    marks = judge(case, report)
    wrong = [column for column in ASKED if marks[column] is False]
    assert not wrong, f"wrong: {', '.join(wrong)}\n\n{report}"


@each(CORPUS)
@pytest.mark.filterwarnings("ignore")
def test_a_fix_that_was_tried_runs_when_it_is_written_into_the_source(name: str) -> None:
    report = explained(name).report
    assert report is not None
    failed = [fix for fix in report.fixes if fix.verified and fix_runs(BY_NAME[name], fix) is False]
    assert not failed, f"{failed}\n\n{report}"


@each(CORPUS)
def test_a_report_fits_eighty_columns_survives_json_and_comes_out_again(name: str) -> None:
    report = explained(name).report
    assert report is not None
    assert explained(name).again == report
    assert ShapeReport.from_json(report.to_json()) == report
    long = [line for line in str(report).splitlines() if len(line) > WIDTH and len(line.split()) > 2]
    assert not long, str(report)  # a path longer than a line cannot be broken


@each(UNRELATED)
def test_an_error_about_something_else_is_left_alone(name: str) -> None:
    assert explained(name).report is None, str(explained(name).report)


# -- no harm --


@each((*CORPUS, *UNRELATED))
def test_explaining_changes_and_prints_nothing(name: str) -> None:
    outcome = explained(name)
    assert not outcome.changed, outcome.changed
    assert not outcome.printed


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    "name", ["digits_flatten", "merge_heads_with_view", "sum_of_unequal_widths", "lstm_input_size"]
)
def test_a_report_does_not_depend_on_the_mode_that_it_is_asked_in(name: str, mode: Any) -> None:
    error = start(BY_NAME[name].build).fail()
    with mode():
        report = explain(error)
    assert report == explained(name).report


@pytest.mark.parametrize("error", [RuntimeError("shape '[15, 15]' is invalid"), KeyboardInterrupt(), SystemExit(1)])
def test_an_error_that_was_never_raised_or_is_no_failure_is_left_alone(error: BaseException) -> None:
    assert explain(error) is None


def test_a_program_that_catches_and_raises_its_own_error_is_left_alone_or_explained_in_full() -> None:
    error = start(BY_NAME["digits_flatten"].build).fail()
    try:
        raise ValueError("epoch 3 failed") from error
    except ValueError as wrapped:
        report = explain(wrapped)
    assert report is None or (report.module, report.op) == ("fc1", "linear")
