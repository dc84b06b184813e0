"""Chapters 8 and 11, and "Learning optimization": how the learning rate changes, and where to look for one.

A schedule is a function from a step to its learning rate, so that a resumed training needs to know its step and nothing
else. With `lr=1` it gives a factor. What counts as a step, a batch or an epoch, is up to who calls it:

    scheduler = Scheduler(optimizer, warmup_cosine(1e-3, steps=1000))
    scheduler.step()                     # after each optimizer.step()

Glossary
    t          steps so far, from 0
    η          learning rate; η₀ is `lr`, what a schedule is built from
    γ          factor by which it falls, `gamma`
    T          steps that a schedule takes, `steps`; afterwards it stays where it ended

Source: chapters 8 and 11 of the book; Loshchilov and Hutter, SGDR (2017); Goyal et al., Accurate, large minibatch SGD
(2017); Smith, Cyclical learning rates (2017), which has the learning rate finder too; Smith and Topin,
Super-convergence (2018).

Differs from the book: the learning rate is changed in place, the optimizer keeps its means and counts (erratum E-04);
the step can be given instead of being counted (E-54); the finder sweeps a copy of the model, and gives both of the
suggestions that the book describes (E-08). Differs from torch: `cosine` ends at T, where torch's climbs again.

Does not handle: schedules that look at the loss, momentum that changes along with the learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn
    from torch.optim import Optimizer

Schedule = Callable[[float], float]  # step from 0 on → its learning rate


def _positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"`{name}` takes a number above 0, got {number}")


def constant(lr: float) -> Schedule:
    """The same learning rate always."""
    return lambda _: lr


def inverse_time(lr: float, decay: float = 0.1) -> Schedule:
    """Chapter 8's: after 1 / `decay` steps half of it is left, after as many again a third."""
    # η = η₀ / (1 + decay · t)
    return lambda t: lr / (1 + decay * t)


