"""`tensorscope check` and `summary` on the command line: what they print, and how they exit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tui.cli import main

MODELS = """
import torch
from torch import nn
from torch.nn import functional as F

def fits():
    return nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 2))

def breaks():
    return nn.Sequential(nn.Linear(4, 8), nn.Linear(9, 2))

def with_inputs():
    return nn.Linear(3, 2), (torch.zeros(5, 3),)

def tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model

class Masked(nn.Module):
    def forward(self, x, *, mask):
        return x * mask

def needs(width):
    return nn.Linear(width, 2)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    """The exit code of the command line."""
    monkeypatch.setattr(sys, "argv", ["tensorscope", *args])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_check_prints_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "check", "models.py:fits", "int64 batch seq=7") == 0
    said = capsys.readouterr().out
    assert "input (batch, seq) int64 → (batch, seq, 2) float32" in said
    assert "batch is free" in said
    assert "\x1b" not in said


def test_check_takes_an_input_by_its_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "check", "models.py:Masked", "batch seq", "mask: bool batch seq") == 0
    assert "mask (batch, seq) bool" in capsys.readouterr().out


def test_check_uses_the_inputs_that_a_factory_returns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "check", "models.py:with_inputs", "--json") == 0
    assert json.loads(capsys.readouterr().out)["sizes"] == {"batch": 5, "features": 3}


def test_check_explains_what_breaks_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "check", "models.py:breaks", "batch 4") == 1
    said = capsys.readouterr().out
    assert "9" in said
    assert "8" in said
    assert run(monkeypatch, "check", "models.py:breaks", "batch 4", "--json") == 1
    assert "mat1 and mat2" in json.loads(capsys.readouterr().out)["error"]


def test_summary_is_torchinfos_with_tied_parameters_put_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "summary", "models.py:tied", "batch features") == 0
    said = capsys.readouterr().out
    assert "Total params: 40" in said
    assert "Tied parameters are counted more than once above: there are 24.\n  `0.weight` is also `1.weight`" in said
    assert run(monkeypatch, "summary", "models.py:fits", "int64 batch seq") == 0
    assert "Tied" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["check", "summary"])
@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("models.py",), "`models.py` names no model\n\nhint: write `package.module:name` or `file.py:name`"),
        (("modls:fits",), "there is no module `modls`\n\nhint: write `package.module:name` or `file.py:name`"),
        (("models.py:fit", "2 3"), "`models.py` has no `fit`\n\nhint: did you mean `fits`?"),
        (("models.py:fits",), "`Sequential` missing a required argument: 'input'\n  takes  `input`\n  got    no dims"),
        (
            ("models.py:fits", "2", "3"),
            "`Sequential` too many positional arguments\n  takes  `input`\n  got    `2`, `3`",
        ),
        (("models.py:Masked", "2", "mak: 2"), "`Masked` missing a required argument: 'mask'\n  takes  `x`, `mask`"),
        (("models.py:needs", "2"), "`needs` cannot be called without arguments: missing a required argument: 'width'"),
        (("models.py:fits", "batch ..."), "`...` in `batch ...` leaves the number of axes open"),
        (("models.py:MODELS", "2"), "`models.py` has no `MODELS`"),
        (("models.py:F", "2"), "`models.py:F` makes no model\n  got  a module"),
    ],
)
def test_wrong_input_is_said_and_exits_with_2(
    command: str,
    args: tuple[str, ...],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, command, *args) == 2
    assert text in capsys.readouterr().err
