"""Real trainings under `torchrun`: every rank writes a file of its own into one run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tensorscope import Run, open_run
from tensorscope.run.folders import find_runs

STEPS = 20
PATIENCE_SECONDS = 240  # only ever spent by a test that fails

PROGRAM = """
import os, signal, sys
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
import tensorscope

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(rank)
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
parallel = DistributedDataParallel(model)
optimizer = torch.optim.Adam(model.parameters(), 1e-2)
path = sys.argv[1] if sys.argv[1] != "default" else None
"""
TRAIN = f"""
for step in range({STEPS}):
    loss = parallel(torch.randn(16, 8)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    trace.log(loss=loss, mine=float(rank))
"""
START = PROGRAM + "trace = tensorscope.trace(parallel, path, every=1)\n"
END = "trace.close()\ndist.destroy_process_group()\n"


def torchrun(program: str, folder: Path, run: str) -> subprocess.CompletedProcess[str]:
    """Run a program on two ranks, alone on its port."""
    file = folder / "program.py"
    file.write_text(program)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(file), run]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )


def finished(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if "Error" in line)


def ranks_of(path: Path) -> dict[int, Run]:
    """Each rank's own file, read alone."""
    return {rank: open_run(path / f"rank{rank}.sqlite") for rank in open_run(path).ranks}


def test_each_rank_writes_a_file_and_the_reader_lists_both(tmp_path: Path) -> None:
    finished(torchrun(START + TRAIN + END, tmp_path, "run"))
    run = open_run(tmp_path / "run")
    assert sorted(file.name for file in (tmp_path / "run").glob("[!.]*")) == ["rank0.sqlite", "rank1.sqlite"]
    assert run.ranks == [0, 1]
    assert run.status == "finished"
    assert list(run.rank_states) == [0, 1]
    assert {(state.status, state.last_step) for state in run.rank_states.values()} == {("finished", STEPS - 1)}
    assert run.rank_differences() == []
    assert {rank: values.tolist() for rank, (_, values) in run.rank_scalars("mine").items()} == {
        rank: [rank] * STEPS for rank in (0, 1)
    }
    assert run.notes == []
    assert run.scalars("loss")[0].tolist() == list(range(STEPS))
    curves = []
    for rank, alone in ranks_of(tmp_path / "run").items():
        assert alone.meta["rank"] == rank
        assert alone.meta["world_size"] == 2
        assert alone.status == "finished"
        assert alone.measured_steps == list(range(STEPS))
        assert alone.scalars("mine")[1].tolist() == [rank] * STEPS
        assert alone.notes == []
        curves.append(alone)
    first, second = (alone.scalars("loss")[1] for alone in curves)
    assert (first != second).all()  # other data
    weight = next(site for site in curves[0].sites if str(site).endswith("0.weight"))
    for stat in ("mean", "l2"):  # and the same weights, as the ranks average their gradients
        one, other = (alone.history(weight, stat)[1] for alone in curves)
        assert one.tolist() == other.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1])
def test_whichever_rank_starts_first_the_ranks_share_the_run(first: int, tmp_path: Path) -> None:
    """An older run under that name moves away as a whole, once."""
    turns = f"""
if rank != {first}:
    dist.barrier()
trace = tensorscope.trace(parallel, path, every=1)
if rank == {first}:
    dist.barrier()
"""
    for _ in range(3):
        finished(torchrun(PROGRAM + turns + TRAIN + END, tmp_path, "run"))
    assert sorted(str(path.relative_to(tmp_path)) for path in find_runs(tmp_path)) == ["run", "run.1", "run.2"]
    for name in ("run", "run.1", "run.2"):
        assert open_run(tmp_path / name).ranks == [0, 1]
        for alone in ranks_of(tmp_path / name).values():
            assert alone.measured_steps == list(range(STEPS))


@pytest.mark.slow
def test_the_default_path_is_one_folder_for_all_ranks(tmp_path: Path) -> None:
    late = "\nimport time\ntime.sleep(1.2 * rank)  # past the second that a name would be made of\n"
    finished(torchrun(PROGRAM + late + "trace = tensorscope.trace(parallel, path, every=1)\n" + TRAIN + END, tmp_path,
                      "default"))  # fmt: skip
    folders = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert len(folders) == 1, folders
    assert re.match(r"DistributedDataParallel-\d{8}-\d{6}", folders[0])
    assert open_run(tmp_path / "runs" / folders[0]).ranks == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_leaves_the_other_readable(killed: int, tmp_path: Path) -> None:
    """Half-way, once what was recorded a second before is on disk; torchrun then ends the other rank, too."""
    kill = f"""
    if step == {STEPS // 2}:
        import time
        time.sleep(2)
        dist.barrier()
        if rank == {killed}:
            os.kill(os.getpid(), signal.SIGKILL)
"""
    assert torchrun(START + TRAIN + kill + END, tmp_path, "run").returncode != 0
    run = open_run(tmp_path / "run")
    assert run.ranks == [0, 1]
    assert run.status == "died"
    assert {state.status for state in run.rank_states.values()} == {"died"}
    assert run.scalars("loss")[0].tolist()[: STEPS // 2] == list(range(STEPS // 2))
    for rank, alone in ranks_of(tmp_path / "run").items():
        assert alone.status == "died"
        assert alone.scalars("mine")[1].tolist()[: STEPS // 2] == [rank] * (STEPS // 2)
        assert alone.measured_steps[: STEPS // 2] == list(range(STEPS // 2))
        assert alone.notes == []


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_damaged_file_of_one_rank_leaves_the_other_readable(lost: int, tmp_path: Path) -> None:
    finished(torchrun(START + TRAIN + END, tmp_path, "run"))
    (tmp_path / "run" / f"rank{lost}.sqlite").write_bytes(b"nonsense" * 1000)
    run = open_run(tmp_path / "run")
    assert 1 - lost in run.ranks
    assert run.scalars("loss")[0].tolist() == list(range(STEPS))


@pytest.mark.slow
@pytest.mark.parametrize("resume", ["True", str(STEPS)])
def test_both_ranks_resume_at_the_same_step(resume: str, tmp_path: Path) -> None:
    finished(torchrun(START + TRAIN + END, tmp_path, "run"))
    again = START.replace("every=1", f"every=1, resume={resume}")
    finished(torchrun(again + TRAIN + END, tmp_path, "run"))
    run = open_run(tmp_path / "run")
    assert run.ranks == [0, 1]
    assert run.notes == []
    for rank, (steps, values) in run.rank_scalars("mine").items():
        assert steps.tolist() == list(range(2 * STEPS))
        assert set(values.tolist()) == {rank}
    assert run.measured_steps == list(range(2 * STEPS))


@pytest.mark.slow
def test_parameters_that_a_rank_changed_on_its_own_are_named(tmp_path: Path) -> None:
    drift = f"""
    if step == {STEPS // 2} and rank == 1:
        with torch.no_grad():
            model[2].bias.add_(0.5)
"""
    finished(torchrun(START + TRAIN + drift + END, tmp_path, "run"))
    differences = open_run(tmp_path / "run").rank_differences()
    assert min(difference.first_step for difference in differences) == STEPS // 2 + 1
    assert any(str(difference.site).endswith("2.bias") for difference in differences)
