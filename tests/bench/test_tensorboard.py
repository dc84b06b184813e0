"""Runs of 200 tags next to TensorBoard's: bytes a point, and the time until one curve can be drawn; only printed.

Both get the same float32 values through their public front doors, as a training loop would hand them over.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from torch import nn

import tensorscope
from tensorscope import open_run

TAGS = [f"loss_{number}" for number in range(200)]
POINTS = 200  # that a curve on a screen has
TIMES = 5

pytestmark = [pytest.mark.bench, pytest.mark.filterwarnings("ignore")]
with_tensorboard = pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="not installed")


def values(steps: int) -> np.ndarray:
    """(steps, tags): noisy falling losses, float32."""
    rng = np.random.default_rng(0)
    fall = np.exp(-np.linspace(0, 3, steps))[:, None]
    return (fall * rng.lognormal(0, 0.3, (steps, len(TAGS)))).astype(np.float32)


def write_ours(folder: Path, table: np.ndarray) -> None:
    with tensorscope.trace(nn.Linear(1, 1), folder) as trace:
        for row in table.tolist():
            trace.log(**dict(zip(TAGS, row, strict=True)))
            trace.step()


def write_theirs(folder: Path, table: np.ndarray) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for step, row in enumerate(table.tolist()):
            for tag, value in zip(TAGS, row, strict=True):
                writer.add_scalar(tag, value, step)


def ours(folder: Path, steps: int) -> None:
    """The last value of every tag, and one curve."""
    run = open_run(folder)
    assert set(run.last_scalars()) == set(TAGS)
    assert run.last_step == steps - 1
    assert len(run.scalar_envelope(TAGS[7], points=POINTS).steps)
    run.close()


def python_loader(folder: Path, steps: int) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    assert len(events.Scalars(TAGS[7])) == steps


def rust_loader(folder: Path, steps: int) -> None:
    """The data server that `tensorboard` starts: until it hands out the last step of the curve."""
    from tensorboard import context
    from tensorboard.data import provider, server_ingester
    from tensorboard.util import grpc_util

    ingester = server_ingester.SubprocessServerDataIngester(
        server_binary=server_ingester.get_server_binary(),
        logdir=str(folder),
        reload_interval=0,
        channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
        samples_per_plugin={"scalars": 0},
    )
    ingester.start()
    asked = provider.RunTagFilter(tags=[TAGS[7]])
    last = -1
    while last < steps - 1:
        found = ingester.data_provider.read_scalars(
            context.RequestContext(), experiment_id="", plugin_name="scalars", downsample=POINTS, run_tag_filter=asked
        )
        last = max((series[-1].step for tags in found.values() for series in tags.values()), default=-1)
        time.sleep(0.005)


def seconds(call: Callable[[], None], times: int) -> float:
    """The median of several calls."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return median(taken)


def report(name: str, folder: Path, steps: int, writing: float, *reading: tuple[str, float]) -> None:
    points = steps * len(TAGS)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    opened = ", ".join(f"{what} {taken * 1e3:,.1f} ms" for what, taken in reading)
    print(
        f"\n  {name:12} {points:10,} points  {size / points:5.1f} bytes a point  written in {writing:.1f} s  {opened}"
    )


@pytest.mark.parametrize("steps", [5_000, 20_000])
def test_a_curve_of_ours(steps: int, tmp_path: Path) -> None:
    writing = seconds(partial(write_ours, tmp_path / "run", values(steps)), 1)
    run = open_run(tmp_path / "run")
    assert run.dropped == 0, f"{run.dropped} frames dropped"
    assert run.scalars(TAGS[7])[1].tolist() == values(steps)[:, 7].tolist()
    opened = seconds(partial(ours, tmp_path / "run", steps), TIMES)
    report("tensorscope", tmp_path / "run", steps, writing, ("open, all last values and a curve", opened))


@with_tensorboard
def test_a_curve_of_tensorboard(tmp_path: Path) -> None:
    steps = 5_000  # four times as many take it ten minutes to write
    writing = seconds(partial(write_theirs, tmp_path / "run", values(steps)), 1)
    rust = seconds(partial(rust_loader, tmp_path / "run", steps), 3)
    python = seconds(partial(python_loader, tmp_path / "run", steps), 1)
    report("TensorBoard", tmp_path / "run", steps, writing, ("Rust loader", rust), ("Python loader", python))
