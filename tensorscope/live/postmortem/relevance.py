"""Tells errors about shapes, dtypes and devices of tensors from all others."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import torch

from tensorscope.errors import ShapeError
from tensorscope.live.postmortem.crash import is_torchs

if TYPE_CHECKING:
    from tensorscope.live.postmortem.crash import Crash

_KINDS = (RuntimeError, IndexError, ValueError, AssertionError, TypeError, NotImplementedError)
# What torch says about shapes, dtypes, devices, indices and memory order; Python about unpacking a shape.
_SAYS = re.compile(
    r"sizes?\b|\bmatri(x|ces)\b|\bvectors?\b|\b(columns|rows)\b|\bshapes?\b|\bdim(s|ension|ensions|ensional|ensionality)?\b|\d-?D\b|\bmat1\b|broadcast|\bchannels?\b"
    r"|out of (bounds|range)|stride|contiguous|dtype|scalar type|data type|device|not implemented for|normalized_shape"
    r"|embedding dimension|embed_dim|\bfeatures\b|num_heads|too many indices|values to unpack|to be expanded|split_sizes"
    r"|batch|subscript|einsum|einstein|kernel|\brank\b|0-d|elements?\b|unflatten|\bpad(ding)?\b|targets?\b|Class values"
    r"|\bindex\b|indices|Tensor on|Float(Tensor)?\b|\bLong\b|\bHalf\b|\bDouble\b|scalar outputs|invalid gradient"
    r"|zero-dimensional|can't be cast|bool tensor|Boolean value of Tensor|src_length|tgt_len|lengths?\b|divisible|ambiguous",
    re.I,
)
_NOT = re.compile(
    r"does not require grad|modified by an inplace|second time|out of memory|can't allocate|list index|list assignment"
    r"|unexpected keyword|required positional|No such file|not JSON|pickle|positional arguments? but"
    r"|Expected object of (python )?type|takes \d+ positional|leaf Variable|already been freed|CUDA (error|driver)"
    r"|invalid literal|has no attribute|storage that require|view of a leaf|in-place operation|dataloader|DataLoader worker",
    re.I,
)
_PARTING = {"chunk", "split", "unbind", "tensor_split", "split_with_sizes"}


def is_about_tensors(crash: Crash) -> bool:
    """Whether an error is one that tensors' shapes, dtypes, devices or index ranges explain."""
    error = crash.error
    if isinstance(error, ShapeError):
        return True
    if not isinstance(error, _KINDS) or not crash.levels or isinstance(error, (RecursionError, UnicodeError)):
        return False
    text = str(error)
    if not _SAYS.search(text) or _NOT.search(text):
        return False
    last = crash.levels[-1]
    if is_torchs(last.place.file):
        return True
    return _is_torchs_doing(crash)


def _is_torchs_doing(crash: Crash) -> bool:
    """Whether a line of the user's own was refused by a tensor, rather than by Python or by itself."""
    last, text = crash.levels[-1], str(crash.error)
    node, statement = last.place.node, last.place.statement
    if isinstance(statement, ast.Raise | ast.Assert) and not isinstance(node, ast.Call | ast.BinOp | ast.Subscript):
        return False
    if isinstance(statement, ast.Raise) and isinstance(node, ast.Call) and statement.exc is node:
        return False
    if "values to unpack" in text or "tuple index out of range" in text:
        around = statement if statement is not None else node
        return around is not None and (_mentions_shape(around) or _unpacks_tensor(crash, around))
    names = {n.id for n in ast.walk(node or ast.Pass()) if isinstance(n, ast.Name)}
    values = [last.frame.f_locals.get(name, last.frame.f_globals.get(name)) for name in names]
    return node is None or any(_is_torch_value(value) for value in values)


def _mentions_shape(node: ast.AST) -> bool:
    return any(isinstance(n, ast.Attribute) and n.attr in ("shape", "size") for n in ast.walk(node))


def _unpacks_tensor(crash: Crash, node: ast.AST) -> bool:
    value = getattr(node, "value", None)
    frame = crash.levels[-1].frame
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in _PARTING:
        return True
    known = frame.f_locals.get(value.id) if isinstance(value, ast.Name) else None
    return isinstance(known, torch.Tensor | torch.Size) or (isinstance(known, tuple) and _is_torch_value(known))


def _is_torch_value(value: object) -> bool:
    if isinstance(value, torch.Tensor | torch.nn.Module | torch.Size):
        return True
    if isinstance(value, list | tuple | dict):
        entries = value.values() if isinstance(value, dict) else value
        return any(isinstance(entry, torch.Tensor) for entry in list(entries)[:64])
    name = getattr(value, "__name__", "") if type(value).__name__ == "module" else getattr(value, "__module__", "")
    return str(name).split(".")[0] == "torch"
