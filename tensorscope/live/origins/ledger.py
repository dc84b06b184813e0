"""Follows non-finite numbers through a forward: each storage that holds some knows where they came from.

An infinity may be meant: the −Inf of an attention mask does no harm before a softmax. So infinities that a program
writes down itself, `masked_fill(…, -inf)`, are told from those that an operation made of finite numbers, and what turns
a meant infinity into NaN is to blame rather than what wrote it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from tensorscope.live.origins.calls import Made
from tensorscope.live.origins.numbers import State, count_bad, described, is_mask, state_of
from tensorscope.live.tensors import leaves
from tensorscope.run.origin import Direction, Origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tensorscope.run.origin import Culprit

# They overwrite what was there, so that it is none of their operands.
_OVERWRITES = {"copy_", "fill_", "zero_", "uniform_", "normal_", "exponential_", "bernoulli_", "random_", "log_normal_",
               "cauchy_", "geometric_", "set_", "resize_"}  # fmt: skip
# Memory that nobody has written to yet holds anything.
_UNWRITTEN = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted"}
_SOFTMAX = ("softmax", "logsumexp", "attention")  # where −Inf means: leave this out


@dataclass(frozen=True, slots=True)
class Root:
    """Where non-finite numbers came from.

    Attributes:
        order: number of the operation at which they came up.
        meant: whether the program wrote them down itself, as infinities.
        made: the operation that made them, None for tensors that the pass was given.
        culprits: what it was given, or the tensor itself.
        nonfinite: how many came out.
        inner: the operation's own name, which the call of a function may consist of several of.
        given: what kind of tensor held them from the start, None if an operation made them.
    """

    order: int
    meant: bool
    made: Made | None
    culprits: tuple[Culprit, ...]
    nonfinite: int
    inner: str = ""
    given: Direction | None = None

    def origin(self) -> Origin:
        """The same in plain data."""
        if self.given is not None:
            owner = self.culprits[0].name.rpartition(".")[0] if self.given is Direction.PARAMETER else ""
            return Origin(self.given, owner, culprits=self.culprits, nonfinite=self.nonfinite)
        made = self.made or Made("", "", None)
        op, within = made.titled(self.inner)
        return Origin(Direction.FORWARD, made.path, op, within, made.where, self.culprits, self.nonfinite)


@dataclass(slots=True)
class _Trouble:
    """Where a storage's NaN and its infinities came from; the storage is kept, so that no other takes its number."""

    storage: torch.UntypedStorage
    nan: Root | None = None
    inf: Root | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """An operand as an operation takes it: what it masks away does not count."""

    role: str
    tensor: torch.Tensor
    state: State
    culprit: Culprit | None


@dataclass(frozen=True, slots=True)
class Operands:
    """What a function was given.

    Attributes:
        culprits: its tensors.
        root: where non-finite numbers among them came from.
    """

    culprits: tuple[Culprit, ...] = ()
    root: Root | None = None


