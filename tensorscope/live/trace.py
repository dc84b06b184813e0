"""The live session on a model: hooks in, a run out."""

from __future__ import annotations

import atexit
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from tensorscope.errors import ModelError, RunError, TensorscopeError
from tensorscope.events import Finding, ModuleInfo
from tensorscope.live.environment import environment, rank
from tensorscope.live.hooks import guarded
from tensorscope.live.pace import Pace
from tensorscope.live.recorder import Recorder
from tensorscope.run.writer import Writer, fresh_folder

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from types import TracebackType


def trace(
    model: nn.Module,
    run: str | os.PathLike[str] | None = None,
    *,
    every: int | None = None,
    overhead: float = 0.05,
    histograms: bool = True,
) -> Trace:
    """Watch a model from now on, and record it.

    Nothing about the training changes: outputs, gradients, random state, `state_dict` and pickles stay as they are.

    Args:
        model: your model, or a part of it; it is watched in place.
        run: folder to write; default `runs/<Model>-<date>-<time>`. A finished run that is there moves to `<run>.1`.
        every: measure every so many steps; default: as often as `overhead` allows.
        overhead: share of the bare step's duration that measuring may add.
        histograms: whether to record histograms.

    Returns:
        The trace: a context manager, callable like the model. It ends with `close()`, with its `with` block or with
        the program.

    Raises:
        ModelError: `model` is not a `torch.nn.Module`.
        RunError: the run cannot be written.
    """
    _check_arguments(model, every, overhead)
    return Trace(model, Path(run) if run is not None else _default_path(model), Pace(every, overhead), histograms)


class Trace:
    """A session made by `trace`.

    Attributes:
        model: the model.
        path: the run's folder.
    """

    def __init__(self, model: nn.Module, path: Path, pace: Pace, with_histograms: bool) -> None:
        self.model = model
        self.path = path if rank() else fresh_folder(path)
        facts = environment() | {
            "model": type(model).__name__,
            "status": "running",
            "every": pace.interval if pace.fixed else None,
            "overhead": pace.overhead,
            "parameters": sum(_elements(p) for p in model.parameters()),
        }
        self._writer = Writer(self.path, facts, rank())
        self._writer.modules(_modules(model))
        self._recorder = Recorder(model, self._writer, pace, with_histograms=with_histograms)
        self._closed = False
        self._hook_before = sys.excepthook
        sys.excepthook = self._uncaught
        atexit.register(self._at_exit)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        return self.model(*args, **kwargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end(error)

    def __repr__(self) -> str:
        return f"<Trace of {type(self.model).__name__} to {str(self.path)!r}{', closed' if self._closed else ''}>"

    def log(self, **scalars: float | torch.Tensor) -> None:
        """Record scalars at the step under way, or at the one just finished until the next begins.

        Args:
            scalars: name → number; a tensor of one element is copied where it is and read later, so nothing waits.

        Raises:
            TensorscopeError: a value is not one number.
            RunError: the trace is closed.
        """
        if self._closed:
            raise RunError(
                f"the trace of `{self.path}` is closed", hint="log before `close()`, inside the `with` block"
            )
        self._recorder.log({name: _scalar(name, value) for name, value in scalars.items()})

    def step(self) -> None:
        """End a step here. Steps are found by themselves; after the first call of this, only these calls end one."""
        self._recorder.step()

    def findings(self) -> list[Finding]:
        """What the rules say about the run so far, the cause first."""
        from tensorscope.diagnosis.engine import diagnose
        from tensorscope.run.reader import open_run

        guarded(self._recorder, self._recorder.tell_first_step)()
        self._writer.flush()
        run = open_run(self._writer.path)
        try:
            return diagnose(run)
        finally:
            run.close()

    def close(self) -> None:
        """Take all hooks off, write what is left and mark the run as finished; further calls do nothing."""
        self._end(None)

    def _end(self, error: BaseException | None) -> None:
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._at_exit)
        if sys.excepthook == self._uncaught:
            sys.excepthook = self._hook_before
        self._recorder.close()
        if isinstance(error, Exception):
            guarded(self._recorder, self._explain)(error)
        guarded(self._recorder, self._record_findings)()
        self._writer.close(**_ending(error))

    def _record_findings(self) -> None:
        self._writer.document("findings", json.dumps([asdict(finding) for finding in self.findings()]))

    def _explain(self, error: Exception) -> None:
        """Note the explanation of a shape error on it, and record it."""
        from tensorscope.live.explain import attach

        report = attach(error, self.model)
        if report is not None:
            self._writer.document("reports", json.dumps([report.to_json()]))

    def _uncaught(self, kind: type[BaseException], error: BaseException, frames: TracebackType | None) -> None:
        """Explain an error that ends the program, then let it be shown as before."""
        if isinstance(error, Exception) and not self._closed:
            guarded(self._recorder, self._explain)(error)
        hook = sys.excepthook if sys.excepthook != self._uncaught else self._hook_before
        hook(kind, error, frames)

    def _at_exit(self) -> None:
        self._end(getattr(sys, "last_value", None))


def _ending(error: BaseException | None) -> dict[str, Any]:
    facts = {"ended": time.time()}
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return facts | {"status": "finished"}
    if isinstance(error, KeyboardInterrupt):
        return facts | {"status": "interrupted"}
    return facts | {"status": "died", "error": f"{type(error).__name__}: {error}"}


def _check_arguments(model: object, every: int | None, overhead: float) -> None:
    if not isinstance(model, nn.Module):
        is_class = isinstance(model, type) and issubclass(model, nn.Module)
        name = model.__name__ if isinstance(model, type) else type(model).__name__
        raise ModelError(
            f"`trace` takes a `torch.nn.Module`, got {'the class' if is_class else 'a'} `{name}`",
            hint=f"make one first: `trace({name}(...))`" if is_class else "pass the model itself",
        )
    if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
        raise TensorscopeError(f"`every` is {every!r}", facts={"expected": "a number of steps, 1 or more, or None"})
    if not overhead > 0:
        raise TensorscopeError(f"`overhead` is {overhead!r}", facts={"expected": "a share above 0, such as 0.05"})


def _default_path(model: nn.Module) -> Path:
    stem = Path("runs") / f"{type(model).__name__}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (stem, *(stem.with_name(f"{stem.name}-{n}") for n in range(2, 1_000)))
    return next(path for path in names if not path.exists())


def _modules(model: nn.Module) -> list[ModuleInfo]:
    """The model's modules, each once, with its other paths; parameters counted where they are met first."""
    paths: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(path)
    counted: set[int] = set()
    infos = []
    for path, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if id(p) not in counted]
        counted |= {id(p) for p in own}
        sizes = [_elements(p) for p in own]
        trainable = sum(size for p, size in zip(own, sizes, strict=True) if p.requires_grad)
        infos.append(ModuleInfo(path, type(module).__name__, sum(sizes), trainable, tuple(paths[id(module)][1:])))
    return infos


def _elements(parameter: nn.Parameter) -> int:
    return 0 if isinstance(parameter, nn.parameter.UninitializedParameter) else parameter.numel()


def _scalar(name: str, value: Any) -> Callable[[], float]:
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex():
        if value.is_cpu:
            number = float(value.detach())
            return lambda: number
        kept = value.detach().reshape(()).clone()
        return lambda: float(kept)
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        got = (
            f"a tensor of shape {tuple(value.shape)}"
            if isinstance(value, torch.Tensor)
            else f"a {type(value).__name__}"
        )
        raise TensorscopeError(
            f"`{name}` is not one number", facts={"got": got}, hint=f"log one number, such as `{name}.mean()`"
        ) from None
    return lambda: number
