"""How the facts of an error become a report, run again or read from its frames alone."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from crashes import Flattened, caught, images
from torch import Tensor, nn

import tensorscope
from tensorscope import explain
from tensorscope.errors import ShapeError
from tensorscope.live.postmortem.account import from_frames
from tensorscope.live.postmortem.crash import read_crash
from tensorscope.reports import ShapeReport


def report_of(function: Any, *args: Any, model: nn.Module | None = None, **kwargs: Any) -> ShapeReport:
    found = explain(caught(function, *args, **kwargs), model)
    assert found is not None
    return found


def read(function: Any, *args: Any, model: nn.Module | None = None) -> ShapeReport:
    """What the frames alone tell."""
    return from_frames(read_crash(caught(function, *args)), model)


# -- run again --


def test_everything_that_is_known_is_in_the_report() -> None:
    report = report_of(Flattened(), images())
    assert (report.op, report.module, report.module_type) == ("linear", "fc", "Linear")
    assert report.title == "`fc` got 36 features and takes 9"
    assert report.error.startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")
    assert report.formula == "36 = 4 · 3 · 3"
    assert report.terms[0][0] == "4"
    assert [operand.dims for operand in report.operands] == [(2, 36), (2, 9)]
    assert [step.label for step in report.origin][::-1][:2] == ["x", "conv"]
    assert report.fixes[0].verified
    assert report.notes == ()
    assert report.where is not None
    assert (report.where.code, report.where.function) == ("return self.fc(x.flatten(1))", "Flattened.forward")


def test_paths_start_from_the_model_that_is_named() -> None:
    inner = Flattened()
    outer = nn.Sequential(OrderedDict(stem=nn.Identity(), body=inner))
    assert report_of(inner, images()).module == "fc"
    assert report_of(inner, images(), model=outer).module == "body.fc"
    assert report_of(outer, images()).module == "body.fc"


def test_a_model_that_was_named_by_mistake_changes_nothing() -> None:
    assert report_of(Flattened(), images(), model=nn.Linear(1, 1)).module == "fc"


def test_a_layer_of_torchs_alone_has_the_name_that_the_users_line_has_for_it() -> None:
    criterion, logits = nn.CrossEntropyLoss(), torch.zeros(4, 3)
    report = report_of(lambda: criterion(logits, torch.zeros(5, dtype=torch.long)))
    assert (report.module, report.module_type, report.op) == ("criterion", "CrossEntropyLoss", "cross_entropy")


def test_a_local_class_is_called_by_its_own_name() -> None:
    class Local(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.zeros(7)

    report = report_of(Local(), torch.zeros(2))
    assert report.where is not None
    assert (report.where.function, report.module, report.module_type) == ("Local.forward", "", "Local")


def test_the_input_sizes_that_would_fit_were_tried() -> None:
    report = report_of(Flattened(4), images())
    assert report.fits.startswith("images of height and width 3")
    assert Flattened(4)(torch.zeros(2, 1, 3, 3)).shape == (2, 2)


def test_sizes_that_no_input_gives_are_not_said_to_fit() -> None:
    assert report_of(Flattened(7), images()).fits == ""


# -- read from the frames --


def test_the_frames_tell_line_module_and_operands_and_that_no_more_was_seen() -> None:
    report = read(Flattened(), images())
    assert (report.op, report.module, report.module_type) == ("linear", "fc", "Linear")
    assert report.where is not None
    assert report.where.code == "return self.fc(x.flatten(1))"
    assert {operand.dims for operand in report.operands} >= {(2, 9)}
    assert (report.fixes, report.formula) == ((), None)
    assert report.notes == ("only the traceback was read: running it again did not fail the same way",)


OPS = [
    (lambda x: x + torch.zeros(7), "add"),
    (lambda x: x - torch.zeros(7), "sub"),
    (lambda x: x * torch.zeros(7), "mul"),
    (lambda x: x / torch.zeros(7), "div"),
    (lambda x: x @ x, "matmul"),
    (lambda x: x.view(7), "view"),
    (lambda x: torch.cat([x, x.t()]), "cat"),
    (lambda x: x[9], "getitem"),
    (bool, "bool"),
    (lambda x: torch.einsum("ij,jk", x, x), "einsum"),
    (lambda x: nn.functional.cross_entropy(x, x[0]), "cross_entropy"),
]


@pytest.mark.parametrize(("function", "op"), OPS, ids=[op for _, op in OPS])
def test_the_operation_has_torchs_name_also_where_only_frames_are_read(function: Any, op: str) -> None:
    assert read(function, torch.zeros(2, 3)).op == op
    assert report_of(function, torch.zeros(2, 3)).op == op


def test_the_way_is_autograds_where_only_frames_are_read() -> None:
    def fail() -> Tensor:
        logits: Tensor = nn.Linear(3, 4)(torch.zeros(5, 3)).exp()
        return logits + torch.zeros(7)

    assert [step.label for step in read(fail).origin] == ["exp", "addmm"]


def test_a_long_message_is_cut_to_a_line_in_the_title() -> None:
    report = read(lambda: nn.Conv2d(3, 4, 3)(torch.zeros(1, 1, 1, 2, 3, 8, 8)))
    assert len(report.title) < 200
    assert "\n" not in report.title


@tensorscope.shapes("batch dim, dim out -> batch out")
def project(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight


def test_a_broken_contract_is_told_in_its_own_words() -> None:
    error = caught(project, torch.zeros(2, 3), torch.zeros(4, 5))
    report = explain(error)
    assert isinstance(error, ShapeError)
    assert report is not None
    assert report.title == error.title
    assert "op     :" not in str(report)
    assert [fix.text for fix in report.fixes] == [error.hint]


def test_a_broken_contract_is_told_in_its_own_words_where_only_frames_are_read() -> None:
    error = caught(project, torch.zeros(2, 3), torch.zeros(4, 5))
    report = from_frames(read_crash(error), None)
    assert isinstance(error, ShapeError)
    assert (report.title, report.notes) == (error.title, ())


def test_a_power_is_called_pow_where_only_frames_are_read() -> None:
    assert read(lambda x: x ** torch.zeros(7), torch.zeros(2, 3)).op == "pow"


def test_weights_without_names_and_scalars_do_no_harm() -> None:
    report = read(lambda: torch.tensor(3.0) @ torch.tensor(2.0))
    assert report.op == "matmul"
    assert report.module == ""
