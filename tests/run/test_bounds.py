"""What is bounded stays bounded: the queue, the shapes, the notes, the layouts, the disk; and a disk that fails."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from made_runs import made_meta

from tensorscope import RunError, open_run
from tensorscope.events import STORED, Shape, Site
from tensorscope.run import schema, writer
from tensorscope.run.sealing import Limits
from tensorscope.run.writer import Writer


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never came"
        threading.Event().wait(0.01)


def log(to: Writer, step: int, value: float = 1.0) -> None:
    to.frame(schema.SCALARS, step, ("loss",), lambda: np.array([value]))


class Gate:
    """Holds the writer's thread until it is opened."""

    def __init__(self, held: Writer) -> None:
        self._open, entered = threading.Event(), threading.Event()

        def wait() -> np.ndarray:
            entered.set()
            self._open.wait(30)
            return np.array([0.0])

        held.frame(schema.GAUGES, 0, ("gate",), wait)
        entered.wait(30)

    def open(self) -> None:
        self._open.set()


def test_measurements_are_dropped_before_scalars(tmp_path: Path) -> None:
    to = Writer(tmp_path / "run", made_meta())
    gate = Gate(to)
    site = to.site(Site("fc"))
    assert not to.is_behind
    for step in range(writer.WAITING + 50):
        to.frame(schema.STATS, step, (site,), lambda: np.ones((1, len(STORED))))
    assert to.is_behind
    dropped = to.dropped
    assert dropped > 0
    for step in range(100):
        log(to, step)
    assert to.dropped == dropped
    gate.open()
    to.close()
    run = open_run(tmp_path / "run")
    assert run.scalars("loss")[0].tolist() == list(range(100))
    assert len(run.measured_steps) + dropped == writer.WAITING + 50
    assert run.dropped == dropped


def test_the_queue_is_bounded_in_bytes(tmp_path: Path) -> None:
    to = Writer(tmp_path / "run", made_meta())
    gate = Gate(to)
    sites = tuple(to.site(Site(f"s{number}")) for number in range(10_000))
    size = len(sites) * len(STORED) * 8
    for step in range(200):
        to.frame(schema.STATS, step, sites, lambda: np.ones((len(sites), len(STORED))))
    assert 200 - to.dropped == writer.WAITING_BYTES // size
    gate.open()
    to.close()
    assert len(open_run(tmp_path / "run").measured_steps) == writer.WAITING_BYTES // size


def test_a_shape_that_always_changes_keeps_its_first_changes_and_the_newest(tmp_path: Path) -> None:
    to = Writer(tmp_path / "run", made_meta())
    site = to.site(Site("fc"))
    for step in range(300):
        to.shape(site, Shape(step, (step,)))
    to.close()
    run = open_run(tmp_path / "run")
    assert [shape.step for shape in run.shapes("fc")] == [*range(writer.SHAPES_KEPT), 299]
    assert run.last_shapes()[Site("fc")].dims == (299,)


def test_notes_are_bounded_and_the_rest_is_counted(tmp_path: Path) -> None:
    to = Writer(tmp_path / "run", made_meta())
    for step in range(500):
        to.note(step, "odd \udc80")
    to.close()
    notes = open_run(tmp_path / "run").notes
    assert len(notes) == writer.NOTES_KEPT + 1
    assert notes[-1][1] == f"{500 - writer.NOTES_KEPT} more notes were left out"


def test_ever_new_sets_of_names_make_few_layouts(tmp_path: Path) -> None:
    to = Writer(tmp_path / "run", made_meta())
    rng = np.random.default_rng(0)
    told: dict[str, dict[int, float]] = {}
    for step in range(400):
        names = tuple(f"n{number}" for number in rng.permutation(12)[: rng.integers(1, 12)])
        values = rng.random(len(names))
        to.frame(schema.SCALARS, step, names, lambda values=values: values)
        for name, value in zip(names, values, strict=True):
            told.setdefault(name, {})[step] = float(value)
    to.close()
    run = open_run(tmp_path / "run")
    for name, history in told.items():
        steps, values = run.scalars(name)
        assert dict(zip(steps.tolist(), values.tolist(), strict=True)) == history
    with sqlite3.connect(to.path) as db:
        layouts = db.execute("SELECT count(*) FROM layout WHERE kind = 'scalars'").fetchone()[0]
    db.close()
    assert layouts <= writer.LAYOUTS_OF_SEVERAL + 12


