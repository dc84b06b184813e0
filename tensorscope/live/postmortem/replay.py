"""Runs a failed program again, on copies, writing down every operation; with changes if asked to."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules import module as nn_module
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from tensorscope.live.postmortem.crash import read_crash, running_place
from tensorscope.live.postmortem.provenance import Provenance
from tensorscope.live.sandbox import copied, duplicated, imagined
from tensorscope.live.tensors import leaves, named_tensors
from tensorscope.live.transcript import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import CodeType

    from tensorscope.live.postmortem.crash import Crash
    from tensorscope.live.postmortem.source import Place

    Change = Callable[[Any, tuple[Any, ...], dict[str, Any]], tuple[Any, tuple[Any, ...], dict[str, Any]]]
    CallSite = tuple[CodeType | None, int, str, str | None]

ONE_AT_A_TIME = threading.RLock()  # a replay swaps what all threads see: hooks, streams, modules' attributes
# Up to these numbers of elements a program is run for real, on copies: the first fake run takes seconds of imports.
_SMALL_MODEL = 50_000_000  # of weights
_SMALL_INPUT = 2_000_000  # of arguments


@dataclass(frozen=True, slots=True)
class Program:
    """Something that failed and can be run again.

    Attributes:
        root: holds every module that runs.
        start: runs it, given what makes arguments match the sandbox.
        given: the tensors it is given, by name.
        scope: how much of the user's program it is, see `reports.Fix`.
        with_hooks: whether the user's own hooks are part of it.
    """

    root: nn.Module
    start: Callable[[Callable[[Any], Any]], Any]
    given: Mapping[str, torch.Tensor]
    scope: str = "program"
    with_hooks: bool = False


@dataclass(slots=True)
class Step:
    """One operation of a replay.

    Attributes:
        op: its name.
        module: dotted path of the innermost module that was running.
        place: the user's code that was running.
        shapes: of what came out.
        args: its positional arguments, None in place of tensors.
        kwargs: its keyword arguments, likewise.
        sources: the steps that made its operands.
        taken: shapes of its operands.
    """

    op: str
    module: str
    place: Place | None
    shapes: tuple[tuple[int, ...], ...] = ()
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    sources: tuple[int, ...] = ()
    taken: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """What a replay ended with.

    Attributes:
        error: the exception.
        module: dotted path of the innermost module that it left.
        place: the user's code that was running.
        func: the torch function that raised it, None if it was raised elsewhere.
        op: that function's name.
        args: its positional arguments.
        kwargs: its keyword arguments.
        crash: the frames that it passed.
    """

    error: Exception
    module: str
    place: Place | None
    crash: Crash
    func: Any = None
    op: str = ""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Edit:
    """Changes to make while a program runs again.

    Attributes:
        modules: path → what makes the module that takes its place.
        calls: code, instruction, operation and the module that must be running (None: any) → change of that call.
        entering: path → change of the arguments that the module is called with.
        settings: path → attributes of the module that are set to other values.
        given: change of the tensors that the program is given, by name.
    """

    modules: Mapping[str, Callable[[nn.Module], nn.Module]] = field(default_factory=dict)
    calls: Mapping[CallSite, Change] = field(default_factory=dict)
    entering: Mapping[str, Callable[[tuple[Any, ...]], tuple[Any, ...]]] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    given: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = field(default_factory=dict)

    def with_(self, other: Edit) -> Edit:
        """These changes and others."""
        return Edit(
            {**self.modules, **other.modules},
            {**self.calls, **other.calls},
            {**self.entering, **other.entering},
            {**self.settings, **other.settings},
            {**self.given, **other.given},
        )


@dataclass(frozen=True, slots=True)
class Replay:
    """What running a program again showed.

    Attributes:
        steps: its operations, in order.
        provenance: where its tensors' dimensions came from.
        failure: what it ended with, None if it ran through.
        weights: the parameters and buffers that it ran with, with their paths.
        given: the tensors that it was given, with their names.
    """

    steps: list[Step]
    provenance: Provenance
    failure: Failure | None
    weights: list[tuple[str, torch.Tensor]]
    given: list[tuple[str, torch.Tensor]]

    def argument(self, tensor: torch.Tensor) -> str:
        """The name of a tensor that the program was given, empty for any other tensor."""
        return next((name for name, given in self.given if given is tensor), "")

    def weight(self, tensor: torch.Tensor) -> str:
        """The path of a parameter or buffer, empty for any other tensor."""
        return next((path for path, weight in self.weights if weight is tensor), "")


class _ReachedError(Exception):
    """The program has come as far as it is to be run."""


def replay(program: Program, edit: Edit | None = None, *, real: bool | None = None) -> Replay:
    """Run a program again; nothing that it does to its modules or to tensors lasts, and nothing is printed.

    Args:
        program: what to run.
        edit: what to change.
        real: whether to compute on copies of all tensors; else tensors have no data. Default: if they are small.
    """
    on_copies = is_small(program) if real is None else real
    place = copied(program.root, with_hooks=program.with_hooks) if on_copies else imagined(program.root)
    silence = io.StringIO()
    with (
        ONE_AT_A_TIME,
        contextlib.redirect_stdout(silence),
        contextlib.redirect_stderr(silence),
        place as convert,
    ):
        watcher = _Watcher(program, edit or Edit())
        with watcher.swapped_modules():
            failure = watcher.run(convert)
        return Replay(watcher.steps, watcher.provenance, failure, watcher.weights, watcher.given)


def is_small(program: Program) -> bool:
    """Whether a program can be run for real at little cost."""
    weights = sum(t.numel() for t in _tensors(program.root) if not t.is_meta)
    return weights <= _SMALL_MODEL and sum(t.numel() for t in program.given.values()) <= _SMALL_INPUT


class _Watcher(TorchFunctionMode):
    """Writes a program down while it runs, and changes what is to be changed."""

    def __init__(self, program: Program, edit: Edit) -> None:
        super().__init__()
        self.program = program
        self.edit = edit
        self.steps: list[Step] = []
        self.weights: list[tuple[str, torch.Tensor]] = []
        self.given: list[tuple[str, torch.Tensor]] = []
        self.provenance = Provenance(program.root)
        self._failed: tuple[Exception, Any, str, tuple[Any, ...], dict[str, Any]] | None = None
        self._paths = {id(module): path for path, module in program.root.named_modules()}
        self._open: list[str] = []
        self._thread = threading.get_ident()

    @contextlib.contextmanager
    def swapped_modules(self) -> Iterator[None]:
        """Put the changed modules in place; the sandbox puts the old attributes back."""
        classes = []
        try:
            for path, make in self.edit.modules.items():
                module = self.program.root.get_submodule(path)
                twin = make(module)
                classes.append((module, type(module)))
                object.__setattr__(module, "__dict__", twin.__dict__)
                module.__class__ = type(twin)
            for path, values in self.edit.settings.items():
                self.program.root.get_submodule(path).__dict__.update(values)
            yield
        finally:
            for module, kind in classes:
                module.__class__ = kind

    def run(self, convert: Callable[[Any], Any]) -> Failure | None:
        """Run the program to its end, or until it fails."""
        self._introduce(convert)
        hooks = (
            nn_module.register_module_forward_pre_hook(self._enter),
            nn_module.register_module_forward_hook(self._leave, always_call=True),
        )
        try:
            with self:
                self.program.start(lambda value: self._converted(value, convert))
        except _ReachedError:
            pass
        except Exception as error:  # noqa: BLE001  (the program's own)
            return self._failure(error)
        finally:
            for hook in hooks:
                hook.remove()
                nn_module._global_forward_hooks_always_called.pop(hook.id, None)  # which torch forgets
        return None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, changed if it is to be, and write it down."""
        kwargs = kwargs or {}
        if threading.get_ident() != self._thread:
            return func(*args, **kwargs)
        name = name_of(func)
        if name == "set":  # of an attribute
            name = str(getattr(getattr(func, "__self__", None), "__name__", name))
        if name == "backward":
            raise _ReachedError
        place, path = running_place(sys._getframe(1), _START), self._open[-1] if self._open else ""
        if self.edit.calls:
            key = (place.code if place else None, place.lasti if place else 0, name)
            if change := self.edit.calls.get((*key, path)) or self.edit.calls.get((*key, None)):
                func, args, kwargs = change(func, args, kwargs)
        try:
            result = func(*args, **kwargs)
        except Exception as error:
            self._failed = error, func, name, args, kwargs
            raise
        self._write(func, Step(name, path, place), args, kwargs, result)
        return result

    def _write(self, func: Any, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        results = list(leaves(result))
        operands = list(leaves((args, kwargs)))
        sources = {self.provenance.maker(tensor) for tensor in operands}
        self.provenance.follow(len(self.steps), step.module, func, args, kwargs, result)
        if not results:
            return  # a question about a tensor
        step.shapes = tuple(tuple(tensor.shape) for tensor in results)
        step.taken = tuple(tuple(tensor.shape) for tensor in operands)
        step.args, step.kwargs = tree_map_only(torch.Tensor, lambda _: None, (args, kwargs))
        step.sources = tuple(sorted(source for source in sources if source is not None))
        self.steps.append(step)

    def _introduce(self, convert: Callable[[Any], Any]) -> None:
        root = self.program.root
        self.weights = [*root.named_parameters(), *root.named_buffers(), *_plain_attributes(root)]
        for path, tensor in self.weights:
            owner = path.rpartition(".")[0].partition("[")[0]
            self.provenance.weight(path, tensor, self._owner(owner))
        for name, tensor in self.program.given.items():
            if id(tensor) not in {id(t) for t in _tensors(root)}:
                self.given.append((name, convert(tensor)))
                self.provenance.given(*self.given[-1])

    def _owner(self, path: str) -> nn.Module | None:
        return next((m for name, m in self.program.root.named_modules() if name == path), None)

    def _converted(self, value: Any, convert: Callable[[Any], Any]) -> Any:
        with torch._C.DisableTorchFunction():
            return duplicated(value, lambda tensor: self._given(tensor, convert))

    def _given(self, tensor: torch.Tensor, convert: Callable[[Any], Any]) -> Any:
        twin = convert(tensor)
        for name, original in self.program.given.items():
            if original is tensor and (change := self.edit.given.get(name)):
                return change(twin)
        return twin

    def _enter(self, module: nn.Module, args: Any) -> Any:
        path = self._paths.get(id(module))
        if path is None or threading.get_ident() != self._thread:
            return None
        self._open.append(path)
        return self.edit.entering[path](args) if path in self.edit.entering else None

    def _leave(self, module: nn.Module, *_: Any) -> None:
        path = self._paths.get(id(module))
        if threading.get_ident() == self._thread and path in self._open:
            while self._open.pop() != path:
                pass

    def _failure(self, error: Exception) -> Failure:
        """What failed: the torch function that raised, or else what the frames say."""
        known = self._failed
        if known is not None and error.__cause__ is known[0]:  # and raised again in other words
            return replace(self._failure(known[0]), crash=read_crash(known[0], error))
        crash = read_crash(error)
        module, scene = crash.module, crash.scene
        path = self._paths.get(id(module), "") if module is not None else ""
        place = scene.place if scene is not None else None
        failure = Failure(error, path, place, crash)
        if self._failed is None or self._failed[0] is not error:
            return failure
        _, func, op, args, kwargs = self._failed
        return replace(failure, func=func, op=op, args=args, kwargs=kwargs)


def _tensors(root: nn.Module) -> Iterator[torch.Tensor]:
    yield from root.parameters()
    yield from root.buffers()


def _plain_attributes(root: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors that modules keep without registering them."""
    for path, module in root.named_modules():
        for key, value in module.__dict__.items():
            if isinstance(value, torch.Tensor | list | tuple | dict) and not key.startswith("_"):
                yield from named_tensors(f"{path}.{key}".lstrip("."), value)


_START = _Watcher.run.__code__
