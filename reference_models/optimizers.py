"""Chapters 8 and 11: how a gradient becomes a step.

Glossary
    θ          a parameter
    g          its gradient
    v          momentum of SGD; of the others the running mean of g²
    m          running mean of g
    u          running maximum of |g|
    G          sum of all g² so far
    γ          how much momentum is kept each step, `momentum`
    α          how much of v RMSprop keeps each step, `alpha`
    β₁, β₂     how much of m and v is kept each step, `betas`
    η          learning rate, `lr`
    λ          weight decay
    ψ          how fast NAdam's momentum grows, `momentum_decay`
    t          steps so far, from 1
    ε          what keeps a division finite, `eps`

Source: chapters 8 and 11 of the book; Sutskever et al., On the importance of initialization and momentum (2013);
Duchi et al., Adaptive subgradient methods (2011); Hinton, Neural networks for machine learning, lecture 6; Kingma and
Ba, Adam (2015); Dozat, Incorporating Nesterov momentum into Adam (2016); Loshchilov and Hutter, Decoupled weight decay
regularization (2019); Liu et al., On the variance of the adaptive learning rate and beyond (2020).

Differs from the book: names and defaults are torch's; its RMSProp is `RMSprop(params, 1e-3, alpha=0.9, eps=1e-6)`. The
learning rate multiplies the momentum: v ← γv + g, θ ← θ - ηv; the book's v ← γv + ηg, θ ← θ - v is that only as long
as η does not change (erratum E-05). ε is always added to the root, not under it (E-06). Adam's corrections 1 / (1 - βᵗ)
fall towards 1 (E-07). Clipping writes what it scaled back into the gradients (E-54).

Does not handle: sparse or complex gradients, tensors as learning rates, AMSGrad, dampening, centred RMSprop, ascent.
Gradient descent over all samples, the book's GD, is SGD that is given all of them.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from tensorscope import shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_SHARES = ("alpha", "betas")  # of what was: 1 would never let anything new in


class Descent(Optimizer):
    """What every optimizer here does: its algorithm is one parameter's `move`, the loop around it is this class.

    torch's base class gives parameter groups, hooks, state dicts and what schedulers need.

    Args:
        params: parameters, or groups of them with settings of their own.
        lr: η; the class's own by default.
        settings: by name, where they differ from the class's `SETTINGS`.

    Raises:
        TypeError: a setting is unknown or no number.
        ValueError: a setting is out of its range.
    """

    SETTINGS: ClassVar[dict[str, Any]] = {}

    def __init__(
        self, params: Iterable[Tensor] | Iterable[dict[str, Any]], lr: float | None = None, **settings: Any
    ) -> None:
        if unknown := settings.keys() - self.SETTINGS.keys():
            known = ", ".join(self.SETTINGS)
            raise TypeError(f"{type(self).__name__} has the settings {known}, got `{sorted(unknown)[0]}`")
        super().__init__(params, self.SETTINGS | settings | ({} if lr is None else {"lr": lr}))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take more parameters.

        Args:
            param_group: `params`, and the settings in which they differ.

        Raises:
            TypeError: a setting is no number.
            ValueError: a setting is out of its range.
        """
        for name in self.SETTINGS:
            setting, below = param_group.get(name, self.defaults[name]), 1 if name in _SHARES else math.inf
            if name == "betas" and not (isinstance(setting, tuple | list) and len(setting) == 2):
                raise TypeError(f"`betas` takes two numbers, got {setting!r}")
            for number in setting if name == "betas" else (setting,):
                if not isinstance(number, Real):
                    raise TypeError(f"`{name}` takes a number, got {type(number).__name__}")
                if not 0 <= float(number) < below:
                    raise ValueError(f"`{name}` takes numbers in [0, {below:g}), got {number}")
        super().add_param_group(param_group)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every parameter that has a gradient.

        Args:
            closure: evaluates the model again and returns the loss.

        Raises:
            TypeError: a gradient is sparse or complex; nothing has moved then.
        """
        with torch.enable_grad():
            loss = closure() if closure else None
        moved = [(p, p.grad, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        for _, gradient, _ in moved:
            if gradient.layout != torch.strided or gradient.is_complex():
                raise TypeError(f"expected a dense and real gradient, got {gradient.layout} of {gradient.dtype}")
        with torch.no_grad():
            for parameter, gradient, group in moved:
                state = self.state[parameter]
                state["step"] = state.get("step", 0) + 1
                self.move(parameter, self.decayed(parameter, gradient, group), state["step"], group)
        return loss

    def decayed(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        """The gradient of the loss with the penalty λ/2 · θ²."""
        # g ← g + λθ
        return gradient.add(parameter, alpha=group["weight_decay"]) if group["weight_decay"] else gradient

    def move(self, parameter: Tensor, gradient: Tensor, t: int, group: dict[str, Any]) -> None:
        """Move one parameter in place.

        Args:
            parameter: (...) float tensor.
            gradient: (...) float tensor, not to be changed.
            t: steps of this parameter, this one included.
            group: settings.
        """
        raise NotImplementedError

    def kept(self, parameter: Tensor, *names: str) -> list[Tensor]:
        """Tensors of a parameter's shape that live from step to step, and start at 0."""
        state = self.state[parameter]
        for name in names:
            if name not in state:
                state[name] = torch.zeros_like(parameter)
        return [state[name] for name in names]


