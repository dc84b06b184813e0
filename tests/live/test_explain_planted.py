"""Laws of reports on random small programs with one planted mistake, and of writing fixes into source."""

from __future__ import annotations

import itertools
import linecache
import re
import types
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from shape_programs.planting import Planted, planted_programs
from shape_programs.rewriting import versions, with_layer
from torch import nn

from tensorscope import explain
from tensorscope.reports import Fix, ShapeReport

_COUNTER = itertools.count()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs are written: a report quotes lines of real files."""
    return tmp_path_factory.mktemp("planted")


def built(source: str, folder: Path) -> tuple[nn.Module, tuple[Any, ...]]:
    """Write a program into a file, and build it from the same random state each time."""
    file = folder / f"net{next(_COUNTER)}.py"
    file.write_text(source, encoding="utf-8")
    linecache.checkcache(str(file))
    module = types.ModuleType(file.stem)
    exec(compile(source, str(file), "exec"), vars(module))
    torch.manual_seed(0)
    model, inputs = module.build()
    return model, inputs


def ended(model: nn.Module, inputs: tuple[Any, ...]) -> Exception | None:
    """The error that a model raises, None if it runs through."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model(*inputs)
    except Exception as error:
        return error
    return None


def failure(source: str, folder: Path) -> tuple[nn.Module, Exception | None]:
    """The model and the error it raises, None if it runs through."""
    model, inputs = built(source, folder)
    return model, ended(model, inputs)


def innermost(model: nn.Module, error: Exception) -> str:
    """The module whose code was running when torch raised, by the traceback alone."""
    paths = {id(module): path for path, module in model.named_modules()}
    found, step = "", error.__traceback__
    while step is not None:
        found = paths.get(id(step.tb_frame.f_locals.get("self")), found)
        step = step.tb_next
    return found


def mentioned(report: ShapeReport) -> str:
    """All that a report blames or would change."""
    steps = [f"{step.op} {step.module} {step.where.code if step.where else ''}" for step in report.origin]
    terms = [f"{term} {said}" for term, said in report.terms]
    fixes = [f"{fix.text} {fix.where}" for fix in report.fixes]
    return "\n".join([report.module, report.op, report.got, *steps, *terms, *fixes])


def lines_of(fixes: Sequence[Fix], source: str) -> str:
    """The lines that fixes are for: a fix of a layer names its line."""
    numbers = [int(fix.where.rpartition(":")[2]) for fix in fixes if fix.where.rpartition(":")[2].isdigit()]
    lines = source.splitlines()
    return "\n".join(lines[number - 1] for number in numbers if number <= len(lines))


def runs_with(fix: Fix, source: str, folder: Path) -> bool | None:
    """Whether a program runs through with a fix in place, None where its sentence cannot be followed."""
    model, inputs = built(source, folder)
    layered = with_layer([model], fix)
    changed = [built("\n".join(lines), folder) for lines in versions(source.splitlines(), fix)]
    outcomes = [ended(*program) is None for program in ([(model, inputs)] if layered else []) + changed]
    return any(outcomes) if outcomes else None


# The same programs each time: a report takes a second, so these are few.
@settings(max_examples=40, derandomize=True, database=None)
@given(planted=planted_programs())
def test_a_report_blames_the_module_that_raised_and_its_tried_fixes_run(planted: Planted, folder: Path) -> None:
    model, error = failure(planted.source, folder)
    assert error is not None
    report = explain(error)
    assert report is not None
    assert report.module == innermost(model, error)
    said = f"{mentioned(report)}\n{lines_of(report.fixes, planted.source)}"
    assert any(name in said for name in planted.mistake.names), str(report)
    for fix in report.fixes:
        if fix.verified and fix.scope == "program":
            assert runs_with(fix, planted.source, folder) in {True, None}, f"{fix}\n\n{report}"


@settings(max_examples=10, derandomize=True, database=None)
@given(planted=planted_programs())
def test_naming_the_model_changes_nothing_about_what_is_blamed(planted: Planted, folder: Path) -> None:
    model, error = failure(planted.source, folder)
    assert error is not None
    alone, named = explain(error), explain(error, model)
    assert alone is not None
    assert named is not None
    assert (named.module, named.op, named.operands, named.where) == (
        alone.module,
        alone.op,
        alone.operands,
        alone.where,
    )


@settings(max_examples=40, derandomize=True, database=None)
@given(planted=planted_programs())
def test_a_program_without_its_mistake_runs(planted: Planted, folder: Path) -> None:
    assert failure(planted.right, folder)[1] is None
    assert failure(planted.source, folder)[1] is not None


def enlarged(source: str) -> str:
    """The same program given one sample more."""
    model, _, builder = source.rpartition("def build()")
    sizes = re.compile(r"(torch\.(?:randn\(|randint\(0, \d+, \())(\d+)")
    return f"{model}def build(){sizes.sub(lambda found: f'{found[1]}{int(found[2]) + 1}', builder)}"


@settings(max_examples=40, derandomize=True, database=None)
@given(planted=planted_programs().filter(lambda planted: planted.mistake.kind != "view"))
def test_the_best_fix_does_not_depend_on_the_batch_size(planted: Planted, folder: Path) -> None:
    _, error = failure(planted.source, folder)
    assert error is not None
    report = explain(error)
    assert report is not None
    best = next((fix for fix in report.fixes if fix.verified), None)
    if best and runs_with(best, planted.source, folder):
        assert runs_with(best, enlarged(planted.source), folder), str(report)


# -- how sentences are followed --


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("`nn.Linear(1600, 128)`", "self.fc1 = nn.Linear(64 * 8 * 8, 128)", "self.fc1 = nn.Linear(1600, 128)"),
        ("`k.mT` instead of `k.transpose(1, 2)`", "s = q @ k.transpose(1, 2)", "s = q @ k.mT"),
        ("`mask[:, None]`", "s = s.masked_fill(mask, 0)", "s = s.masked_fill(mask[:, None], 0)"),
        ("`self.fc(h.flatten(1))`", "return self.fc(h)", "return self.fc(h.flatten(1))"),
        ("`h = h.flatten(1)`", "h = h.flatten(2)", "h = h.flatten(1)"),
        ("make `fc1` `nn.Linear(9, 2)`", "self.fc1 = nn.Linear(8, 2)", "self.fc1 = nn.Linear(9, 2)"),
    ],
)
def test_a_sentence_is_followed_where_its_code_says_what_to_change(text: str, line: str, expected: str | None) -> None:
    found = versions(["x = 1", line.strip()], Fix(text, verified=True, where="model.py:2"))
    if expected is not None:
        assert ["x = 1", expected] in found


def test_a_sentence_without_code_or_line_is_not_followed() -> None:
    assert versions(["x = f(1)"], Fix("make it larger", where="model.py:1")) == []
    assert versions(["x = f(1)"], Fix("`f(2)`")) == []
    assert versions(["x = f(1)"], Fix("`f(2)`", where="model.py:7")) == []


def test_a_sentence_about_a_layer_replaces_that_layer_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert with_layer([nn.Linear(1, 1), model], Fix("make `1` `nn.Linear(2, 5)`"))
    assert model(torch.zeros(1, 2)).shape == (1, 5)
    assert not with_layer([model], Fix("make `1` `nn.Linear(dim, 5)`"))
    assert not with_layer([model], Fix("make `7` `nn.Linear(2, 5)`"))
    assert not with_layer([model], Fix("`nn.Linear(2, 5)`"))