class Ledger:
    """Told of every operation; knows where each storage's non-finite numbers came from.

    Attributes:
        order: number of the operation under way.
    """

    def __init__(self) -> None:
        self._troubles: dict[int, _Trouble] = {}
        self._given: dict[int, tuple[Direction, str, torch.Tensor]] = {}
        self.order = 0

    def give(self, direction: Direction, name: str, tensor: torch.Tensor) -> None:
        """The pass is given a tensor: an input, a parameter or a buffer."""
        if (key := key_of(tensor)) is not None:
            self._given.setdefault(key, (direction, name, tensor))

    def name_of(self, tensor: torch.Tensor) -> str:
        """The name of a tensor that the pass was given, or of what it looks at; empty for any other."""
        key = key_of(tensor)
        return self._given[key][1] if key in self._given else ""

    def operands(self, made: Made) -> Operands:
        """What a function is about to be given."""
        named = {id(tensor): (tensor, name) for tensor, name in reversed(made.names())}
        pairs = [(name if made.direct else self.name_of(t) or name, t) for t, name in reversed(named.values())]
        states = [(tensor, state_of(tensor)) for _, tensor in pairs]
        roots = [self.root(tensor, state, kind) for tensor, state in states for kind in ("nan", "inf")]
        return Operands(tuple(described(name, tensor) for name, tensor in pairs), first(roots))

    def before(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Taken]:
        """Look at the operands that an operation is about to overwrite, while they are there."""
        if not func._schema.is_mutable or _name(func) in _OVERWRITES:
            return []
        written = [(role, tensor) for role, tensor, writes in _operands(func, args, kwargs) if writes and role != "out"]
        seen = [(role, _effective(func, args, tensor), tensor) for role, tensor in written]
        return [Taken(role, tensor, state_of(part), described(role, tensor)) for role, part, tensor in seen]

    def after(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        taken: list[Taken],
        made: Made | None,
    ) -> None:
        """An operation has run; its result may hold what is not finite."""
        self.order += 1
        if func.is_view or _name(func) in _UNWRITTEN:
            return
        results = [*leaves(result), *(tensor for _, tensor, writes in _operands(func, args, kwargs) if writes)]
        bad = {id(tensor): state for tensor in results if (state := state_of(tensor)).bad}
        operands = [*taken, *_read(func, args, kwargs)] if bad else []
        here = _Here(self, func, (args, kwargs), operands, made)
        found = [here.roots(state_of(t), t) if id(t) in bad else (None, None) for t in results]
        for tensor, (nan, inf) in zip(results, found, strict=True):
            self._write(tensor, nan, inf)

    def roots(self, tensors: list[torch.Tensor]) -> list[Root]:
        """Where the non-finite numbers of tensors came from: NaN before infinities, those that were meant last."""
        states = [(tensor, state_of(tensor)) for tensor in tensors]
        found = (first(self.root(tensor, state, kind) for tensor, state in states) for kind in ("nan", "inf"))
        return sorted((root for root in found if root is not None), key=lambda root: root.meant)

    def root(self, tensor: torch.Tensor, state: State, kind: str) -> Root | None:
        """Where a tensor's NaN or its infinities came from; None if it has none."""
        if not getattr(state, kind):
            return None
        key = key_of(tensor)
        trouble = self._troubles.get(key) if key is not None else None
        known = getattr(trouble, kind) if trouble is not None else None
        return known if known is not None else self._leaf(tensor, state, kind)

    def _leaf(self, tensor: torch.Tensor, state: State, kind: str) -> Root:
        """The tensor itself, which no operation of this pass has made."""
        direction, name, whole = self._given.get(key_of(tensor) or 0, (None, "", tensor))
        meant = kind == "inf" and (direction is None or (not state.plus and is_mask(whole)))
        one = described(name, whole)
        return Root(self.order, meant, None, (one,), one.nonfinite, given=direction)

    def _write(self, tensor: torch.Tensor, nan: Root | None, inf: Root | None) -> None:
        key = key_of(tensor)
        if key is None:
            return
        if key in self._troubles and tensor.numel() * tensor.element_size() >= tensor.untyped_storage().nbytes():
            del self._troubles[key]  # all of it was overwritten
        if nan is not None or inf is not None:
            trouble = self._troubles.setdefault(key, _Trouble(tensor.untyped_storage()))
            trouble.nan, trouble.inf = first((trouble.nan, nan)), first((trouble.inf, inf))


