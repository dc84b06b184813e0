"""Several ranks, and several parts of one rank, are one run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import made_meta

from tensorscope import RunError, open_run
from tensorscope.events import STORED, Histogram, Kind, Shape, Site
from tensorscope.run import schema
from tensorscope.run.reader import Run
from tensorscope.run.sealing import Limits
from tensorscope.run.writer import Writer

SMALL = Limits(frames=4, least=2)
OUT, WEIGHT = Site("fc"), Site("fc.weight", Kind.PARAMETER)


def summary(values: np.ndarray) -> list[float]:
    """The numbers of `STORED`, by numpy alone."""
    finite = values[np.isfinite(values)]
    some = len(finite) > 0
    numbers = [finite.mean(), finite.std(), finite.min(), finite.max()] if some else [np.nan] * 4
    zero = (values == 0).mean() if len(values) else np.nan
    return [len(values), *numbers, zero, len(values) - len(finite), np.nan]


def tell(writer: Writer, site: Site, step: int, values: np.ndarray) -> None:
    row = np.array([summary(values)])
    writer.frame(schema.STATS, step, (writer.site(site),), lambda: row)


ELEMENT = st.one_of(st.integers(-4, 4).map(float), st.sampled_from([np.nan, np.inf]))
TENSOR = st.lists(ELEMENT, min_size=1, max_size=6).map(np.array)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2), TENSOR), max_size=40))
def test_ranks_together_are_the_tensor_of_all_their_elements(told: list[tuple[int, int, np.ndarray]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "run"
        writers = [Writer(where, made_meta(), rank, limits=SMALL) for rank in range(3)]
        tensors: dict[int, dict[int, np.ndarray]] = {}
        for step, rank, values in told:
            tell(writers[rank], OUT, step, values)
            tensors.setdefault(step, {})[rank] = values
        for writer in writers:
            writer.close(status="finished")
        run = open_run(where)
        assert run.ranks == [0, 1, 2]
        if told:
            steps = sorted(tensors)
            expected = np.array([summary(np.concatenate(list(tensors[step].values()))) for step in steps])
            for place, stat in enumerate(STORED):
                found = run.history(OUT, stat)
                assert found[0].tolist() == steps
                np.testing.assert_allclose(found[1], expected[:, place], rtol=1e-5, atol=1e-6)
            rms = np.hypot(expected[:, 1], expected[:, 2])
            np.testing.assert_allclose(run.history(OUT, "rms")[1], rms, rtol=1e-5, atol=1e-6)
            newest = run.stats_at()[OUT]
            np.testing.assert_allclose(newest.count, expected[-1, 0])
            faulty = expected[:, schema.NONFINITE] > 0
            table = run.table([OUT], "mean")[1][0]
            assert np.isinf(table).tolist() == faulty.tolist()
            assert run.envelope(OUT, "mean", 4).nonfinite.sum() == faulty.sum()
        for rank in range(3):
            own = {step: by_rank[rank] for step, by_rank in tensors.items() if rank in by_rank}
            if own:
                assert run.rank(rank).history(OUT, "count")[1].tolist() == [len(own[step]) for step in sorted(own)]
        run.close()


def two_ranks(where: Path, drift_from: int = 99) -> Run:
    for rank in range(2):
        writer = Writer(where, made_meta(world_size=2, rank=rank), rank, limits=SMALL)
        for step in range(20):
            weights = np.linspace(-1, 1, 7) + (1e-3 * rank if step >= drift_from else 0)
            tell(writer, WEIGHT, step, weights)
            tell(writer, OUT, step, np.arange(3.0) + rank)
            writer.frame(schema.SCALARS, step, ("loss",), lambda rank=rank, step=step: np.array([step + rank / 2]))
        writer.close(status="finished")
    return open_run(where)


def test_a_parameter_that_every_rank_holds_counts_once(tmp_path: Path) -> None:
    run = two_ranks(tmp_path / "run")
    assert set(run.history(WEIGHT, "count")[1]) == {7}
    assert set(run.history(OUT, "count")[1]) == {6}
    np.testing.assert_array_equal(run.history(WEIGHT, "l2")[1], run.rank(1).history(WEIGHT, "l2")[1])
    assert run.rank_differences() == []


def test_a_parameter_that_drifts_apart_is_found_with_its_first_step(tmp_path: Path) -> None:
    (difference,) = two_ranks(tmp_path / "run", drift_from=13).rank_differences()
    assert (difference.site, difference.first_step) == (WEIGHT, 13)
    assert difference.values[1].max - difference.values[0].max == pytest.approx(1e-3, rel=1e-3)


def test_scalars_are_the_lowest_ranks_and_each_ranks(tmp_path: Path) -> None:
    run = two_ranks(tmp_path / "run")
    assert run.scalars("loss")[1].tolist() == list(range(20))
    assert run.last_scalars() == {"loss": (19, 19.0)}
    assert {rank: values[-1] for rank, (_, values) in run.rank_scalars("loss").items()} == {0: 19.0, 1: 19.5}
    assert {rank: state.last_step for rank, state in run.rank_states.items()} == {0: 19, 1: 19}


@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_whose_file_is_no_run_leaves_the_other_readable(tmp_path: Path, lost: int) -> None:
    two_ranks(tmp_path / "run").close()
    (tmp_path / "run" / schema.file_name(lost)).write_bytes(b"not a run at all" * 99)
    run = open_run(tmp_path / "run")
    assert run.rank_states[lost].status == "damaged"
    assert set(run.history(OUT, "count")[1]) == {3}
    assert run.scalars("loss")[1].tolist() == [step + (1 - lost) / 2 for step in range(20)]
    assert any(text == f"rank {lost} cannot be read" for _, text in run.notes)


def test_a_rank_that_left_no_file_or_died_is_said(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "run", made_meta(world_size=3), 0)
    dead = Writer(tmp_path / "run", made_meta(world_size=3, pid=2**22 + 1), 1)
    tell(dead, OUT, 5, np.ones(2))
    dead.close()
    writer.close(status="finished")
    run = open_run(tmp_path / "run")
    assert {rank: tuple(state) for rank, state in run.rank_states.items()} == {
        0: ("finished", -1),
        1: ("died", 5),
        2: ("missing", -1),
    }
    assert {text for _, text in run.notes} == {"rank 1 died", "rank 2 left no file"}
    with pytest.raises(RunError, match="rank 7 wrote nothing"):
        run.rank(7)


def test_a_rank_that_comes_later_is_seen_by_an_open_run(tmp_path: Path) -> None:
    first = Writer(tmp_path / "run", made_meta(), 0)
    run = open_run(tmp_path / "run")
    assert run.ranks == [0]
    second = Writer(tmp_path / "run", made_meta(), 1)
    assert run.ranks == [0, 1]
    first.close()
    second.close()


# --- parts -----------------------------------------------------------------------------------------------------------


def part(where: Path, steps: range, value: float, resume: int | None = None, **ending: Any) -> Path:
    writer = Writer(where, made_meta(), resume=resume, limits=SMALL)
    site = writer.site(OUT)
    writer.shape(site, Shape(steps[0], (int(value),)))
    for step in steps:
        tell(writer, OUT, step, np.full(3, value))
        writer.frame(schema.SCALARS, step, ("loss",), lambda: np.array([value]))
        row = np.array([[0.0, value, *[value] * schema.BINS]])
        writer.frame(schema.HISTOGRAMS, step, (site,), lambda row=row: row)
    writer.close(**ending)
    return writer.path


def test_a_resumed_training_goes_on_in_a_file_of_its_own(tmp_path: Path) -> None:
    where = tmp_path / "run"
    old = part(where, range(30), 1, status="interrupted")
    before = old.read_bytes()
    part(where, range(20, 25), 2, resume=20, status="died")
    part(where, range(22, 40), 3, resume=22, status="finished")
    assert sorted(file.name for file in where.iterdir()) == ["rank0.1.sqlite", "rank0.2.sqlite", "rank0.sqlite"]
    assert old.read_bytes() == before
    run = open_run(where)
    assert run.parts == [(0, "interrupted"), (20, "died"), (22, "finished")]
    assert (run.status, run.last_step, run.ranks) == ("finished", 39, [0])
    expected = [1] * 20 + [2] * 2 + [3] * 18
    for steps, values in (run.scalars("loss"), run.history(OUT, "mean"), run.table([OUT], "mean")):
        assert steps.tolist() == list(range(40))
        assert values.ravel().tolist() == expected
    assert run.steps == run.measured_steps == list(range(40))
    assert run.measured == 40
    assert [(shape.step, shape.dims) for shape in run.shapes(OUT)] == [(0, (1,)), (20, (2,)), (22, (3,))]
    assert [found.counts[0] for _, found in run.histograms(OUT)] == expected
    assert isinstance(run.histograms(OUT)[0][1], Histogram)
    assert [run.stats_at(step)[OUT].mean for step in (0, 19, 20, 21, 22, 39)] == [1, 1, 2, 2, 3, 3]
    shape = run.envelope(OUT, "mean", 1)
    assert (shape.low.tolist(), shape.high.tolist()) == ([1], [3])
    assert run.envelope(OUT, "mean", 1, first=25).low.tolist() == [3]


def test_a_training_resumed_before_its_parts_supersedes_them(tmp_path: Path) -> None:
    part(tmp_path / "run", range(30), 1, status="interrupted")
    part(tmp_path / "run", range(20, 25), 2, resume=20, status="interrupted")
    part(tmp_path / "run", range(5, 8), 3, resume=5, status="finished")
    run = open_run(tmp_path / "run")
    assert run.scalars("loss")[1].tolist() == [1] * 5 + [3] * 3
    assert run.last_step == 7


def test_gauges_times_and_updates_are_read(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "run", made_meta())
    update = Site("fc.weight", Kind.UPDATE)
    assert (str(update), update.module) == ("fc.weight:update", "fc")
    for step in range(5):
        tell(writer, WEIGHT, step, np.full(4, 2.0))
        if step % 2:
            tell(writer, update, step, np.full(4, 0.5))
        writer.frame(schema.GAUGES, step, ("lr", "seconds"), lambda step=step: np.array([0.1, step]))
    writer.close()
    run = open_run(tmp_path / "run")
    assert run.gauge_names == ["lr", "seconds"]
    assert run.gauge("seconds")[1].tolist() == [0, 1, 2, 3, 4]
    assert run.scalar_names == []
    steps, ratio = run.update_ratio("fc.weight")
    assert (steps.tolist(), ratio.tolist()) == ([1, 3], [0.25, 0.25])


def test_numbers_beyond_float32_end_at_its_ends_and_counts_are_exact(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "run", made_meta())
    row = np.array([[2.0**40 + 1, 1e300, np.inf, -1e300, -np.inf, 0.5, 2.0**30 + 1, np.nan]])
    writer.frame(schema.STATS, 0, (writer.site(OUT),), lambda: row)
    writer.close()
    run, largest = open_run(tmp_path / "run"), float(np.finfo(np.float32).max)
    found = [float(run.history(OUT, stat)[1][0]) for stat in STORED[:7]]
    assert found == [2.0**40 + 1, largest, np.inf, -largest, -np.inf, 0.5, 2.0**30 + 1]
