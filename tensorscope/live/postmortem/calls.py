"""What the arguments of a failed call are called, and how one of them is changed."""

from __future__ import annotations

import ast
import functools
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from tensorscope.live.postmortem.source import written
from tensorscope.live.tensors import leaves
from tensorscope.reports import Operand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Slot = tuple[int | str, ...]  # position or keyword of an argument, then the position inside of a list
_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_NAMES = {
    "linear": ("input", "weight", "bias"),
    "bilinear": ("input1", "input2", "weight", "bias"),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _CONV),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _TRANSPOSED),
    "addmm": ("input", "mat1", "mat2"),
    "addmv": ("input", "mat", "vec"),
    "baddbmm": ("input", "batch1", "batch2"),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"), ("tensors", "dim")),
    **dict.fromkeys(("gather", "index_select", "take_along_dim"), ("input", "dim", "index")),
    "take_along_dim": ("input", "index", "dim"),
    "scatter": ("input", "dim", "index", "src"),
    "scatter_": ("input", "dim", "index", "src"),
    "scatter_reduce": ("input", "dim", "index", "src"),
    "scatter_add": ("input", "dim", "index", "src"),
    "scatter_add_": ("input", "dim", "index", "src"),
    "index_add": ("input", "dim", "index", "source"),
    "masked_fill": ("input", "mask", "value"),
    "masked_fill_": ("input", "mask", "value"),
    "masked_select": ("input", "mask"),
    "where": ("condition", "input", "other"),
    "getitem": ("input", "index"),
    "setitem": ("input", "index", "value"),
    "scaled_dot_product_attention": ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale"),
    "lerp": ("input", "end", "weight"),
    "batch_norm": ("input", "running_mean", "running_var", "weight", "bias"),
}
_SELF_AND_SHAPE = ("view", "reshape", "expand", "permute", "repeat", "tile", "new_zeros")


@dataclass(frozen=True, slots=True)
class Call:
    """A torch function's call with its arguments by name.

    Attributes:
        op: the function's name.
        roles: name → value; the tensors of a list are `tensors[0]` and so on.
        slots: name → where it stands among the arguments.
        texts: name → what the user's line calls it.
    """

    op: str
    roles: dict[str, Any]
    slots: dict[str, Slot]
    texts: dict[str, str] = field(default_factory=dict)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Name → tensor."""
        return {name: value for name, value in self.roles.items() if isinstance(value, torch.Tensor)}

    def tensor(self, *names: str) -> torch.Tensor | None:
        """The first of some arguments that is a tensor."""
        return next((self.roles[n] for n in names if isinstance(self.roles.get(n), torch.Tensor)), None)

    def text(self, name: str) -> str:
        """What to call an argument in a sentence."""
        return self.texts.get(name, name)

    def without_self(self, op: str) -> Call:
        """The call of a method as its caller wrote it, under the name of its operation."""
        slots: dict[str, Slot] = {
            name: (slot[0] - 1, *slot[1:]) if isinstance(slot[0], int) else slot for name, slot in self.slots.items()
        }
        return Call(op, {n: v for n, v in self.roles.items() if n != "self"}, slots)


def operand(name: str, tensor: torch.Tensor) -> Operand:
    """A tensor, as a report keeps it."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    sizes = () if tensor.is_nested else tuple(int(size) for size in tensor.shape)
    return Operand(name, sizes, dtype, str(tensor.device))


