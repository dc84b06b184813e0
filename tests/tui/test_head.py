"""What is said of a run as a whole: how it is sampled, and what is wrong with the recording."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_runs import made_meta, make_run, stats_row
from viewer_pilot import add, said, until_said, viewer

from tensorscope.events import Kind, Shape, Site
from tensorscope.run import schema
from tensorscope.run.reader import Run
from tensorscope.run.schema import file_name
from tensorscope.run.writer import Writer
from tui.head import budget, head_of, ordinal, samples_of, sampling

WEIGHT = Site("fc.weight", Kind.PARAMETER)


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"every": 1, "overhead": 0.05}, ("every step", "")),
        ({"every": 8, "overhead": 0.05}, ("every 8th step", "")),
        ({"every": None, "overhead": 0.05}, ("every step", "5 % budget")),
        ({"every": None, "overhead": 0.005, "interval": 32}, ("every 32nd step", "0.5 % budget")),
        ({}, ("", "")),
        ({"every": "odd"}, ("", "")),
    ],
)
def test_sampling_is_told_as_it_is(meta: dict[str, object], words: tuple[str, str]) -> None:
    assert (sampling(meta), budget(meta)) == words


def test_ordinals_end_as_they_are_spoken() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 112, 8192)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "112th", "8192nd",
    ]  # fmt: skip


def with_input(folder: Path, shape: Shape, count: int) -> Path:
    writer = Writer(folder, made_meta())
    site = writer.site(Site("", Kind.INPUT))
    writer.shape(site, shape)
    row = np.array([[count, *stats_row(np.random.default_rng(0), 1.0)[1:]]])
    writer.frame(schema.STATS, 0, (site,), lambda: row)
    writer.close(status="finished")
    return folder


@pytest.mark.parametrize(
    ("shape", "count", "samples"),
    [
        (Shape(0, (32, 3, 8)), 32 * 24, 32),
        (Shape(0, (32, 3, 8)), 4 * 32 * 24, 128),  # a step of four passes
        (Shape(0, (7, 32, 8), ("seq", "batch", "dim")), 32 * 56, 32),
        (Shape(0, (32,)), 32, None),
        (Shape(0, (32, 3)), 100, None),
    ],
)
def test_samples_in_a_step_follow_from_the_input(tmp_path: Path, shape: Shape, count: int, samples: int | None) -> None:
    assert samples_of(Run(with_input(tmp_path / "run", shape, count))) == samples


def ranks(folder: Path, *, second: float = 1.0, died: bool = False) -> Path:
    """A training of two ranks whose only parameter is 1 on the first."""
    for rank, value in enumerate((1.0, second)):
        writer = Writer(folder, made_meta(rank=rank, world_size=2, pid=0 if died and rank else 1), rank)
        site = writer.site(WEIGHT)
        for step in range(6):
            shown = value if step > 3 else 1.0
            row = np.array([[4.0, shown, 0.0, shown, shown, 0.0, 0.0, np.nan]])
            writer.frame(schema.STATS, step, (site,), lambda row=row: row)
            writer.frame(schema.SCALARS, step, ("loss",), lambda: np.array([0.5]))
        writer.close(**({} if died and rank else {"status": "finished"}))
    return folder


def test_ranks_that_agree_need_no_word(tmp_path: Path) -> None:
    head = head_of(Run(ranks(tmp_path / "run")), None)
    assert (head.ranks, head.warnings) == (2, ())


def test_ranks_that_differ_are_said_to_with_the_step(tmp_path: Path) -> None:
    assert head_of(Run(ranks(tmp_path / "run", second=2.0)), None).warnings == ("ranks differ since step 4",)


def test_a_rank_that_died_or_left_nothing_is_named(tmp_path: Path) -> None:
    folder = ranks(tmp_path / "run", died=True)
    add(folder, "meta", "world_size", "4")
    assert head_of(Run(folder), None).warnings == ("rank 1 died", "ranks 2, 3 have left no file")


def test_a_damaged_file_is_said_to_be(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    file = folder / file_name(0)
    with file.open("r+b") as half:
        half.truncate(file.stat().st_size * 2 // 3)
    assert head_of(Run(folder), None).warnings == ("a file ends early",)


def test_a_rank_whose_file_is_nonsense_leaves_the_others(tmp_path: Path) -> None:
    folder = ranks(tmp_path / "run")
    (folder / file_name(1)).write_bytes(b"nonsense" * 100)
    head = head_of(Run(folder), None)
    assert "rank 1 cannot be read" in head.warnings
    assert head.last_step == 5


def test_frames_dropped_and_a_disk_that_failed_are_told(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    add(folder, "note", None, 3, 0.0, "the disk failed (disk is full); 5 frames were left out until then")
    assert head_of(Run(folder), None).warnings == ("the disk failed for a while",)


async def test_the_header_says_how_a_run_is_sampled_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    folder = ranks(tmp_path / "run", second=2.0, died=True)
    add(folder, "meta", "interval", "8")
    add(folder, "meta", "every", "null")
    add(folder, "meta", "overhead", "0.05")
    async with viewer(folder).run_test(size=(100, 30), notifications=True) as pilot:
        await until_said(pilot, "every 8th step", "5 % budget", "▲ rank 1 died · ranks differ since step 4")


async def test_a_run_whose_first_rank_left_no_file_can_be_watched(tmp_path: Path) -> None:
    folder = ranks(tmp_path / "run")
    (folder / file_name(0)).unlink()
    async with viewer(folder).run_test(size=(100, 30), notifications=True) as pilot:
        await until_said(pilot, "step 5", "loss", "rank 0 has left no file")


async def test_a_resumed_run_is_shown_as_one(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=20, status="interrupted", told=True)
    shutil.copy(folder / file_name(0), folder / "rank0.1.sqlite")
    text = json.dumps(10)
    import sqlite3

    with sqlite3.connect(folder / "rank0.1.sqlite") as db:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('first_step', ?)", (text,))
    db.close()
    async with viewer(folder).run_test(size=(100, 40), notifications=True) as pilot:
        await until_said(pilot, "step 19", "accuracy")
        pilot.app.screen.action_show("facts")  # type: ignore[attr-defined]
        await until_said(pilot, "Parts", "steps 0 to 9, interrupted", "steps 10 to 19, interrupted")
        assert "A new run began" not in said(pilot)
