"""Writing down a forward pass as it happens: which operations run, in which module, on whose results."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from tensorscope.graphs.graph import Role, Value
from tensorscope.live.costs import call_flops
from tensorscope.live.shapes import contract_of, named_dims
from tensorscope.live.tensors import leaves
from tensorscope.live.unseen import Unseen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from types import FrameType

    from tensorscope.live.silent.watch import Watch

_NOT_USERS = tuple(os.path.dirname(file) + os.sep for file in (torch.__file__, __file__))
_ANSWERS = (int, bool, torch.Size, torch.dtype, torch.device, torch.layout)  # to questions, which nobody writes down
_LONGEST = 500_000  # operations after which nothing more is written down

# Operators whose function in torch has another name.
_OPERATORS = {
    "truediv": "div",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "invert": "bitwise_not",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
}


@dataclasses.dataclass(slots=True)
class Line:
    """An operation as it is written down; `graphs.graph.Op` is what becomes of it."""

    name: str
    call: int
    outputs: list[Value]
    role: Role = Role.OP
    where: str = ""
    weights: tuple[str, ...] = ()
    flops: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """A module call as it is written down."""

    path: str
    parent: int
    number: int


class Transcript(TorchFunctionMode):
    """Sees every torch function called on its thread, and is told when modules begin and end.

    Nothing raised in here reaches the program that is being watched: the first error ends the transcript and is kept in
    `error`. No tensor is kept alive.

    Args:
        weights: the parameters and buffers that operations may read, by path.
        watch: looks at each operation too; what it raises ends it alone.
    """

    def __init__(self, weights: Iterable[tuple[str, torch.Tensor]], watch: Watch | None = None) -> None:
        super().__init__()
        self._silent = watch
        self.lines: list[Line] = []
        self.flows: dict[tuple[int, int, int], int] = {}  # (source, port, target) → slot
        self.scenes: list[Scene] = []
        self.failed: str | None = None  # the innermost module that an exception left
        self.error: Exception | None = None
        self._makers: dict[int, tuple[weakref.ref[torch.Tensor], int, int]] = {}  # id → tensor, line, port
        self._weights = {id(tensor): path for path, tensor in reversed(list(weights))}
        self._open: list[int] = []
        self._opaque: int | None = None  # the open scene whose insides are not written down
        self._numbers: dict[str, int] = {}
        self._thread = threading.get_ident()
        self._ambient = sys.exc_info()[1]  # an exception that is being handled outside is not ours

    # -- what the program does ---------------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, then write it down."""
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():  # first of all: nothing of ours may end up in what is compiled
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        if self._listening and self._opaque is None and type(result) not in _ANSWERS:
            line = user_line(sys._getframe(1))
            with self.safely():
                self._record(func, args, kwargs, result, line)
            if self._silent is not None and self._open:
                path = self.scenes[self._open[-1]].path
                _tell(self._silent, func, (args, kwargs), result, path, line)
        return result

    def safely(self) -> AbstractContextManager[None]:
        """Around our own looking at tensors: it is not written down, and an error in it ends the transcript alone."""
        return Unseen(self)

    def begin(self, path: str, *, opaque: bool = False) -> None:
        """A module's forward begins; of an opaque one only what comes out is written down."""
        if not self._listening:
            return
        number = self._numbers.get(path, 0)
        self._numbers[path] = number + 1
        self.scenes.append(Scene(path, self._open[-1] if self._open else -1, number))
        self._open.append(len(self.scenes) - 1)
        if opaque and self._opaque is None:
            self._opaque = self._open[-1]

    def end(self, module: nn.Module, path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """A module's forward has ended, or was left by an exception."""
        if not self._listening or not any(self.scenes[scene].path == path for scene in self._open):
            return
        # An inner call whose end was never told ends here too.
        while self.scenes[self._open[-1]].path != path:
            self._open.pop()
        with self.safely():
            error = sys.exc_info()[1]
            if error is not None and error is not self._ambient and self.failed is None:
                self.failed = path
            self._adopt(type(module).__name__, (args, kwargs), output)
            if contract_of(module) is not None:
                names = named_dims(module, args, kwargs, output)
                self._name(leaves((args, kwargs)), names.inputs.values())
                self._name(leaves(output), names.outputs.values())
        if self._open.pop() == self._opaque:
            self._opaque = None

    def take(self, name: str, tensor: torch.Tensor) -> None:
        """The model is given a tensor."""
        if self._maker(tensor) is None:
            self._append(Line(name, 0, [], Role.INPUT), {}, [tensor])

    def give(self, name: str, tensors: list[torch.Tensor]) -> None:
        """The model returns tensors under a name."""
        self._append(Line(name, 0, [], Role.OUTPUT), {id(t): (0, t) for t in tensors}, [])
        self.lines[-1].outputs = [described(t) for t in tensors]

    def watch(self) -> None:
        """Begin to see functions."""
        torch._C._push_on_torch_function_stack(self)

    def leave(self) -> None:
        """Stop watching; modes that were entered since stay where they are."""
        take_off(self)

    def forget(self) -> None:
        """Let go of all that was only needed while watching."""
        self._makers.clear()
        self._ambient = None

    # -- how it is written down --------------------------------------------------------------------------------------

    @property
    def _listening(self) -> bool:
        return self.error is None and threading.get_ident() == self._thread

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: object, where: str) -> None:
        name = name_of(func)
        operands: dict[int, tuple[int, torch.Tensor]] = {}
        for slot, tensor in _operands(args, kwargs):
            operands.setdefault(id(tensor), (slot, tensor))
        results = [args[0]] if name == "setitem" else list(leaves(result))
        changes = name == "setitem" or name.endswith("_") or "out" in kwargs or kwargs.get("inplace") is True
        if not results or (not changes and all(id(t) in operands for t in results)):
            return  # a question about a tensor, or nothing was done
        if "dropout" in name and kwargs.get("training") is False and (maker := self._maker(args[0])):
            self._makers[id(results[0])] = (weakref.ref(results[0]), *maker)
            return  # drops nothing, but may return a new object
        if not self._open or (
            all(id(t) in self._weights for t in results) and not any(self._maker(t) for _, t in operands.values())
        ):
            return  # the model's own bookkeeping, such as the count of batches seen
        line = Line(name, self._open[-1], [], where=where, flops=call_flops(name, args, kwargs, results))
        self._append(line, operands, results)
        if changes:
            self._write_through(results)

    def _append(
        self, line: Line, operands: Mapping[int, tuple[int, torch.Tensor]], results: list[torch.Tensor]
    ) -> None:
        target, weights = len(self.lines), []
        if target >= _LONGEST:
            raise OverflowError(f"more than {_LONGEST} operations")
        for slot, tensor in operands.values():
            if (maker := self._maker(tensor)) is not None:
                self.flows.setdefault((*maker, target), slot)
            elif id(tensor) in self._weights:
                weights.append(self._weights[id(tensor)])
        line.weights, line.outputs = tuple(weights), [described(t) for t in results]
        self.lines.append(line)
        for port, tensor in enumerate(results):
            self._makers[id(tensor)] = (weakref.ref(tensor), target, port)

    def _write_through(self, results: list[torch.Tensor]) -> None:
        """Writing into a view writes into what it looks at."""
        for tensor in results:
            if tensor._is_view() and (base := tensor._base) is not None:
                _, line, port = self._makers[id(tensor)]
                self._makers[id(base)] = (weakref.ref(base), line, port)

    def _maker(self, tensor: torch.Tensor) -> tuple[int, int] | None:
        known = self._makers.get(id(tensor))
        # The number of a tensor that is gone may have been given to another one.
        return known[1:] if known is not None and known[0]() is tensor else None

    def _adopt(self, name: str, given: object, output: object) -> None:
        """Let results that appeared out of sight (of a script, of an extension's operator) come from their module."""
        strange = [t for t in leaves(output) if self._maker(t) is None and id(t) not in self._weights]
        if strange:
            operands = {id(t): (slot, t) for slot, t in enumerate(leaves(given))}
            self._append(Line(name, self._open[-1], []), operands, strange)

    def _name(self, tensors: Iterable[torch.Tensor], names: Iterable[tuple[str, ...]]) -> None:
        for tensor, axes in zip(tensors, names, strict=False):
            if any(axes) and len(axes) == tensor.ndim and (maker := self._maker(tensor)) is not None:
                line, port = maker
                value = self.lines[line].outputs[port]
                if not value.names and len(value.dims) == len(axes):
                    self.lines[line].outputs[port] = dataclasses.replace(value, names=tuple(axes))


