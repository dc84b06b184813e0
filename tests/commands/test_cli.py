"""The command line as a user meets it: a process, its output and its exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_runs import make_run

from tensorscope import open_run
from tui.cli import COMMANDS, main


def tensorscope(*args: str, cwd: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tui.cli", *args]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False
    )


def test_help_lists_every_command_and_loads_no_torch(tmp_path: Path) -> None:
    done = tensorscope("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert all(re.search(rf"^  {name} ", done.stdout, re.MULTILINE) for name in COMMANDS)


def test_a_misspelt_command_is_guessed(tmp_path: Path) -> None:
    done = tensorscope("wacth", cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no command `wacth`" in done.stderr
    assert "did you mean `watch`?" in done.stderr


def test_diagnose_prints_the_account_and_exits_with_1_on_a_finding(tmp_path: Path) -> None:
    make_run(tmp_path / "run", nan_from=40)
    done = tensorscope("diagnose", "run", cwd=tmp_path)
    assert done.returncode == 1
    assert "finished · 60 steps · 60 measured" in done.stdout
    assert re.search(r"^conv2 +Conv2d +\(64, 64, 11, 11\) +320 ", done.stdout, re.MULTILINE)
    assert "error nan_inf" in done.stdout
    assert "\x1b" not in done.stdout, "no colours in a pipe"


def test_diagnose_exits_with_0_where_nothing_is_wrong(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    done = tensorscope("diagnose", "run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no findings in 60 measured steps" in done.stdout


def test_diagnose_speaks_json(tmp_path: Path) -> None:
    make_run(tmp_path / "run", nan_from=40)
    said = json.loads(tensorscope("diagnose", "run", "--json", cwd=tmp_path).stdout)
    assert said["status"] == "finished"
    assert said["findings"][0]["rule"] == "nan_inf"
    assert said["findings"][0]["first_step"] == 40


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("diagnose", "rn"), "error: the run `rn` does not exist\n\nhint: did you mean `run`?"),
        (("watch", "run"), "error: `watch` needs a terminal\n\nhint: `tensorscope diagnose run` prints"),
        (
            ("plot", "run", "curve"),
            "there is no plot `curve`\n  kinds  curves, gradients\n\nhint: did you mean `curves`?",
        ),
        (("plot", "run", "-o", "x.xyz"), "`x.xyz` cannot be written"),
        (("graph", "run"), "error: the run `run` holds no graph"),
        (("graph", "nothing:Here", "2"), "there is no module `nothing`"),
        (("graph", "model.py:Here", "2"), "there is no file `model.py`"),
        (("graph", "reference_models.cnn:SimpleCN", "2"), "did you mean `SimpleCNN`?"),
        (("graph", "reference_models.cnn:SimpleCNN", "batch channels"), "`channels` in `batch channels` has no size"),
        (("demo", "resnte"), "there is no reference model `resnte`\n\nhint: did you mean `resnet`?"),
        (("demo", "--watch"), "`--watch` needs a terminal"),
    ],
)
def test_wrong_input_is_said_and_exits_with_2(
    args: tuple[str, ...],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_run(tmp_path / "run", steps=5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tensorscope", *args])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert text in capsys.readouterr().err


def test_graph_draws_a_model_given_its_dims(tmp_path: Path) -> None:
    done = tensorscope("graph", "reference_models.cnn:SimpleCNN", "batch=4 1 28 28", "-o", "cnn.svg", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "cnn.svg\n")
    assert "batch=4" in (tmp_path / "cnn.svg").read_text()


def test_graph_finds_a_factory_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tensorscope", "graph", "mine.py:build", "int64 batch seq=16", "-o", "mine.dot"])
    main()
    assert "Embedding" in (tmp_path / "mine.dot").read_text()


@pytest.mark.parametrize("kind", ["curves", "gradients"])
def test_plot_writes_a_picture(kind: str, tmp_path: Path) -> None:
    make_run(tmp_path / "run", nan_from=40)
    done = tensorscope("plot", "run", kind, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{kind}.png\n")
    assert (tmp_path / f"{kind}.png").read_bytes().startswith(b"\x89PNG")


def test_the_demo_without_a_terminal_trains_reports_and_writes_its_pictures(tmp_path: Path) -> None:
    done = tensorscope("demo", "cnn-tiny", "--epochs", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "epoch 1: loss" in done.stderr
    # Which batch was measured last, a whole one or the short one, depends on how fast the machine is.
    assert re.search(r"^conv1 +Conv2d +\((64|30), 16, 8, 8\) +160 ", done.stdout, re.MULTILINE)
    for part in ("(target test_accuracy ≥ 0.95)", "gradient", "test_accuracy", "graph.svg"):
        assert part in done.stdout
    folder = tmp_path / "runs" / "demo-cnn-tiny"
    assert {path.name for path in folder.iterdir()} == {"rank0.sqlite", "graph.svg", "curves.png"}
    run = open_run(folder)
    assert run.status == "finished"
    assert len(run.steps) == 46


def training(folder: Path, steps: int = 100_000) -> subprocess.Popen[str]:
    """A real training in a process of its own, which says each step once it is done."""
    script = f"""
