"""Records of trainings in a folder: what comes back, in which order, and what an interruption leaves."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_models.tracking import Record, Tracker, environment, ordered, table

numbers = st.floats(allow_nan=True, allow_infinity=True)
values = st.one_of(
    st.integers(-99, 99), st.floats(-9, 9), st.text(max_size=5), st.lists(st.integers(), max_size=3).map(tuple)
)
records = st.builds(
    Record,
    config=st.dictionaries(st.text(max_size=5), values, max_size=4),
    seed=st.integers(0, 9),
    curves=st.fixed_dictionaries({"validation_accuracy": st.lists(numbers, max_size=4)}),
    seconds=st.floats(0, 9),
)


def record(score, seed=0, watched="validation_accuracy", **config):
    return Record(config, seed, {watched: [0.0 if watched.endswith("accuracy") else 1e9, score]}, watched, seconds=1.25)


@settings(max_examples=12)
@given(records)
def test_a_record_comes_back_as_it_was_saved(tmp_path_factory, saved):
    tracker = Tracker(tmp_path_factory.mktemp("runs"))
    tracker.save(saved)
    found = tracker.find(saved.config, saved.seed)
    assert repr(found) == repr(saved)  # where NaN equals NaN
    assert repr(tracker.records()) == repr([saved])
    assert tracker.find(saved.config, 10) is None
    assert tracker.find({**saved.config, "another": 1}, saved.seed) is None


def test_a_file_is_json_that_everybody_reads(tmp_path):
    path = Tracker(tmp_path).save(Record({"lr": 0.1}, 3, {"validation_accuracy": [0.5, math.nan]}, seconds=2.0))

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads(path.read_text(), parse_constant=refuse)
    assert content["config"] == {"lr": 0.1}
    assert content["curves"] == {"validation_accuracy": [0.5, "nan"]}
    assert content["environment"] == environment()
    assert content["environment"]["torch"] == torch.__version__


def test_the_top_five_are_sorted_by_their_best_epoch(tmp_path):
    tracker = Tracker(tmp_path)
    # the book's MNIST scores and three more
    for number, score in enumerate((97.83, 90.0, 98.24, math.nan, 97.95, 97.56, 98.12, 12.0)):
        tracker.save(record(score, trial=number))
    assert [one.score() for one in tracker.top(5)] == [98.24, 98.12, 97.95, 97.83, 97.56]
    assert tracker.top(8)[-1].config == {"trial": 3}


def test_the_score_is_the_best_epochs_and_not_the_lasts():
    one = Record({}, 0, {"validation_accuracy": [0.5, math.nan, 0.9, 0.9, 0.7]})
    assert one.score() == 0.9
    assert one.best_epoch() == 2


def test_the_best_perplexity_is_the_smallest(tmp_path):  # E-56
    tracker = Tracker(tmp_path, mode="min")
    for perplexity in (35.0, 32.76, math.inf, 40.1):
        tracker.save(record(perplexity, watched="perplexity", dim=perplexity if perplexity < 99 else 0.0))
    assert [one.score("min") for one in tracker.top(3)] == [32.76, 35.0, 40.1]


def test_a_training_without_an_epoch_comes_last_and_has_no_best_one():
    empty = Record({}, 0, {"validation_accuracy": []})
    assert math.isnan(empty.score())
    assert ordered([empty, record(0.1)])[1] is empty
    with pytest.raises(ValueError, match="at least one epoch of `validation_accuracy`, got none"):
        empty.best_epoch()


def test_a_table_shows_what_differs():
    rows = table([record(0.98243, lr=0.00342, hidden=(256, 128), batch=64), record(0.97, seed=1, lr=0.1, batch=64)])
    assert rows == [
        ["rank", "lr", "hidden", "seed", "score", "epoch", "seconds"],
        ["1", "0.00342", "(256, 128)", "0", "0.9824", "1", "1.2"],
        ["2", "0.1", "", "1", "0.97", "1", "1.2"],
    ]
    assert table([]) == [["rank", "seed", "score", "epoch", "seconds"]]


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path):
    tracker = Tracker(tmp_path)
    assert tracker.save(record(0.1, lr=1.0)) == tracker.save(record(0.2, lr=1.0))
    assert [one.score() for one in tracker.records()] == [0.2]
    assert len(list(tmp_path.iterdir())) == 1


def test_the_order_of_a_configs_names_does_not_matter(tmp_path):
    tracker = Tracker(tmp_path)
    tracker.save(record(0.1, a=1, b=2))
    assert tracker.find({"b": 2, "a": 1}, 0) is not None


def test_what_cannot_be_written_leaves_the_folder_as_it_was(tmp_path):
    tracker = Tracker(tmp_path)
    tracker.save(record(0.1))
    with pytest.raises(ValueError, match="JSON"):
        tracker.save(Record({}, 0, {"validation_accuracy": [0.9]}, environment={"threads": math.nan}))
    assert [one.score() for one in tracker.records()] == [0.1]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_was_not_finished_is_no_record(tmp_path):
    tracker = Tracker(tmp_path)
    tracker.save(record(0.1))
    (tmp_path / "tmpabc.part").write_text('{"config": {')
    assert len(tracker.records()) == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"config": 1, "curves": {}, "seconds": 1}', "{"])
def test_a_file_that_is_something_else_is_named(tmp_path, content):
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(ValueError, match=r"expected a record of a training in .*other\.json"):
        Tracker(tmp_path).records()


def test_many_may_write_at_a_time(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: Tracker(tmp_path).save(record(i / 100, number=i % 20)), range(60)))
    assert len(Tracker(tmp_path).records()) == 20


def test_a_mode_that_is_none_is_named_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match="`mode` to be 'min' or 'max', got 'best'"):
        Tracker(tmp_path / "runs", "best")
    assert not (tmp_path / "runs").exists()
