"""`tensorscope models`: the list, trainings with their scores, and what is said of wrong input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reference_models import PRESETS
from tensorscope import open_run
from tui.cli import main
from tui.scores import known_scores, scores_file

Models = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of a test are not the user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Models:
    """Runs the command here, in a folder of its own: exit code, what it printed, what it said to stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tensorscope", "models", *args])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), *capsys.readouterr()
        return 0, *capsys.readouterr()

    return run


def test_the_list_tells_of_every_model_in_text_and_json(models: Models) -> None:
    said = models()[1]
    listed = json.loads(models("--json")[1])
    assert [row["name"] for row in listed] == list(PRESETS)
    assert {row["name"]: row["parameters"] for row in listed}["iris-mlp"] == 259
    assert all(row["targets"] or row["provokes"] for row in listed)
    for row in listed:
        assert row["name"] in said
        assert row["task"].split()[0] in said
    assert "\x1b" not in said


def test_it_is_a_program_that_says_what_it_does_and_how_it_went(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tui.cli", "models", "train", "perceptron-and", "--epochs", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "✗" in done.stdout
    assert "training `perceptron-and`, seed 0" in done.stderr


def test_a_training_is_traced_scored_and_remembered(models: Models, tmp_path: Path) -> None:
    code, out, err = models("train", "xor-mlp", "--seed", "3")
    assert code == 0, err
    assert out.splitlines()[-1] == "| xor-mlp | 2 | train_accuracy ≥ 1 | 1 |"
    assert "epoch 499" in err
    run = open_run(tmp_path / "runs" / "xor-mlp-3")
    assert (run.status, run.last_step) == ("finished", 499)
    assert {"loss", "accuracy"} <= set(run.scalar_names)
    assert known_scores()["xor-mlp"]["3"]["train_accuracy"] == 1
    listed = json.loads(models("--json")[1])
    assert {row["name"]: row["scores"] for row in listed}["xor-mlp"] == known_scores()["xor-mlp"]


def test_a_missed_target_is_marked_and_exits_with_1_and_short_trainings_are_not_remembered(models: Models) -> None:
    code, out, _ = models("train", "digits-mlp", "--epochs", "1", "--seed", "0", "--seed", "1")
    assert code == 1
    assert out.count("✗") == 2
    assert "| target | seed 0 | seed 1 |" in out
    assert known_scores() == {}


def test_passes_are_steps_where_there_is_no_optimizer(models: Models, tmp_path: Path) -> None:
    assert models("train", "perceptron-and")[0] == 0
    run = open_run(tmp_path / "runs" / "perceptron-and-0")
    assert run.scalars("mistakes")[1].tolist()[-4:] == [0, 0, 0, 0]
    assert run.last_step == 79


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("train", "iris-mpl"), "there is no reference model `iris-mpl`\n\nhint: did you mean `iris-mlp`"),
        (("train",), "name models to train, or ask for `--all`"),
        (("train", "iris-mlp", "--all"), "name models to train, or ask for `--all`"),
        (("train", "iris-mlp", "elman", "--run", "x"), "`--run` and `--watch` are for one model and one seed"),
        (("train", "iris-mlp", "--watch"), "`--watch` needs a terminal"),
    ],
)
def test_wrong_input_is_said_and_exits_with_2(args: tuple[str, ...], text: str, models: Models, tmp_path: Path) -> None:
    code, _, err = models(*args)
    assert code == 2
    assert text in err
    assert not (tmp_path / "runs").exists()


def test_a_spoiled_file_of_scores_is_as_good_as_none(tmp_path: Path) -> None:
    scores_file().parent.mkdir(parents=True)
    for text in ("", "[]", '{"cnn": '):
        scores_file().write_text(text)
        assert known_scores() == {}
