"""The nodes that autograd runs backward: who made each of them, and what gradient went in and came out."""

from __future__ import annotations

import functools
import inspect
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from tensorscope.live.origins.ledger import key_of
from tensorscope.live.origins.numbers import count_bad, described
from tensorscope.live.tensors import leaves
from tensorscope.reports import Where

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tensorscope.live.origins.calls import Made
    from tensorscope.live.origins.ledger import Operands
    from tensorscope.run.origin import Culprit

_RERUN = "CheckpointFunction"  # runs a part of the forward again, and its backward within its own


@dataclass(slots=True)
class Passage:
    """A node, and the gradient that passed it.

    Attributes:
        node: autograd's.
        path: dotted path of the module that made it.
        made: the function's call that made it, None if no function was seen to.
        operands: what that call was given, where it cannot be asked again: in a part that backward itself runs.
        order: number of its turn in the backward pass, 0 before it.
        given: how many elements of each gradient that came out are not finite.
        taken: whether neither was the gradient that went in; not asked if all that came out is finite.
        gradient: what went in, of a node that made it non-finite.
    """

    node: Any
    path: str
    made: Made | None = None
    operands: Operands | None = None
    order: int = 0
    taken: bool = False
    given: tuple[int, ...] = ()
    gradient: Culprit | None = None

    @property
    def at_fault(self) -> bool:
        """Whether a finite gradient went in and another came out."""
        return bool(self.order) and not self.taken and any(self.given)

    @property
    def name(self) -> str:
        """The node's name, such as `SqrtBackward0`."""
        return str(self.node.name())

    @property
    def where(self) -> Where | None:
        """The user's line: of the call, or else of the user's own backward function."""
        forward = getattr(self.node, "_forward_cls", None)
        if forward is None:
            return self.made.where if self.made is not None else None
        try:
            lines, start = inspect.getsourcelines(forward.backward)
            file = inspect.getsourcefile(forward.backward) or ""
        except (OSError, TypeError):
            return None
        code = next((line.strip() for line in lines if line.strip().startswith("def ")), "")
        return Where(file, start + next(i for i, line in enumerate(lines) if line.strip() == code), code,
                     forward.backward.__qualname__.rpartition("<locals>.")[2]) if code else None  # fmt: skip


class Nodes:
    """All nodes that were seen."""

    def __init__(self) -> None:
        self._passages: dict[Any, Passage] = {}
        self._handles: list[Any] = []
        self._turn = 0

    def strangers(self, tensors: Iterable[torch.Tensor], path: str) -> None:
        """Operands whose nodes nobody was seen to make: they come from a function or a script of the user's own."""
        for node in self._new(tensors):
            self._passages[node] = self._watched(Passage(node, path))

    def made(self, result: object, made: Made, operands: Operands | None) -> None:
        """A function has returned; the nodes behind its result are its own."""
        for node in self._new(leaves(result)):
            self._passages[node] = self._watched(Passage(node, made.path, made, operands))

    def culprit(self, bad: set[int]) -> Passage | None:
        """The first node that a finite gradient went into and another came out of, on the way to some leaves.

        Args:
            bad: keys of the tensors whose gradients are not finite.
        """
        behind: dict[Any, list[Passage]] = defaultdict(list)
        ends = []
        for passage in self._passages.values():
            for (node, _), amount in zip(passage.node.next_functions, passage.given, strict=False):
                if node is not None and amount:
                    behind[node].append(passage)
                    ends += [node] * (key_of(node.variable) in bad if hasattr(node, "variable") else 0)
        seen: set[Any] = set()
        found: list[Passage] = []
        while ends:
            node = ends.pop()
            for passage in behind[node]:
                if passage.node not in seen:
                    seen.add(passage.node)
                    ends.append(passage.node)
                    found += [passage] * passage.at_fault
        earliest = min(found, key=lambda passage: passage.order, default=None)
        if earliest is None or _RERUN not in earliest.name:
            return earliest
        inside = [p for p in self._passages.values() if p.at_fault and p.order < earliest.order]
        inner = min(inside, key=lambda passage: passage.order, default=earliest)
        return replace(inner, path=inner.path or earliest.path)

    def again(self) -> None:
        """Another backward pass begins."""
        self._turn = 0
        for passage in self._passages.values():
            passage.order, passage.taken, passage.given, passage.gradient = 0, False, (), None

    def forget(self) -> None:
        """Take the hooks off the nodes, and let go of them."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._passages.clear()

    def _new(self, tensors: Iterable[torch.Tensor]) -> Iterator[Any]:
        """The nodes behind tensors, as far as they are not known."""
        ends = [tensor.grad_fn for tensor in tensors if tensor.requires_grad]
        while ends:
            node = ends.pop()
            if node is not None and node not in self._passages and not hasattr(node, "variable"):
                yield node
                ends += [before for before, _ in node.next_functions]

    def _watched(self, passage: Passage) -> Passage:
        self._handles.append(passage.node.register_hook(functools.partial(self._passed, passage)))
        return passage

    def _passed(self, passage: Passage, given: Any, taken: Any) -> None:
        with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes(), torch.no_grad():
            self._turn += 1
            passage.order = self._turn
            passage.given = tuple(count_bad(gradient) if gradient is not None else 0 for gradient in given)
            passage.taken = any(passage.given) and any(count_bad(g) for g in taken if g is not None)
            if passage.at_fault:
                passage.gradient = next((described("gradient", g) for g in taken if g is not None), None)
