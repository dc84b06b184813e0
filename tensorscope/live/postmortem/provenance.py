"""Follows a program's tensors, operation by operation, and says where every axis of each came from."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tensorscope.live.postmortem import (
    follow_elementwise,
    follow_indexing,
    follow_joins,
    follow_products,
    follow_views,
    follow_windows,
)
from tensorscope.live.postmortem.axes import Axes, Axis, InputAxis, Kind
from tensorscope.live.postmortem.follow_elementwise import by_default, sizes
from tensorscope.live.postmortem.follow_operation import Operation
from tensorscope.live.postmortem.follow_weights import weight_axes
from tensorscope.live.tensors import leaves
from tensorscope.live.transcript import name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tensorscope.live.postmortem.follow_operation import Follow

RULES: dict[str, Follow] = {
    **follow_elementwise.RULES,
    **follow_products.RULES,
    **follow_windows.RULES,
    **follow_views.RULES,
    **follow_joins.RULES,
    **follow_indexing.RULES,
}
_RESHAPING = ("squeeze_", "unsqueeze_", "transpose_", "t_", "swapaxes_", "swapdims_")  # in place


class Provenance:
    """Where the axes of a program's tensors came from.

    It keeps no tensor alive and looks at shapes only.

    Args:
        model: the model that runs; its layers are then called by their path.

    Attributes:
        names: what a reader calls the inputs' axes.
        error: the last failure of a rule, for whoever looks for mistakes in the rules themselves.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        self.names: dict[InputAxis, str] = {}
        self.error: Exception | None = None
        self._seen: dict[int, tuple[weakref.ref[torch.Tensor], Axes, int | None]] = {}
        self._asked: dict[str, dict[int, dict[Axis, int]]] = {}  # module → size → axes that had it when asked
        self._layers = (
            {path for path, module in model.named_modules() if is_layer(module)} if model is not None else set()
        )

    def given(self, name: str, tensor: torch.Tensor, names: tuple[str, ...] = ()) -> None:
        """An argument of the program."""
        keys = [InputAxis(name, index) for index in range(tensor.ndim)]
        if len(names) == len(keys):
            self.names.update({key: said for key, said in zip(keys, names, strict=True) if said})
        self._keep(
            tensor,
            tuple(
                Axis(size, Kind.INPUT, self.names.get(key, str(key)), source=key)
                for key, size in zip(keys, tensor.shape, strict=True)
            ),
            None,
        )

    def weight(self, path: str, tensor: torch.Tensor, owner: nn.Module | None) -> None:
        """A parameter or buffer of the program.

        Args:
            path: such as `conv2.weight`.
            tensor: the parameter or buffer.
            owner: the module that it belongs to.
        """
        if self._known(tensor) is None:
            self._keep(tensor, weight_axes(path, tuple(tensor.shape), owner), None)
        if owner is not None and is_layer(owner):
            self._layers.add(path.rpartition(".")[0])

    def follow(
        self, step: int, module: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        """Follow the axes through one call of a torch function; what it asks a tensor for is told as well.

        Args:
            step: number of the call.
            module: dotted path of the module in which it ran.
            func: the function.
            args: its arguments.
            kwargs: its named arguments.
            result: what it returned.
        """
        op = name_of(func)
        try:
            if op in {"shape", "size", "len"}:
                self._ask(module, op, args, kwargs)
            else:
                self._follow(Operation(op, func, args, kwargs, [], step, module, self), result)
        except Exception as error:  # noqa: BLE001  (our own looking on must not stop the program)
            self.error = error.with_traceback(None)

    def axes(self, tensor: Any) -> Axes:
        """One axis for each of the tensor's; unknown ones for a tensor that was never seen."""
        known = self._known(tensor)
        if known is not None and sizes(known[1]) == tuple(tensor.shape):
            return known[1]
        axes = tuple(Axis(size, Kind.UNKNOWN, "a tensor made elsewhere") for size in tensor.shape)
        self._keep(tensor, axes, None)
        return axes

    def maker(self, tensor: torch.Tensor) -> int | None:
        """The step that made this tensor, or changed it in place last; `x[…] = …` does not count."""
        known = self._known(tensor)
        return known[2] if known is not None else None

    # -- what the rules ask ------------------------------------------------------------------------------------------

    def asked(self, size: int, module: str) -> Mapping[Axis, int]:
        """The axes whose size the program asked for and got this number, with their places in the tensors asked.

        Asked for in the module, or else in the next one around it that asked for any such size.
        """
        while size > 0:
            if found := self._asked.get(module, {}).get(size):
                return found
            if not module:
                break
            module = module.rpartition(".")[0]
        return {}

    def called(self, op: str, module: str) -> str:
        """What a reader calls an operation: the layer that runs it, or else its own name."""
        named = module in self._layers and not module.isdigit() and module
        return named or op.removesuffix("_with_indices")

    def name_inputs(self, axes: Axes, names: Sequence[str]) -> None:
        """Name those axes that are an input's and have no name yet."""
        for axis, name in zip(axes, names, strict=False):
            if axis.source is not None and axis.source not in self.names:
                self.names[axis.source] = name
                axis.rename(name)

    # -- how it is kept ----------------------------------------------------------------------------------------------

    def _follow(self, call: Operation, result: Any) -> None:
        results = [result] if isinstance(result, torch.Tensor) else list(leaves(result))
        call.shapes = [tuple(tensor.shape) for tensor in results]
        if not results:
            return
        if call.op.endswith("_") and any(tensor is results[0] for tensor in leaves(call.args[:1])):
            self._write(call, results[0])
        else:
            for tensor, axes in zip(results, self._found(call), strict=True):
                self._keep(tensor, axes, call.step)

    def _write(self, call: Operation, tensor: torch.Tensor) -> None:
        """An operation in place: its target keeps its axes unless it is their order that changes."""
        known = self._known(tensor)
        before = known[1] if known is not None else ()
        if call.op in _RESHAPING and known is not None:
            call.op, call.known = call.op[:-1], _Before(self, tensor, before)
            self._keep(tensor, self._found(call)[0], call.step)
        else:
            self._keep(tensor, self.axes(tensor), call.step)

    def _found(self, call: Operation) -> list[Axes]:
        """The axes of all results: by the rule, and by default where it does not cover them."""
        rule = RULES.get(call.op, by_default)
        try:
            found = rule(call)
            if [sizes(axes) for axes in found] == call.shapes:
                return found
            self.error = ValueError(f"{call.op}: {[sizes(axes) for axes in found]} for {call.shapes}")
        except Exception as error:  # noqa: BLE001  (no rule knows every way to call a function)
            self.error = error.with_traceback(None)
        return by_default(call)

    def _ask(self, module: str, op: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        axes = self.axes(args[0])
        dim = 0 if op == "len" else (args[1] if len(args) > 1 else kwargs.get("dim"))
        for index in range(len(axes)) if dim is None else (dim % len(axes),):
            self._asked.setdefault(module, {}).setdefault(axes[index].size, {}).setdefault(axes[index], index)

    def _known(self, tensor: torch.Tensor) -> tuple[weakref.ref[torch.Tensor], Axes, int | None] | None:
        known = self._seen.get(id(tensor))
        # The number of a tensor that is gone may have been given to another one.
        return known if known is not None and known[0]() is tensor else None

    def _keep(self, tensor: torch.Tensor, axes: Axes, step: int | None) -> None:
        self._seen[id(tensor)] = (weakref.ref(tensor), axes, step)


class _Before:
    """What is known, with one tensor's axes as they were before it changed its shape."""

    def __init__(self, provenance: Provenance, tensor: torch.Tensor, axes: Axes) -> None:
        self.provenance, self.tensor, self.before = provenance, tensor, axes

    def axes(self, tensor: Any) -> Axes:
        """The axes of a tensor."""
        return self.before if tensor is self.tensor else self.provenance.axes(tensor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.provenance, name)


def is_layer(module: nn.Module) -> bool:
    """Whether a module is one of torch's own layers, which a reader knows by the name it was given."""
    return type(module).__module__.startswith("torch.nn.") and not isinstance(
        module, nn.Sequential | nn.ModuleList | nn.ModuleDict
    )