@dataclass(frozen=True, slots=True)
class _Here:
    """An operation whose result is not finite."""

    ledger: Ledger
    func: Any
    given: tuple[tuple[Any, ...], dict[str, Any]]
    operands: list[Taken]
    made: Made | None

    def roots(self, state: State, result: torch.Tensor) -> tuple[Root | None, Root | None]:
        """Where the NaN and the infinities of a result came from."""
        return self._nan(result) if state.nan else None, self._inf(result) if state.inf else None

    def _nan(self, result: torch.Tensor) -> Root | None:
        if (known := self._first("nan")) is not None:
            return known if known.inner or known.given is not None else self._self(result)  # of a constant: its reader
        masked = any(word in _name(self.func) for word in _SOFTMAX) and not any(o.state.plus for o in self.operands)
        before = None if masked else self._first("inf")
        return before if before is not None and not before.meant else self._self(result)

    def _inf(self, result: torch.Tensor) -> Root | None:
        before = self._first("inf") or self._first("nan")
        return before if before is not None else self._self(result, meant=self._writes_infinity())

    def _first(self, kind: str) -> Root | None:
        return first([self.ledger.root(one.tensor, one.state, kind) for one in self.operands])

    def _self(self, result: torch.Tensor, *, meant: bool = False) -> Root:
        named = [(one, self._name(one)) for one in self.operands]
        culprits = [described(name, one.tensor) if one.culprit is None else replace(one.culprit, name=name)
                    for one, name in named]  # fmt: skip
        inner = _name(self.func)
        return Root(self.ledger.order, meant, self.made, blamed(inner, culprits, [one.role for one in self.operands]),
                    count_bad(result), inner)  # fmt: skip

    def _name(self, one: Taken) -> str:
        """What the user's line calls an operand, or the pass, or else the operation."""
        key, made = key_of(one.tensor), self.made
        given = self.ledger.name_of(one.tensor)
        if given and (made is None or not made.direct):
            return given
        for tensor, text in made.names() if made is not None else ():
            if tensor is one.tensor or (key is not None and key_of(tensor) == key):
                return text
        roles = {"self": "input", "other": "divisor" if _name(self.func).startswith("div") else "other"}
        if made is not None and made.op == "linear":  # of tensors that autocast has made
            roles = {"mat1": "input", "mat2": "weight", "self": "bias"}
        return given or roles.get(one.role, one.role)

    def _writes_infinity(self) -> bool:
        args, kwargs = self.given
        return any(isinstance(value, float) and math.isinf(value) for value in (*args, *kwargs.values()))


def first(roots: Iterable[Root | None]) -> Root | None:
    """The earliest root; one that was meant only if there is no other."""
    return min((root for root in roots if root is not None), key=lambda root: (root.meant, root.order), default=None)


def key_of(tensor: torch.Tensor) -> int | None:
    """A number for the memory that a tensor looks at; None if it has none of its own."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse, or made by an extension
        return None


def blamed(op: str, culprits: list[Culprit], roles: list[str]) -> tuple[Culprit, ...]:
    """The operands that did it, the first one first."""
    bad = [one for one in culprits if one.nonfinite]
    pairs = list(zip(roles, culprits, strict=True))
    if bad:
        return tuple(bad)
    if op.startswith(("div", "true_divide", "remainder", "fmod", "floor_divide")):
        divisors = [one for role, one in pairs if role == "other"]
        return tuple(one for one in divisors if one.zeros) or (*divisors, *(o for r, o in pairs if r != "other"))
    if op == "addmm":  # its first operand is the bias
        return (*culprits[1:], *culprits[:1])
    return tuple(culprits)


def _read(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Taken]:
    """The operands that an operation has read and not written."""
    read = [(role, tensor) for role, tensor, writes in _operands(func, args, kwargs) if not writes]
    return [Taken(role, tensor, state_of(_effective(func, args, tensor)), None) for role, tensor in read]


def _operands(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """The tensors that an operation is given: the argument's name, the tensor, and whether it is written to."""
    for position, argument in enumerate(func._schema.arguments):
        value = kwargs.get(argument.name, args[position] if position < len(args) else None)
        writes = argument.alias_info is not None and argument.alias_info.is_write
        for tensor in leaves(value):
            yield argument.name, tensor, writes


def written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors that an operation writes to."""
    return [tensor for _, tensor, writes in _operands(func, args, kwargs) if writes] if func._schema.is_mutable else []


def _effective(func: Any, args: tuple[Any, ...], tensor: torch.Tensor) -> torch.Tensor:
    """The elements of an operand that can reach the result: a selection leaves some out."""
    name = _name(func)
    chosen: torch.Tensor | None = None
    if name == "where" and len(args) == 3:
        chosen = args[0] if tensor is args[1] else ~args[0] if tensor is args[2] else None
    elif name in {"masked_fill", "masked_fill_"} and tensor is args[0]:
        chosen = ~args[1]
    if chosen is None:
        return tensor
    wanted = chosen & torch.ones_like(tensor, dtype=torch.bool)
    return tensor.expand_as(wanted)[wanted]


def _name(func: Any) -> str:
    return str(func._schema.name.rpartition("::")[2])
