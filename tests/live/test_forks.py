"""Processes that a traced training starts: nothing of theirs gets into its run, nothing hangs, nothing is printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import tensorscope
from tensorscope import open_run

STEPS = 8
PATIENCE_SECONDS = 120  # only ever spent by a test that fails

# Each is one program: a training of `STEPS` steps that has a child on the way. It knows `model`, `train`, `trace`.
START = f"""
import multiprocessing, os, sys, time
import torch
from torch import nn
import tensorscope

def train(model, steps, trace=None, optimizer=None):
    optimizer = optimizer or torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        loss = model(torch.randn(16, 64)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if trace is not None:
            trace.log(loss=loss)

def wait_for(child):
    _, status = os.waitpid(child, 0)
    assert status == 0, status

def as_child(model, trace=None):
    train(model, 5, trace)

torch.set_num_threads(1)
if __name__ == "__main__":
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1))
    trace = tensorscope.trace(model, sys.argv[1], every=1)
    train(model, {STEPS // 2}, trace)
"""
CHILDREN = {
    "trains on and leaves at once": """
    child = os.fork()
    if not child:
        train(model, 5, trace)
        os._exit(0)
    wait_for(child)
""",
    "trains on and ends as a program does": """
    child = os.fork()
    if not child:
        train(model, 5, trace)
        sys.exit(0)
    wait_for(child)
""",
    "closes the trace": """
    child = os.fork()
    if not child:
        train(model, 5, trace)
        trace.findings()
        trace.close()
        os._exit(0)
    wait_for(child)
""",
    "leaves the trace by an error": """
    child = os.fork()
    if not child:
        try:
            with trace:
                raise ValueError("the child's own")
        except ValueError:
            os._exit(0)
    wait_for(child)
""",
    "outlives the training": """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.read(reading, 1)
        train(model, 5, trace)
        sys.exit(0)
""",
    "is one of many, started while much is written": """
    children = []
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(20):
        train(model, 1, None, optimizer)
        child = os.fork()
        if not child:
            train(model, 2, trace)
            trace.close()
            os._exit(0)
        children.append(child)
    for child in children:
        wait_for(child)
""",
    "collects garbage that holds a database": """
    import gc, signal
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    gc.disable()
    for _ in range(100):
        garbage = [tensorscope.open_run(sys.argv[1])]
        garbage.append(garbage)
        garbage = None
        train(model, 1, None, optimizer)
        child = os.fork()
        if not child:
            signal.alarm(20)
            gc.collect()
            os._exit(0)
        wait_for(child)
""",
    "is forked by multiprocessing": """
    child = multiprocessing.get_context("fork").Process(target=as_child, args=(model, trace))
    child.start()
    child.join()
    assert child.exitcode == 0, child.exitcode
""",
    "is spawned": """
    child = multiprocessing.get_context("spawn").Process(target=as_child, args=(model,))
    child.start()
    child.join()
    assert child.exitcode == 0, child.exitcode
""",
    "is spawned with a shared model": """
    child = multiprocessing.get_context("spawn").Process(target=as_child, args=(model.share_memory(),))
    child.start()
    child.join()
    assert child.exitcode == 0, child.exitcode
""",
    "traces a run of its own": """
    child = os.fork()
    if not child:
        with tensorscope.trace(model, sys.argv[1] + "-child", every=1) as own:
            train(model, 5, own)
        run = tensorscope.open_run(sys.argv[1] + "-child")
        assert run.status == "finished", run.status
        assert run.measured_steps == [0, 1, 2, 3, 4], run.measured_steps
        os._exit(0)
    wait_for(child)
""",
}
END = {
    "outlives the training": f"""
    train(model, {STEPS - STEPS // 2}, trace)
    trace.close()
    os.write(writing, b"x")
    wait_for(child)
""",
}
OTHERWISE = f"""
    train(model, {STEPS - STEPS // 2}, trace)
    trace.close()
"""
MORE_STEPS = {"is one of many, started while much is written": 20, "collects garbage that holds a database": 100}
FAST = {"trains on and ends as a program does"}


@pytest.mark.parametrize(
    "child", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CHILDREN]
)
def test_nothing_of_a_child_is_in_the_run(child: str, tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(START + CHILDREN[child] + END.get(child, OTHERWISE))
    program = [sys.executable, "-W", "ignore::DeprecationWarning", str(file), str(tmp_path / "run")]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    run = open_run(tmp_path / "run")
    steps = list(range(STEPS + MORE_STEPS.get(child, 0)))
    assert run.status == "finished"
    assert run.measured_steps == steps
    assert run.scalars("loss")[0].size == STEPS
    assert run.notes == []
    assert run.dropped == 0
    assert run.reports == []


class Featured(Dataset[Tensor]):
    """Samples that the traced model itself makes, in the loader's processes."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __len__(self) -> int:
        return 64

    def __getitem__(self, number: int) -> Tensor:
        with torch.set_grad_enabled(number % 2 == 0):
            return self.model(torch.full((1, 8), float(number))).detach()[0]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("persistent", [True, False])
def test_the_workers_of_a_loader_leave_the_run_alone(
    persistent: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with tensorscope.trace(model, tmp_path / "run", every=1) as trace:
        loader = DataLoader(Featured(model), 16, num_workers=2, persistent_workers=persistent)
        for _ in range(2):
            for batch in loader:
                loss = model(batch).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                trace.log(loss=loss)
    run = open_run(tmp_path / "run")
    assert run.measured_steps == list(range(8))
    assert run.scalars("loss")[0].tolist() == list(range(8))
    assert {tuple(shape.dims) for shape in run.shapes("<root>")} == {(16, 8)}  # the workers' would be (1, 8)
    assert (run.notes, run.dropped, run.status) == ([], 0, "finished")
    assert capfd.readouterr() == ("", "")
