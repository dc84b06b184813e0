"""From the start of `tensorscope watch RUN` to the first chart in a real terminal: printed, never judged."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path
from statistics import median

import pytest
from test_tensorboard import values, write_ours

TIMES = 7
PATIENCE_SECONDS = 60.0  # only ever spent by a test that fails
CHART = 40  # drawn braille cells that make a chart
COLUMNS, LINES = 120, 40

pytestmark = pytest.mark.bench


@pytest.mark.parametrize("steps", [5_000, 20_000])
def test_time_to_the_first_chart(steps: int, tmp_path: Path) -> None:
    write_ours(tmp_path / "run", values(steps))
    taken = [first_chart(tmp_path / "run") for _ in range(TIMES)]
    print(
        f"\n  200 tags × {steps:,} steps: process start to first chart {median(taken):.2f} s"
        f" ({min(taken):.2f} to {max(taken):.2f} in {TIMES} starts)"
    )


def first_chart(run: Path) -> float:
    """Seconds from the start of the process to a chart on its terminal."""
    began = time.perf_counter()
    child, terminal = pty.fork()
    if not child:
        os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", TEXTUAL_ANIMATIONS="none")
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        os.execv(sys.executable, [sys.executable, "-m", "tui.cli", "watch", str(run)])
    drawn, seen = 0, b""
    try:
        while drawn < CHART:
            left = began + PATIENCE_SECONDS - time.perf_counter()
            assert left > 0, f"no chart; the terminal got {seen[-2000:]!r}"
            if not select.select([terminal], [], [], left)[0]:
                continue
            seen += os.read(terminal, 65_536)
            drawn = sum("\u2801" <= cell <= "\u28ff" for cell in seen.decode(errors="ignore"))
        return time.perf_counter() - began
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)