class Aftermath(TorchFunctionMode):
    """Lets a watch see what a program does with a model's output: the loss.

    It has to lie below every mode that the program enters, or the program would leave it in place of its own.

    Args:
        watch: is told.
    """

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch
        self._thread = threading.get_ident()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, then tell."""
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        if not self.watch.over and type(result) not in _ANSWERS and threading.get_ident() == self._thread:
            _tell(self.watch, func, (args, kwargs), result, "", user_line(sys._getframe(1)))
        return result

    def begin(self) -> bool:
        """Begin to see functions, if nothing else does and nothing is compiled; whether it does."""
        if _compiles() or torch._C._len_torch_function_stack():
            return False
        torch._C._push_on_torch_function_stack(self)
        return True

    def end(self) -> None:
        """Stop watching, if this is the thread on which it began; on another one it sees nothing anyway."""
        take_off(self)


def _compiles() -> bool:
    """Whether anything in this program is compiled: a loss would be compiled with our mode, and then once more."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return dynamo is not None and any(backend is not None for backend in dynamo.cached_backends.values())


def take_off(mode: TorchFunctionMode) -> None:
    """Take a mode off this thread's stack, if it is there; modes that were entered since stay where they are."""
    depth = torch._C._len_torch_function_stack()
    if any(torch._C._get_function_stack_at(level) is mode for level in range(depth)):
        above = []
        while (top := torch._C._pop_torch_function_stack()) is not mode:
            above.append(top)
        for one in reversed(above):
            torch._C._push_on_torch_function_stack(one)