def test_modules_that_differ_from_step_to_step_make_no_layouts(tmp_path: Path) -> None:
    to = Writer(tmp_path / "run", made_meta(), limits=Limits(frames=16))
    sites = [to.site(Site(f"expert{number}")) for number in range(8)]
    rng = np.random.default_rng(0)
    told: dict[int, dict[int, float]] = {site: {} for site in sites}
    for step in range(100):
        chosen = tuple(int(site) for site in rng.permutation(sites)[:2])
        rows = np.zeros((2, len(STORED)))
        rows[:, 0], rows[:, 1] = 1, chosen
        to.frame(schema.STATS, step, chosen, lambda rows=rows: rows)
        for site in chosen:
            told[site][step] = site
    to.close()
    run = open_run(tmp_path / "run")
    for site in sites:
        steps, values = run.history(f"expert{site}", "mean")
        assert dict(zip(steps.tolist(), values.tolist(), strict=True)) == told[site]
    with sqlite3.connect(to.path) as db:
        assert db.execute("SELECT count(*) FROM layout").fetchone()[0] == len(schema.NUMBERED)
    db.close()


def test_old_histograms_are_thinned(tmp_path: Path) -> None:
    to = Writer(tmp_path / "run", made_meta(), limits=Limits(histograms=32))
    site = to.site(Site("fc"))
    for step in range(1000):
        row = np.array([[-1.0, 1.0, *range(schema.BINS)]])
        to.frame(schema.HISTOGRAMS, step, (site,), lambda row=row: row)
        if step % 20 == 0:
            to.flush()
    to.close()
    found = open_run(tmp_path / "run").histograms("fc")
    steps = [step for step, _ in found]
    assert len(steps) <= 32 + writer.TRANSACTION_LENGTH
    assert steps[0] == 0
    assert steps[-1] == 999
    assert found[0][1].counts == tuple(range(schema.BINS))
    gaps = np.diff(steps)
    assert gaps[: len(gaps) // 4].mean() > gaps[-len(gaps) // 4 :].mean()


@pytest.mark.slow
def test_thinning_bounds_the_file(tmp_path: Path) -> None:
    sizes = []
    for name, level_bytes in (("whole", 1 << 30), ("thin", 20_000)):
        to = Writer(tmp_path / name, made_meta(), limits=Limits(frames=32, level_bytes=level_bytes))
        site, rng = to.site(Site("fc")), np.random.default_rng(0)
        for step in range(12_000):
            row = np.full((1, len(STORED)), 5.0) + rng.random((1, len(STORED)))
            row[0, schema.NONFINITE] = 0
            to.frame(schema.STATS, step, (site,), lambda row=row: row)
            if step % 400 == 0:
                to.flush()
        to.close()
        sizes.append(to.path.stat().st_size)
        assert open_run(tmp_path / name).measured == 12_000
    assert sizes[1] < sizes[0] / 2
    assert np.diff(open_run(tmp_path / "thin").measured_steps)[:10].min() >= Limits().group


def test_a_reader_sees_no_gap_while_frames_are_sealed(tmp_path: Path) -> None:
    to = Writer(tmp_path / "run", made_meta(), limits=Limits(frames=8))
    site = to.site(Site("fc"))
    run = open_run(tmp_path / "run")
    log(to, 0)
    to.flush()
    seen = 0
    for step in range(1, 4000):
        log(to, step, float(step))
        row = np.array([[1.0, step, 0, step, step, 0, 0, 0]])
        to.frame(schema.STATS, step, (site,), lambda row=row: row)
        if to.is_behind or step % 50 == 0:
            steps, values = run.scalars("loss")
            assert steps.tolist() == list(range(len(steps)))
            assert len(steps) >= seen
            assert values[1:].tolist() == steps[1:].tolist()
            means = run.history("fc", "mean")[1]
            assert means.tolist() == list(range(1, len(means) + 1))
            seen = len(steps)
    to.close()
    assert run.last_scalars()["loss"] == (3999, 3999.0) or to.dropped


def test_a_closed_run_gives_its_free_space_back(tmp_path: Path) -> None:
    to = Writer(tmp_path / "run", made_meta())
    sites = tuple(to.site(Site(f"s{number}")) for number in range(200))
    rng = np.random.default_rng(0)
    for step in range(600):
        rows = np.tile(rng.random(len(STORED)), (len(sites), 1))
        to.frame(schema.STATS, step, sites, lambda rows=rows: rows)
    to.close()
    with sqlite3.connect(to.path) as db:
        pages = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count")]
    db.close()
    assert pages[0] > 0
    assert pages[1] == 0


# --- what is in the way ----------------------------------------------------------------------------------------------


def test_an_older_run_is_said(tmp_path: Path) -> None:
    to = Writer(tmp_path / "run", made_meta())
    to.close()
    with sqlite3.connect(to.path) as db:
        db.execute("PRAGMA user_version = 1")
    db.close()
    with pytest.raises(RunError, match="was written by an older tensorscope"):
        open_run(tmp_path / "run")


def test_a_second_writer_of_the_same_run_is_refused(tmp_path: Path) -> None:
    first = Writer(tmp_path / "run", made_meta())
    with pytest.raises(RunError, match="another training is writing"):
        Writer(tmp_path / "run", made_meta())
    with pytest.raises(RunError, match="another training is writing"):
        Writer(tmp_path / "run", made_meta(), resume=3)
    log(first, 0)
    first.close()
    assert open_run(tmp_path / "run").steps == [0]
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["rank0.sqlite"]


def test_of_eight_trainings_with_one_name_one_writes(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, numpy as np\nfrom tensorscope import RunError\n"
        "from tensorscope.run.creation import fresh_folder\n"
        "from tensorscope.run.writer import Writer\nsys.stdin.readline()\n"
        "try:\n    w = Writer(fresh_folder(pathlib.Path(sys.argv[1])), {'status': 'running', 'me': sys.argv[2]})\n"
        "except RunError as error:\n    print('refused', error.title)\nelse:\n    print('wrote')\n"
        "sys.stdout.flush()\nsys.stdin.readline()\n"
    )
    where = str(tmp_path / "run")
    start = [sys.executable, "-c", code, where]
    old = Writer(tmp_path / "run", made_meta(me="old"))
    old.close(status="finished")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    trainings = [subprocess.Popen([*start, str(number)], **pipes) for number in range(8)]
    for training in trainings:
        training.stdin.write("go\n")
        training.stdin.flush()
    said = [training.stdout.readline().strip() for training in trainings]
    for training in trainings:
        training.communicate("end\n")
    assert sum(line == "wrote" for line in said) == 1
    assert all(line == "wrote" or "another training is writing" in line for line in said)
    assert open_run(where).meta["me"] == str(said.index("wrote"))
    assert open_run(f"{where}.1").meta["me"] == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.1"]


# --- a disk that fails -----------------------------------------------------------------------------------------------


def test_a_full_file_is_said_and_written_again_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.05)
    to = Writer(tmp_path / "run", made_meta())
    log(to, 0)
    to.flush()
    to._put(lambda: [("PRAGMA max_page_count = 1", ())])  # of this connection: a new one has room again
    to.flush()
    to.document("big", "x" * 1_000_000)
    until(lambda: to.trouble is None and to._progress > 0 and _has_note(tmp_path / "run"))
    log(to, 1)
    to.close(status="finished")
    run = open_run(tmp_path / "run")
    assert run.steps == [0, 1]
    assert run.status == "finished"
    assert any("the disk failed (database or disk is full)" in text for _, text in run.notes)


