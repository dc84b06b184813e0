"""Explaining an error: from the exception alone, in whatever state the program is, and never in its way."""

from __future__ import annotations

import concurrent.futures
import copy
import io
import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from crashes import Flattened, caught, images
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import tensorscope
from tensorscope import explain, explaining
from tensorscope.live import explain as explain_module
from tensorscope.live.explain import attach
from tensorscope.live.postmortem import mismatches
from tensorscope.live.postmortem.replay import Program, replay
from tensorscope.reports import ShapeReport

READ = "only the traceback was read"


def shape_error() -> Exception:
    return caught(Flattened(), images())


def report_of(error: BaseException, model: nn.Module | None = None) -> ShapeReport:
    report = explain(error, model)
    assert report is not None
    return report


def notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


# -- what comes out --


@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyError("shape"), ZeroDivisionError(), OSError(2, "No such file")]
)
def test_an_error_about_something_else_gives_nothing(error: Exception) -> None:
    def fail() -> None:
        raise error

    assert explain(caught(fail)) is None
    assert notes(error) == []


def test_the_first_report_is_kept_with_the_exception() -> None:
    error = shape_error()
    first = report_of(error)
    error.__traceback__ = None
    assert report_of(error) == first


def test_a_copy_of_the_error_and_its_pickle_stay_what_they_were() -> None:
    error = shape_error()
    report_of(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.args) == (type(error), error.args)
    assert (type(copy.copy(error)), copy.copy(error).args) == (type(error), error.args)


# -- the context manager --


@pytest.mark.parametrize("wrapping", [1, 2, 3])
def test_the_error_goes_on_as_it_is_with_one_note(wrapping: int) -> None:
    def nested(depth: int) -> None:
        with explaining():
            if depth:
                nested(depth - 1)
            Flattened()(images())

    plain, error = shape_error(), caught(nested, wrapping - 1)
    assert (type(error), error.args, str(error)) == (type(plain), plain.args, str(plain))
    assert len(notes(error)) == 1
    assert notes(error)[0].strip().startswith("`fc` got 36 features and takes 9")
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names[-1] == traceback.extract_tb(plain.__traceback__)[-1].name
    assert "__exit__" not in names


def test_one_note_also_inside_of_a_trace(tmp_path: Any) -> None:
    model = Flattened()

    def train() -> None:
        with explaining(), tensorscope.trace(model, tmp_path / "run"):
            model(images())

    assert len(notes(caught(train))) == 1


def test_a_block_that_runs_or_fails_otherwise_is_left_alone() -> None:
    with explaining() as block:
        assert isinstance(block, explaining)

    def fail() -> None:
        with explaining():
            raise KeyError("shape")

    assert notes(caught(fail)) == []


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_goes_through_at_once(kind: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain_module, "explain", None)
    with pytest.raises(kind) as raised, explaining():
        raise kind("tensor shape")
    assert notes(raised.value) == []


def test_an_error_of_a_user_who_catches_it_is_explained_where_they_ask() -> None:
    with pytest.raises(RuntimeError) as raised, explaining():
        Flattened()(images())
    assert explain(raised.value) is not None
    assert len(notes(raised.value)) == 1


# -- when explaining fails --


def broken(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("a rule is wrong")


@pytest.mark.parametrize("place", ["linear", "account", "programs"])
def test_a_failure_inside_the_analysis_still_gives_what_the_frames_tell(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "linear":
        monkeypatch.setitem(mismatches._ANALYSES, "linear", broken)
    else:
        monkeypatch.setattr(explain_module, place, broken)
    report = report_of(shape_error())
    assert (report.op, report.module) == ("linear", "fc")
    assert report.notes == ("the analysis ended early: ZeroDivisionError: a rule is wrong",)
    assert report.fixes == ()


def test_a_failure_to_explain_at_all_is_noted_and_the_error_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain_module, "read_crash", broken)
    error = shape_error()
    assert attach(error) is None
    assert notes(error) == ["tensorscope could not explain this: ZeroDivisionError: a rule is wrong"]


def test_with_other_processes_nothing_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = torch.distributed
    monkeypatch.setattr(distributed, "is_available", lambda: True)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda *_: 2)
    monkeypatch.setattr(explain_module, "replay", broken)
    report = report_of(shape_error())
    assert report.notes[0].startswith(READ)
    monkeypatch.setattr(distributed, "get_world_size", lambda *_: 1)
    monkeypatch.undo()
    assert report_of(shape_error()).notes == ()


def test_a_program_that_fails_otherwise_the_second_time_is_only_read() -> None:
    widths = [2]

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            widths.append(widths[-1] + 1)  # not the module's own, and not put back
            return x + torch.zeros(widths[-1])

    report = report_of(caught(Counting(), torch.zeros(2)))
    assert report.notes[0].startswith(READ)
    assert report.op == "add"


# -- in whatever state the program is --

Mode = Callable[[], AbstractContextManager[Any]]
MODES: list[Mode] = [
    torch.no_grad,
    torch.inference_mode,
    torch.enable_grad,
    lambda: torch.autocast("cpu", torch.bfloat16),
    lambda: torch.device("meta"),
    lambda: torch.autograd.set_detect_anomaly(True, check_nan=False),
    torch.autograd.profiler.profile,
]


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("inside", [False, True], ids=["asked", "raised and asked"])
@pytest.mark.parametrize(
    "mode", MODES, ids=["no_grad", "inference", "grad", "autocast", "device", "anomaly", "profiler"]
)
def test_a_mode_changes_neither_the_report_nor_is_it_changed(mode: Mode, inside: bool) -> None:
    plain, error = report_of(shape_error()), shape_error()
    if inside and mode is MODES[4]:
        pytest.skip("a model on another device is another program")
    with mode():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        report = report_of(shape_error() if inside else error)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")) == before
    assert (report.title, report.module, report.formula) == (plain.title, plain.module, plain.formula)
    assert [fix.text for fix in report.fixes if fix.verified] == [fix.text for fix in plain.fixes if fix.verified]


