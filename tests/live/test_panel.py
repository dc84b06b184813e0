"""The report as a panel, and the hook that puts it below a traceback."""

from __future__ import annotations

import io
import os
import pickle
import pty
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import made_report
from rich.cells import cell_len
from rich.console import Console

from tensorscope.live import panel as panels
from tensorscope.live.panel import install, panel, rendered, told
from tensorscope.reports import ShapeReport

ROOT = Path(__file__).parents[2]

GOLDEN = """\
╭─  shape error  ──────────────────────────────────────────────────────────────╮
│ `fc1` got 1600 features and takes 4096                                       │
│                                                                              │
│ at         model.py:23  x = self.fc1(x.flatten(1))                           │
│ in         `fc1` (Linear), called in SimpleCNN.forward                       │
│ op         linear                                                            │
│            input   (batch=4, 1600)  float32  cpu                             │
│            weight  (128, 4096)      float32  cpu                             │
│ got        1600 = 64 · 5 · 5                                                 │
│            64  conv2.out_channels                                            │
│            5   height: 28 → conv1 26 → pool1 13 → conv2 11 → pool2 5         │
│            5   width, likewise                                               │
│ path       x (4, 1, 28, 28) → conv1 (4, 32, 26, 26) → relu1 (4, 32, 26, 26)  │
│            → pool1 (4, 32, 13, 13) → conv2 (4, 64, 11, 11)                   │
│            → relu2 (4, 64, 11, 11) → pool2 (4, 64, 5, 5) → flatten (4, 1600) │
│ would fit  images of height and width 38 to 41                               │
│ error      RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x1600   │
│            and 4096x128)                                                     │
│ note       the forward was replayed without data                             │
│                                                                              │
│ ✓ `nn.Linear(1600, 128)` at model.py:12 (tried: the program then runs        │
│   through)                                                                   │
│ ? resize the images to 38 × 38 (not tried)                                   │
╰──────────────────────────────────────────────────────────────────────────────╯
"""


def drawn(report: ShapeReport, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as said:
        console.print(panel(report))
    return said.get()


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts with the hook that it ends with, and knows no report."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(panels, "_reports", {})


def on_terminal(monkeypatch: pytest.MonkeyPatch, *, is_it: bool = True) -> io.StringIO:
    stream = io.StringIO()
    stream.isatty = lambda: is_it  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def explained(text: str = "mat1 and mat2", **changes: object) -> tuple[RuntimeError, ShapeReport]:
    error, report = RuntimeError(text), made_report(**changes)
    error.add_note(f"\n{report}")
    return error, report


def test_a_panel_reads_well_at_80_columns_without_colour() -> None:
    assert drawn(made_report(), 80) == GOLDEN


def test_a_report_that_knows_little_is_short() -> None:
    report = ShapeReport("`x` broke", "RuntimeError: x", "add")
    assert [line.strip("│ ") for line in drawn(report, 40).splitlines()[1:-1]] == [
        "`x` broke",
        "",
        "op     add",
        "error  RuntimeError: x",
    ]


@pytest.mark.parametrize("width", [20, 30, 40, 60, 79, 81, 120, 300])
def test_a_panel_keeps_to_its_width_and_loses_nothing(width: int) -> None:
    text = drawn(made_report(), width)
    assert all(cell_len(line) <= width for line in text.splitlines())
    joined = "".join("".join(line.strip("│ ")) for line in text.splitlines()).replace(" ", "")
    for word in ("4096", "conv2.out_channels", "model.py:12", "flatten", "(nottried)", "float32"):
        assert word in joined or width < 60


@given(st.text(max_size=30), st.lists(st.integers(0, 10**9), max_size=9), st.integers(10, 130))
def test_whatever_a_report_says_can_be_drawn(text: str, dims: list[int], width: int) -> None:
    report = made_report(title=text, op=text, formula=text, fits=text, notes=(text,), terms=((text, text),))
    from dataclasses import replace

    operands = tuple(replace(operand, name=text, dims=tuple(dims), names=()) for operand in report.operands)
    assert drawn(replace(report, operands=operands, origin=()), width)


def test_elsewhere_than_on_a_terminal_a_report_is_its_text() -> None:
    assert rendered(made_report(), io.StringIO()) == f"{made_report()}\n"


def test_the_panel_takes_the_place_of_the_note_below_the_usual_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = on_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    error, report = explained()
    error.add_note("a note of the user's own")
    before = list(error.__notes__)
    install(error, report)
    sys.excepthook(type(error), error, None)
    text = stream.getvalue()
    assert text.startswith("RuntimeError: mat1 and mat2\na note of the user's own\n\n")
    assert text.count("got 1600 features") == 1
    assert text.count("╭") == 1
    assert error.__notes__ == before
    assert sys.excepthook is sys.__excepthook__


def test_other_exceptions_go_to_the_hook_that_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    heard: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, frames: heard.append(error))
    install(*explained())
    other = RuntimeError("mat1 and mat2")
    sys.excepthook(type(other), other, None)
    assert heard == [other]


