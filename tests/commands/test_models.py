"""`tensorscope models`: the list, trainings with their scores, and what is said of wrong input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reference_models import PRESETS
from tensorscope import open_run
from tui.scores import known_scores, scores_file


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of a test are not the user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def models(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tui.cli", "models", *args]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False,
        env=os.environ | {"COLUMNS": "160"},
    )  # fmt: skip


def test_the_list_tells_of_every_model_in_text_and_json(tmp_path: Path) -> None:
    said = models(cwd=tmp_path).stdout
    listed = json.loads(models("--json", cwd=tmp_path).stdout)
    assert [row["name"] for row in listed] == list(PRESETS)
    assert {row["name"]: row["parameters"] for row in listed}["iris-mlp"] == 259
    assert all(row["targets"] or row["provokes"] for row in listed)
    for row in listed:
        assert row["name"] in said
        assert row["task"].split()[0] in said
    assert "\x1b" not in said


def test_a_training_is_traced_scored_and_remembered(tmp_path: Path) -> None:
    done = models("train", "xor-mlp", "--seed", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("| xor-mlp | 2 | XOR, ")
    assert "epoch 499" in done.stderr
    run = open_run(tmp_path / "runs" / "xor-mlp-3")
    assert (run.status, run.last_step) == ("finished", 499)
    assert {"loss", "accuracy"} <= set(run.scalar_names)
    assert known_scores()["xor-mlp"]["3"]["train_accuracy"] == 1
    listed = json.loads(models("--json", cwd=tmp_path).stdout)
    assert {row["name"]: row["scores"] for row in listed}["xor-mlp"] == known_scores()["xor-mlp"]


def test_a_missed_target_is_marked_and_exits_with_1_and_short_trainings_are_not_remembered(tmp_path: Path) -> None:
    done = models("train", "digits-mlp", "--epochs", "1", "--seed", "0", "--seed", "1", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.count("✗") >= 1
    assert "| target | seed 0 | seed 1 |" in done.stdout
    assert known_scores() == {}


def test_passes_are_steps_where_there_is_no_optimizer(tmp_path: Path) -> None:
    assert models("train", "perceptron-and", cwd=tmp_path).returncode == 0
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
def test_wrong_input_is_said_and_exits_with_2(args: tuple[str, ...], text: str, tmp_path: Path) -> None:
    done = models(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert text in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_spoiled_file_of_scores_is_as_good_as_none(tmp_path: Path) -> None:
    scores_file().parent.mkdir(parents=True)
    for text in ("", "[]", '{"cnn": '):
        scores_file().write_text(text)
        assert known_scores() == {}
