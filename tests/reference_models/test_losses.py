"""Losses, against torch's."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from strategies import float_dtypes, tensors, values
from tolerances import assert_close

from reference_models.losses import accuracy, cross_entropy
from tensorscope import ShapeError


@given(st.data(), st.integers(1, 6), st.integers(1, 5), float_dtypes, st.sampled_from([1.0, 100.0, 1e30]))
def test_cross_entropy_equals_torchs_in_value_and_gradient(data, batch, classes, dtype, largest):
    largest = min(largest, 1e4) if dtype is torch.float16 else largest
    logits = data.draw(tensors((batch, classes), dtype, values(largest=largest))).requires_grad_()
    labels = torch.tensor(data.draw(st.lists(st.integers(0, classes - 1), min_size=batch, max_size=batch)))
    ours, theirs = cross_entropy(logits, labels), F.cross_entropy(logits, labels)
    assert_close(ours.detach(), theirs.detach())
    assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)))


@given(tensors((4, 3), torch.float64, values(non_finite=True)))
def test_cross_entropy_of_what_is_not_finite_is_torchs(logits):
    labels = torch.tensor([0, 1, 2, 0])
    assert_close(cross_entropy(logits, labels), F.cross_entropy(logits, labels))


def test_an_untrained_guess_costs_the_logarithm_of_the_classes():
    assert math.isclose(cross_entropy(torch.zeros(5, 10), torch.arange(5)), math.log(10), rel_tol=1e-6)


def test_an_empty_batch_has_no_loss():
    assert cross_entropy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)).isnan()


def test_labels_of_another_shape_are_refused():
    for loss in (cross_entropy, accuracy):
        with pytest.raises(ShapeError, match="`labels` has 2 axes and takes 1"):
            loss(torch.zeros(4, 3), torch.zeros(4, 1, dtype=torch.long))
        with pytest.raises(ShapeError, match="axis 0 of `labels` is 5 and takes `batch` = 4"):
            loss(torch.zeros(4, 3), torch.zeros(5, dtype=torch.long))


def test_accuracy_is_the_share_of_right_answers():
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 2.0], [0.0, 9.0]])
    assert accuracy(logits, torch.tensor([0, 1, 1, 1])) == 0.75
