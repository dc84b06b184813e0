"""A writer counts as alive while its process is, whatever the clocks say."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from made_runs import made_meta, make_run

from tensorscope import RunError, open_run
from tensorscope.run import folders, schema
from tensorscope.run.database import Database
from tensorscope.run.folders import SILENCE_SECONDS, SUSPENDED_SECONDS, Beat, is_alive, last_beat, process_facts
from tensorscope.run.writer import Writer

LINUX = Path("/proc/self/stat").exists()
YEAR = 365 * 86_400.0
FRESH = 1.0
SILENT = SILENCE_SECONDS + 1


def ago(*, wall: float, monotonic: float | None = None) -> Beat:
    """A beat so many seconds ago, by each clock."""
    return Beat(time.time() - wall, None if monotonic is None else time.monotonic() - monotonic)


def another_machine(**changes: Any) -> dict[str, Any]:
    return process_facts() | {"host": "elsewhere", "boot_id": "of another machine"} | changes


def test_the_facts_can_be_stored_and_tell_this_process_from_others() -> None:
    facts = process_facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["pid"] == os.getpid()
    child = subprocess.run(
        [sys.executable, "-c", "import json, tensorscope.run.folders as f; print(json.dumps(f.process_facts()))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    theirs = json.loads(child.stdout)
    same = {"host", "boot_id", "pid_namespace"} & facts.keys()
    assert {key: facts[key] for key in same} == {key: theirs[key] for key in same}
    assert theirs["pid"] != facts["pid"]


# --- a process that can be looked at ---------------------------------------------------------------------------------


@pytest.mark.skipif(not LINUX, reason="only Linux tells when a process started")
@pytest.mark.parametrize("wall", [-YEAR, 0.0, YEAR])
@pytest.mark.parametrize("monotonic", [None, 0.0, SUSPENDED_SECONDS + 1])
def test_no_clock_decides_about_a_process_of_this_machine(wall: float, monotonic: float | None) -> None:
    beat = ago(wall=wall, monotonic=monotonic)
    assert is_alive(process_facts(), beat)
    assert is_alive(process_facts() | {"created": time.time() - wall}, beat)
    assert not is_alive(process_facts() | {"process_started": process_facts()["process_started"] - 1}, beat)
    assert not is_alive(process_facts() | {"pid": 2**22 + 1}, beat), "beyond the largest pid"


@pytest.mark.skipif(not LINUX, reason="only Linux tells the state of a process")
def test_a_process_that_ended_and_was_not_waited_for_is_dead() -> None:
    child = subprocess.Popen(["sleep", "600"])
    started = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
    facts = process_facts() | {"pid": child.pid, "process_started": started}
    assert is_alive(facts, Beat.now())
    child.send_signal(signal.SIGSTOP)
    assert is_alive(facts, ago(wall=YEAR, monotonic=YEAR)), "a stopped process may go on"
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(facts, Beat.now()), "a zombie"
    child.wait()
    assert not is_alive(facts, Beat.now())


def test_without_a_start_on_record_a_long_silence_or_a_later_process_counts_as_dead() -> None:
    facts = {"host": process_facts()["host"], "pid": os.getpid()}
    assert is_alive(facts, ago(wall=YEAR, monotonic=FRESH))
    assert is_alive(facts, ago(wall=SILENT))
    assert not is_alive(facts, ago(wall=SUSPENDED_SECONDS + 1))
    assert not is_alive(facts, ago(wall=FRESH, monotonic=SUSPENDED_SECONDS + 1))
    if LINUX:
        assert not is_alive(facts | {"created": time.time() - YEAR}, ago(wall=FRESH))


@pytest.mark.parametrize("pid", [None, 0, -1, "7", 2**70, 1.5])
def test_a_damaged_pid_is_nobodys(pid: Any) -> None:
    assert not is_alive(process_facts() | {"pid": pid}, Beat.now())


# --- a process that cannot -------------------------------------------------------------------------------------------


def test_another_machine_is_judged_by_the_wall_clock_and_the_future_is_fresh() -> None:
    assert is_alive(another_machine(), ago(wall=FRESH, monotonic=YEAR))
    assert not is_alive(another_machine(), ago(wall=SILENT, monotonic=FRESH))
    assert is_alive(another_machine(), ago(wall=-YEAR))
    assert not is_alive({"host": "elsewhere"}, ago(wall=SILENT))


def test_this_machine_before_it_was_started_anew_is_judged_like_another() -> None:
    facts = process_facts() | {"boot_id": "an earlier one"}
    assert not is_alive(facts, ago(wall=SILENT))
    assert is_alive(facts, ago(wall=FRESH)), "another machine of the same name, on a shared disk"
    without = {key: value for key, value in process_facts().items() if key != "boot_id"}
    assert not is_alive(without, Beat(time.time() - SILENT, time.monotonic() + YEAR)), "its clock began anew"


@pytest.mark.skipif(not LINUX, reason="only Linux has namespaces")
def test_a_container_beside_this_one_is_judged_by_the_monotonic_clock() -> None:
    facts = process_facts() | {"pid_namespace": "pid:[1]", "pid": 1, "process_started": 1}
    assert is_alive(facts, ago(wall=YEAR, monotonic=FRESH))
    assert not is_alive(facts, ago(wall=-YEAR, monotonic=SILENT))
    assert not is_alive(facts | {"host": "another name"}, ago(wall=-YEAR, monotonic=SILENT))
    assert is_alive(facts, ago(wall=FRESH)), "without a monotonic beat, by the wall clock"


def may_isolate() -> bool:
    return LINUX and subprocess.run(["unshare", "-rpf", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_isolate(), reason="this system gives no pid namespace")
def test_a_run_is_live_when_seen_from_another_pid_namespace(tmp_path: Path) -> None:
    ask = f"import tensorscope.run.folders as f; print(f.is_live({str(tmp_path / 'run')!r}))"
    writer = Writer(tmp_path / "run", made_meta(created=time.time()) | process_facts())
    seen = subprocess.run(
        ["unshare", "-rpf", "--mount-proc", sys.executable, "-c", ask], capture_output=True, text=True, check=True
    )
    writer.close(status="finished")
    assert seen.stdout == "True\n"


# --- what the file says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "beat"),
    [
        ("CREATE TABLE beat AS SELECT 0 AS id, 5.0 AS wall, 7 AS step", Beat(5.0)),
        ("CREATE TABLE beat AS SELECT 0 AS id, 5.0 AS wall, 2.5 AS monotonic", Beat(5.0, 2.5)),
        ("CREATE TABLE beat AS SELECT 5.0 AS wall, NULL AS monotonic", Beat(5.0)),
        ("CREATE TABLE beat AS SELECT 5.0 AS wall LIMIT 0", Beat(0.0)),
        ("CREATE TABLE other (id)", Beat(0.0)),
    ],
)
def test_a_beat_is_read_as_far_as_the_file_has_one(tmp_path: Path, table: str, beat: Beat) -> None:
    db = sqlite3.connect(tmp_path / "rank0.sqlite")
    db.executescript(f"{table}; PRAGMA application_id = {schema.APPLICATION_ID}; PRAGMA user_version={schema.VERSION}")
    db.close()
    assert last_beat(Database(tmp_path / "rank0.sqlite")) == beat
    assert not folders.is_live(tmp_path), "its meta is missing"


# --- two trainings, one name -----------------------------------------------------------------------------------------

PROCESSES = 8


def write_at_once(path: Path, start: Any, done: Any, number: int) -> None:
    """What `trace` does at its start, then a few steps; says how it went."""
    import numpy as np

    from tensorscope.run.creation import fresh_folder

    start.wait()
    try:
        writer = Writer(fresh_folder(path), made_meta(created=time.time(), number=number) | process_facts())
    except RunError as refused:
        done.put((number, refused.title))
        return
    for step in range(3):
        writer.frame(schema.SCALARS, step, ("number",), lambda: np.array([float(number)]))
    writer.flush()
    done.put((number, None))
    with suppress(threading.BrokenBarrierError):
        start.wait()  # the run stays live until all others have had their try
    writer.close(status="finished")


def test_of_trainings_started_at_once_with_one_name_one_writes_and_the_others_are_told(tmp_path: Path) -> None:
    family = multiprocessing.get_context("fork")
    for round_number in range(4):
        path = tmp_path / f"runs{round_number}" / "mine"
        finished = round_number % 2
        if finished:
            make_run(path, steps=1)  # makes room once
        start, done = family.Barrier(PROCESSES), family.Queue()
        trainings = [
            family.Process(target=write_at_once, args=(path, start, done, n), daemon=True) for n in range(PROCESSES)
        ]
        for training in trainings:
            training.start()
        answers = [done.get(timeout=60) for _ in range(PROCESSES)]
        start.abort()
        for training in trainings:
            training.join(60)
        assert_one_run(path, answers, ["mine", "mine.1"] if finished else ["mine"])


def assert_one_run(path: Path, answers: list[tuple[int, str | None]], folders_there: list[str]) -> None:
    winners = [number for number, refused in answers if refused is None]
    assert len(winners) == 1, answers
    assert {refused for _, refused in answers if refused} == {f"another training is writing `{path}` now"}
    assert sorted(entry.name for entry in path.parent.iterdir()) == folders_there
    run = open_run(path)
    assert run.meta["number"] == winners[0]
    assert run.scalars("number")[1].tolist() == [float(winners[0])] * 3
    run.close()
