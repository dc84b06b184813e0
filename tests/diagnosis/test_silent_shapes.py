"""Silent shape mistakes that the trace wrote down are handed on, errors first."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tensorscope import diagnose, open_run, trace


class Two(nn.Module):
    """A model with a small mistake, and then a large one."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.fc = nn.Linear(6, 1), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.score(x).softmax(-1) * x
        x = x - x.mean(1)
        out: Tensor = self.fc(x)
        return out


def test_errors_come_first_and_steps_are_known(tmp_path: Path) -> None:
    model = Two()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with trace(model, tmp_path / "run", every=1, histograms=False):
        for _ in range(3):
            model(torch.randn(6, 6)).mean().backward()
            optimizer.step()
    run = open_run(tmp_path / "run")
    found = diagnose(run)
    run.close()
    assert [(f.rule, str(f.severity)) for f in found] == [
        ("silent_broadcast", "error"),
        ("softmax_wrong_dim", "warning"),
    ]
    assert {(f.first_step, f.last_step) for f in found} == {(0, 0)}


def test_a_run_without_any_has_none(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with trace(model, tmp_path / "run", every=1, histograms=False):
        model(torch.randn(4, 3)).mean().backward()
        optimizer.step()
    run = open_run(tmp_path / "run")
    assert diagnose(run) == []
    run.close()
