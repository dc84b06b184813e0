"""What a run costs on disk and on the calling thread, and how long its questions take: printed, never judged."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from tensorscope import open_run
from tensorscope.events import STORED, Site
from tensorscope.run import schema
from tensorscope.run.writer import WAITING, Writer

pytestmark = pytest.mark.bench


def milliseconds(action: Callable[[], Any], times: int = 5) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return median(taken) * 1e3


class Recording:
    """Writes plausible numbers as fast as the writer takes them, and keeps account of what that cost."""

    def __init__(self, folder: Path, sites: int, names: int) -> None:
        self.writer = Writer(folder, {"status": "running"})
        self.sites = tuple(self.writer.site(Site(f"layer{number}")) for number in range(sites))
        self.names = tuple(f"tag{number}" for number in range(names))
        rng = np.random.default_rng(0)
        self._rows = [stats_rows(rng, sites) for _ in range(64)]
        self._values = [np.exp(rng.standard_normal(names)).astype(np.float32).astype(np.float64) for _ in range(64)]
        self.calling: list[float] = []
        self.folder = folder

    def run(self, steps: int) -> float:
        """Seconds until everything was on disk."""
        began = time.perf_counter()
        for step in range(steps):
            while self.writer.is_behind:
                time.sleep(0.002)
            start = time.perf_counter()
            drift = 1 + step / steps
            if self.sites:
                rows = self._rows[step % 64]
                self.writer.frame(schema.STATS, step, self.sites, lambda rows=rows, drift=drift: rows * drift)
            if self.names:
                values = self._values[step % 64]
                self.writer.frame(
                    schema.SCALARS, step, self.names, lambda values=values, drift=drift: float32(values * drift)
                )
            self.calling.append(time.perf_counter() - start)
        self.writer.close(status="finished")
        assert self.writer.dropped == 0
        return time.perf_counter() - began


def float32(values: np.ndarray) -> np.ndarray:
    """Numbers as losses and learning rates have them."""
    return values.astype(np.float32).astype(np.float64)


def stats_rows(rng: np.random.Generator, sites: int) -> np.ndarray:
    """Rows whose mean, std, min and max are noise, and whose counts stay the same."""
    rows = np.zeros((sites, len(STORED)))
    rows[:, :] = 1
    rows[:, 1:5] = rng.standard_normal((sites, 4)) * (0.1, 1, 3, 3)
    rows[:, 0], rows[:, 5:7], rows[:, 7] = 32768, 0, np.nan
    return rows


@pytest.mark.parametrize(
    ("sites", "names", "steps"),
    [(0, 200, 5_000), (0, 200, 20_000), (1, 0, 1_000_000), (1_000, 0, 2_000), (1_000, 0, 20_000)],
    ids=str,
)
def test_cost_of_a_run(sites: int, names: int, steps: int, tmp_path: Path) -> None:
    recording = Recording(tmp_path / "run", sites, names)
    seconds = recording.run(steps)
    size = sum(file.stat().st_size for file in recording.folder.iterdir())
    numbers = steps * (sites * len(STORED) + names)
    print(f"\n{sites} sites, {names} tags, {steps:,} steps: {numbers / 1e6:.1f} M numbers")
    print(
        f"  written in {seconds:.1f} s ({numbers / seconds / 1e6:.2f} M a second); {size / numbers:.2f} bytes a number"
    )
    print(f"  calling thread {median(recording.calling) * 1e6:.1f} µs a step (median), queue {WAITING} frames")
    run = open_run(recording.folder)
    asked: dict[str, Callable[[], Any]] = {
        "open, last step": lambda: open_run(recording.folder).last_step,
        "all last values": run.stats_at if sites else run.last_scalars,
        "one curve, 200 points": (lambda: run.envelope("layer0", "rms"))
        if sites
        else lambda: run.scalar_envelope("tag0"),
        "zoomed in, 1 % of it": (lambda: run.envelope("layer0", "rms", 200, steps // 2, steps // 2 + steps // 100))
        if sites
        else lambda: run.scalar_envelope("tag0", 200, steps // 2, steps // 2 + steps // 100),
        "the whole history": (lambda: run.history("layer0", "rms")) if sites else lambda: run.scalars("tag0"),
    }
    if sites > 1:
        asked["table, 200 columns"] = lambda: run.table(run.sites, "rms", 200)
        asked["as of the middle"] = lambda: run.stats_at(steps // 2)
    for name, question in asked.items():
        print(f"  {name:22} {milliseconds(question, 3):9.2f} ms")
