"""The ways to watch a training that are compared: ours, hooks as anyone writes them, the peers that are installed."""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from models import Case
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from torch.optim import optimizer as optim

import tensorscope

Step = Callable[[], object]
Way = Callable[[Case, Path], AbstractContextManager[Step]]  # what it writes goes into the folder


def plain_step(case: Case, then: Callable[[Tensor], object] | None = None) -> Step:
    """A training step; `then` is given the loss."""
    optimizer = torch.optim.AdamW(case.model.parameters(), 1e-4)

    def step() -> None:
        optimizer.zero_grad()
        loss = case.loss(case.model(case.x))
        loss.backward()
        optimizer.step()
        if then is not None:
            then(loss)

    return step


@contextmanager
def bare(case: Case, folder: Path) -> Iterator[Step]:
    yield plain_step(case)


def traced(every: int | None) -> Way:
    @contextmanager
    def way(case: Case, folder: Path) -> Iterator[Step]:
        with tensorscope.trace(case.model, folder / "run", every=every) as trace:
            yield plain_step(case, lambda loss: trace.log(loss=loss))

    return way


@contextmanager
def naive(case: Case, folder: Path) -> Iterator[Step]:
    """Eight statistics of every module's output, each fetched at once."""
    rows: list[list[float]] = []

    def hook(_: nn.Module, __: Any, output: Tensor) -> None:
        out = output.detach()
        numbers = (
            out.mean(), out.std(), out.min(), out.max(), out.norm(), (out == 0).float().mean(),
            out.isnan().sum(), out.isinf().sum(),
        )  # fmt: skip
        rows.append([number.item() for number in numbers])

    handles = [module.register_forward_hook(hook) for module in case.model.modules()]
    yield plain_step(case, lambda _: rows.clear())
    for handle in handles:
        handle.remove()


def torchlens_watch(*signals: str, activations: bool = False) -> Way:
    """Its statistics at every step, into its own file."""

    @contextmanager
    def way(case: Case, folder: Path) -> Iterator[Step]:
        from torchlens.trackers import JSONLSink, watch

        optimizer = torch.optim.AdamW(case.model.parameters(), 1e-4)
        seen: dict[str, Any] = {}
        if activations:
            seen = {"select": [path for path, _ in case.model.named_modules() if path], "example_input": case.x}
        session = watch(
            case.model, to=JSONLSink(folder / "out.jsonl"), signals=signals, optimizer=optimizer, every=1, **seen
        )
        numbers = itertools.count()

        def step() -> None:
            with session.step(next(numbers)):
                optimizer.zero_grad()
                case.loss(case.model(case.x)).backward()
                optimizer.step()

        with session:
            yield step

    return way


@contextmanager
def torchlens_trace(case: Case, folder: Path) -> Iterator[Step]:
    """Every forward taken operation by operation; torch unwrapped afterwards, or the bare step would pay too."""
    import torchlens
    from torchlens.options import CaptureOptions

    optimizer = torch.optim.AdamW(case.model.parameters(), 1e-4)

    def step() -> None:
        optimizer.zero_grad()
        seen = torchlens.trace(case.model, case.x, capture=CaptureOptions(unwrap_when_done=True))
        case.loss(seen[seen.output_layers[0]].out).backward()
        optimizer.step()

    yield step


def wandb_watch(log: str, every: int) -> Way:
    @contextmanager
    def way(case: Case, folder: Path) -> Iterator[Step]:
        import wandb

        # Everything that it would write elsewhere goes where the run goes, and away with it.
        os.environ |= {f"WANDB_{what}_DIR": str(folder) for what in ("CACHE", "CONFIG", "DATA", "ARTIFACT")}
        settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True)
        run = wandb.init(mode="offline", dir=folder, project="bench", reinit="return_previous", settings=settings)
        run.watch(case.model, log=log, log_freq=every)
        try:
            yield plain_step(case, lambda loss: run.log({"loss": loss.item()}))
        finally:
            run.unwatch(case.model)
            run.finish()

    return way


WAYS: dict[str, Way] = {
    "tensorscope, defaults": traced(None),
    "tensorscope, every=1": traced(1),
    "naive hooks, .item()": naive,
    "torchlens.watch, gradients and updates": torchlens_watch("gradients", "updates"),
    "torchlens.watch, activations and all": torchlens_watch(
        "parameters", "gradients", "updates", "activations", activations=True
    ),
    "torchlens.trace": torchlens_trace,
    "wandb.watch, defaults": wandb_watch("gradients", 1000),
    "wandb.watch, all at every step": wandb_watch("all", 1),
}


def is_installed(way: str) -> bool:
    """Whether the package that a way needs is there."""
    package = way.replace(",", ".").split(".")[0]
    return package not in ("torchlens", "wandb") or importlib.util.find_spec(package) is not None


class GlobalHooks:
    """torch's global hooks, put away while another way is measured, which would pay for them."""

    def __init__(self) -> None:
        owners = (nn_module, optim)
        names = [(owner, name) for owner in owners for name in vars(owner) if name.startswith("_global_")]
        self._tables = [table for owner, name in names if isinstance(table := vars(owner)[name], dict)]
        self._away: list[dict[Any, Any]] = [{} for _ in self._tables]

    def put_away(self) -> None:
        self._away = [dict(table) for table in self._tables]
        for table in self._tables:
            table.clear()

    def bring_back(self) -> None:
        for table, kept in zip(self._tables, self._away, strict=True):
            table.update(kept)