import torch, tensorscope
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
with tensorscope.trace(model, {str(folder)!r}, every=1) as trace:
    for step in range({steps}):
        optimizer.zero_grad()
        loss = model(torch.randn(32, 8)).square().mean()
        loss.backward()
        optimizer.step()
        trace.log(loss=loss)
        print(step, flush=True)
"""
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def read_steps(process: subprocess.Popen[str], seconds: float) -> dict[int, float]:
    """Step → when it was done, for so many seconds from the first."""
    assert process.stdout is not None
    done: dict[int, float] = {}
    while not done or time.monotonic() - done[0] < seconds:
        step = int(process.stdout.readline())
        done[step] = time.monotonic()
    return done


@pytest.mark.slow  # tests/run/test_kills.py asks it more closely
def test_after_kill_9_the_run_opens_and_lacks_at_most_the_last_second(tmp_path: Path) -> None:
    process = training(tmp_path / "run")
    done = read_steps(process, 2.5)
    assert open_run(tmp_path / "run").status == "running"
    process.kill()
    killed = time.monotonic()
    process.communicate()
    run = open_run(tmp_path / "run")
    assert run.status == "died"
    kept = run.scalars("loss")[0]
    assert kept.tolist() == list(range(len(kept)))
    assert run.measured_steps[-1] >= max(step for step, when in done.items() if when < killed - 1.5)
    assert tensorscope("diagnose", "run", cwd=tmp_path).stdout.splitlines()[1].startswith("died · ")


def test_ctrl_c_leaves_a_run_that_says_so(tmp_path: Path) -> None:
    process = training(tmp_path / "run")
    read_steps(process, 0.5)
    os.kill(process.pid, signal.SIGINT)
    process.communicate()
    assert open_run(tmp_path / "run").status == "interrupted"


def test_a_program_that_ends_without_closing_its_trace_leaves_a_finished_run(tmp_path: Path) -> None:
    script = (
        "import torch, tensorscope; m = torch.nn.Linear(2, 1); t = tensorscope.trace(m, 'run', every=1);"
        "m(torch.ones(1, 2)); t.log(loss=1.0)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    run = open_run(tmp_path / "run")
    assert run.status == "finished"
    assert run.scalars("loss")[1].tolist() == [1.0]


def test_a_program_that_fails_without_closing_its_trace_leaves_a_dead_run(tmp_path: Path) -> None:
    script = (
        "import torch, tensorscope; m = torch.nn.Linear(2, 1); t = tensorscope.trace(m, 'run', every=1);"
        "m(torch.ones(1, 2)); m(torch.ones(1, 3))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "mat1 and mat2" in done.stderr
    run = open_run(tmp_path / "run")
    assert run.status == "died"
    assert "mat1 and mat2" in run.meta["error"]
