"""The axes after operations that move data and compute nothing: views, permutations, indexing, joining."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from tensorscope.live.silent.axes import Axis, Kind, merged, reshaped
from tensorscope.live.silent.ledger import Event, Seen

if TYPE_CHECKING:
    from collections.abc import Callable


def _reshape(event: Event, index: int) -> Seen | None:
    x = event.operand(0, "input")
    if x is None:
        return None
    seen = event.seen(x)
    axes, event.scrambles = reshaped(seen.axes, tuple(event.results[index].shape))
    return seen.with_axes(axes)


def _view(event: Event, index: int) -> Seen | None:
    """A view of the same data under another shape, or under another dtype."""
    return None if isinstance(event.argument(1), torch.dtype) else _reshape(event, index)


def _ones(event: Event, index: int) -> Seen | None:
    """Axes of size 1 that come and go, or grow to what they are expanded to."""
    x = event.operand(0, "input")
    if x is None:
        return None
    seen, shape = event.seen(x), event.results[index].shape
    if event.name == "unsqueeze":
        at = int(event.argument(1, "dim")) % (x.ndim + 1)
        return seen.with_axes((*seen.axes[:at], Axis(1, Kind.INSERTED), *seen.axes[at:]))
    if event.name == "squeeze":
        dim = event.argument(1, "dim")
        gone = range(x.ndim) if dim is None else [d % x.ndim for d in ([dim] if isinstance(dim, int) else dim)]
        return seen.with_axes([a for p, a in enumerate(seen.axes) if not (a.size == 1 and p in gone)])
    new = len(shape) - x.ndim
    grown = [a if a.size == s else Axis(int(s), Kind.DERIVED) for a, s in zip(seen.axes, shape[new:], strict=True)]
    return seen.with_axes([*(Axis(int(s), Kind.DERIVED) for s in shape[:new]), *grown])


def _permute(event: Event, _: int) -> Seen | None:
    x = event.operand(0, "input")
    if x is None or not x.ndim:
        return None
    seen = event.seen(x)
    order = _order(event, x.ndim)
    return seen.with_axes([seen.axes[p] for p in order])


def _order(event: Event, rank: int) -> list[int]:
    order = list(range(rank))
    if event.name == "permute":
        dims = event.args[1:] if len(event.args) > 2 else event.argument(1, "dims")
        return [int(d) % rank for d in ((dims,) if isinstance(dims, int) else dims)]
    if event.name in ("T", "mT", "H", "mH", "t", "adjoint"):
        if event.name == "T":
            return order[::-1]
        first, second = rank - 2, rank - 1
        if rank < 2:
            return order
    elif event.name in ("movedim", "moveaxis"):
        return _moved(event, rank)
    else:
        first, second = event.argument(1, "dim0"), event.argument(2, "dim1")
        if first is None:  # swapaxes
            first, second = event.kwargs["axis0"], event.kwargs["axis1"]
    order[first % rank], order[second % rank] = order[second % rank], order[first % rank]
    return order


def _moved(event: Event, rank: int) -> list[int]:
    sources, targets = event.argument(1, "source"), event.argument(2, "destination")
    sources = [sources] if isinstance(sources, int) else list(sources)
    targets = [targets] if isinstance(targets, int) else list(targets)
    placed = dict(zip((t % rank for t in targets), (s % rank for s in sources), strict=True))
    rest = iter(p for p in range(rank) if p not in placed.values())
    return [placed[p] if p in placed else next(rest) for p in range(rank)]


def index_items(event: Event, rank: int) -> list[Any] | None:
    """What `x[...]` asks of each axis, `None` items apart; None if tensors or lists index."""
    items = event.argument(1)
    items = list(items) if isinstance(items, tuple) else [items]
    if any(not (isinstance(i, int | slice) or i is None or i is Ellipsis) or isinstance(i, bool) for i in items):
        return None
    real = sum(item is not None and item is not Ellipsis for item in items)
    filler = [slice(None)] * (rank - real)
    if not any(item is Ellipsis for item in items):
        return [*items, *filler]
    at = next(i for i, item in enumerate(items) if item is Ellipsis)
    return [*items[:at], *filler, *items[at + 1 :]]


def _getitem(event: Event, index: int) -> Seen | None:
    x = event.operand(0)
    items = index_items(event, x.ndim) if x is not None else None
    if x is None or items is None:
        return None
    seen, shape = event.seen(x), iter(event.results[index].shape)
    axes, rest = [], iter(seen.axes)
    for item in items:
        if item is None:
            axes.append(Axis(int(next(shape)), Kind.INSERTED))
        elif isinstance(item, slice):
            axes.append(_sliced(next(rest), int(next(shape))))
        else:
            next(rest)
    return seen.with_axes(axes)


def _sliced(axis: Axis, size: int) -> Axis:
    """A slice of an axis; one of size 1 was asked for so."""
    return Axis(1, Kind.TAKEN) if size == 1 and axis.size > 1 else axis.resized(size)


def _select(event: Event, _: int) -> Seen | None:
    x = event.operand(0, "input")
    if x is None:
        return None
    seen, at = event.seen(x), int(event.argument(1, "dim", 0)) % x.ndim
    return seen.with_axes((*seen.axes[:at], *seen.axes[at + 1 :]))


def _piece(event: Event, index: int) -> Seen | None:
    """A result of the same rank with some axes shorter."""
    x = event.operand(0, "input")
    if x is None or x.ndim != event.results[index].ndim:
        return None
    seen = event.seen(x)
    shape = event.results[index].shape
    return seen.with_axes([_sliced(a, int(s)) for a, s in zip(seen.axes, shape, strict=True)])


def _unbound(event: Event, _: int) -> Seen | None:
    x = event.operand(0, "input")
    if x is None:
        return None
    seen, at = event.seen(x), int(event.argument(1, "dim", 0)) % x.ndim
    return seen.with_axes((*seen.axes[:at], *seen.axes[at + 1 :]))


def _joined(event: Event, index: int) -> Seen | None:
    """Of `cat` and `stack`: the first tensor's axes, and the one along which they are put together."""
    tensors, result = event.tensors(), event.results[index]
    if not tensors:
        return None
    dim = event.argument(1, "dim", event.kwargs.get("axis", 0))
    seen, at = _main(event, tensors), int(dim) % result.ndim
    plain = replace(seen, weight="", soft=None, masks=(), scores=False)
    if event.name == "stack":
        new = Axis(int(result.shape[at]), Kind.DERIVED)
        return plain.with_axes((*seen.axes[:at], new, *seen.axes[at:]))
    if seen.sizes == tuple(result.shape):
        return plain
    if len(seen.axes) != result.ndim:
        return None
    alike = all(event.seen(t).axes[at].same(seen.axes[at]) for t in tensors if t.ndim == result.ndim)
    if alike and len(tensors) > 1:
        axis = merged([Axis(len(tensors), Kind.DERIVED), seen.axes[at]])
    else:
        axis = seen.axes[at].resized(int(result.shape[at]))
    return plain.with_axes((*seen.axes[:at], axis, *seen.axes[at + 1 :]))


