"""Which axis is which: identities of axes, and what a reshape does to them. Plain arithmetic on sizes, no tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Sizes = tuple[int, ...]


class Kind(Enum):
    """Where an axis came from."""

    INPUT = auto()  # of a tensor that the model was given
    WEIGHT = auto()  # of a parameter or buffer
    MADE = auto()  # of a tensor made on the spot, such as by `arange`
    OUTSIDE = auto()  # of a tensor that nobody was seen to make, such as a target
    INSERTED = auto()  # of size 1, put there on purpose: `unsqueeze`, `None`, `keepdim`
    TAKEN = auto()  # of size 1, a slice of a longer one: `x[:, :1]`
    DERIVED = auto()  # computed from others: a window, a slice, an axis of steps put together
    PART = auto()  # a factor of an axis that was split
    MERGED = auto()  # several axes in one
    MIXED = auto()  # a reshape put together what does not belong together


@dataclass(eq=False, slots=True)
class Axis:
    """One axis of one tensor, known by identity; operations that keep an axis hand on the same object.

    Attributes:
        size: elements along it.
        kind: where it came from.
        leading: whether it is axis 0 of an input, which is the batch as far as anyone can tell.
        source: the axis of which this one is another occurrence, a slice or a window.
        parts: what was merged, outermost first.
        whole: of what it is a part.
        cuts: the parts that it was split into before, by their sizes.
    """

    size: int
    kind: Kind
    leading: bool = False
    source: Axis | None = None
    parts: tuple[Axis, ...] = ()
    whole: Axis | None = None
    cuts: dict[Sizes, tuple[Axis, ...]] = field(default_factory=dict)

    @property
    def origin(self) -> Axis:
        """The axis that it goes back to."""
        axis = self
        while axis.source is not None:
            axis = axis.source
        return axis

    def same(self, other: Axis) -> bool:
        """Whether both index the same things."""
        return self.size == other.size and self.origin is other.origin

    def again(self) -> Axis:
        """Another occurrence, for a tensor that has this axis already."""
        return Axis(self.size, self.kind, self.leading, source=self)

    def resized(self, size: int) -> Axis:
        """A slice of it, or what windows over it give."""
        return self if size == self.size else Axis(size, Kind.DERIVED, self.leading, source=self)

    def leaves(self) -> tuple[Axis, ...]:
        """What it is merged from, outermost first."""
        return tuple(leaf for part in self.parts for leaf in part.leaves()) if self.parts else (self,)

    def ancestors(self) -> Iterable[Axis]:
        """Every axis that it is a part, a slice or an occurrence of, itself included."""
        axis: Axis | None = self
        while axis is not None:
            yield axis
            axis = axis.source or axis.whole

    def holds_batch(self) -> bool:
        """Whether axis 0 of an input is in it."""
        return any(step.leading for leaf in self.leaves() for step in leaf.ancestors())

    def is_position(self) -> bool:
        """Whether it goes back to axes of inputs alone, not to features that a weight made."""
        return all(any(step.kind is Kind.INPUT for step in leaf.ancestors()) for leaf in self.leaves())

    def split(self, sizes: Sizes) -> tuple[Axis, ...]:
        """Its parts of these sizes, always the same ones."""
        if sizes not in self.cuts:
            self.cuts[sizes] = tuple(Axis(size, Kind.PART, whole=self) for size in sizes)
        return self.cuts[sizes]


@dataclass(frozen=True, slots=True)
class Scramble:
    """A stretch of a reshape that keeps the order in memory and no axis.

    Attributes:
        before: the axes that went in.
        after: those that came out.
        sure: whether no cut of one axis explains it; where one does, only the sizes are those of a transposition.
    """

    before: tuple[Axis, ...]
    after: tuple[Axis, ...]
    sure: bool = True

    @property
    def mixes_batch(self) -> bool:
        """Whether rows of different samples end up together."""
        return any(axis.holds_batch() for axis in self.before)


def merged(axes: Sequence[Axis]) -> Axis:
    """One axis out of several, outermost first; the parts of one axis, put together again, are that axis."""
    leaves = [leaf for axis in axes for leaf in axis.leaves() if leaf.size != 1] or list(axes[:1])
    while joined := _joined(leaves):
        leaves = joined
    return leaves[0] if len(leaves) == 1 else Axis(prod(leaf.size for leaf in leaves), Kind.MERGED, parts=tuple(leaves))


def _joined(leaves: list[Axis]) -> list[Axis] | None:
    """The same with one run of parts replaced by their whole."""
    for start, leaf in enumerate(leaves):
        for parts in leaf.whole.cuts.values() if leaf.whole is not None else ():
            real = [part for part in parts if part.size != 1]
            if leaves[start : start + len(real)] == real:
                assert leaf.whole is not None
                return [*leaves[:start], leaf.whole, *leaves[start + len(real) :]]
    return None


def reshaped(axes: Sequence[Axis], sizes: Sizes) -> tuple[tuple[Axis, ...], list[Scramble]]:
    """The axes of a tensor after a reshape, and where it scrambles them.

    A reshape cuts and joins neighbouring axes. Where old and new boundaries do not nest, or where both ends of a cut
    are joined with other axes, the result has no axis that means anything: somebody wanted a transposition.

    Args:
        axes: before.
        sizes: after; as many elements.
    """
    if tuple(axis.size for axis in axes) == sizes:
        return tuple(axes), []
    if 0 in sizes or any(axis.size == 0 for axis in axes):
        return tuple(Axis(size, Kind.DERIVED) for size in sizes), []
    found, scrambles = _matched([leaf for axis in axes for leaf in axis.leaves()], sizes)
    if any(scramble.sure for scramble in scrambles) and not any(scramble.mixes_batch for scramble in scrambles):
        # What was merged before is one axis to whoever goes on with it, such as shuffled channels.
        whole, left = _matched(axes, sizes)
        found, scrambles = (found, scrambles) if left else (whole, [])
    return _with_ones(axes, sizes, found), scrambles


def _matched(axes: Sequence[Axis], sizes: Sizes) -> tuple[list[Axis], list[Scramble]]:
    """The new axes larger than 1, and the stretches that scramble."""
    found: list[Axis] = []
    scrambles: list[Scramble] = []
    real = [axis for axis in axes if axis.size != 1]
    for sources, targets in _stretches(real, [size for size in sizes if size != 1]):
        after, sure = _stretch(sources, targets)
        found += after
        if sure is not None:
            scrambles.append(Scramble(tuple(sources), tuple(after), sure))
    return found, scrambles


def _with_ones(axes: Sequence[Axis], sizes: Sizes, found: list[Axis]) -> tuple[Axis, ...]:
    """Put axes of size 1 back between the others; those that stay where they were are the same."""
    ones: dict[int, list[Axis]] = {}
    done = 1
    for axis in axes:
        done *= axis.size
        if axis.size == 1:
            ones.setdefault(done, []).append(axis)
    rest, done, whole = iter(found), 1, []
    for size in sizes:
        done *= size
        here = ones.get(done, [])
        whole.append(next(rest) if size != 1 else here.pop(0) if here else Axis(1, Kind.INSERTED))
    return tuple(whole)


def _stretches(leaves: list[Axis], wanted: list[int]) -> Iterable[tuple[list[Axis], list[int]]]:
    """The smallest pieces of both sides that hold the same elements."""
    sources: list[Axis] = []
    targets: list[int] = []
    left, right = 1, 1
    old, new = iter(leaves), iter(wanted)
    while True:
        if left == right and sources:
            yield sources, targets
            sources, targets, left, right = [], [], 1, 1
        step: Axis | int | None
        if left <= right:
            step = next(old, None)
            if step is None:
                return
            sources.append(step)
            left *= step.size
        else:
            step = next(new)
            targets.append(step)
            right *= step


def _stretch(sources: list[Axis], targets: list[int]) -> tuple[list[Axis], bool | None]:
    """The new axes of one piece, and whether they are scrambled for sure; None if nothing looks like it."""
    if len(sources) == 1:
        return list(sources[0].split(tuple(targets))) if len(targets) > 1 else sources, None
    if len(targets) == 1:
        return [merged(sources)], None
    pieces = _pieces([axis.size for axis in sources], targets)
    swap = _is_swap(sources, targets)
    if pieces is None or _is_scrambled(pieces) or (swap and _has_inner_batch(sources)):
        return [Axis(size, Kind.MIXED) for size in targets], True
    return _recut(sources, pieces, len(targets)), False if swap else None


def _recut(sources: list[Axis], pieces: list[tuple[int, int, int]], targets: int) -> list[Axis]:
    """The new axes where old and new boundaries nest."""
    cut = [
        axis.split(tuple(size for owner, _, size in pieces if owner == index))
        if sum(owner == index for owner, _, _ in pieces) > 1
        else (axis,)
        for index, axis in enumerate(sources)
    ]
    flat = [part for parts in cut for part in parts]
    into = [target for _, target, _ in pieces]
    return [merged([p for p, t in zip(flat, into, strict=True) if t == target]) for target in range(targets)]


def _has_inner_batch(sources: list[Axis]) -> bool:
    """Whether the batch stands behind another axis, where nobody cuts it, nor joins it with half of that axis."""
    return not sources[0].holds_batch() and any(axis.origin.leading for axis in sources[1:])


def _is_swap(sources: list[Axis], targets: list[int]) -> bool:
    """Whether the sizes are those of a transposition, and not of putting an axis together again that had been cut."""
    sizes = [axis.size for axis in sources]
    restored = any(
        axis.whole is not None and axis.whole.size == size for axis, size in zip(sources, targets, strict=False)
    )
    return sizes != targets and sorted(sizes) == sorted(targets) and not restored


def _pieces(sources: list[int], targets: list[int]) -> list[tuple[int, int, int]] | None:
    """The common refinement of two factorisations as (source, target, size); None if there is none."""
    bounds = sorted(
        {prod(sources[: i + 1]) for i in range(len(sources))} | {prod(targets[: i + 1]) for i in range(len(targets))}
    )
    bounds = [bound for bound in bounds if bound > 1]
    if any(big % small for small, big in pairwise([1, *bounds])):
        return None
    pieces, source, target, done = [], 0, 0, 1
    for bound in bounds:
        while done >= prod(sources[: source + 1]):
            source += 1
        while done >= prod(targets[: target + 1]):
            target += 1
        pieces.append((source, target, bound // done))
        done = bound
    return pieces


def _is_scrambled(pieces: list[tuple[int, int, int]]) -> bool:
    """Whether a cut axis is joined with others on both sides, or an axis is made of two leftovers."""
    count = {owner: sum(owner == other for other, _, _ in pieces) for owner, _, _ in pieces}
    company = {target: {owner for owner, into, _ in pieces if into == target} for _, target, _ in pieces}
    for first, second in pairwise(pieces):
        same_owner = first[0] == second[0]
        if same_owner and len(company[first[1]]) > 1 and len(company[second[1]]) > 1:
            return True
    return any(sum(count[owner] > 1 for owner in owners) > 1 for owners in company.values())
