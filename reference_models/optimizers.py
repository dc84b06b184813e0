"""Chapters 8 and 11: how a gradient becomes a step.

Glossary
    θ          a parameter
    g          its gradient
    m, v       running means of g and g²
    β₁, β₂     how much of them is kept each step
    η          learning rate, `lr`
    λ          weight decay
    t          steps so far
    ε          what keeps the division finite, `eps`; outside the root

Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019), algorithm 2.

Does not handle: sparse or complex gradients, AMSGrad, plain SGD, Adam (not here yet).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class AdamW(Optimizer):
    """Adam, whose weight decay does not pass through the running means.

    The base class gives parameter groups, hooks and what schedulers need; the algorithm is here.

    Args:
        params: parameters, or groups of them.
        lr: η.
        betas: β₁ and β₂.
        eps: ε.
        weight_decay: λ.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every parameter that has a gradient.

        Args:
            closure: evaluates the model again and returns the loss.
        """
        with torch.enable_grad():
            loss = closure() if closure else None
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        lr, (beta1, beta2) = group["lr"], group["betas"]
        state = self.state[parameter]
        if not state:
            state.update(step=0, m=torch.zeros_like(parameter), v=torch.zeros_like(parameter))
        state["step"] += 1
        m, v, t = state["m"], state["v"], state["step"]
        # θ ← θ - ηλθ
        parameter.mul_(1 - lr * group["weight_decay"])
        # m ← β₁m + (1 - β₁)g,  v ← β₂v + (1 - β₂)g²
        m.mul_(beta1).add_(gradient, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        # θ ← θ - η m̂ / (√v̂ + ε),  m̂ = m / (1 - β₁ᵗ),  v̂ = v / (1 - β₂ᵗ)
        root = v.sqrt().div_(math.sqrt(1 - beta2**t)).add_(group["eps"])
        parameter.addcdiv_(m, root, value=-lr / (1 - beta1**t))
