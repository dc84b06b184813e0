"""Run files: what is written is read, bit for bit, while it is written and after whatever happened to it."""

from __future__ import annotations

import math
import os
import random
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import LAYERS, made_meta, make_run, stats_row

from tensorscope import RunError, open_run
from tensorscope.events import STORED, Kind, ModuleInfo, Shape, Site
from tensorscope.run import schema
from tensorscope.run.creation import fresh_folder
from tensorscope.run.folders import find_runs, is_live
from tensorscope.run.writer import Writer

ODD = [math.nan, math.inf, -math.inf, -0.0, 1e-45, 3.4e38, 0.1]


def test_a_run_gives_back_what_was_recorded(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "run", steps=25))
    assert run.status == "finished"
    assert run.steps == run.measured_steps == list(range(25))
    assert run.scalar_names == ["loss", "accuracy"]
    assert run.modules[0] == ModuleInfo("", "SimpleCNN", 0, 0)
    assert [site for site in run.sites if site.kind is Kind.OUTPUT and not site.gradient] == list(LAYERS)
    assert run.shapes("conv1")[0].names == ("batch", "channels", "height", "width")
    assert run.last_shapes()[Site("fc1")] == run.shapes("fc1")[0]
    assert [step for step, _ in run.histograms("conv1")] == [0, 10, 20]
    assert run.ranks == [0]
    assert run.meta["model"] == "SimpleCNN"
    assert run.graph is None
    assert run.findings == run.reports == run.notes == []


def test_every_bit_of_a_scalar_survives(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "run", made_meta())
    for step, value in enumerate(ODD):
        writer.frame(schema.SCALARS, step, ("odd",), lambda value=value: np.array([value]))
    writer.close(status="finished")
    steps, values = open_run(tmp_path / "run").scalars("odd")
    assert steps.tolist() == list(range(len(ODD)))
    assert values.tobytes() == np.array(ODD).tobytes()


