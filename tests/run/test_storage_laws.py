"""Laws of the run file: whatever is written in whatever order, sealed, resumed or thinned, is read as a dict would."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from made_runs import made_meta

from tensorscope import open_run
from tensorscope.events import STORED, ModuleInfo, Site
from tensorscope.run import schema
from tensorscope.run.reader import Run
from tensorscope.run.sealing import Limits
from tensorscope.run.writer import Writer

SITES = tuple(Site(name) for name in "abcde")
NAMES = ("loss", "acc", "lr")
SMALL = Limits(frames=4, least=2)

FLOAT32 = st.floats(width=32)
ROW = st.tuples(st.integers(0, 1 << 40), *[FLOAT32] * 5, st.integers(0, 3), FLOAT32).map(
    lambda row: list(map(float, row))
)
STEP = st.integers(0, 40)
FRAMES = st.one_of(
    st.tuples(st.just(schema.STATS), STEP, st.dictionaries(st.sampled_from(SITES), ROW, min_size=1)),
    st.tuples(st.just(schema.SCALARS), STEP, st.dictionaries(st.sampled_from(NAMES), st.floats(), min_size=1)),
    st.tuples(st.just(schema.GAUGES), STEP, st.dictionaries(st.sampled_from(NAMES), st.floats(), min_size=1)),
    st.tuples(
        st.just(schema.TIMES),
        STEP,
        st.dictionaries(st.sampled_from(range(3)), st.tuples(st.floats(0, 9, width=32), FLOAT32), min_size=1),
    ),
    st.tuples(st.just("flush"), st.just(0), st.just({})),
    st.tuples(st.just("resume"), STEP, st.just({})),
)


class Told:
    """What a run was told, as plain dicts: (kind, key) → step → values."""

    def __init__(self, folder: Path, limits: Limits = SMALL) -> None:
        self.folder, self.limits = folder, limits
        self.known: dict[tuple[str, Any], dict[int, Any]] = {}
        self.first = 0
        self.writer = self._open(None)

    def _open(self, resume: int | None) -> Writer:
        writer = Writer(self.folder, made_meta(), resume=resume, limits=self.limits)
        writer.modules([ModuleInfo(f"m{number}", "Linear", 0, 0) for number in range(3)])
        return writer

    def tell(self, kind: str, step: int, values: dict[Any, Any]) -> None:
        if kind == "flush":
            self.writer.flush()
        elif kind == "resume":
            self.writer.close(status="interrupted")
            self.first = step
            for history in self.known.values():
                for late in [s for s in history if s >= step]:
                    del history[late]
            self.writer = self._open(step)
        elif step >= self.first:
            series = tuple(self.writer.site(key) for key in values) if kind == schema.STATS else tuple(values)
            rows = np.array([np.ravel(row) for row in values.values()], np.float64)
            self.writer.frame(kind, step, series, lambda: rows)
            for key, row in values.items():
                self.known.setdefault((kind, key), {})[step] = row

    def of(self, kind: str, key: Any) -> tuple[list[int], list[Any]]:
        history = self.known.get((kind, key), {})
        return sorted(history), [history[step] for step in sorted(history)]


def told(frames: list[Any], ask: Callable[[Run, Told], None], limits: Limits = SMALL) -> None:
    with tempfile.TemporaryDirectory() as folder:
        story = Told(Path(folder) / "run", limits)
        for frame in frames:
            story.tell(*frame)
        story.writer.flush()
        ask(open_run(story.folder), story)  # while it is written
        story.writer.close(status="finished")
        run = open_run(story.folder)
        ask(run, story)
        run.close()


def same(found: Any, expected: Any) -> None:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    np.testing.assert_array_equal(found, expected)
    assert np.array_equal(np.signbit(found[found == 0]), np.signbit(expected[expected == 0]))


@given(st.lists(FRAMES, max_size=40))
def test_what_was_written_is_read_like_a_dict(frames: list[Any]) -> None:
    def ask(run: Run, story: Told) -> None:
        for place, stat in enumerate(STORED):
            for site in run.sites:
                steps, rows = story.of(schema.STATS, site)
                found = run.history(site, stat)
                assert found[0].tolist() == steps
                same(found[1], [row[place] for row in rows])
        for kind, names, read in (
            (schema.SCALARS, run.scalar_names, run.scalars),
            (schema.GAUGES, run.gauge_names, run.gauge),
        ):
            for name in names:
                steps, values = story.of(kind, name)
                assert read(name)[0].tolist() == steps
                assert read(name)[1].tobytes() == np.array(values, np.float64).tobytes()
        for number in range(3):
            steps, rows = story.of(schema.TIMES, number)
            found_steps, forward, backward = run.times(f"m{number}")
            assert found_steps.tolist() == steps
            same(np.stack([forward, backward], axis=-1), np.reshape(rows, (-1, 2)))

    told(frames, ask)


@given(st.lists(FRAMES, max_size=40), STEP)
def test_the_newest_numbers_are_those_of_the_dict(frames: list[Any], bound: int) -> None:
    def ask(run: Run, story: Told) -> None:
        for step in (None, bound):
            expected = {}
            for site in SITES:
                steps, rows = story.of(schema.STATS, site)
                upto = [row for at, row in zip(steps, rows, strict=True) if step is None or at <= step]
                if upto:
                    expected[site] = upto[-1]
            found = run.stats_at(step)
            assert set(found) == set(expected)
            for site, row in expected.items():
                same([getattr(found[site], stat) for stat in STORED], row)
        for name in run.scalar_names:
            steps, values = story.of(schema.SCALARS, name)
            last = run.last_scalars().get(name)
            assert (last is None) == (not steps)
            if last is not None:
                assert last[0] == steps[-1]
                same(last[1], values[-1])
        everything = {step for history in story.known.values() for step in history}
        assert run.steps == sorted(everything)
        assert run.measured_steps == sorted(
            {s for (kind, _), h in story.known.items() for s in h if kind == schema.STATS}
        )

    told(frames, ask)


@given(st.lists(FRAMES, max_size=40), st.integers(1, 12), STEP, STEP, st.sampled_from([*STORED, "rms", "l2"]))
def test_an_envelope_is_the_history_in_buckets(frames: list[Any], points: int, a: int, b: int, stat: str) -> None:
    first, last = min(a, b), max(a, b)

    def ask(run: Run, story: Told) -> None:
        for site in run.sites:
            steps, values = run.history(site, stat)
            inside = (steps >= first) & (steps <= last)
            bad = np.isinf(values)
            if stat not in schema.EXACT:
                bad |= run.history(site, "nonfinite")[1] > 0
            shape = run.envelope(site, stat, points, first, last)
            check(shape, steps[inside], values[inside], bad[inside], points)
        for name in run.scalar_names:
            steps, values = run.scalars(name)
            check(run.scalar_envelope(name, points), steps, values, ~np.isfinite(values), points)

    told(frames, ask)


def check(shape: Any, steps: Any, values: Any, bad: Any, points: int) -> None:
    """Every bucket holds what it should: written without any of the code under test."""
    assert len(shape.steps) <= points
    assert len(shape.steps) == len(steps) or len(steps) > points
    assert set(shape.steps.tolist()) <= set(steps.tolist())
    ends = [*shape.steps[1:].tolist(), math.inf][: len(shape.steps)]
    for start, end, low, high, count in zip(shape.steps, ends, shape.low, shape.high, shape.nonfinite, strict=True):
        within = (steps >= start) & (steps < end)
        finite = values[within & np.isfinite(values)]
        assert count == bad[within].sum()
        if len(finite):
            assert (low, high) == (finite.min(), finite.max())
        else:
            assert math.isnan(low)
            assert math.isnan(high)


@given(st.lists(FRAMES, max_size=40), st.sampled_from(["mean", "rms", "nonfinite"]))
def test_a_table_holds_the_histories(frames: list[Any], stat: str) -> None:
    def ask(run: Run, story: Told) -> None:
        steps, table = run.table(run.sites, stat)
        assert steps.tolist() == run.measured_steps
        for site, row in zip(run.sites, table, strict=True):
            own, values = run.history(site, stat)
            if stat != "nonfinite":
                values = np.where(run.history(site, "nonfinite")[1] > 0, np.inf, values)
                values = np.where(np.isinf(values), np.inf, values)
            expected = np.full(len(steps), np.nan)
            expected[np.searchsorted(steps, own)] = values
            same(row, expected)
        if len(steps) > 3:
            few, cells = run.table(run.sites, stat, 3)
            assert len(few) <= 3
            with np.errstate(all="ignore"):
                assert np.nanmax(np.abs(cells), initial=0) == np.nanmax(np.abs(table), initial=0)

    told(frames, ask)


THIN = Limits(frames=4, least=2, level_blocks=4, group=3)


@given(
    st.lists(st.tuples(FLOAT32, st.sampled_from([0, 0, 0, 0, 2])), min_size=1, max_size=150),
    st.booleans(),
    st.integers(1, 9),
)
def test_thinning_keeps_extremes_faults_and_a_subset(rows: list[tuple[float, int]], drop: bool, points: int) -> None:
    frames = [
        (schema.STATS, n, {SITES[n % 2 if drop else 0]: stats(value, bad)}) for n, (value, bad) in enumerate(rows)
    ]
    frames += [(schema.SCALARS, n, {"loss": value}) for n, (value, _) in enumerate(rows)]

    def ask(run: Run, story: Told) -> None:
        assert run.measured == len(rows)
        for site in run.sites:
            every = dict(zip(*story.of(schema.STATS, site), strict=True))
            steps, means = run.history(site, "mean")
            assert set(steps.tolist()) <= set(every)
            same(means, [every[step][1] for step in steps.tolist()])
            faulty = [step for step, row in every.items() if row[6]]
            assert set(faulty) <= set(steps.tolist())
            finite = [row[1] for row in every.values() if math.isfinite(row[1])]
            shape = run.envelope(site, "mean", points)
            if finite:
                assert (np.nanmin(shape.low), np.nanmax(shape.high)) == (min(finite), max(finite))
            else:
                assert np.isnan(shape.low).all()
            assert shape.nonfinite.sum() == sum(bool(row[6]) or math.isinf(row[1]) for row in every.values())
        values = [value for value, _ in rows]
        shape = run.scalar_envelope("loss", points)
        assert shape.nonfinite.sum() == sum(not math.isfinite(value) for value in values)
        finite = [value for value in values if math.isfinite(value)]
        if finite:
            assert (np.nanmin(shape.low), np.nanmax(shape.high)) == (min(finite), max(finite))

    told(frames, ask, THIN)


def stats(mean: float, bad: int) -> list[float]:
    return [64.0, mean, 1.0, -1.0, 1.0, 0.0, float(bad), math.nan]


@given(
    st.lists(st.tuples(FLOAT32, st.sampled_from([0, 0, 2])), min_size=1, max_size=120),
    st.integers(0, 130),
    st.integers(0, 130),
    st.sampled_from(["mean", "rms", "l2", "nonfinite"]),
)
def test_extremes_of_blocks_tell_what_their_values_would(
    rows: list[tuple[float, int]], a: int, b: int, stat: str
) -> None:
    span = (min(a, b), max(a, b))

    def ask(run: Run, story: Told) -> None:
        place = {"mean": 1, "rms": schema.RMS, "l2": schema.L2, "nonfinite": schema.NONFINITE}[stat]
        coarse, exact = (run._ranks.items([SITES[0]], place, span, fine)[SITES[0]] for fine in (0, 10_000))
        assert coarse.bad.sum() == exact.bad.sum()
        assert set(coarse.steps.tolist()) <= set(exact.steps.tolist())
        if np.isfinite(exact.low).any():
            low, high = np.nanmin(exact.low), np.nanmax(exact.high)
            # The norm's bounds are exact only where the count of finite elements stays the same.
            assert np.nanmin(coarse.low) <= low if stat == "l2" else np.nanmin(coarse.low) == low
            assert np.nanmax(coarse.high) >= high if stat == "l2" else np.nanmax(coarse.high) == high

    told([(schema.STATS, n, {SITES[0]: stats(value, bad)}) for n, (value, bad) in enumerate(rows)], ask)
