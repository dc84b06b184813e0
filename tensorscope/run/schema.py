"""What a run file holds.

A run is a folder; each rank of a training writes one SQLite file in it, and a further one (a *part*) each time it is
resumed. Numbers live in two forms. A **frame** is one BLOB per measured step, with one row per series of its
**layout**. About a thousand frames of a layout are sealed into a **block**: one **chunk** per series and number, whose
low, high and count of non-finite values stand in a covering index. Blocks that are old are thinned into blocks of the
next level. NaN and Inf survive, because BLOBs keep every bit; SQLite's columns do not.

| kind | one row of it | series |
|---|---|---|
| `stats` | the numbers of `events.STORED` of one site; count NaN where it was not measured | site ids from 0 on |
| `times` | seconds of a module's forward and backward; both NaN where it did not run | modules from 0 on |
| `histograms` | two edges and `BINS` counts of one site; never sealed | said in each row |
| `scalars` | one value that the user logged | the layout's names |
| `gauges` | one value that the trace read off by itself | the layout's names |
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorscope.events import STORED

APPLICATION_ID = 0x74736370  # "tscp": tells our files from other SQLite files
VERSION = 2
BINS = 32  # counts in one stored histogram

STATS, TIMES, HISTOGRAMS, SCALARS, GAUGES = "stats", "times", "histograms", "scalars", "gauges"
NUMBERED = (STATS, TIMES, HISTOGRAMS)  # kinds whose one layout names no series; the layout's id is the place here
NAMED = (SCALARS, GAUGES)

COUNT, NONFINITE = STORED.index("count"), STORED.index("nonfinite")
RMS = len(STORED)  # place of the root mean square, which is sealed beside the stored numbers: it is drawn most
L2 = RMS + 1  # place of the Euclidean norm, which is in no file: it follows from count, non-finite count and rms
EXACT = ("count", "nonfinite")  # numbers beyond 2²⁴, where float32 stops to count

# kind → the numbers of one row of a frame, in the order of their places
ROWS: dict[str, np.dtype[Any]] = {
    STATS: np.dtype([(name, "<f8" if name in EXACT else "<f4") for name in STORED]),
    TIMES: np.dtype([("forward", "<f4"), ("backward", "<f4")]),
    SCALARS: np.dtype([("value", "<f8")]),
    GAUGES: np.dtype([("value", "<f8")]),
}
# kind → how the chunks of each place are stored
CHUNKS: dict[str, list[np.dtype[Any]]] = {
    kind: [row[name] for name in row.names or ()] + ([np.dtype("<f4")] if kind == STATS else [])
    for kind, row in ROWS.items()
}
WIDTHS = {kind: len(row.names or ()) for kind, row in ROWS.items()} | {HISTOGRAMS: 2 + BINS}

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE beat (id INTEGER PRIMARY KEY CHECK (id = 0), wall REAL NOT NULL, monotonic REAL NOT NULL,
                   step INTEGER NOT NULL, dropped INTEGER NOT NULL, run_id TEXT NOT NULL);
CREATE TABLE module (id INTEGER PRIMARY KEY, info TEXT NOT NULL);
CREATE TABLE site (id INTEGER PRIMARY KEY, path TEXT NOT NULL, kind TEXT NOT NULL, nth TEXT NOT NULL,
                   call INTEGER NOT NULL, gradient INTEGER NOT NULL);
CREATE TABLE shape (site INTEGER NOT NULL, nth INTEGER NOT NULL, step INTEGER NOT NULL, info TEXT NOT NULL,
                    PRIMARY KEY (site, nth)) WITHOUT ROWID;
CREATE TABLE layout (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, series TEXT NOT NULL);
CREATE TABLE frame (seq INTEGER PRIMARY KEY, layout INTEGER NOT NULL, step INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX frame_of_layout ON frame (layout, seq, step);
CREATE TABLE block (id INTEGER PRIMARY KEY, layout INTEGER NOT NULL, level INTEGER NOT NULL, first INTEGER NOT NULL,
                    last INTEGER NOT NULL, length INTEGER NOT NULL, covers INTEGER NOT NULL, bytes INTEGER NOT NULL,
                    sealed INTEGER NOT NULL, chunk_first INTEGER NOT NULL, chunk_last INTEGER NOT NULL,
                    steps BLOB NOT NULL, seqs BLOB NOT NULL);
CREATE INDEX block_of_layout ON block (layout, level, first, last, length, covers, bytes, sealed);
CREATE TABLE chunk (id INTEGER PRIMARY KEY, layout INTEGER NOT NULL, series INTEGER NOT NULL, place INTEGER NOT NULL,
                    block INTEGER NOT NULL, low REAL, high REAL, bad INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX envelope ON chunk (layout, place, series, block, low, high, bad);
CREATE TABLE latest (layout INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE note (id INTEGER PRIMARY KEY, step INTEGER NOT NULL, wall REAL NOT NULL, text TEXT NOT NULL);
CREATE TABLE document (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
"""
# Of a block: `first` to `last` are the steps that it covers, `covers` how many frames it stands for, `length` how many
# of them it still holds, `sealed` the newest `seq` in it. Of a chunk: `low` and `high` of the finite values, `bad` how
# many were not finite (of statistics: at how many steps the tensor held such elements), all of what the block covers.


def file_name(rank: int, part: int = 0) -> str:
    """Name of one rank's file inside the run's folder; of a further part if the run was resumed."""
    return f"rank{rank}.{part}.sqlite" if part else f"rank{rank}.sqlite"
