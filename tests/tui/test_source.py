"""A source reads only what has moved, and notices what happened to the file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made_runs import make_run
from viewer_pilot import add, make_live

from tensorscope.errors import RunError
from tui.folder import Folder
from tui.snapshot import AskLayers, AskOverview
from tui.source import HEAD_SECONDS, Source


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_has_not_changed_is_not_read_again(tmp_path: Path) -> None:
    source = Source(make_run(tmp_path / "run"), Clock())
    assert source.read(AskOverview()) is not None
    assert source.read(AskOverview()) is None
    assert source.read(AskLayers()) is not None


def test_a_run_that_moves_is_read_at_its_pace(tmp_path: Path) -> None:
    clock = Clock()
    source = Source(make_run(tmp_path / "run"), clock)
    source.read(AskOverview())
    add(tmp_path / "run", "note", 1, 3, 0.0, "a hook failed")
    assert source.read(AskOverview()) is None
    clock.now += AskOverview.pace
    found = source.read(AskOverview())
    assert found is not None
    assert found.answer is not None
    assert found.head.notes == 1


def test_the_end_of_a_silent_run_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    source = Source(make_live(tmp_path / "run"), clock)
    first = source.read(AskOverview())
    assert first is not None
    assert first.head.status == "running"
    monkeypatch.setattr("tensorscope.run.reader.Run.status", "died")
    clock.now += HEAD_SECONDS
    found = source.read(AskOverview())
    assert found is not None
    assert found.head.status == "died"


def test_a_run_that_takes_the_place_of_another_is_opened(tmp_path: Path) -> None:
    source = Source(make_run(tmp_path / "run"), Clock())
    source.read(AskOverview())
    (tmp_path / "run").rename(tmp_path / "run.1")
    make_run(tmp_path / "run", steps=7)
    found = source.read(AskOverview())
    assert found is not None
    assert found.replaced
    assert found.head.last_step == 6


def test_a_deleted_run_is_said_to_be_deleted_and_found_again(tmp_path: Path) -> None:
    source = Source(make_run(tmp_path / "run"), Clock())
    source.read(AskOverview())
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(RunError, match="was deleted"):
        source.read(AskOverview())
    make_run(tmp_path / "run")
    assert source.read(AskOverview()) is not None


def test_the_rate_is_measured_over_what_was_seen(tmp_path: Path) -> None:
    clock = Clock()
    source = Source(make_run(tmp_path / "run"), clock)
    first = source.read(AskOverview())
    assert first is not None
    assert first.head.rate is None
    assert source._rate(79, clock.now + 2) == 10


def test_a_folder_lists_its_runs_and_what_cannot_be_read(tmp_path: Path) -> None:
    make_run(tmp_path / "good")
    make_run(tmp_path / "deep" / "bad", nan_from=5, status="died")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "rank0.sqlite").write_bytes(b"nonsense" * 100)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "rank0.sqlite").touch()
    found = {entry.name: entry for entry in Folder(tmp_path).entries()}
    assert set(found) == {"good", "deep/bad", "broken", "empty"}
    assert (found["good"].status, found["good"].steps, found["good"].model) == ("finished", 60, "SimpleCNN")
    assert found["deep/bad"].loss is not None
    assert found["broken"].problem == "is not a tensorscope run"
    assert found["empty"].problem == "the run file is empty"


def test_a_finished_run_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "good")
    folder = Folder(tmp_path)
    first = folder.entries()
    monkeypatch.setattr("tui.folder.Run", None)
    assert folder.entries() == first


def test_a_folder_that_is_not_there_has_no_runs(tmp_path: Path) -> None:
    assert Folder(tmp_path / "nowhere").entries() == ()


def test_a_rank_or_part_that_joins_is_no_new_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=20, status="interrupted")
    (folder / "rank0.sqlite").rename(folder / "rank1.sqlite")
    clock = Clock()
    source = Source(folder, clock)
    first = source.read(AskOverview())
    assert first is not None
    assert (first.head.ranks, first.replaced) == (1, False)
    shutil.copy(folder / "rank1.sqlite", folder / "rank0.sqlite")
    clock.now += 60
    found = source.read(AskOverview())
    assert found is not None
    assert (found.head.ranks, found.replaced) == (2, False)
