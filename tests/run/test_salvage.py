"""What is left of a damaged run is read, and it is what was written; only where nothing is left is a run refused."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import made_meta, make_run

from tensorscope import Run, RunError, open_run
from tensorscope.events import Site
from tensorscope.run import schema
from tensorscope.run.database import Database
from tensorscope.run.folders import process_facts
from tensorscope.run.salvage import salvage
from tensorscope.run.writer import Writer

STEPS = 120
SITE, STAT, SCALAR = "fc1", "mean", "loss"
FILES = ("rank0.sqlite", "rank0.sqlite-wal")
Files = dict[str, bytes]


def page_size(data: bytes) -> int:
    return int.from_bytes(data[16:18], "big")


def written(folder: Path) -> Files:
    return {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The one file of a run that was closed."""
    return written(make_run(tmp_path_factory.mktemp("closed") / "run", steps=STEPS))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The file of a run and its log, as a kill would leave them."""
    return left_open(tmp_path_factory.mktemp("killed") / "run", 1.0)


def left_open(folder: Path, factor: float) -> Files:
    """A run that was not closed, with `factor · step` as its loss."""
    writer = Writer(folder, process_facts() | made_meta(created=factor, pid=2**22 + 1))
    number = writer.site(Site(SITE))
    for step in range(STEPS):
        row = np.full((1, 8), factor * step)
        writer.frame(schema.STATS, step, (number,), lambda row=row: row)
        writer.frame(schema.SCALARS, step, (SCALAR,), lambda row=row: row[0, :1])
        if step % 20 == 0:
            writer.flush()
    writer.flush()
    files = written(folder)
    writer.close()
    return files


def put(folder: Path, files: Files) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


QUESTIONS: dict[str, Callable[[Run], dict[int, Any]]] = {
    "history": lambda run: pairs(*run.history(SITE, STAT)),
    "scalars": lambda run: pairs(*run.scalars(SCALAR)),
    "steps": lambda run: dict.fromkeys(run.steps),
    "measured": lambda run: dict.fromkeys(run.measured_steps),
    "histograms": lambda run: dict(run.histograms(SITE)),
}
# Asked too, of what nobody needs to be true.
MORE: tuple[Callable[[Run], object], ...] = (
    lambda run: (run.meta, run.status, run.last_step, run.notes, run.modules, run.sites, run.ranks),
    lambda run: (run.stats_at(), run.last_shapes(), run.shapes(SITE)),
    lambda run: run.table(run.sites, "rms", 20),
)


def pairs(steps: Any, values: Any) -> dict[int, float]:
    return dict(zip(steps.tolist(), values.tolist(), strict=True))


def answers(path: Path) -> dict[str, dict[int, Any]]:
    """What a run says to each question; nothing where it refuses. Any other error is a failure."""
    found: dict[str, dict[int, Any]] = {name: {} for name in QUESTIONS}
    try:
        run = open_run(path)
    except RunError:
        return found
    for question in MORE:
        try:
            question(run)
        except RunError:
            continue
    for name, ask in QUESTIONS.items():
        try:
            found[name] = ask(run)
        except RunError:
            continue
    run.close()
    return found


# --- random damage ---------------------------------------------------------------------------------------------------


def cut(files: Files, rng: random.Random) -> None:
    data = files[FILES[0]]
    files[FILES[0]] = data[: rng.randrange(1, len(data))]


def wipe_pages(files: Files, rng: random.Random) -> None:
    data, page = bytearray(files[FILES[0]]), page_size(files[FILES[0]])
    for _ in range(rng.choice((1, 1, 3, 10))):
        at = rng.randrange(1, len(data) // page) * page
        data[at : at + page] = bytes(page)
    files[FILES[0]] = bytes(data)


def swap_pages(files: Files, rng: random.Random) -> None:
    data, page = bytearray(files[FILES[0]]), page_size(files[FILES[0]])
    a, b = (rng.randrange(1, len(data) // page) * page for _ in range(2))
    data[a : a + page], data[b : b + page] = data[b : b + page], data[a : a + page]
    files[FILES[0]] = bytes(data)


def cut_log(files: Files, rng: random.Random) -> None:
    data = files[FILES[1]]
    files[FILES[1]] = data[: rng.randrange(len(data))]


def flip_log(files: Files, rng: random.Random) -> None:
    files[FILES[1]] = flipped(files[FILES[1]], rng, 0)


def cut_below_log(files: Files, rng: random.Random) -> None:
    cut(files, rng)
    cut_log(files, rng)


def flip(files: Files, rng: random.Random) -> None:
    files[FILES[0]] = flipped(files[FILES[0]], rng, 0)


def flipped(data: bytes, rng: random.Random, first: int) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 10, 100))):
        changed[rng.randrange(first, len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


# What hits pages as a whole cannot go unnoticed.
OF_CLOSED = (cut, wipe_pages, swap_pages)
OF_KILLED = (cut_log, flip_log, cut_below_log)


def recovered(
    damage: Callable[[Files, random.Random], None], files: Files, folder: Path, seeds: range, *, exact: bool = True
) -> float:
    """Share of the history that is read of damaged files, on average; what is read must be what was written."""
    truth = answers(put(folder / "truth", files))
    assert len(truth["history"]) == len(truth["scalars"]) == STEPS
    shares = []
    for seed in seeds:
        damaged = dict(files)
        damage(damaged, random.Random(seed))
        path = put(folder / str(seed), damaged)
        found = answers(path)
        for name, answer in found.items():
            assert not exact or answer.items() <= truth[name].items(), f"{damage.__name__} {seed}: {name}"
        shares.append(len(found["history"].items() & truth["history"].items()) / STEPS)
        shutil.rmtree(path)
    share = float(np.mean(shares))
    print(f"\n{damage.__name__}: {share:.0%} of the steps are read, {np.mean(np.array(shares) == 0):.0%} refused")
    return share


@pytest.mark.parametrize("damage", [*OF_CLOSED, flip])
def test_a_damaged_file_gives_what_was_written_or_is_refused(
    damage: Callable[[Files, random.Random], None], closed: Files, tmp_path: Path
) -> None:
    share = recovered(damage, closed, tmp_path, range(50), exact=damage is not flip)
    assert share > {"cut": 0.3, "wipe_pages": 0.7, "swap_pages": 0.8, "flip": 0.5}[damage.__name__]


@pytest.mark.parametrize("damage", OF_KILLED)
def test_a_damaged_log_gives_what_was_written_or_is_refused(
    damage: Callable[[Files, random.Random], None], killed: Files, tmp_path: Path
) -> None:
    share = recovered(damage, killed, tmp_path, range(50))
    assert share > {"cut_log": 0.2, "flip_log": 0.02, "cut_below_log": 0.15}[damage.__name__]


@pytest.mark.slow
@pytest.mark.parametrize("damage", [*OF_CLOSED, *OF_KILLED, flip])
def test_no_damage_of_thousands_is_read_wrongly(
    damage: Callable[[Files, random.Random], None], closed: Files, killed: Files, tmp_path: Path
) -> None:
    recovered(damage, killed if damage in OF_KILLED else closed, tmp_path, range(1000, 1700), exact=damage is not flip)


# --- one damage ------------------------------------------------------------------------------------------------------


def test_a_file_that_ends_early_says_so(closed: Files, tmp_path: Path) -> None:
    data = closed[FILES[0]]
    path = put(tmp_path / "run", {FILES[0]: data[: len(data) * 3 // 4 + 77]})
    damage = Database(path / FILES[0]).damage
    assert damage is not None
    said = f"the file ends early: {(len(data) * 3 // 4 + 77) // 1024} of {len(data) // 1024} KB are there; rows are "
    assert damage.startswith(said)


def test_a_whole_file_has_no_damage(closed: Files, killed: Files, tmp_path: Path) -> None:
    assert Database(put(tmp_path / "a", closed) / FILES[0]).damage is None
    assert Database(put(tmp_path / "b", killed) / FILES[0]).damage is None


def test_a_file_of_which_nothing_is_left_is_refused(closed: Files, tmp_path: Path) -> None:
    data, page = closed[FILES[0]], page_size(closed[FILES[0]])
    path = put(tmp_path / "run", {FILES[0]: data[:page] + bytes(len(data) - page)})
    with pytest.raises(RunError, match="nothing in it can be read"):
        open_run(path).meta  # noqa: B018


def made_database(path: Path, statements: str, rows: list[tuple[Any, ...]], insert: str) -> None:
    db = sqlite3.connect(path)
    db.executescript(f"{statements}; PRAGMA application_id = {schema.APPLICATION_ID}; PRAGMA user_version = 1;")
    with db:
        db.executemany(insert, rows)
    db.close()


def wipe_page_with(path: Path, marker: bytes) -> None:
    data = bytearray(path.read_bytes())
    page = page_size(data)
    at = data.index(marker) // page * page
    data[at : at + page] = bytes(page)
    path.write_bytes(data)


@pytest.mark.parametrize("spacing", [1, 1_000_003])
def test_only_the_rows_of_lost_pages_are_lost(tmp_path: Path, spacing: int) -> None:
    path = tmp_path / "rank0.sqlite"
    rows = [(n * spacing, f"<{n}>".encode() + bytes(400)) for n in range(5000)]
    made_database(
        path, "CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB NOT NULL)", rows, "INSERT INTO t VALUES (?, ?)"
    )
    for lost in (0, 700, 701, 702, 2500, 4999):
        wipe_page_with(path, f"<{lost}>".encode() + bytes(20)) if f"<{lost}>".encode() in path.read_bytes() else None
    found = salvage(path)
    kept = found.db.execute("SELECT id, data FROM t ORDER BY id").fetchall()
    assert set(kept) <= set(rows)
    assert len(kept) > 5000 - 6 * 10, "a page holds nine rows"
    assert found.damage == "the file is damaged; rows are missing from `t`"
    found.db.close()


def test_a_row_whose_long_value_is_lost_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "rank0.sqlite"
    rows = [(f"key{n}", f"{n}" * 20_000) for n in range(9)]
    made_database(
        path, "CREATE TABLE t (key TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID", rows, "INSERT INTO t VALUES (?, ?)"
    )
    data = bytearray(path.read_bytes())
    for lost in (3, 5):
        at = (data.index(f"{lost}".encode() * (page_size(data) - 4)) // page_size(data)) * page_size(data)
        data[at : at + page_size(data)] = bytes(page_size(data))
    path.write_bytes(data)
    found = salvage(path)
    kept = found.db.execute("SELECT key, text FROM t").fetchall()
    assert set(kept) == {row for n, row in enumerate(rows) if n not in (3, 5)}
    found.db.close()


# --- logs ------------------------------------------------------------------------------------------------------------


def test_the_copy_of_a_live_file_without_its_log_says_that_steps_are_missing(killed: Files, tmp_path: Path) -> None:
    path = put(tmp_path / "run", {FILES[0]: killed[FILES[0]]})
    assert answers(path)["history"].items() <= {step: float(step) for step in range(STEPS)}.items()
    damage = Database(path / FILES[0]).damage
    assert damage == "its log `rank0.sqlite-wal` is missing or empty, and the newest steps with it"


def with_log(folder: Path, run_id: str, number: int) -> Files:
    """A file with an identity, and a log in which a number and the beat were changed."""
    folder.mkdir()
    db = sqlite3.connect(folder / FILES[0], isolation_level=None)
    db.executescript(
        f"""
        CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE beat (id INTEGER PRIMARY KEY, run_id TEXT NOT NULL);
        CREATE TABLE number (value INTEGER);
        INSERT INTO meta VALUES ('run_id', '"{run_id}"');
        PRAGMA application_id = {schema.APPLICATION_ID}; PRAGMA user_version = {schema.VERSION};
        PRAGMA journal_mode = WAL;
        INSERT INTO number VALUES ({number});
        PRAGMA wal_checkpoint(TRUNCATE);
        INSERT INTO beat VALUES (0, '{run_id}');
        UPDATE number SET value = value + 1;
        """
    )
    files = written(folder)
    db.close()
    return files


def test_the_log_of_another_run_is_left_out(tmp_path: Path) -> None:
    mine, other = with_log(tmp_path / "mine", "mine", 10), with_log(tmp_path / "other", "other", 20)
    right, wrong = (
        Database(put(tmp_path / name, {FILES[0]: mine[FILES[0]], FILES[1]: log[FILES[1]]}) / FILES[0])
        for name, log in (("right", mine), ("wrong", other))
    )
    assert (right.rows("SELECT value FROM number"), right.damage) == ([(11,)], None)
    assert wrong.rows("SELECT value FROM number") == [(10,)]
    assert wrong.damage == "its log `rank0.sqlite-wal` belongs to another run and is left out"


# --- files that change under a reader --------------------------------------------------------------------------------


def test_a_damaged_file_that_is_copied_anew_is_read_whole(closed: Files, tmp_path: Path) -> None:
    path = put(tmp_path / "run", {FILES[0]: closed[FILES[0]][: len(closed[FILES[0]]) // 2]})
    run = open_run(path)
    version, some = run.version, len(run.scalars(SCALAR)[0])
    assert some < STEPS
    (path / FILES[0]).write_bytes(closed[FILES[0]])
    assert run.version != version
    assert len(run.scalars(SCALAR)[0]) == STEPS
    run.close()


def test_a_copy_that_is_renewed_beside_and_moved_into_place_is_followed(closed: Files, tmp_path: Path) -> None:
    path, newer = put(tmp_path / "run", closed), put(tmp_path / "newer", closed)
    with sqlite3.connect(newer / FILES[0]) as db:
        db.execute("UPDATE meta SET value = '\"Newer\"' WHERE key = 'model'")
    db.close()
    run = open_run(path)
    assert run.meta["model"] == "SimpleCNN"
    version = run.version
    os.replace(newer / FILES[0], path / FILES[0])
    moved = run.version
    assert moved != version
    assert run.meta["model"] == "Newer"
    assert run.version == moved
    run.close()


def test_another_run_that_takes_the_place_of_one_is_not_mixed_into_it(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", steps=10)
    run = open_run(path)
    assert len(run.steps) == 10
    path.rename(tmp_path / "run.1")
    with pytest.raises(RunError, match="does not exist any more"):
        run.version  # noqa: B018
    run = open_run(tmp_path / "run.1")
    assert len(run.steps) == 10
    (tmp_path / "run.1").rename(tmp_path / "run.2")
    put(tmp_path / "run.1", left_open(tmp_path / "other", 3.0))
    for _ in range(2):
        with pytest.raises(RunError, match="another run has taken the place"):
            run.steps  # noqa: B018