class SGD(Descent):
    """Gradient descent, with momentum γ if asked for (the book's is 0.9).

    With `nesterov` it steps along the gradient and the momentum that the next step will have.
    """

    SETTINGS: ClassVar = {"lr": 1e-3, "momentum": 0.0, "weight_decay": 0.0, "nesterov": False}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """See `Descent`.

        Raises:
            ValueError: Nesterov's step needs momentum.
        """
        settings = self.defaults | param_group
        if settings["nesterov"] and settings["momentum"] == 0:
            raise ValueError("`nesterov` takes a `momentum` above 0, got 0")
        super().add_param_group(param_group)

    def move(self, parameter: Tensor, gradient: Tensor, t: int, group: dict[str, Any]) -> None:
        """See `Descent`."""
        if momentum := group["momentum"]:
            (v,) = self.kept(parameter, "v")
            # v ← γv + g
            v.mul_(momentum).add_(gradient)
            # Nesterov: g + γv is the gradient with the next step's momentum.
            gradient = gradient.add(v, alpha=momentum) if group["nesterov"] else v
        # θ ← θ - ηg, or θ - ηv
        parameter.add_(gradient, alpha=-group["lr"])


class Adagrad(Descent):
    """Steps divided by the root of all squared gradients so far: what was seldom moved moves far.

    With `lr_decay` the learning rate falls as well.
    """

    SETTINGS: ClassVar = {"lr": 1e-2, "lr_decay": 0.0, "weight_decay": 0.0, "eps": 1e-10}

    def move(self, parameter: Tensor, gradient: Tensor, t: int, group: dict[str, Any]) -> None:
        """See `Descent`."""
        (total,) = self.kept(parameter, "G")
        # G ← G + g²
        total.addcmul_(gradient, gradient)
        # θ ← θ - ηₜ g / (√G + ε)
        lr = group["lr"] / (1 + (t - 1) * group["lr_decay"])
        parameter.addcdiv_(gradient, total.sqrt().add_(group["eps"]), value=-lr)


class RMSprop(Descent):
    """Adagrad that forgets: a running mean of squares instead of their sum; with momentum if asked for."""

    SETTINGS: ClassVar = {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0}

    def move(self, parameter: Tensor, gradient: Tensor, t: int, group: dict[str, Any]) -> None:
        """See `Descent`."""
        (v,) = self.kept(parameter, "v")
        # v ← αv + (1 - α)g²
        v.mul_(group["alpha"]).addcmul_(gradient, gradient, value=1 - group["alpha"])
        root = v.sqrt().add_(group["eps"])
        if group["momentum"]:
            (pace,) = self.kept(parameter, "pace")
            # p ← γp + g / (√v + ε),  θ ← θ - ηp
            pace.mul_(group["momentum"]).addcdiv_(gradient, root)
            parameter.add_(pace, alpha=-group["lr"])
        else:
            # θ ← θ - η g / (√v + ε)
            parameter.addcdiv_(gradient, root, value=-group["lr"])


class Adam(Descent):
    """RMSprop along the running mean of the gradient, both corrected for having started at 0."""

    SETTINGS: ClassVar = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}

    def move(self, parameter: Tensor, gradient: Tensor, t: int, group: dict[str, Any]) -> None:
        """See `Descent`."""
        beta1, beta2 = group["betas"]
        m, v = self.means(parameter, gradient, group)
        # θ ← θ - η m̂ / (√v̂ + ε),  m̂ = m / (1 - β₁ᵗ),  v̂ = v / (1 - β₂ᵗ)
        root = v.sqrt().div_(math.sqrt(1 - beta2**t)).add_(group["eps"])
        parameter.addcdiv_(m, root, value=-group["lr"] / (1 - beta1**t))

    def means(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> list[Tensor]:
        """Bring m and v up to date."""
        beta1, beta2 = group["betas"]
        m, v = self.kept(parameter, "m", "v")
        # m ← β₁m + (1 - β₁)g, which is m + (1 - β₁)(g - m);  v ← β₂v + (1 - β₂)g²
        return [
            m.lerp_(gradient, 1 - beta1),
            v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2),
        ]


