"""The live session on a model: hooks in, a run out."""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
import time
import weakref
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from tensorscope.errors import ModelError, RunError, TensorscopeError
from tensorscope.events import Finding, ModuleInfo
from tensorscope.live.environment import environment, git_facts, launch, rank
from tensorscope.live.hooks import guarded
from tensorscope.live.kernel import KERNEL
from tensorscope.live.pace import Pace
from tensorscope.live.recorder import Recorder
from tensorscope.run.creation import place_run
from tensorscope.run.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


def trace(
    model: nn.Module,
    run: str | os.PathLike[str] | None = None,
    *,
    every: int | None = None,
    overhead: float = 0.05,
    histograms: bool = True,
    resume: bool | int = False,
) -> Trace:
    """Watch a model from now on, and record it.

    Nothing about the training changes: outputs, gradients, random state, `state_dict` and pickles stay as they are.

    Args:
        model: your model, or a part of it; it is watched in place.
        run: folder to write; default `runs/<Model>-<date>-<time>`. A finished run that is there moves to `<run>.1`.
        every: measure every so many steps; default: as often as `overhead` allows.
        overhead: share of the bare step's duration that measuring may add.
        histograms: whether to record histograms.
        resume: go on with the run at `run`: `True` after its last step (from the beginning, if there is no such run), a
            number at that step, such as the one the checkpoint was saved at. What the run holds from there on is
            superseded and stays in its file.

    Returns:
        The trace: a context manager, callable like the model. It ends with `close()`, with its `with` block or with
        the program.

    Raises:
        ModelError: `model` is not a `torch.nn.Module`.
        RunError: the run cannot be written.
    """
    _check_arguments(model, every, overhead)
    _check_resume(run, resume)
    path = Path(run) if run is not None else None
    return Trace(model, path, Pace(every, overhead), with_histograms=histograms, resume=resume)


GIT_SECONDS = 1.0  # how long the end of a trace waits for git
_OPEN: weakref.WeakSet[Trace] = weakref.WeakSet()
_ABANDONED: list[Trace] = []  # kept, so that a child never finalises its parent's connections


def _in_child() -> None:
    for trace in list(_OPEN):
        trace._abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class Trace:
    """A session made by `trace`.

    Attributes:
        model: the model.
        path: the run's folder.
    """

    def __init__(
        self, model: nn.Module, path: Path | None, pace: Pace, *, with_histograms: bool, resume: bool | int = False
    ) -> None:
        self.model = model
        first_step = _first_step(path, resume)
        self.path = place_run(path, type(model).__name__, launch(), resumes=first_step is not None)
        facts = environment() | {
            "model": type(model).__name__,
            "status": "running",
            "every": pace.interval if pace.fixed else None,
            "overhead": pace.overhead,
            "kernel": KERNEL is not None,
            "parameters": sum(_elements(p) for p in model.parameters()),
        }
        self._writer = Writer(self.path, facts, rank(), resume=first_step)
        self._writer.modules(_modules(model))
        self._recorder = Recorder(
            model, self._writer, pace, with_histograms=with_histograms, first_step=first_step or 0
        )
        self._closed = False
        self._hook_before = sys.excepthook
        sys.excepthook = self._uncaught
        atexit.register(self._at_exit)
        self._git = threading.Thread(target=self._find_commit, name="tensorscope-git", daemon=True)
        self._git.start()
        _OPEN.add(self)

    def _find_commit(self) -> None:
        facts = git_facts(Path.cwd())
        if facts:
            self._writer.meta(git=facts)

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
        if self in _ABANDONED:
            return  # a forked child may run the same loop
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
        self._git.join(GIT_SECONDS)
        self._writer.close(**_ending(error))

    def _abandon(self) -> None:
        """In a forked child: this training is the parent's. Nothing is closed, for the file is the parent's, too."""
        if not self._closed:
            self._closed = True
            atexit.unregister(self._at_exit)
            if sys.excepthook == self._uncaught:
                sys.excepthook = self._hook_before
            self._recorder.abandon()
            _ABANDONED.append(self)

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


def _check_resume(run: object, resume: object) -> None:
    if resume is False:
        return
    if run is None:
        raise TensorscopeError("`resume` needs the run that goes on", hint="name it: `trace(model, run, resume=True)`")
    if not isinstance(resume, int) or resume < 0:
        raise TensorscopeError(f"`resume` is {resume!r}", facts={"expected": "True, or the number of a step"})


def _first_step(path: Path | None, resume: bool | int) -> int | None:
    """The step at which a run goes on; None of a new one."""
    from tensorscope.run.reader import open_run

    if resume is False or path is None or not any(path.glob("rank*.sqlite")):
        return None
    if resume is not True:
        return resume
    run = open_run(path)
    try:
        return run.last_step + 1
    finally:
        run.close()


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
        held = sum(size * p.element_size() for p, size in zip(own, sizes, strict=True) if size)
        aliases = tuple(paths[id(module)][1:])
        infos.append(ModuleInfo(path, type(module).__name__, sum(sizes), trainable, aliases, held))
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
