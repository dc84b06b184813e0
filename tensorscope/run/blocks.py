"""Turns frames into columns, and columns into the few bytes of a chunk and back."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tensorscope.run import schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Array = np.ndarray[Any, Any]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

# First byte of a packed column: one value only; every value; a bit mask, then values.
CONSTANT, WHOLE, MASKED = 0, 1, 2
NARROW = 4  # joined to it where float64 values are stored as float32, which loses nothing of them
LONGEST = 1 << 24  # values of one column; more can only be a damaged file's idea
HISTOGRAM = np.dtype(
    [("site", "<u4"), ("edges", "<f4", 2), ("counts", "<u2", schema.BINS)]
)  # of a few thousand elements


def saturated(values: Array) -> Array:
    """Float64 as float32; what is finite and beyond its range stays finite, at the end of the range."""
    with np.errstate(over="ignore", invalid="ignore"):
        small = np.asarray(values, np.float64).astype(np.float32)
    lost = np.isinf(small) & np.isfinite(values)
    if lost.any():
        small[lost] = np.copysign(np.finfo(np.float32).max, values[lost])
    return small


def frame_rows(kind: str, values: Array, series: Sequence[int] | None = None, known: int = 0) -> Array:
    """Rows of a frame as they are stored.

    Args:
        kind: a key of `schema.ROWS`.
        values: (series, numbers) float.
        series: the place of each row in the frame; default: their order.
        known: at least so many rows; those that no series fills are marked as not measured.
    """
    dtype = schema.ROWS[kind]
    dense = series is None or (len(series) == known and list(series) == list(range(known)))
    size = len(values) if dense else max(known, max(series or (), default=-1) + 1)
    rows = _unmeasured(dtype, size)
    target = slice(None) if dense else np.array(series, np.int64)
    for place, name in enumerate(dtype.names or ()):
        column = values[:, place] if dtype[name] == np.float64 else saturated(values[:, place])
        rows[name][target] = column
    return rows


def measured(kind: str, rows: Array) -> Bools:
    """Which rows of frames hold a measurement."""
    if kind == schema.STATS:
        return np.asarray(~np.isnan(rows["count"]))
    if kind == schema.TIMES:
        return np.asarray(~(np.isnan(rows["forward"]) & np.isnan(rows["backward"])))
    return np.ones(rows.shape, np.bool_)


def column(kind: str, rows: Array, place: int) -> Array:
    """One number of rows, stored or derived, in the type in which a chunk holds it."""
    if kind != schema.STATS or place < schema.RMS:
        return np.asarray(rows[(schema.ROWS[kind].names or ())[place]])
    mean, std = rows["mean"].astype(np.float64), rows["std"].astype(np.float64)
    # mean² + std² = mean of squares
    return saturated(np.hypot(mean, std))


def faults(kind: str, place: int, values: Array, nonfinite: Array | None) -> Bools:
    """Which values count as not finite; of a statistic those whose tensor held such elements.

    A statistic that is NaN by itself (the share of dead units of what is no rectifier) is no fault.
    """
    if kind in schema.NAMED:
        return np.asarray(~np.isfinite(values))
    bad = np.isinf(values)
    if nonfinite is not None and place not in (schema.COUNT, schema.NONFINITE):
        bad |= nonfinite > 0
    return np.asarray(bad)


def norm(count: Values, nonfinite: Values, rms: Values) -> Values:
    """The Euclidean norm of the finite elements."""
    with np.errstate(invalid="ignore"):
        # √n · √(Σx² / n) = √Σx²
        return np.asarray(np.sqrt(np.maximum(count - nonfinite, 0)) * rms)


class Column(NamedTuple):
    """One number of every series over the frames of a block.

    Attributes:
        place: which number.
        values: (series, frames).
        bad: (series, frames) which of them are faults.
    """

    place: int
    values: Array
    bad: Bools


def stacked(kind: str, frames: Sequence[bytes]) -> Array:
    """(frames, series) rows; those of frames that knew fewer series are filled up as not measured."""
    dtype = schema.ROWS[kind]
    size = max(map(len, frames))
    if any(len(data) != size for data in frames):
        filler = _unmeasured(dtype, 1).tobytes()
        frames = [data + filler * ((size - len(data)) // dtype.itemsize) for data in frames]
    return np.frombuffer(b"".join(frames), dtype).reshape(len(frames), -1)


def together(kind: str, before: Array, after: Array) -> Array:
    """(frames, series) rows of both."""
    width = max(before.shape[1], after.shape[1])
    filled = []
    for rows in (before, after):
        gap = _unmeasured(schema.ROWS[kind], len(rows) * (width - rows.shape[1]))
        filled.append(np.concatenate([rows, gap.reshape(len(rows), -1)], axis=1) if len(gap) else rows)
    return np.concatenate(filled)


def _unmeasured(dtype: np.dtype[Any], number: int) -> Array:
    rows = np.empty(number, dtype)
    for name in dtype.names or ():
        rows[name] = np.nan
    return rows


def columns(kind: str, rows: Array) -> Iterator[Column]:
    """The columns of (frames, series) rows, one after the other."""
    nonfinite = np.ascontiguousarray(rows["nonfinite"].T) if kind == schema.STATS else None
    for place in range(len(schema.CHUNKS[kind])):
        values = np.ascontiguousarray(column(kind, rows, place).T)
        yield Column(place, values, faults(kind, place, values, nonfinite))


def only_last(steps: Ints, present: Bools) -> Bools:
    """(series, frames) marks without those that a later frame of the same step replaces."""
    again = np.flatnonzero(steps[1:] == steps[:-1])
    if not len(again):
        return present
    present = present.copy()
    covered = np.zeros(len(present), np.bool_)
    for frame in again[::-1].tolist():
        if frame + 2 >= len(steps) or steps[frame + 2] != steps[frame]:
            covered = np.zeros(len(present), np.bool_)
        covered |= present[:, frame + 1]
        present[:, frame] &= ~covered
    return present


def extremes(values: Array, counted: Bools) -> tuple[list[float | None], list[float | None]]:
    """Lowest and highest finite value of each row of (series, frames), None where there is none."""
    finite = counted & np.isfinite(values)
    low = np.where(finite, values, np.inf).min(axis=1).tolist()
    high = np.where(finite, values, -np.inf).max(axis=1).tolist()
    some: Bools = np.asarray(finite.any(axis=1))
    pairs = list(zip(low, high, some, strict=True))
    return [a if known else None for a, _, known in pairs], [b if known else None for _, b, known in pairs]


def pack(values: Array, present: Bools) -> Iterator[bytes]:
    """Each row of (series, frames) as bytes; only the values that are present survive."""
    whole: Bools = np.asarray(present.all(axis=1))
    bits = values.view(f"u{values.dtype.itemsize}")
    constant = whole & (bits == bits[:, :1]).all(axis=1)
    narrow, small = _narrowed(values)
    planes, small_planes = _planes(values), _planes(small)
    for row, full in enumerate(whole):
        if constant[row]:
            yield bytes((CONSTANT,)) + values[row, :1].tobytes()
        elif full:
            form, body = (WHOLE | NARROW, small_planes[row]) if narrow[row] else (WHOLE, planes[row])
            yield bytes((form,)) + zlib.compress(body, 1)
        else:
            few = _planes(values[row : row + 1, present[row]])
            yield bytes((MASKED,)) + zlib.compress(np.packbits(present[row]).tobytes() + few.tobytes(), 1)


def unpack(data: bytes, length: int, dtype: np.dtype[Any]) -> tuple[Array, Bools | None]:
    """The values of a packed column, and which of the block's frames they belong to: None for all of them.

    Raises:
        ValueError: the bytes are not those of such a column.
        zlib.error: likewise.
    """
    if not 0 <= length <= LONGEST or not data:
        raise ValueError(f"a column of {length} values in {len(data)} bytes")
    form, body = data[0], data[1:]
    if form == CONSTANT:
        return np.repeat(np.frombuffer(body, dtype) if body else np.empty(0, dtype), length if body else 0), None
    if form == WHOLE | NARROW:
        return unpack(bytes((WHOLE,)) + body, length, np.dtype("<f4"))[0].astype(dtype), None
    mask_bytes = (length + 7) // 8 if form == MASKED else 0
    raw = zlib.decompressobj().decompress(body, mask_bytes + length * dtype.itemsize + 1)
    mask = None
    if mask_bytes:
        mask = np.unpackbits(np.frombuffer(raw, np.uint8, mask_bytes), count=length).astype(np.bool_)
    count = length if mask is None else int(mask.sum())
    planes = np.frombuffer(raw, np.uint8, offset=mask_bytes) if len(raw) > mask_bytes else np.empty(0, np.uint8)
    return np.ascontiguousarray(planes.reshape(dtype.itemsize, count).T).view(dtype).reshape(count), mask


def _narrowed(values: Array) -> tuple[Bools, Array]:
    """Which rows of float64 are float32 in truth, to the bit, and all of them as float32."""
    if values.dtype != np.float64:
        return np.zeros(len(values), np.bool_), np.zeros((len(values), 0), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        small = values.astype(np.float32)
        back = small.astype(np.float64)
    return np.asarray((back.view(np.uint64) == values.view(np.uint64)).all(axis=1)), small


def _planes(values: Array) -> Array:
    """(series, bytes of a value, frames): the first bytes of all values, then the second …, which deflates better."""
    size = values.dtype.itemsize
    return np.ascontiguousarray(values).view(np.uint8).reshape(*values.shape, size).transpose(0, 2, 1).copy()


def pack_steps(steps: Ints) -> bytes:
    """Whole numbers, as differences."""
    differences = np.diff(steps)[None, :]
    return steps[:1].tobytes() + next(pack(differences, np.ones(differences.shape, np.bool_)))


def unpack_steps(data: bytes, length: int) -> Ints:
    """The whole numbers of `pack_steps`.

    Raises:
        ValueError: the bytes are not those of such numbers.
        zlib.error: likewise.
    """
    differences, _ = unpack(data[8:], length - 1, np.dtype(np.int64))
    return np.cumsum(np.concatenate([np.frombuffer(data[:8], np.int64), differences]))


def pack_histograms(series: Sequence[int], rows: Array) -> bytes:
    """(series, 2 + BINS) edges and counts, small, and each at a place of its own."""
    packed = np.empty(len(series), HISTOGRAM)
    packed["site"] = series
    packed["edges"] = saturated(rows[:, :2])
    packed["counts"] = np.clip(np.nan_to_num(rows[:, 2:]).round(), 0, np.iinfo(np.uint16).max)
    return packed.tobytes()
