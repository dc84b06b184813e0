"""A model that raises inside of a trace: its own error comes through, explained, and nothing of ours stays behind."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

import tensorscope
from tensorscope import diagnose, open_run


class Uneven(nn.Module):
    """Its second layer takes more than its first one gives."""

    def __init__(self, features: int = 6) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(features, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(torch.relu(self.first(x)))
        return out


class Deep(nn.Module):
    """The mistake is some modules down."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Uneven(5), nn.Linear(2, 4), Uneven())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(x)
        return out


@pytest.mark.parametrize("model", [Uneven(), Deep()], ids=["flat", "deep"])
def test_an_error_of_the_first_forward_is_the_programs_own(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as bare:
        model(torch.rand(3, 4))
    with pytest.raises(RuntimeError) as traced, tensorscope.trace(model, tmp_path / "run") as trace:
        trace(torch.rand(3, 4))
    assert type(traced.value) is type(bare.value)
    assert traced.value.args == bare.value.args
    assert traced.value.__context__ is None


def test_no_hook_stays_after_an_error(tmp_path: Path) -> None:
    model = Uneven()
    with pytest.raises(RuntimeError, match="mat1"), tensorscope.trace(model, tmp_path / "run"):
        model(torch.rand(3, 4))
    assert not nn_module._global_forward_hooks
    assert not nn_module._global_forward_pre_hooks
    assert not nn_module._global_forward_hooks_always_called
    assert not nn_module._global_forward_hooks_with_kwargs
    assert torch._C._len_torch_function_stack() == 0


def test_a_model_that_recovers_is_recorded_as_if_nothing_had_been(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tensorscope.trace(model, tmp_path / "run", every=1):
        with pytest.raises(RuntimeError):
            model(torch.rand(3, 7))
        for _ in range(2):
            model(torch.rand(3, 4)).sum().backward()
            optimizer.step()
    run = open_run(tmp_path / "run")
    assert run.status == "finished"
    assert run.graph is not None
    assert run.reports == []
    assert not list(run.notes)


def test_the_run_keeps_the_report_and_it_is_diagnosed(tmp_path: Path) -> None:
    model = Deep()
    with pytest.raises(RuntimeError) as caught, tensorscope.trace(model, tmp_path / "run"):
        model(torch.rand(3, 4))
    (note,) = caught.value.__notes__
    run = open_run(tmp_path / "run")
    (report,) = run.reports
    assert str(report) in note
    assert report.module == "blocks.2.second"
    (found,) = diagnose(run)
    assert (found.rule, found.site, found.severity) == ("shape_error", "blocks.2.second", "error")
    assert "`nn.Linear(5, 2)`" in found.hint
    assert [finding.rule for finding in run.findings] == ["shape_error"]


@pytest.mark.parametrize(("error", "rule"), [("dtype", "dtype_error"), ("index", "index_out_of_range")])
def test_what_kind_of_error_it_was_is_the_rule(error: str, rule: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2))
    ids = torch.rand(2, 3) if error == "dtype" else torch.full((2, 3), 7)
    with pytest.raises((RuntimeError, IndexError)), tensorscope.trace(model, tmp_path / "run"):
        model(ids)
    (found,) = diagnose(open_run(tmp_path / "run"))
    assert (found.rule, found.site) == (rule, "0")


def test_an_error_that_nobody_catches_is_explained_without_a_with_block(tmp_path: Path) -> None:
    script = """
        import sys
        import torch, tensorscope
        from torch import nn
        sys.excepthook = lambda kind, error, frames: print("seen", kind.__name__, *error.__notes__)
        model = nn.Sequential(nn.Linear(4, 5), nn.Linear(6, 2))
        trace = tensorscope.trace(model, "run")
        model(torch.rand(3, 4))
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("seen RuntimeError")
    assert "`1` (Linear) got 5 features and takes 6" in done.stdout
    run = open_run(tmp_path / "run")
    assert run.status == "died"
    assert [report.title for report in run.reports] == ["`1` (Linear) got 5 features and takes 6"]


def test_other_errors_are_left_alone(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    with pytest.raises(KeyError) as caught, tensorscope.trace(model, tmp_path / "run"):  # noqa: PT012
        model(torch.rand(3, 4))
        raise KeyError("loss")
    assert not hasattr(caught.value, "__notes__")
    assert open_run(tmp_path / "run").reports == []