@given(st.lists(st.lists(st.floats(width=32), min_size=len(STORED), max_size=len(STORED)), min_size=1, max_size=5))
def test_every_bit_of_a_row_survives(rows: list[list[float]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(Path(folder) / "run", made_meta())
        number = writer.site(Site("fc"))
        for step, row in enumerate(rows):
            writer.frame(schema.STATS, step, (number,), lambda row=row: np.array([row]))
        writer.close()
        run = open_run(Path(folder) / "run")
        for place, stat in enumerate(STORED):
            # Without a count nothing was measured.
            expected = np.array([row[place] for row in rows if not math.isnan(row[0])], np.float64)
            np.testing.assert_array_equal(run.history("fc", stat)[1], expected)
        run.close()


def test_a_scalar_logged_twice_in_a_step_has_its_later_value(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "run", made_meta())
    for value in (1.0, 2.0):
        writer.frame(schema.SCALARS, 3, ("loss",), lambda value=value: np.array([value]))
    writer.close()
    steps, values = open_run(tmp_path / "run").scalars("loss")
    assert (steps.tolist(), values.tolist()) == ([3], [2.0])


def test_sites_that_come_and_go_keep_their_own_steps(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    writer = Writer(tmp_path / "run", made_meta())
    a, b = writer.site(Site("a")), writer.site(Site("b"))
    for step in range(6):
        series = (a, b) if step % 2 else (b,)
        rows = np.array([stats_row(rng, 1.0 + number) for number in series])
        writer.frame(schema.STATS, step, series, lambda rows=rows: rows)
    writer.close()
    run = open_run(tmp_path / "run")
    assert run.history("a", "mean")[0].tolist() == [1, 3, 5]
    assert run.history("b", "mean")[0].tolist() == list(range(6))
    steps, table = run.table(run.sites, "rms")
    assert np.isnan(table[0]).tolist() == [True, False] * 3
    np.testing.assert_array_equal(table[1], run.history("b", "rms")[1])
    assert steps.tolist() == list(range(6))
    assert run.table(run.sites, "rms", 3)[0].tolist() == [0, 2, 4]
    assert set(run.stats_at(0)) == {"b"}
    assert set(run.stats_at()) == {"a", "b"}


def test_a_table_marks_what_is_not_finite(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "run", steps=10, nan_from=4))
    _, table = run.table([Site("fc1"), Site("conv1")], "rms")
    assert np.isinf(table[0]).tolist() == [False] * 4 + [True] * 6
    assert np.isfinite(table[1]).all()
    assert run.table([Site("fc1")], "nonfinite")[1][0].tolist() == [0] * 4 + [3] * 6
    assert np.isfinite(run.history("fc1", "rms")[1]).all(), "over the finite elements"


def test_a_run_is_read_while_it_is_written(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "run", made_meta(created=time.time()))
    run = open_run(tmp_path / "run")
    assert (run.status, run.last_step, run.steps) == ("running", -1, [])
    version = run.version
    writer.frame(schema.SCALARS, 0, ("loss",), lambda: np.array([1.0]))
    writer.flush()
    assert run.version != version
    assert run.scalars("loss")[1].tolist() == [1.0]
    assert is_live(tmp_path / "run")
    writer.close(status="finished")
    assert run.status == "finished"
    assert not is_live(tmp_path / "run")


def test_a_closed_run_is_one_file(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["rank0.sqlite"]


def test_a_run_whose_writer_is_gone_has_died(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "run", made_meta(pid=2**22 + 1))  # beyond the largest pid
    assert open_run(tmp_path / "run").status == "died"
    writer.close()


def test_rows_that_cannot_be_fetched_are_noted_and_the_rest_is_written(tmp_path: Path) -> None:
    def broken() -> np.ndarray:
        raise RuntimeError("the device is gone")

    writer = Writer(tmp_path / "run", made_meta())
    writer.frame(schema.SCALARS, 0, ("loss",), broken)
    writer.frame(schema.SCALARS, 1, ("loss",), lambda: np.array([1.0]))
    writer.close()
    run = open_run(tmp_path / "run")
    assert run.steps == [1]
    assert run.notes == [(0, "scalars of step 0 could not be fetched: RuntimeError: the device is gone")]


def test_a_full_queue_drops_and_counts(tmp_path: Path) -> None:
    import threading

    gate = threading.Event()

    def slow() -> np.ndarray:
        gate.wait(30)
        return np.array([1.0])

    writer = Writer(tmp_path / "run", made_meta())
    for step in range(6000):
        writer.frame(schema.SCALARS, step, ("loss",), slow)
    gate.set()
    writer.close()
    run = open_run(tmp_path / "run")
    assert writer.dropped > 0
    assert len(run.steps) + writer.dropped == 6000


def test_a_forked_child_does_not_write(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "run", made_meta())
    if (child := os.fork()) == 0:
        writer.frame(schema.SCALARS, 0, ("loss",), lambda: np.array([1.0]))
        writer.flush()
        writer.close()
        os._exit(0)
    os.waitpid(child, 0)
    writer.close()
    assert open_run(tmp_path / "run").steps == []


# --- what can be wrong with a path -----------------------------------------------------------------------------------


def says(path: Path) -> str:
    with pytest.raises(RunError) as caught:
        open_run(path).meta  # noqa: B018
    return str(caught.value).replace(str(path.parent), "…")


def test_a_missing_run_is_said_with_what_was_meant(tmp_path: Path) -> None:
    make_run(tmp_path / "mine", steps=1)
    assert says(tmp_path / "mien") == "the run `…/mien` does not exist\n\nhint: did you mean `mine`?"


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert says(tmp_path / "empty") == (
        "the folder `…/empty` holds no run\n  found  nothing\n\n"
        "hint: a run is written by `tensorscope.trace(model, path)`"
    )


def test_a_folder_of_runs_points_to_them(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "mine", steps=1)
    assert "below it  1 runs" in says(tmp_path / "runs")
    assert find_runs(tmp_path) == [tmp_path / "runs" / "mine"]


def test_an_empty_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "rank0.sqlite").touch()
    assert says(tmp_path / "run").startswith("the run file `…/run/rank0.sqlite` is empty")


def test_a_file_that_is_not_sqlite_is_said(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("these are my notes " * 99)
    assert says(tmp_path / "notes.txt").startswith(
        "`…/notes.txt` is not a tensorscope run\n  found  a file that is not SQLite"
    )


def test_another_programs_database_is_said(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.sqlite") as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    assert "found  an SQLite file of another program" in says(tmp_path / "other.sqlite")


def test_a_newer_run_is_said(tmp_path: Path) -> None:
    make_run(tmp_path / "run", steps=1)
    with sqlite3.connect(tmp_path / "run" / "rank0.sqlite") as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    db.close()
    assert "was written by a newer tensorscope" in says(tmp_path / "run")


def test_a_file_torn_in_its_first_page_is_said(tmp_path: Path) -> None:
    file = make_run(tmp_path / "run", steps=1) / "rank0.sqlite"
    file.write_bytes(file.read_bytes()[:50])
    assert says(tmp_path / "run").startswith("the run file `…/run/rank0.sqlite` is damaged")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
def test_a_truncated_file_is_said_or_read_up_to_the_tear(tmp_path: Path, share: float) -> None:
    file = make_run(tmp_path / "run", steps=200) / "rank0.sqlite"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    read_or_refused(tmp_path / "run")


@pytest.mark.parametrize("seed", range(40))
def test_a_file_with_flipped_bytes_never_crashes(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    file = make_run(tmp_path / "run", steps=50) / "rank0.sqlite"
    data = bytearray(file.read_bytes())
    for _ in range(rng.choice((1, 10, 300))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    file.write_bytes(data)
    read_or_refused(tmp_path / "run")


def read_or_refused(path: Path) -> None:
    """Ask a damaged run everything: it answers, or says that it is damaged."""
    questions = (
        lambda run: run.meta,
        lambda run: run.status,
        lambda run: run.steps,
        lambda run: run.modules,
        lambda run: run.scalars("loss"),
        lambda run: run.history("fc1", "mean"),
        lambda run: run.histograms("fc1"),
        lambda run: run.last_shapes(),
        lambda run: run.stats_at(),
        lambda run: run.table(run.sites, "rms"),
    )
    with suppress(RunError):
        run = open_run(path)
        for question in questions:
            with suppress(RunError):
                question(run)


def test_a_read_only_folder_can_be_read(tmp_path: Path) -> None:
    make_run(tmp_path / "run", steps=3, status="running")
    (tmp_path / "run").chmod(0o555)
    try:
        assert open_run(tmp_path / "run").steps == [0, 1, 2]
    finally:
        (tmp_path / "run").chmod(0o755)


def test_an_unknown_site_statistic_or_scalar_is_said_with_what_was_meant(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "run", steps=2))
    for question, hint in (
        (lambda: run.history("fc3", "mean"), "did you mean `fc2`"),
        (lambda: run.history("fc1", "means"), "did you mean `mean`"),
        (lambda: run.scalars("los"), "did you mean `loss`"),
    ):
        with pytest.raises(RunError) as caught:
            question()
        assert hint in str(caught.value)


# --- where a run goes ------------------------------------------------------------------------------------------------


def test_a_finished_run_makes_room_for_the_next(tmp_path: Path) -> None:
    for _ in range(3):
        make_run(fresh_folder(tmp_path / "mine"), steps=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "mine.1", "mine.2"]
    assert [open_run(path).steps for path in tmp_path.iterdir()] == [[0, 1]] * 3


def test_a_live_run_is_not_moved(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "mine", made_meta(created=time.time()))
    with pytest.raises(RunError, match="another training is writing"):
        fresh_folder(tmp_path / "mine")
    writer.close()


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.csv").touch()
    with pytest.raises(RunError, match="exists and is not a run"):
        fresh_folder(tmp_path / "data")


def test_a_path_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError) as caught:
        Writer(tmp_path / "file" / "run", made_meta())
    assert "cannot be written" in str(caught.value)
    assert "Not a directory" in str(caught.value)


def test_a_shape_that_changes_is_kept_with_its_step(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "run", made_meta())
    number = writer.site(Site("fc"))
    writer.shape(number, Shape(0, (64, 10), ("batch", "classes"), "float32", "cpu"))
    writer.shape(number, Shape(22, (29, 10), ("batch", "classes"), "float32", "cpu"))
    writer.close()
    assert [(shape.step, shape.dims) for shape in open_run(tmp_path / "run").shapes("fc")] == [
        (0, (64, 10)),
        (22, (29, 10)),
    ]