class AdamW(Adam):
    """Adam, whose weight decay does not pass through the running means."""

    SETTINGS: ClassVar = Adam.SETTINGS | {"weight_decay": 1e-2}

    def decayed(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        """Decay the parameter itself, and leave the gradient alone."""
        # θ ← θ - ηλθ
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        return gradient


class Adamax(Adam):
    """Adam that divides by the largest |g| of late, not by the root of v; β₂ is how slowly that is forgotten."""

    SETTINGS: ClassVar = Adam.SETTINGS | {"lr": 2e-3}

    def move(self, parameter: Tensor, gradient: Tensor, t: int, group: dict[str, Any]) -> None:
        """See `Descent`."""
        beta1, beta2 = group["betas"]
        m, u = self.kept(parameter, "m", "u")
        m.lerp_(gradient, 1 - beta1)
        # u ← max(β₂u, |g| + ε)
        u.copy_(torch.maximum(u * beta2, gradient.abs().add_(group["eps"])))
        # θ ← θ - η m̂ / u
        parameter.addcdiv_(m, u, value=-group["lr"] / (1 - beta1**t))


class NAdam(Adam):
    """Adam with Nesterov's momentum: it steps along the gradient and where m is about to be."""

    SETTINGS: ClassVar = Adam.SETTINGS | {"lr": 2e-3, "momentum_decay": 4e-3}

    def move(self, parameter: Tensor, gradient: Tensor, t: int, group: dict[str, Any]) -> None:
        """See `Descent`."""
        state, lr, (beta1, beta2) = self.state[parameter], group["lr"], group["betas"]
        m, v = self.means(parameter, gradient, group)
        # μₜ = β₁(1 - 0.96^(tψ) / 2), and Πμ is the product of all so far: what of m₀ = 0 is left in m
        now, after = (beta1 * (1 - 0.96 ** (at * group["momentum_decay"]) / 2) for at in (t, t + 1))
        product = state["product"] = state.get("product", 1.0) * now
        # θ ← θ - η ((1 - μₜ)g / (1 - Πμ) + μₜ₊₁m / (1 - μₜ₊₁Πμ)) / (√v̂ + ε)
        root = v.div(1 - beta2**t).sqrt_().add_(group["eps"])
        parameter.addcdiv_(gradient, root, value=-lr * (1 - now) / (1 - product))
        parameter.addcdiv_(m, root, value=-lr * after / (1 - product * after))


class RAdam(Adam):
    """Adam that does without v until it knows enough: in the first steps √v̂ is mostly chance."""

    def move(self, parameter: Tensor, gradient: Tensor, t: int, group: dict[str, Any]) -> None:
        """See `Descent`."""
        lr, (beta1, beta2) = group["lr"], group["betas"]
        m, v = self.means(parameter, gradient, group)
        # ρ∞ = 2 / (1 - β₂) - 1,  ρ = ρ∞ - 2tβ₂ᵗ / (1 - β₂ᵗ): over how many gradients v is a mean, at most and now
        most = 2 / (1 - beta2) - 1
        rho = most - 2 * t * beta2**t / (1 - beta2**t)
        if rho <= 5:
            # θ ← θ - η m̂
            parameter.add_(m, alpha=-lr / (1 - beta1**t))
            return
        # r = √((ρ - 4)(ρ - 2)ρ∞ / ((ρ∞ - 4)(ρ∞ - 2)ρ)), which grows to 1
        trust = math.sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))
        # θ ← θ - η r m̂ √(1 - β₂ᵗ) / (√v + ε)
        step = lr * trust * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        parameter.addcdiv_(m, v.sqrt().add_(group["eps"]), value=-step)


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    listed = [parameters] if isinstance(parameters, Tensor) else parameters
    return [parameter.grad for parameter in listed if parameter.grad is not None]


@shapes("... ->")
def clip_grad_norm(parameters: Tensor | Iterable[Tensor], max_norm: float) -> Tensor:
    """Shrink all gradients by one factor, so that together they are no longer than `max_norm`.

    Args:
        parameters: whose gradients are to be written; those without are skipped.
        max_norm: the largest norm; the book's is 1.

    Returns:
        0-d tensor, the norm before; 0 if there is no gradient.

    Raises:
        ValueError: `max_norm` is negative or NaN.
    """
    if not max_norm >= 0:
        raise ValueError(f"`max_norm` takes a number of at least 0, got {max_norm}")
    gradients = _gradients(parameters)
    if not gradients:
        return torch.tensor(0.0)
    # ‖g‖ = √Σ‖gᵢ‖²
    norms = [torch.linalg.vector_norm(gradient).to(gradients[0].device) for gradient in gradients]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    # g ← g · min(1, max_norm / ‖g‖)
    factor = (max_norm / (norm + 1e-6)).clamp(max=1)
    for gradient in gradients:
        gradient.detach().mul_(factor.to(gradient.device))
    return norm


def clip_grad_value(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Cut every number of every gradient to ±`clip_value`; NaN stays NaN.

    Args:
        parameters: whose gradients are to be written; those without are skipped.
        clip_value: the largest magnitude.

    Raises:
        ValueError: `clip_value` is negative or NaN.
    """
    if not clip_value >= 0:
        raise ValueError(f"`clip_value` takes a number of at least 0, got {clip_value}")
    for gradient in _gradients(parameters):
        gradient.detach().clamp_(-clip_value, clip_value)
