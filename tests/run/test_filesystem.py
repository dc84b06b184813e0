"""The journal that a run file gets follows from where it lies."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from made_runs import made_meta, make_run

from tensorscope import open_run
from tensorscope.run import filesystem, schema
from tensorscope.run.filesystem import WITHOUT_LOG, file_system, is_odd, journal_mode_for
from tensorscope.run.writer import Writer

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:40 / /home rw,relatime shared:5 - nfs4 server:/home rw,vers=4.2
31 30 0:41 / /home/me/fast rw,relatime shared:6 master:2 - xfs /dev/nvme0n1 rw
32 22 0:42 / /mnt/my\\040data rw - cifs //host/share rw
33 22 0:43 / /mnt/my\\040data rw - fuse.sshfs me@host: rw
34 22 0:44 / /ho rw - 9p share rw
garbage
35 22
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", "ext4"),
        ("/srv/runs", "ext4"),
        ("/home", "nfs4"),
        ("/home/me/runs/mine", "nfs4"),
        ("/home/me/fast/runs", "xfs"),
        ("/home/me/faster", "nfs4"),
        ("/mnt/my data/runs", "fuse.sshfs"),
        ("/mnt/my", "ext4"),
        ("/homes", "ext4"),
    ],
)
def test_the_longest_mount_that_holds_a_folder_counts_and_of_two_on_one_point_the_later(folder: str, kind: str) -> None:
    assert file_system(Path(folder), MOUNTS) == kind


def test_a_link_is_followed_to_where_the_files_are(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").symlink_to(tmp_path / "there")
    mounts = f"1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / {tmp_path / 'there'} rw - nfs b rw"
    assert file_system(tmp_path / "here" / "run", mounts) == "nfs"


def test_where_no_mount_is_known_no_type_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "MOUNTS", tmp_path / "missing")
    assert file_system(tmp_path) is None
    assert file_system(tmp_path, "") is None
    assert journal_mode_for(tmp_path) == "wal", "tried out: this folder can share memory"
    assert not list(tmp_path.iterdir()), "nothing is left of the trial"


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "lustre", "fuse.sshfs", "fuse.unheard-of", "9p"])
def test_network_and_odd_file_systems_are_known(kind: str) -> None:
    assert is_odd(kind)


def test_local_and_unknown_file_systems_are_not_called_odd() -> None:
    assert not any(is_odd(kind) for kind in ("ext4", "xfs", "tmpfs", "fuseblk", "newfs", None))
    assert not WITHOUT_LOG & filesystem.WITH_LOG


def mounted_as(kind: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    mounts = folder / "mountinfo"
    mounts.write_text(f"1 0 0:1 / / rw - {kind} a rw")
    monkeypatch.setattr(filesystem, "MOUNTS", mounts)


def test_the_type_decides_and_only_a_doubtful_one_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    modes = []
    for kind in ("ext4", "nfs4", "newfs"):
        mounted_as(kind, monkeypatch, tmp_path)
        modes.append(journal_mode_for(folder))
    assert modes == ["wal", "truncate", "wal"]
    mounted_as("newfs", monkeypatch, tmp_path)
    assert journal_mode_for(tmp_path / "missing") == "truncate", "a trial that fails decides against the log"
    assert not list(folder.iterdir())


def may_mount() -> bool:
    return (
        shutil.which("unshare") is not None and not subprocess.run(["unshare", "-rm", "true"], check=False).returncode
    )


def in_a_namespace(script: str) -> str:
    """What a shell script prints that may mount things nobody else sees."""
    done = subprocess.run(["unshare", "-rm", "sh", "-ec", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not may_mount(), reason="this system lets nobody mount")
def test_a_full_file_system_is_no_place_for_a_log(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from tensorscope.run import filesystem as f;"
        f"f.WITH_LOG = frozenset(); p = Path({str(tmp_path)!r}); print(f.file_system(p), f.journal_mode_for(p));"
        "print(len(list(p.iterdir())))"
    )
    script = f"mount -t tmpfs -o size=4k none {tmp_path}; {sys.executable} -c '{code.replace(chr(39), chr(34))}'"
    assert in_a_namespace(script).split() == ["tmpfs", "truncate", "0"]


# --- reading where nothing can be shared or written ------------------------------------------------------------------


def killed_run(folder: Path, *, journal: str) -> Path:
    """A run of ten steps whose writer was killed: its newest steps are in its log, or it has half a transaction."""
    make_run(folder, steps=10)
    code = f"""
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode={journal}").fetchall()
db.execute("PRAGMA wal_autocheckpoint=0").fetchall()
if {journal == "wal"}:
    db.execute("UPDATE meta SET value = '\\"killed\\"' WHERE key = 'model'")
