"""Tells errors about shapes, dtypes and devices of tensors from all others."""

from __future__ import annotations

import ast
import re
from types import ModuleType
from typing import TYPE_CHECKING

import torch

from tensorscope.errors import ShapeError
from tensorscope.live.postmortem.crash import is_torchs

if TYPE_CHECKING:
    from tensorscope.live.postmortem.crash import Crash

_KINDS = (RuntimeError, IndexError, ValueError, AssertionError, TypeError, NotImplementedError)
# What torch says about shapes, dtypes, devices, indices and memory order; Python about unpacking a shape.
_SAYS = (
    *(r"sizes?\b", r"\bshapes?\b", r"\bdim(s|ension|ensions|ensional|ensionality)?\b", r"\d-?D\b", r"\brank\b", r"0-d"),
    *(r"\bmatri(x|ces)\b", r"\bvectors?\b", r"\b(columns|rows)\b", r"\bmat1\b", r"elements?\b", r"zero-dimensional"),
    *(r"broadcast", r"to be expanded", r"\bchannels?\b", r"kernel", r"\bpad(ding)?\b", r"stride", r"contiguous"),
    *(r"out of (bounds|range)", r"\bindex\b", r"indices", r"too many indices", r"Class values", r"targets?\b"),
    *(r"values to unpack", r"split_sizes", r"unflatten", r"divisible", r"subscript", r"einsum", r"einstein"),
    *(r"normalized_shape", r"embedding dimension", r"embed_dim", r"d_model", r"\bfeatures?\b", r"num_heads", r"batch"),
    *(r"src_length", r"tgt_len", r"lengths?\b", r"dtype", r"scalar type", r"data type", r"not implemented for"),
    *(
        r"Float(Tensor)?\b",
        r"\bLong\b",
        r"\bHalf\b",
        r"\bDouble\b",
        r"can't be cast",
        r"bool tensor",
        r"device",
        r"Tensor on",
    ),
    *(r"Boolean value of Tensor", r"ambiguous", r"scalar outputs", r"invalid gradient"),
)
_NOT = (
    *(r"does not require grad", r"modified by an inplace", r"second time", r"already been freed", r"leaf Variable"),
    *(r"view of a leaf", r"in-place operation", r"storage that require", r"probability tensor contains"),
    *(r"out of memory", r"can't allocate", r"CUDA (error|driver)", r"dataloader", r"DataLoader worker", r"pickle"),
    *(r"list index", r"list assignment", r"^index \d+ is out of range$", r"invalid literal", r"has no attribute"),
    *(r"unexpected keyword", r"required positional", r"positional arguments? but", r"takes \d+ positional"),
    *(r"singular", r"satisfy the constraint", r"invalid combination of arguments", r"invalid data type"),
    *(r"must be (tuple of ints|int|Tensor|Number|bool|str)[^.]*, (not|but got)", r"failed to unpack the object"),
    *(r"should be a positive", r"should be defined", r"device string", r"named? dimension", r"'str' object"),
    *(r"Expected object of (python )?type", r"too many dimensions '", r"No such file", r"not JSON"),
    r"Error\(s\) in loading state_dict(?!.*size mismatch)",
)
_ABOUT, _ELSE = (re.compile("|".join(words), re.I | re.S) for words in (_SAYS, _NOT))
_PARTING = {"chunk", "split", "unbind", "tensor_split", "split_with_sizes"}


def is_about_tensors(crash: Crash) -> bool:
    """Whether an error is one that tensors' shapes, dtypes, devices or index ranges explain."""
    error = crash.error
    if isinstance(error, ShapeError):
        return True
    if not isinstance(error, _KINDS) or not crash.levels or isinstance(error, (RecursionError, UnicodeError)):
        return False
    text = str(error)
    if not _ABOUT.search(text) or _ELSE.search(text):
        return False
    last = crash.levels[-1]
    if is_torchs(last.place.file):
        return "values to unpack" not in text or _mentions_shape(last.place.statement or ast.Pass())
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
    value = getattr(node, "value", getattr(node, "iter", None))
    frame = crash.levels[-1].frame
    while isinstance(value, ast.Call | ast.Attribute | ast.Subscript):
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in _PARTING:
            return True
        value = value.func if isinstance(value, ast.Call) else value.value
    known = frame.f_locals.get(value.id, frame.f_globals.get(value.id)) if isinstance(value, ast.Name) else None
    if isinstance(known, tuple | ModuleType):
        return _is_torch_value(known)
    return isinstance(known, torch.Tensor | torch.nn.Module)


def _is_torch_value(value: object) -> bool:
    if isinstance(value, torch.Tensor | torch.nn.Module | torch.Size):
        return True
    if isinstance(value, list | tuple | dict):
        entries = value.values() if isinstance(value, dict) else value
        return any(isinstance(entry, torch.Tensor) for entry in list(entries)[:64])
    name = getattr(value, "__name__", "") if type(value).__name__ == "module" else getattr(value, "__module__", "")
    return str(name).split(".")[0] == "torch"