def _has_note(path: Path) -> bool:
    return any("disk failed" in text for _, text in open_run(path).notes)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], check=False).returncode:
        pytest.skip("may not mount")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path) -> Path:
    filler = os.open(disk / "filler", os.O_CREAT | os.O_WRONLY)
    with suppress(OSError):
        while True:
            os.write(filler, b"x" * 4096)
    os.close(filler)
    return disk / "filler"


def test_a_full_disk_loses_only_what_came_while_it_was_full(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.05)
    to = Writer(small_disk / "run", made_meta())
    log(to, 0)
    to.flush()
    filler = fill(small_disk)
    step = 0
    while not to.trouble:
        step += 1
        log(to, step, float(step))
        threading.Event().wait(0.001)
    assert "cannot be written" in to.trouble
    for late in range(step + 1, step + 6000):  # more than may wait
        log(to, late, float(late))
    assert to.dropped > 0
    filler.unlink()
    until(lambda: not to.trouble)
    log(to, 100_000)
    dropped = to.dropped
    to.close(status="finished")
    assert to.failure is None
    run = open_run(small_disk / "run")
    assert run.status == "finished"
    assert run.scalars("loss")[0][[0, 1, -1]].tolist() == [0, 1, 100_000]
    assert len(run.steps) == step + 6001 - dropped
    assert any("frames were left out until it could be written again" in text for _, text in run.notes)


def test_a_writer_on_a_full_disk_closes_at_once_and_keeps_what_was_written(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = Writer(small_disk / "run", made_meta())
    log(to, 0)
    to.flush()
    fill(small_disk)
    step = 0
    while not to.trouble:
        step += 1
        log(to, step)
        threading.Event().wait(0.001)
    began = time.monotonic()
    to.flush()
    to.close(status="finished")
    assert time.monotonic() - began < writer.STUCK_SECONDS / 2
    assert not to._thread.is_alive()
    copy = shutil.copytree(small_disk / "run", small_disk.parent / "copy")
    assert open_run(copy).scalars("loss")[0][0] == 0