else:
    db.execute("PRAGMA cache_size=1")
    db.execute("BEGIN")
    db.execute("UPDATE meta SET value = '\\"half\\"' WHERE key = 'model'")
    db.execute("CREATE TABLE much AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)"
               " SELECT randomblob(4000) AS data FROM n")
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code, str(folder / "rank0.sqlite")], check=False)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-shm")}


ASK = "import sys, tensorscope; r = tensorscope.open_run(sys.argv[1]); print(r.meta['model'], len(r.steps))"


@pytest.mark.skipif(not may_mount(), reason="this system lets nobody mount")
@pytest.mark.parametrize(("journal", "model"), [("wal", "killed"), ("truncate", "SimpleCNN"), ("delete", "SimpleCNN")])
def test_a_killed_run_is_read_where_nothing_may_be_written(tmp_path: Path, journal: str, model: str) -> None:
    folder = killed_run(tmp_path / "run", journal=journal)
    (folder / "rank0.sqlite-shm").unlink(missing_ok=True)
    assert len(contents(folder)) == 2, "a file, and a log or a journal"
    before = contents(folder)
    script = f"""
mount --bind {folder} {folder}
mount -o remount,ro,bind {folder} {folder}
if touch {folder}/x 2>/dev/null; then exit 9; fi
{sys.executable} -c "{ASK}" {folder}
"""
    assert in_a_namespace(script).split() == [model, "10"]
    assert contents(folder) == before


@pytest.mark.parametrize("journal", ["wal", "truncate"])
def test_an_unfinished_transaction_is_left_to_the_writer_and_not_seen(tmp_path: Path, journal: str) -> None:
    folder = killed_run(tmp_path / "run", journal=journal)
    before = contents(folder)
    run = open_run(folder)
    assert run.meta["model"] == ("killed" if journal == "wal" else "SimpleCNN")
    assert len(run.steps) == 10
    run.close()
    assert contents(folder) == before


def test_a_live_run_on_a_network_disk_is_followed_in_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "temporary"
    here.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(here))
    writer = Writer(tmp_path / "run", made_meta(created=time.time()))
    mounted_as("nfs4", monkeypatch, tmp_path)
    run = open_run(tmp_path / "run")
    seen = []
    for step in range(3):
        writer.frame(schema.SCALARS, step, ("loss",), lambda step=step: np.array([float(step)]))
        writer.flush()
        seen.append((run.version, run.steps))
    assert [steps for _, steps in seen] == [[0], [0, 1], [0, 1, 2]]
    assert len({version for version, _ in seen}) == 3
    writer.close(status="finished")
    assert run.version not in {version for version, _ in seen}
    assert run.status == "finished"
    run.close()
    assert not list(here.iterdir()), "the copies are gone"


def test_a_run_written_on_a_network_disk_is_read_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted_as("nfs4", monkeypatch, tmp_path)
    writer = Writer(tmp_path / "run", made_meta(created=time.time()))
    run = open_run(tmp_path / "run")
    for step in range(20):
        writer.frame(schema.SCALARS, step, ("loss",), lambda step=step: np.array([float(step)]))
        writer.flush()
        assert run.version
        assert run.steps == list(range(step + 1))
    writer.close(status="finished")
    assert run.version
    assert run.status == "finished"
    run.close()