def _tell(watch: Watch, func: Any, given: tuple[Any, dict[str, Any]], result: object, path: str, line: str) -> None:
    if watch.error is None:
        with watch.safely():
            watch.see(name_of(func), *given, result, path, line)


def described(tensor: torch.Tensor) -> Value:
    """What a graph keeps of a tensor; a size that is not known is -1."""
    sizes = () if tensor.is_nested else tuple(size if type(size) is int else -1 for size in tensor.shape)
    return Value(sizes, str(tensor.dtype).removeprefix("torch."))


def name_of(func: Any) -> str:
    """The name that users know a torch function by."""
    name = getattr(func, "__name__", "") or type(func).__name__
    if name == "__get__":
        return str(getattr(getattr(func, "__self__", None), "__name__", "getattr"))
    if not (name.startswith("__") and name.endswith("__")):
        return str(name)
    plain = name.strip("_")
    # `__radd__` and `__iadd__` are `add` and `add_`.
    if plain[0] in "ri" and hasattr(torch.Tensor, f"__{plain[1:]}__"):
        return _OPERATORS.get(plain[1:], plain[1:]) + ("_" if plain[0] == "i" else "")
    return _OPERATORS.get(plain, plain)


def user_line(frame: FrameType | None) -> str:
    """`file:line` of the innermost frame that is neither torch's nor ours."""
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_USERS):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""


def _operands(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[int, torch.Tensor]]:
    for slot, value in enumerate((*args, *kwargs.values())):
        for tensor in leaves(value):
            yield slot, tensor
