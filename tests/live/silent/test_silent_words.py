"""What findings say of silent mistakes, and how bad they call them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from programs import From, Program, silent_findings
from sick_layouts import LAYOUTS
from sick_masks import MASKS
from sick_programs import VALUES
from torch import Tensor, nn

from tensorscope.events import Finding, Severity
from tensorscope.live.silent import mistakes


def found(program: Program, folder: Path) -> Finding:
    (finding,) = silent_findings(program, folder)
    return finding


@pytest.mark.parametrize(
    ("name", "says", "advises"),
    [
        ("per_sample_weights", "every sample's loss is multiplied with every weight", "`.squeeze(-1)` on"),
        ("regression_with_a_column", "every prediction is compared with every target", "`.squeeze(-1)` on"),
        ("flatten_that_absorbs_the_batch", "4 samples became 20 rows, which hold parts of several", "`x.flatten(1)`"),
        ("last_states_viewed_as_rows", "the 4 rows are not the 4 samples", "`torch.cat([h[-2], h[-1]], -1)`"),
        (
            "stacked_steps_viewed_as_samples",
            "the 3 rows are not the 3 samples",
            "`transpose` the batch to the front first",
        ),
        ("channels_last_images", "look channels-last", "permute"),
        ("image_rows_without_permute", "cut across the old axes", "`permute` or `transpose`"),
        ("lstm_over_the_batch", "`LSTM` at", "construct it with `batch_first=True`"),
        ("gru_over_the_batch_with_mean", "the other axis, of 5, is reduced by `mean`", "construct it"),
        ("encoder_over_the_batch", "`MultiheadAttention` at", "or the layer that it is part of"),
        ("padding_thrown_away", "the masked scores (3, 7, 7) are thrown away", "masked_fill"),
        ("zeros_and_ones_added", "the mask (6, 6) does not hide: later positions", "-inf"),
        ("the_past_hidden", "hides from each position what comes before it", "right to left is fine, if meant"),
        ("attention_between_heads", "runs over the 4 heads of each position", "if heads are, nothing is wrong"),
        ("triangle_after_the_softmax", "not to 1, and depend on later positions", "before the softmax"),
    ],
)
def test_a_finding_says_what_happened_and_what_to_do(name: str, says: str, advises: str, tmp_path: Path) -> None:
    finding = found((VALUES | LAYOUTS | MASKS)[name][2](False), tmp_path)
    assert says in finding.summary
    assert advises in finding.hint


@pytest.mark.parametrize("name", ["the_past_hidden", "attention_between_heads", "fused_attention_between_heads"])
def test_what_may_be_meant_is_a_warning(name: str, tmp_path: Path) -> None:
    assert found(LAYOUTS[name][2](False), tmp_path).severity is Severity.WARNING


def test_hiding_each_position_from_itself_is_no_reading_order(tmp_path: Path) -> None:
    def forward(self: From, x: Tensor) -> Any:
        hidden = torch.ones(x.shape[1], x.shape[1]).tril().bool()
        return (self.q(x) @ x.mT).masked_fill(hidden, -1e9).softmax(-1) @ x

    finding = found(Program(From(forward, q=nn.Linear(8, 8)), (torch.randn(2, 6, 8),)), tmp_path)
    assert (finding.rule, finding.severity) == ("future_leak", Severity.ERROR)
    assert "invert the mask" in finding.hint


@pytest.mark.parametrize("module", [nn.GRU(5, 8, batch_first=True), nn.LSTM(5, 8, batch_first=True)])
def test_a_batch_first_recurrence_is_not_told_to_be_one(module: nn.Module) -> None:
    model = From(lambda m, x: m.fc(m.rnn(x.transpose(0, 1))[0][-1]), rnn=module, fc=nn.Linear(8, 2))
    (finding,) = mistakes(model, (torch.randn(4, 7, 5),), {})
    assert "axis 1 of its input (7, 4, 5), and that is the batch" in finding.summary
    assert finding.hint.endswith("drop that, or the transposition before it")


def test_a_batch_first_attention_is_not_told_to_be_one() -> None:
    def forward(self: From, x: Tensor) -> Any:
        x = x.transpose(0, 1)
        return self.fc(self.att(x, x, x)[0][-1])

    model = From(forward, att=nn.MultiheadAttention(8, 2, batch_first=True), fc=nn.Linear(8, 2))
    (finding,) = mistakes(model, (torch.randn(4, 7, 8),), {})
    assert "axis 1 of its input (7, 4, 8), and that is the batch" in finding.summary
    assert finding.hint.endswith("drop that, or the transposition before it")


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_column_against_a_row_is_flattened(tmp_path: Path) -> None:
    y = torch.randn(1, 10)
    finding = found(Program(nn.Linear(4, 1), (torch.randn(10, 4),), lambda out: F.mse_loss(out, y)), tmp_path)
    assert "(10, 1) and (1, 10) broadcast to (10, 10)" in finding.summary
    assert ".flatten()` both" in finding.hint


def test_a_slice_of_one_element_is_in_the_singular(tmp_path: Path) -> None:
    finding = found(Program(From(lambda _, x: x[:, 7:9] * 2), (torch.randn(3, 8),)), tmp_path)
    assert "it gives 1 element, not 2" in finding.summary
