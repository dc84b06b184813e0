"""Reasons to end a training before its time, on hand-made curves."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference_models.regularization import EarlyStopping
from reference_models.stopping import comparison, progress, resource, threshold


def ends(stop, curve):
    """The epoch after which a training with this curve ends, if it does."""
    return next((epoch for epoch in range(len(curve)) if stop(curve[: epoch + 1])), None)


def test_a_threshold_ends_what_is_not_good_enough_in_time():
    assert ends(threshold(2, 0.5), [0.1, 0.2, 0.3, 0.9]) == 2
    assert ends(threshold(2, 0.5), [0.1, 0.6, 0.3, 0.1]) is None
    assert ends(threshold(0, 0.5), [0.5]) is None
    assert ends(threshold(1, 2.0, "min"), [9.0, 3.0]) == 1
    assert ends(threshold(1, 2.0, "min"), [9.0, 1.0]) is None
    assert ends(threshold(1, 0.5), [math.nan, math.nan]) == 1


def test_no_progress_ends_a_training_when_patience_does():
    assert ends(progress(EarlyStopping(2, 0.01, "max")), [0.1, 0.5, 0.505, 0.4, 0.9]) == 3
    assert ends(progress(EarlyStopping(2, 0.01, "min")), [5.0, 4.0, 3.0, 2.0]) is None
    assert ends(progress(EarlyStopping(3, 0.0, "max")), [math.nan] * 9) == 2


OTHERS = [[0.2, 0.4, 0.6], [0.4, 0.6, 0.8], [0.6, 0.8, 1.0]]


def test_a_comparison_ends_what_is_below_the_median_of_the_others_averages():
    # after two epochs the averages are 0.3, 0.5 and 0.7, after three 0.4, 0.6 and 0.8
    assert ends(comparison(OTHERS), [0.1, 0.49, 0.9]) == 1
    assert ends(comparison(OTHERS), [0.1, 0.51, 0.59]) == 2
    assert ends(comparison(OTHERS), [0.1, 0.51, 0.61]) is None
    assert ends(comparison(OTHERS, grace=2), [0.1, 0.1, 0.1]) == 2
    assert ends(comparison(OTHERS, "min"), [0.9, 0.51, 0.4]) == 1


def test_a_comparison_with_none_that_got_so_far_ends_nothing():
    assert ends(comparison([]), [0.0] * 5) is None
    assert ends(comparison(OTHERS, grace=3), [0.0] * 5) is None


@given(st.lists(st.integers(-10, 10), min_size=1, max_size=9), st.sampled_from(["min", "max"]))
def test_a_training_is_never_ended_by_comparison_with_itself(curve, mode):
    # Its best is at least as good as its average.
    assert ends(comparison([curve], mode, grace=0), curve) is None


def test_time_and_epochs_run_out():
    now = iter([100.0, 103.0, 107.9, 108.0])
    assert ends(resource(seconds=8, clock=lambda: next(now)), [0.0] * 9) == 2
    assert ends(resource(epochs=4), [0.0] * 9) == 3
    assert ends(resource(), [0.0] * 9) is None


def test_a_mode_that_is_none_is_named():
    with pytest.raises(ValueError, match="expected `mode` to be 'min' or 'max', got 'best'"):
        threshold(0, 0.5, "best")([0.1])