def test_under_deterministic_algorithms() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        assert report_of(shape_error()).fixes[0].verified
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_in_a_thread_of_errors_of_other_threads() -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        errors = list(pool.map(lambda _: shape_error(), range(8)))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        reports = list(pool.map(report_of, errors))
    assert {report.title for report in reports} == {"`fc` got 36 features and takes 9"}
    assert all(report.fixes[0].verified for report in reports)


def test_an_error_of_another_thread_is_explained_in_this_one() -> None:
    found: list[Exception] = []
    thread = threading.Thread(target=lambda: found.append(shape_error()))
    thread.start()
    thread.join()
    assert report_of(found[0]).fixes[0].verified


def test_what_a_worker_process_sends_back_has_no_frames_and_is_left_alone() -> None:
    error = pickle.loads(pickle.dumps(shape_error()))
    error.__cause__ = RuntimeError("\n" + "".join(traceback.format_exception(shape_error())))
    assert explain(error) is None


def test_a_model_on_the_meta_device_is_explained_on_the_meta_device() -> None:
    model = Flattened().to("meta")
    report = report_of(caught(model, images().to("meta")))
    assert report.title == "`fc` got 36 features and takes 9"
    assert {operand.device for operand in report.operands} <= {"meta", "cpu"}
    assert all(weight.is_meta for weight in model.parameters())


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    error = shape_error()
    capfd.readouterr()
    explain(error)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_model_too_large_to_copy_is_run_again_without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(8000, 8000, bias=False), nn.Linear(100, 2))
    seen: list[bool] = []

    def listening(program: Program, *, real: bool) -> Any:
        seen.append(real)
        return replay(program, real=real)

    monkeypatch.setattr(explain_module, "replay", listening)
    report = report_of(caught(model, torch.zeros(1, 8000)))
    assert seen[0] is False
    assert report.title == "`1` (Linear) got 8000 features and takes 100"
    assert report.fixes[0].verified


# -- the law: it never raises, and changes nothing about the error --


class Silent(RuntimeError):  # noqa: N818
    """Cannot be told."""

    def __str__(self) -> str:
        raise ZeroDivisionError("no words")


class Slotted(RuntimeError):  # noqa: N818
    """Takes no attribute."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(name)


WORDS = st.sampled_from(
    [
        "size mismatch",
        "shape '[2]' is invalid",
        "expected 3, got 4",
        "dim",
        "",
        "\n\n",
        "index 9 is out of bounds",
        "%s {}",
    ]
)
MESSAGES = st.one_of(WORDS, st.text(max_size=50), st.builds(lambda word, n: word * n, WORDS, st.integers(1, 5000)))
ERRORS = st.builds(
    lambda kind, message: kind(message),
    st.sampled_from([RuntimeError, ValueError, IndexError, TypeError, AssertionError, NotImplementedError, Slotted]),
    st.one_of(MESSAGES, st.binary(max_size=9), st.none(), st.integers(), st.tuples(MESSAGES, st.integers())),
)


@given(ERRORS, st.booleans(), st.none() | ERRORS)
def test_whatever_is_raised_nothing_comes_of_explaining_it(error: Exception, raised: bool, cause: Any) -> None:
    def fail() -> None:
        raise error from cause

    if raised:
        caught(fail)
    before = type(error), error.args, error.__traceback__, error.__cause__, error.__context__
    assert explain(error) is None
    assert (type(error), error.args, error.__traceback__, error.__cause__, error.__context__) == before
    assert notes(error) == []


@given(st.lists(ERRORS, min_size=1, max_size=3), st.booleans())
def test_a_group_of_errors_is_left_alone(errors: list[Exception], raised: bool) -> None:
    group = ExceptionGroup("tensor shapes", errors)

    def fail() -> None:
        raise group

    if raised:
        caught(fail)
    assert explain(group) is None


def test_the_cause_of_an_error_is_explained() -> None:
    def fail() -> None:
        try:
            Flattened()(images())
        except RuntimeError as error:
            raise KeyError("epoch 3") from error

    assert report_of(caught(fail)).module == "fc"


@pytest.mark.parametrize("length", [1, 2])
def test_a_loop_of_causes_ends(length: int) -> None:
    errors = [ValueError(f"{n}") for n in range(length)]
    for error, cause in zip(errors, errors[1:] + errors[:1], strict=True):
        error.__cause__ = cause
    assert explain(errors[0]) is None


def test_an_error_without_words_is_left_alone() -> None:
    def fail() -> None:
        raise Silent

    assert explain(caught(fail)) is None


def test_of_a_long_list_only_a_few_operands_are_told() -> None:
    report = report_of(caught(lambda: torch.cat([torch.zeros(n, n) for n in range(1, 400)])))
    assert len(str(report).splitlines()) < 30


def test_an_error_that_takes_no_attribute_is_explained_all_the_same() -> None:
    class Strict(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            try:
                return x + torch.zeros(7)
            except RuntimeError as error:
                raise Slotted(str(error)) from error

    assert report_of(caught(Strict(), torch.zeros(2))).op == "add"


def test_a_terminal_that_is_gone_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    assert attach(shape_error()) is not None
