"""A hundred thousand steps: memory, objects and what waits to be written stay flat; the file grows evenly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tensorscope import open_run
from tensorscope.events import STORED

STEPS = 100_000
LOOKS = 20  # times that memory is looked at
PATIENCE_SECONDS = 3600  # only ever spent by a test that fails

# How much more there may be after the run's second half: one object or row leaked a step would be many times as much.
ROOM = {"resident": 12.0, "blocks": 5_000, "objects": 1_000}  # MiB, and numbers of allocations and of objects
WAITING_STEPS = STEPS // 10
BYTES_PER_NUMBER, BYTES_AT_ALL = 16, 2**20  # of a run file: what the numbers take, and what every run has

PROGRAM = """
import gc, json, os, random, sys
from pathlib import Path
import torch
from torch import nn
import tensorscope

path, steps, looks, every, changing = sys.argv[1], *(json.loads(text) for text in sys.argv[2:])
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), 1e-3)
with tensorscope.trace(model, path, every=every) as trace:
    for step in range(steps):
        loss = model(torch.randn(random.randint(1, 64) if changing else 8, 4)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trace.log(loss=loss)
        if (step + 1) % (steps // looks) == 0:
            del loss
            gc.collect()
            run = tensorscope.open_run(path)
            look = {
                "step": step,
                "resident": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20,
                "blocks": sys.getallocatedblocks(),
                "objects": len(gc.get_objects()),
                "waiting": step - run.last_step,
                "dropped": run.dropped,
                "bytes": sum(file.stat().st_size for file in Path(path).iterdir()),
            }
            run.close()
            del run
            print(json.dumps(look), flush=True)
"""


def looks(folder: Path, every: int | None, changing: bool) -> list[dict[str, Any]]:
    """What a training of its own process said of itself."""
    options = [json.dumps(option) for option in (STEPS, LOOKS, every, changing)]
    command = [sys.executable, "-c", PROGRAM, str(folder / "run"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("changing", [False, True], ids=["one shape", "another shape at every step"])
@pytest.mark.parametrize("every", [None, 1], ids=["at defaults", "every step"])
def test_nothing_grows_over_a_hundred_thousand_steps(every: int | None, changing: bool, tmp_path: Path) -> None:
    seen = looks(tmp_path, every, changing)
    print()
    for look in seen:
        print(" ", "  ".join(f"{name} {number:,.6g}" for name, number in look.items()))
    assert max(look["waiting"] for look in seen) < WAITING_STEPS
    for name, room in ROOM.items():
        # What waits to be written when somebody looks comes and goes: the least of several looks is what stays.
        early, late = (min(look[name] for look in some) for some in (seen[5:10], seen[-5:]))
        assert late - early < room, name
    run = open_run(tmp_path / "run")
    assert run.status == "finished"
    assert run.notes == []
    assert run.last_step == STEPS - 1
    size = sum(file.stat().st_size for file in (tmp_path / "run").iterdir())
    numbers = len(run.measured_steps) * len(run.sites) * len(STORED) + STEPS
    print(f"  {len(run.measured_steps)} steps measured, {size:,} bytes, {size / numbers:.2f} a recorded number")
    assert size < BYTES_PER_NUMBER * numbers + BYTES_AT_ALL
    assert max(len(run.shapes(str(site))) for site in run.sites) <= 64