def read_call(func: Any, op: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Name the arguments of a torch function's call."""
    names = _names(func, op, len(args))
    roles: dict[str, Any] = {}
    slots: dict[str, Slot] = {}
    pairs: list[tuple[str, int | str, Any]] = [(names(i), i, value) for i, value in enumerate(args)]
    for name, slot, value in [*pairs, *((key, key, value) for key, value in kwargs.items())]:
        if isinstance(value, list | tuple) and value and any(isinstance(entry, torch.Tensor) for entry in value):
            for index, entry in enumerate(value):
                roles[f"{name}[{index}]"], slots[f"{name}[{index}]"] = entry, (slot, index)
            if name == "operands":
                continue
        roles[name], slots[name] = value, (slot,)
    if getattr(func, "__name__", "").startswith("__r") and {"input", "other"} <= roles.keys():
        roles["input"], roles["other"] = roles["other"], roles["input"]
        slots["input"], slots["other"] = slots["other"], slots["input"]
    return Call(op, roles, slots)


def _names(func: Any, op: str, count: int) -> Callable[[int], str]:
    if op == "einsum":
        return lambda index: "equation" if index == 0 else f"operands[{index - 1}]"
    known = _NAMES.get(op) or _signature(func)
    if known is None and op in _SELF_AND_SHAPE:
        known = ("input", "shape")
    if known is None:
        known = ("input", "other")
    called = tuple("input" if name == "self" else name for name in known) if op else known
    return lambda index: called[index] if index < len(called) else f"argument {index + 1}"


@functools.lru_cache(maxsize=256)
def _signature(func: Any) -> tuple[str, ...] | None:
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):
        return None
    return tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)) or None


def changed(
    slot: Slot, change: Callable[[Any], Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with one of them changed."""
    key, *inner = slot
    value = args[key] if isinstance(key, int) else kwargs[key]
    if inner:
        entries = list(value)
        entries[int(inner[0])] = change(entries[int(inner[0])])
        new: Any = type(value)(entries)
    else:
        new = change(value)
    if isinstance(key, int):
        return (*args[:key], new, *args[key + 1 :]), kwargs
    return args, kwargs | {key: new}


def spoken(node: ast.AST | None, call: Call) -> dict[str, str]:
    """What the user's expression calls the arguments, where it makes the call itself."""
    return {name: text for name, text in _spoken(node, call) if len(text) <= 40}


def _spoken(node: ast.AST | None, call: Call) -> Iterator[tuple[str, str]]:
    pairs: dict[type, tuple[str, str, str, str]] = {
        ast.BinOp: ("input", "left", "other", "right"),
        ast.AugAssign: ("input", "target", "other", "value"),
        ast.Subscript: ("input", "value", "index", "slice"),
    }
    if type(node) in pairs:
        one, left, other, right = pairs[type(node)]
        yield from ((one, written(getattr(node, left))), (other, written(getattr(node, right))))
    elif isinstance(node, ast.Call):
        yield from _arguments(node, call)


def _arguments(node: ast.Call, call: Call) -> Iterator[tuple[str, str]]:
    values = list(node.args)
    if isinstance(node.func, ast.Attribute) and _is_method(node, call):
        values.insert(0, node.func.value)
    by_slot: dict[Slot, ast.expr] = {(index,): value for index, value in enumerate(values)}
    by_slot |= {(keyword.arg,): keyword.value for keyword in node.keywords if keyword.arg}
    for slot, value in list(by_slot.items()):
        if isinstance(value, ast.List | ast.Tuple):
            by_slot |= {(*slot, index): entry for index, entry in enumerate(value.elts)}
    if any(isinstance(value, ast.Starred) for value in by_slot.values()):
        return
    for name, slot in call.slots.items():
        if slot in by_slot:
            yield name, written(by_slot[slot])
        elif isinstance(by_slot.get(slot[:1]), ast.Name):
            yield name, f"{written(by_slot[slot[:1]])}[{slot[-1]}]"


def _is_method(node: ast.Call, call: Call) -> bool:
    """Whether `x.gather(1, i)` rather than `torch.gather(x, 1, i)` was written."""
    function = node.func
    while isinstance(function, ast.Attribute):
        function = function.value
    is_library = isinstance(function, ast.Name) and function.id in {"torch", "F", "nn", "functional"}
    return not is_library and any(True for _ in leaves(next(iter(call.roles.values()), None)))
