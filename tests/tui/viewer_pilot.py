"""What the tests of the viewer share: waiting for what it says, and runs in special states."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from made_runs import made_report, make_run
from textual.events import Key
from textual.pilot import Pilot

from tensorscope.reports import ShapeReport
from tensorscope.run.schema import file_name
from tui.app import Viewer

PATIENCE_SECONDS = 20.0  # only ever spent by a test that fails


def said(pilot: Pilot[Any]) -> str:
    """The text on the screen."""
    screen = pilot.app.screen
    lines = screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in lines)


async def until(pilot: Pilot[Any], true: Callable[[], object]) -> None:
    """Wait until something is the case."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, f"in vain; the screen says:\n{said(pilot)}"
        await asyncio.sleep(0.06)


def press(pilot: Pilot[Any], *keys: str) -> None:
    """Press keys as a user does who does not wait: `Pilot.press` rests after each, for long on a busy machine."""
    for key in keys:
        character = key if len(key) == 1 else None
        pilot.app.post_message(Key("space" if key == " " else key, character))


async def until_said(pilot: Pilot[Any], *texts: str) -> None:
    """Wait until all of these texts are on the screen."""
    await until(pilot, lambda: all(text in said(pilot) for text in texts))


def viewer(path: Path, **how: Any) -> Viewer:
    """A viewer for which it is always the same time."""
    app = Viewer(path, now=lambda: 1_700_000_000.0 + 7200, **how)
    app.animation_level = "none"
    return app


def add(folder: Path, table: str, *row: Any) -> None:
    """Write a row into a run that nobody else writes."""
    with sqlite3.connect(folder / file_name(0)) as db:
        db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    db.close()


def make_live(folder: Path, **how: Any) -> Path:
    """A run that this process seems to be writing."""
    make_run(folder, status="running", **how)
    add(folder, "meta", "created", json.dumps(time.time()))
    return folder


def add_findings(folder: Path) -> None:
    """Give a run two findings, the lesser one first."""
    lesser = {
        "rule": "dead_relu", "site": "relu3", "severity": "warning",
        "summary": "52% of the units of `relu3` have stopped firing: they output 0 for every sample",
        "first_step": 12, "last_step": 59, "evidence": {"dead_fraction": 0.52}, "hint": "lower the learning rate",
        "caused_by": None,
    }  # fmt: skip
    worse = lesser | {
        "rule": "nan_inf", "site": "fc1", "severity": "error", "first_step": 37,
        "evidence": {"nonfinite": 3, "bad_steps": 23},
        "summary": "the first values that are not finite come from the forward of `fc1`, at step 37",
        "hint": "look there for a division by 0, or the log of 0; clamp or add an epsilon",
    }  # fmt: skip
    add(folder, "document", "findings", json.dumps([lesser, worse]))


def add_reports(folder: Path, *reports: ShapeReport) -> None:
    """Let a run have met shape errors; the last one is what ended it."""
    chosen = reports or (made_report(),)
    add(folder, "document", "reports", json.dumps([report.to_json() for report in chosen]))
    add(folder, "meta", "error", json.dumps(chosen[-1].error))
