"""What a run file holds.

A run is a folder; each rank of a training writes one SQLite file in it. Numbers live in **frames**: one BLOB per
measured step, which holds one row per series of its **layout**. Layouts are few: a new one only comes up when the set
of sites or of logged names changes. NaN and Inf survive, because BLOBs keep every bit; SQLite's columns do not.

| frame kind | one row of it | dtype |
|---|---|---|
| `stats` | the numbers of `events.STORED` of one site | float32 |
| `scalars` | one logged value | float64 |
| `histograms` | low edge, high edge, `BINS` counts of one site | float32 |
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorscope.events import STORED

APPLICATION_ID = 0x74736370  # "tscp": tells our files from other SQLite files
VERSION = 1
BINS = 32  # counts in one stored histogram

STATS, SCALARS, HISTOGRAMS = "stats", "scalars", "histograms"

# kind → (numbers in a row, how each is stored)
ROWS: dict[str, tuple[int, np.dtype[Any]]] = {
    STATS: (len(STORED), np.dtype("<f4")),
    SCALARS: (1, np.dtype("<f8")),
    HISTOGRAMS: (2 + BINS, np.dtype("<f4")),
}

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE beat (id INTEGER PRIMARY KEY CHECK (id = 0), wall REAL NOT NULL, step INTEGER NOT NULL,
                   dropped INTEGER NOT NULL);
CREATE TABLE module (id INTEGER PRIMARY KEY, info TEXT NOT NULL);
CREATE TABLE site (id INTEGER PRIMARY KEY, path TEXT NOT NULL, kind TEXT NOT NULL, nth TEXT NOT NULL,
                   call INTEGER NOT NULL, gradient INTEGER NOT NULL);
CREATE TABLE shape (id INTEGER PRIMARY KEY, site INTEGER NOT NULL, step INTEGER NOT NULL, info TEXT NOT NULL);
CREATE INDEX shape_of_site ON shape (site);
CREATE TABLE layout (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, series TEXT NOT NULL);
CREATE TABLE frame (seq INTEGER PRIMARY KEY, layout INTEGER NOT NULL, step INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX frame_of_layout ON frame (layout, step);
CREATE TABLE note (id INTEGER PRIMARY KEY, step INTEGER NOT NULL, wall REAL NOT NULL, text TEXT NOT NULL);
CREATE TABLE document (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
"""


def file_name(rank: int) -> str:
    """Name of one rank's file inside the run's folder."""
    return f"rank{rank}.sqlite"