def step(lr: float, every: int = 30, gamma: float = 0.1) -> Schedule:
    """Chapter 11's: falls by a factor every so many steps.

    Raises:
        ValueError: `every` is not positive.
    """
    _positive(every=every)
    # η = η₀ · γ^⌊t / every⌋
    return lambda t: lr * gamma ** (t // every)


def exponential(lr: float, gamma: float = 0.95) -> Schedule:
    """Falls by a factor each step."""
    # η = η₀ · γᵗ
    return lambda t: lr * gamma**t


def geometric(low: float, high: float, steps: int) -> Schedule:
    """From one learning rate to another by the same factor each step, there at the last of `steps`.

    Raises:
        ValueError: a learning rate is not positive, or there are fewer than 2 steps.
    """
    _positive(low=low, high=high, steps=steps - 1)
    # η = low · (high / low)^(t / (T - 1))
    return lambda t: low * (high / low) ** (min(t, steps - 1) / (steps - 1))


def cosine(lr: float, steps: int, lowest: float = 0.0) -> Schedule:
    """Half a wave from `lr` down to `lowest`: slow at both ends.

    Raises:
        ValueError: `steps` is not positive.
    """
    _positive(steps=steps)
    # η = lowest + (η₀ - lowest) · (1 + cos(πt / T)) / 2
    return lambda t: lowest + (lr - lowest) * (1 + math.cos(math.pi * min(t / steps, 1))) / 2


def linear_warmup(lr: float, steps: int, start: float = 0.0) -> Schedule:
    """A straight line from `start` · `lr` up to `lr`; the book takes 5 to 10 % of all steps for it.

    Raises:
        ValueError: `steps` is not positive.
    """
    _positive(steps=steps)
    # η = η₀ · (start + (1 - start) · t / T)
    return lambda t: lr * (start + (1 - start) * min(t / steps, 1))


def chained(first: Schedule, steps: int, second: Schedule) -> Schedule:
    """One schedule for `steps` steps, then another that counts from 0."""
    return lambda t: first(t) if t < steps else second(t - steps)


def warmup_cosine(lr: float, steps: int, warmup: int | None = None, lowest: float = 0.0) -> Schedule:
    """What transformers are trained with: a short way up, then half a wave down.

    Args:
        lr: the highest.
        steps: of both together.
        warmup: steps of the way up; a tenth of all by default.
        lowest: where it ends.

    Raises:
        ValueError: `warmup` is not shorter than `steps`, or negative.
    """
    warmup = steps // 10 if warmup is None else warmup
    if not 0 <= warmup < steps:
        raise ValueError(f"`warmup` takes fewer than all {steps} steps, got {warmup}")
    down = cosine(lr, steps - warmup, lowest)
    return chained(linear_warmup(lr, warmup), warmup, down) if warmup else down


def one_cycle(
    highest: float, steps: int, *, rising: float = 0.3, start_divisor: float = 25.0, end_divisor: float = 1e4
) -> Schedule:
    """Up by half a wave, and down by another to almost nothing.

    Args:
        highest: at the top.
        steps: of the whole cycle, the last of which has the lowest learning rate.
        rising: share of the steps on the way up.
        start_divisor: highest / first.
        end_divisor: first / last.

    Raises:
        ValueError: a divisor is not positive, or either way has no step.
    """
    _positive(start_divisor=start_divisor, end_divisor=end_divisor)
    top = rising * steps - 1
    if not 0 < top < steps - 1:
        raise ValueError(f"`rising` takes a share of the {steps} steps with some before and after it, got {rising}")
    first = highest / start_divisor
    up, down = cosine(first, 1, highest), cosine(highest, 1, first / end_divisor)
    return lambda t: up(t / top) if t <= top else down((t - top) / (steps - 1 - top))


def cyclical(lowest: float, highest: float, half: int, shrink: float = 1.0) -> Schedule:
    """Triangles: `half` steps up, `half` steps down, and so on.

    Args:
        lowest: at the foot.
        highest: at the first top.
        half: steps from foot to top.
        shrink: how high each triangle is, measured by the one before it.

    Raises:
        ValueError: `half` is not positive.
    """
    _positive(half=half)

    def triangle(t: float) -> float:
        cycle, at = divmod(t, 2 * half)
        # η = lowest + (highest - lowest) · shrink^cycle · (1 - |at / half - 1|)
        height = (highest - lowest) * math.pow(shrink, cycle)
        return lowest + height * (1 - abs(at / half - 1))

    return triangle


def scaled_lr(lr: float, batch: int, new_batch: int) -> float:
    """The learning rate for another batch size, in proportion.

    Raises:
        ValueError: a batch size is not positive.
    """
    _positive(batch=batch, new_batch=new_batch)
    # η · new_batch / batch
    return lr * new_batch / batch


class Scheduler:
    """Sets the learning rate of an optimizer in place; whatever else that remembers stays.

    Args:
        optimizer: any of torch's kind.
        schedule: gives the learning rate of all its groups.
        relative: whether the schedule gives a factor to each group's own learning rate.

    Attributes:
        steps: t.
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule, *, relative: bool = False) -> None:
        self.optimizer, self.schedule, self.relative = optimizer, schedule, relative
        self.steps = 0
        self.step(0)

    def step(self, at: int | None = None) -> None:
        """Set the learning rate of the next step, or of a given one.

        Args:
            at: t; one more than last time by default.

        Raises:
            ValueError: `at` is negative.
        """
        if at is not None and at < 0:
            raise ValueError(f"`at` takes a step from 0 on, got {at}")
        self.steps = self.steps + 1 if at is None else at
        for group in self.optimizer.param_groups:
            # The name that torch's schedulers use, so that it is saved with the optimizer.
            own = group.setdefault("initial_lr", group["lr"])
            group["lr"] = self.schedule(self.steps) * (own if self.relative else 1)

    @property
    def lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What to save: the step."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved step."""
        self.step(state["steps"])


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a learning rate finder saw.

    Attributes:
        lrs: learning rates that were tried, lowest first.
        losses: the loss right after the step with each; all finite.
    """

    lrs: list[float]
    losses: list[float]

    @property
    def steepest(self) -> float:
        """Where the loss falls fastest over the logarithm of the learning rate."""
        falls = [(later - sooner, at) for at, (sooner, later) in enumerate(self._spans(), 1)]
        return self.lrs[min(falls)[1]]

    @property
    def below_rise(self) -> float:
        """A tenth of where the loss starts to rise, which is where it is lowest."""
        return self.lrs[self.losses.index(min(self.losses))] / 10

    def _spans(self) -> Iterator[tuple[float, float]]:
        # Central differences: the learning rates are evenly spaced on their logarithm.
        return zip(self.losses, self.losses[2:], strict=False)


def lr_finder(
    model: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    optimizer: Callable[[Iterator[nn.Parameter]], Optimizer],
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
) -> Sweep:
    """Train a copy of the model for some steps, each with a higher learning rate; stop where the loss is not finite.

    The model stays as it is, and so does the CPU's random state.

    Args:
        model: of which a copy is trained.
        loss: of a model on a batch, the same one or the next.
        optimizer: makes one from parameters.
        low: the first learning rate.
        high: the last.
        steps: how many to try.

    Raises:
        ValueError: a learning rate is not positive, or fewer than 3 of them gave a finite loss.
    """
    trained = deepcopy(model)
    made = optimizer(trained.parameters())
    scheduler = Scheduler(made, geometric(low, high, steps))
    sweep = Sweep([], [])
    with torch.random.fork_rng(devices=[]):
        now = loss(trained)
        for _ in range(steps):
            made.zero_grad()
            now.backward()  # type: ignore[no-untyped-call]
            made.step()
            now = loss(trained)
            if not math.isfinite(now.item()):
                break
            sweep.lrs.append(scheduler.lr[0])
            sweep.losses.append(now.item())
            scheduler.step()
    if len(sweep.lrs) < 3:
        raise ValueError(f"expected a finite loss at 3 learning rates or more, got {len(sweep.lrs)}, from {low:g} on")
    return sweep