def test_many_errors_that_were_caught_leave_one_hook_and_keep_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = on_terminal(monkeypatch)
    for number in range(50):
        install(*explained(title=f"error {number}"))
    assert len(panels._reports) == panels.KEPT
    assert isinstance(sys.excepthook, panels._Hook)
    assert sys.excepthook.before is sys.__excepthook__
    last, _ = explained(title="error 49")
    sys.excepthook(type(last), last, None)
    assert stream.getvalue().count("error 49") == 1


def test_a_hook_put_around_ours_is_no_endless_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = on_terminal(monkeypatch)
    error, report = explained()
    install(error, report)
    inner = sys.excepthook
    monkeypatch.setattr(sys, "excepthook", partial(inner))
    install(error, report)
    sys.excepthook(type(error), error, None)
    assert stream.getvalue().count("got 1600 features") == 1


@pytest.mark.parametrize("why", ["a pipe", "IPython", "no stream", "a closed stream"])
def test_where_there_is_no_plain_terminal_nothing_changes(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    on_terminal(monkeypatch, is_it=why != "a pipe")
    if why == "IPython":
        monkeypatch.setattr(builtins, "__IPYTHON__", True, raising=False)
    if why == "no stream":
        monkeypatch.setattr(sys, "stderr", None)
    if why == "a closed stream":
        closed = io.StringIO()
        closed.close()
        monkeypatch.setattr(sys, "stderr", closed)
    error, report = explained()
    install(error, report)
    assert sys.excepthook is sys.__excepthook__
    assert told(error) == report


def test_a_panel_that_cannot_be_drawn_leaves_the_note(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = on_terminal(monkeypatch)

    def fails(_: Any) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(panels, "panel", fails)
    error, report = explained()
    install(error, report)
    sys.excepthook(type(error), error, None)
    assert stream.getvalue() == f"RuntimeError: mat1 and mat2\n\n{report}\n"


def test_an_error_stays_as_it_was_and_can_be_pickled() -> None:
    error, report = explained()
    facts = dict(vars(error))
    install(error, report)
    assert vars(error) == facts
    assert pickle.loads(pickle.dumps(error)).__notes__ == error.__notes__


PROGRAM = """
import sys
sys.path.insert(0, "tests")
from made_runs import made_report
from tensorscope.live.panel import install
def fail():
    error = RuntimeError("mat1 and mat2")
    error.add_note(str(made_report()))
    install(error, made_report())
    raise error
fail()
"""


def on_pty(command: list[str]) -> str:
    """What a process writes to its standard error when that is a terminal."""
    ours, theirs = pty.openpty()
    env = os.environ | {"COLUMNS": "80", "TERM": "dumb"}
    process = subprocess.Popen(command, stderr=theirs, stdin=theirs, stdout=theirs, cwd=ROOT, env=env)
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 4096):
            parts.append(part)
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 1
    return b"".join(parts).decode().replace("\r\n", "\n")


def test_a_program_dies_with_a_panel_on_a_terminal_and_with_a_note_in_a_pipe() -> None:
    text = on_pty([sys.executable, "-c", PROGRAM])
    assert text.startswith('Traceback (most recent call last):\n  File "<string>", line 11, in <module>')
    assert text.endswith(f"RuntimeError: mat1 and mat2\n\n{GOLDEN}")
    piped = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT, check=False, encoding="utf-8"
    )
    assert piped.stderr.endswith(f"RuntimeError: mat1 and mat2\n{made_report()}\n")