def _main(event: Event, tensors: list[torch.Tensor]) -> Seen:
    """A live one, if any."""
    found = [event.seen(tensor) for tensor in tensors if tensor.ndim]
    return next((seen for seen in found if seen.live), found[0] if found else event.seen(tensors[0]))


def _gather(event: Event, index: int) -> Seen | None:
    """Each result element is one that was picked, so that an axis of size 1 is no intention of broadcasting."""
    x, at = event.operand(0, "input"), event.argument(1, "dim")
    if x is None or not isinstance(at, int) or x.ndim != event.results[index].ndim:
        return None
    shape = event.results[index].shape
    axes = [a if a.size == s else Axis(int(s), Kind.DERIVED) for a, s in zip(event.seen(x).axes, shape, strict=True)]
    at %= x.ndim
    axes[at] = Axis(int(shape[at]), Kind.DERIVED)
    return Seen(tuple(axes))


RULES: dict[str, Callable[[Event, int], Seen | None]] = {
    **dict.fromkeys(("reshape", "flatten", "unflatten", "view_as", "reshape_as", "ravel"), _reshape),
    "view": _view,
    **dict.fromkeys(("unsqueeze", "squeeze", "expand", "expand_as", "broadcast_to"), _ones),
    **dict.fromkeys(
        ["permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "T", "mT", "H", "mH", "t", "adjoint"],
        _permute,
    ),
    "getitem": _getitem,
    "select": _select,
    **dict.fromkeys(
        ["narrow", "chunk", "split", "tensor_split", "index_select", "split_with_sizes", "unsafe_chunk"], _piece
    ),
    "unbind": _unbound,
    **dict.fromkeys(("cat", "concat", "concatenate", "stack"), _joined),
    **dict.fromkeys(("gather", "take_along_dim"), _gather),
}
