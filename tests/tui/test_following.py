"""A viewer that watches a training live through whatever happens to it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import made_meta, make_run
from viewer_pilot import add, make_live, press, said, until, until_said, viewer

from tensorscope.events import Kind, ModuleInfo, Shape, Site
from tensorscope.run import schema
from tensorscope.run.writer import Writer


class Training:
    """A run that is being written, step by step, by a thread of this process."""

    def __init__(self, folder: Path) -> None:
        self.writer = Writer(folder, made_meta(created=time.time()))
        self.step = 0
        self._sites = (self.writer.site(Site("", Kind.INPUT)), self.writer.site(Site("fc")))
        self.writer.shape(self._sites[0], Shape(0, (3, 2)))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on)

    def __enter__(self) -> Training:
        self.writer.modules([ModuleInfo("", "Net", 0, 0), ModuleInfo("fc", "Linear", 6, 6)])
        return self

    def begin(self) -> None:
        self._thread.start()

    def _go_on(self) -> None:
        while not self._ended.wait(0.01):
            rows = np.array([[6.0, 0.1, 1.0, -2.0, 2.0, 0.0, 0.0, np.nan]] * 2)
            self.writer.frame(schema.STATS, self.step, self._sites, lambda rows=rows: rows)
            loss = np.array([1 / (1 + self.step)])
            self.writer.frame(schema.SCALARS, self.step, ("loss",), lambda loss=loss: loss)
            self.step += 1

    def end(self, **facts: Any) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.writer.close(**facts)

    def __exit__(self, *_: object) -> None:
        self.end()


async def test_a_run_is_awaited_followed_and_said_to_have_ended(tmp_path: Path) -> None:
    async with viewer(tmp_path / "run", wait=True).run_test(size=(100, 30), notifications=True) as pilot:
        await until_said(pilot, "waiting for the first step", "a training will write its run")
        with Training(tmp_path / "run") as training:
            await until_said(pilot, "nothing is measured yet")
            training.begin()
            await until_said(pilot, "running", "steps/s", "every step", "samples/s")
            first = training.step
            await until(pilot, lambda: any(f"step {n} " in said(pilot) for n in range(first, first + 400)))
            training.end(status="finished")
        await until_said(pilot, "✓ finished", "The run finished")


async def test_quitting_while_a_run_goes_on_is_clean(tmp_path: Path) -> None:
    with Training(tmp_path / "run") as training:
        training.begin()
        for key in ("q", "ctrl+c"):
            app = viewer(tmp_path / "run")
            async with app.run_test(size=(100, 30), notifications=True) as pilot:
                await until_said(pilot, "loss")
                press(pilot, "2")
                press(pilot, key)
                await until(pilot, lambda app=app: not app.is_running)
            assert app.return_code == 0


async def test_a_paused_run_stays_where_it_is(tmp_path: Path) -> None:
    with Training(tmp_path / "run") as training:
        training.begin()
        async with viewer(tmp_path / "run").run_test(size=(100, 30), notifications=True) as pilot:
            await until_said(pilot, "loss", "steps/s")
            press(pilot, "space")
            await until_said(pilot, "‖ at step")
            paused = said(pilot).split("‖ at step ")[1].split()[0]
            before = training.step
            await until(pilot, lambda: training.step > before + 60)
            assert f"‖ at step {paused}" in said(pilot)


async def test_a_deleted_run_stays_on_the_screen_with_a_warning(tmp_path: Path) -> None:
    async with viewer(make_run(tmp_path / "run")).run_test(size=(100, 30), notifications=True) as pilot:
        await until_said(pilot, "accuracy")
        shutil.rmtree(tmp_path / "run")
        await until_said(pilot, "was deleted", "accuracy")
        make_run(tmp_path / "run", steps=7)
        await until_said(pilot, "step 6", "A new run began here")
        await until(pilot, lambda: "was deleted" not in said(pilot).splitlines()[1])


async def test_a_run_that_rotates_into_the_folder_is_followed(tmp_path: Path) -> None:
    async with viewer(make_run(tmp_path / "run")).run_test(size=(100, 30), notifications=True) as pilot:
        await until_said(pilot, "step 59")
        (tmp_path / "run").rename(tmp_path / "run.1")
        make_run(tmp_path / "run", steps=11)
        await until_said(pilot, "step 10", "A new run began here")


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "empty"), (b"nonsense" * 100, "a file that is not SQLite")], ids=["empty", "damaged"]
)
async def test_a_run_that_cannot_be_read_is_explained_and_read_once_it_can(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "rank0.sqlite").write_bytes(content)
    async with viewer(tmp_path / "run").run_test(size=(100, 30), notifications=True) as pilot:
        await until_said(pilot, words, "hint:")
        shutil.rmtree(tmp_path / "run")
        make_run(tmp_path / "run")
        await until_said(pilot, "accuracy")


async def test_tables_that_hold_nonsense_are_called_damaged(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    add(folder, "meta", "model", "{not json")
    async with viewer(folder).run_test(size=(100, 30), notifications=True) as pilot:
        await until_said(pilot, "damaged")


async def test_a_killed_training_is_said_to_have_died(tmp_path: Path) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    folder = make_live(tmp_path / "run")
    add(folder, "meta", "pid", str(sleeper.pid))
    started = Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(")")[2].split()[19]
    add(folder, "meta", "process_started", started)
    add(folder, "meta", "created", str(time.time() + 1))
    async with viewer(folder).run_test(size=(100, 30), notifications=True) as pilot:
        await until_said(pilot, "● running")
        sleeper.kill()
        sleeper.communicate()
        await until_said(pilot, "✗ died", "The run died at step 59")
