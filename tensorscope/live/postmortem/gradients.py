"""Errors raised in the backward pass, and what the graph that autograd keeps says about a tensor."""

from __future__ import annotations

import ast
import inspect
import re
from collections import deque
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tensorscope.live.postmortem.source import written
from tensorscope.reports import Fix, Operand, OriginStep, shape_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tensorscope.live.postmortem.crash import Crash, Level

_MOST = 8  # nodes of the graph that are told
_CALLS = ("backward", "grad")
_SEED = r"grad_output\[\d\] has a shape of \S*?\[(.*?)\]\)? and output\[\d\] has a shape of \S*?\[(.*?)\]"


def autograd_chain(tensor: torch.Tensor, level: Level | None) -> Iterator[OriginStep]:
    """The operations that made a tensor, newest first, as autograd remembers them; layers by their weights."""
    paths = dict(_weights(level)) if level is not None else {}
    queue, seen = deque([tensor.grad_fn]), 0
    while queue and seen < _MOST:
        node: Any = queue.popleft()
        if node is None or hasattr(node, "variable"):
            continue
        if node.name() == "TBackward0":  # a layer's weight, turned
            continue
        seen += 1
        module = next(filter(None, (paths.get(id(_variable(n))) for n, _ in node.next_functions)), "")
        op = re.sub(r"Backward\d*$", "", node.name())
        op = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", op).lower()
        yield OriginStep(op, module, _made(node), module or op)
        queue.extend(n for n, _ in node.next_functions)


def _variable(node: Any) -> object:
    inner = getattr(node, "next_functions", ())
    if type(node).__name__ == "TBackward0" and inner:  # the weight of a linear layer is transposed first
        node = inner[0][0]
    return getattr(node, "variable", None)


def _made(node: Any) -> tuple[int, ...]:
    metadata = getattr(node, "_input_metadata", None)
    return tuple(int(size) for size in metadata[0].shape) if metadata else ()


def _weights(level: Level) -> Iterator[tuple[int, str]]:
    values = [*level.frame.f_globals.values(), *level.frame.f_locals.values()]
    for value in values:
        if isinstance(value, nn.Module):
            for path, parameter in value.named_parameters():
                yield id(parameter), path.rpartition(".")[0]


def of_backward(crash: Crash) -> dict[str, Any] | None:
    """What a report says about an error of the backward pass; None for any other error."""
    level = crash.scene
    node = level.place.node if level is not None else None
    if level is None or not isinstance(node, ast.Call) or written(node.func).rpartition(".")[2] not in _CALLS:
        return None
    message, root = str(crash.error), _root(level, node)
    text = written(node.func.value) if isinstance(node.func, ast.Attribute) else ""
    if "scalar outputs" in message and root is not None:
        title = f"`{written(node)}`: `{text}` is {shape_text(tuple(root.shape))}, and backward begins at one number"
        line = f"{level.place.file}:{level.place.line}"
        fixes = [Fix(f"`{text}.{name}().backward()`", scope="line", where=line) for name in ("mean", "sum")]
        return {"op": "backward", "title": title, "tensors": {text: root}, "fixes": tuple(fixes)}
    if said := re.search(_SEED, message):
        title = f"`{written(node)}`: the gradient is ({said[1]}) and `{text}` is ({said[2]})"
        fix = Fix(f"`{text}.backward(torch.ones_like({text}))`", scope="line")
        seed = written(node.args[0]) if node.args else "gradient"
        gradient = Operand(seed, _dims(said[1]), *_kind(root))
        tensors = {text: root} if root is not None else {}
        return {"op": "backward", "title": title, "tensors": tensors, "operands": (gradient,), "fixes": (fix,)}
    if said := re.search(r"Function (\w+) returned an invalid gradient at index (\d+) - (.*)", message):
        name = re.sub(r"Backward\d*$", "", said[1])
        title = f"`{name}.backward` returns a gradient of another shape than its argument {said[2]}: {said[3]}"
        notes = tuple(f"`{name}` is at {place}" for place in _class_at(root, said[1]))
        return {"op": "backward", "title": title, "tensors": {text: root} if root is not None else {}, "notes": notes}
    return None


def of_checkpoint(crash: Crash) -> dict[str, Any] | None:
    """What a report says about a checkpoint whose weights have other shapes; None for any other error."""
    found = re.findall(
        r"size mismatch for (\S+): .*?shape torch.Size\(\[(.*?)\]\).*?torch.Size\(\[(.*?)\]\)", str(crash.error)
    )
    if not found:
        return None
    name, saved, own = found[0]
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    title = f"`{name}` is ({saved}) in the checkpoint and ({own}) in the model{more}"
    pairs = (("in the checkpoint", saved), ("in the model", own))
    operands = tuple(Operand(f"{name} {where}", _dims(dims), "", "") for where, dims in pairs)
    return {"op": "load_state_dict", "title": title, "tensors": {}, "operands": operands}


def _dims(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(",") if size.strip())


def _kind(tensor: torch.Tensor | None) -> tuple[str, str]:
    return (str(tensor.dtype).removeprefix("torch."), str(tensor.device)) if tensor is not None else ("", "")


def _root(level: Level, node: ast.Call) -> torch.Tensor | None:
    """The tensor that backward is called on."""
    subject = node.func.value if isinstance(node.func, ast.Attribute) else None
    if isinstance(subject, ast.Name):
        value = level.frame.f_locals.get(subject.id, level.frame.f_globals.get(subject.id))
        return value if isinstance(value, torch.Tensor) else None
    return None


def _class_at(root: torch.Tensor | None, name: str) -> Iterator[str]:
    """Where the function of the user's own is written whose backward node has a name."""
    queue: deque[Any] = deque([root.grad_fn if root is not None else None])
    seen: set[object] = set()
    while queue and len(seen) < 10_000:
        node = queue.popleft()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == name and hasattr(node, "_forward_cls"):
            try:
                file, (_, line) = inspect.getsourcefile(node._forward_cls), inspect.getsourcelines(node._forward_cls)
            except (OSError, TypeError):
                return
            yield f"{file}:{line}"
            return
        queue.extend(n for n, _ in node.next_functions)
