"""The functions that a pass calls: in which module, at which line, and what its operands are called there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.overrides import handle_torch_function

from tensorscope.live.postmortem.calls import read_call, spoken
from tensorscope.reports import Where

if TYPE_CHECKING:
    from types import FrameType

    import torch

    from tensorscope.live.postmortem.source import Place

# aten's and autograd's names of operations → the functions that users know.
_KNOWN_AS = {
    "addmm": "linear",
    "linalg_vector_norm": "norm",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "native_batch_norm": "batch_norm",
    "native_batch_norm_legit": "batch_norm",
    "cudnn_batch_norm": "batch_norm",
    "true_divide": "div",
    "convolution": "conv",
    "safe_softmax": "softmax",
    "native_dropout": "dropout",
}


@dataclass(slots=True)
class Made:
    """A function's call.

    Attributes:
        op: the name that users know it by.
        path: dotted path of the module that was running.
        place: the user's code that was running, None if none was.
        direct: whether that code calls it itself.
        composed: whether it is one of torch's functions that are written in Python out of others.
        number: how many functions were called before it.
        operations: how many operations it has run that compute anything.
        args: its positional arguments, while it runs.
        kwargs: its keyword arguments, while it runs.
        func: the function, while it runs.
    """

    op: str
    path: str
    place: Place | None
    direct: bool = False
    composed: bool = False
    number: int = 0
    operations: int = 0
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] | None = None
    func: Any = None

    @property
    def where(self) -> Where | None:
        """The user's line."""
        place = self.place
        if place is None:
            return None
        return Where(place.file, place.line, place.text, place.code.co_qualname.rpartition("<locals>.")[2])

    def titled(self, inner: str) -> tuple[str, str]:
        """The name of an operation of this call, and the function it is in if that is made of several operations."""
        inner = plain(inner)
        if not self.op:
            return inner, ""
        several = self.composed and self.operations > 1 and inner != self.op
        return (inner, self.op) if several else (self.op, "")

    def names(self) -> list[tuple[torch.Tensor, str]]:
        """The tensors that it was given, and what the user's line calls them; to be asked while it runs."""
        if self.func is None:
            return []
        call = read_call(self.func, self.op, self.args, self.kwargs or {})
        texts = spoken(self.place.node, call) if self.place is not None and self.direct else {}
        return [(tensor, texts.get(role, role)) for role, tensor in call.tensors().items()]

    def ended(self) -> None:
        """Let go of the arguments."""
        self.args, self.kwargs, self.func = (), None, None


def called_from(frame: FrameType) -> FrameType | None:
    """The frame that calls a function, given the one that calls its override."""
    if frame.f_code is not handle_torch_function.__code__:
        return frame
    return frame.f_back.f_back if frame.f_back is not None else None  # between them is the function itself


def plain(name: str) -> str:
    """A name as users know it, of aten's `_softmax` or autograd's `NativeLayerNormBackward0`."""
    name = name.rpartition("::")[2]
    if found := re.fullmatch(r"(\w+?)Backward\d*", name):
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", found[1]).lower()
    name = name.strip("_")
    if name.startswith("scaled_dot_product"):
        return "scaled_dot_product_attention"
    return _KNOWN_AS.get(name, name)
