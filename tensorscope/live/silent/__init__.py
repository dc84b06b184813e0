"""Shape mistakes that raise nothing: programs that run, and compute something else than was meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from tensorscope.events import Finding


def mistakes(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Finding]:
    """Find shape mistakes in a model's forward that raise nothing.

    The forward runs once, on copies (without data if a tensor is on the meta device), and is watched operation by
    operation. Weights, buffers, gradients and random state stay as they are.

    Args:
        model: the model.
        args: positional arguments of its forward.
        kwargs: keyword arguments.

    Returns:
        The findings, in the order in which the forward meets them; empty too if the forward raises.
    """
    from tensorscope.live.capture import watched  # which watches with parts of this package

    watch = watched(model, args, kwargs)
    return watch.end() if watch is not None else []
