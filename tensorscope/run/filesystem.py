"""Which journal a run file can have in a folder: SQLite's write-ahead log needs memory shared between its readers."""

from __future__ import annotations

import re
import sqlite3
import tempfile
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")  # Linux; elsewhere nothing is known, and the folder is tried out

# Shared between machines, or without the locks or the shared memory that a write-ahead log needs.
WITHOUT_LOG = frozenset(
    {
        "9p", "acfs", "afs", "aufs", "beegfs", "ceph", "cifs", "coda", "drvfs", "gfs", "gfs2",
        "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs",
        "prl_fs", "pvfs2", "smb3", "smbfs", "v9fs", "vboxsf", "virtiofs", "vmhgfs", "wekafs",
        "webdav",
    }
)  # fmt: skip
WITH_LOG = frozenset(
    {
        "apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs",
        "reiserfs", "tmpfs", "xfs", "zfs",
    }
)  # fmt: skip


def journal_mode_for(folder: Path) -> str:
    """The journal mode for a run file in a folder.

    Args:
        folder: an existing folder that may be written.

    Returns:
        `wal`, with which readers and the writer never wait for each other; or `truncate`, which works everywhere.
    """
    kind = file_system(folder)
    if kind in WITH_LOG:
        return "wal"
    return "truncate" if is_odd(kind) or not _log_works(folder) else "wal"


def is_odd(kind: str | None) -> bool:
    """Whether a file system of this type is known to share no memory between the readers of a file."""
    return kind is not None and (kind in WITHOUT_LOG or kind.startswith("fuse."))


def file_system(folder: Path, mounts: str | None = None) -> str | None:
    """Type of the file system that holds a folder, such as `ext4`; None where the system does not say.

    Args:
        folder: the folder; need not exist.
        mounts: text in the format of `/proc/self/mountinfo`, instead of this system's own.
    """
    if mounts is None:
        try:
            mounts = MOUNTS.read_text(errors="surrogateescape")
        except OSError:
            return None
    place = folder.resolve()
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4]))
        # Of two mounts on one point, the later covers the earlier.
        if place.is_relative_to(point) and (found is None or len(point.parts) >= found[0]):
            found = len(point.parts), right.split(" ")[0]
    return found[1] if found else None


def _log_works(folder: Path) -> bool:
    """Make a file with a write-ahead log in the folder, write it, read it by a second connection, and remove it."""
    try:
        with tempfile.TemporaryDirectory(prefix=".tensorscope-", dir=folder) as trial:
            file = Path(trial) / "trial.sqlite"
            writer, reader = (sqlite3.connect(file, timeout=1) for _ in range(2))
            try:
                if writer.execute("PRAGMA journal_mode=WAL").fetchone() != ("wal",):
                    return False
                writer.execute("CREATE TABLE trial (number INTEGER)")
                with writer:
                    writer.execute("INSERT INTO trial VALUES (7)")
                return bool(reader.execute("SELECT number FROM trial").fetchall() == [(7,)])
            finally:
                reader.close()
                writer.close()
    except (sqlite3.Error, OSError):
        return False
