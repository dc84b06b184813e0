"""Chapter 28: four ways to search that learn nothing from the scores but which are best.

    space = Space(lr=LogUniform(1e-4, 0.1), hidden=Integer(32, 512))
    trials = try_all(random(space, 20), evaluate, budget=10)
    best(trials).config

What is searched is `evaluate(config, budget) -> score`, where a budget is whole epochs, or whatever can be had in
portions. The order in which a score counts is the `mode`: "max" for an accuracy, "min" for a loss or perplexity.
A score of NaN, as of a training that diverged, is worse than every other.

Glossary
    n, r         configs and the budget of each, in a rung
    R            the largest budget of one config
    η            how many configs there are for one that survives, `eta`
    rung         configs that were given the same budget; the best of them climb to the next
    bracket      the rungs of one successive halving
    s            how often a bracket halves

Source: chapter 28 of the book; Jamieson and Talwalkar, Non-stochastic Best Arm Identification (2016); Li et al.,
Hyperband (JMLR 2018), algorithm 1.

Differs from the book: scores are measured instead of a constant 0.95, and perplexity is minimised (erratum E-56).
Budgets are whole: R η⁻ˢ is rounded where it is not.
Does not handle: trainings that are resumed at the next rung (`evaluate` may do so by itself), rungs that do not wait
for the slowest trial.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from reference_models.spaces import Config, Space

    Evaluate = Callable[[Config, int], float]
    # `map`, or that of an executor of `concurrent.futures`, which tries several configs at a time
    Run = Callable[..., Iterable[Any]]

Mode = Literal["min", "max"]


@dataclass(frozen=True, slots=True)
class Trial:
    """A config, and how good it was at some budget."""

    config: Config
    budget: int
    score: float


@dataclass(frozen=True, slots=True)
class Rung:
    """So many configs at the same budget."""

    configs: int
    budget: int


def rank(score: float, mode: Mode = "max") -> tuple[bool, float]:
    """What to sort by, so that the best score comes first and NaN after everything else.

    Args:
        score: to be ranked.
        mode: whether small or large is good.
    """
    if mode not in {"min", "max"}:
        raise ValueError(f"expected `mode` to be 'min' or 'max', got {mode!r}")
    if math.isnan(score):
        return True, 0.0
    return False, score if mode == "min" else -score


def ranked(trials: Iterable[Trial], mode: Mode = "max") -> list[Trial]:
    """The best trial first; equal ones stay in their order."""
    return sorted(trials, key=lambda trial: rank(trial.score, mode))


def best(trials: Iterable[Trial], mode: Mode = "max") -> Trial:
    """The best trial, the first of several.

    Raises:
        ValueError: there is none.
    """
    order = ranked(trials, mode)
    if not order:
        raise ValueError("expected at least one trial, got none")
    return order[0]


def try_all(configs: Sequence[Config], evaluate: Evaluate, *, budget: int = 1, run: Run = map) -> list[Trial]:
    """Give every config the same budget.

    Args:
        configs: what to try.
        evaluate: config and budget → score.
        budget: of each.
        run: `map`, or an executor's, for several at a time; trials keep the order of the configs.
    """
    scores = run(evaluate, configs, itertools.repeat(budget, len(configs)))
    return [Trial(config, budget, float(score)) for config, score in zip(configs, scores, strict=True)]


def grid(space: Space, points: int = 3) -> list[Config]:
    """Every combination of some values of each parameter; the last parameter changes fastest.

    Args:
        space: what may be chosen.
        points: values of each parameter that has more of them; of a `Choice` all are taken.
    """
    axes = [parameter.grid(points) for parameter in space.parameters.values()]
    return [dict(zip(space.parameters, values, strict=True)) for values in itertools.product(*axes)]


def random(space: Space, count: int = 20, generator: torch.Generator | None = None) -> list[Config]:
    """Configs drawn independently of each other.

    Args:
        space: what may be chosen.
        count: how many.
        generator: what is drawn from; torch's global one without it.
    """
    if count < 0:
        raise ValueError(f"expected `count` ≥ 0, got {count}")
    places = torch.rand(count, len(space), dtype=torch.float64, generator=generator)
    return [space.at(row) for row in places.tolist()]


def halving(count: int = 27, budget: int = 1, eta: int = 3) -> list[Rung]:
    """The rungs of successive halving: 1/η of the configs survive each, with η times the budget.

    Args:
        count: configs to begin with.
        budget: of each of them.
        eta: η.
    """
    _check_whole(count=count, budget=budget, eta=eta)
    rungs = [Rung(count, budget)]
    while rungs[-1].configs >= eta:
        # nᵢ₊₁ = ⌊nᵢ / η⌋, rᵢ₊₁ = η rᵢ
        rungs.append(Rung(rungs[-1].configs // eta, rungs[-1].budget * eta))
    return rungs


def brackets(largest: int = 81, eta: int = 3) -> list[list[Rung]]:
    """Hyperband's brackets, from many configs with little budget each to few with all of it.

    Args:
        largest: R.
        eta: η.
    """
    _check_whole(largest=largest, eta=eta)
    # s_max = ⌊log_η R⌋, counted instead of computed, since a logarithm may fall just short of a whole number
    most = 0
    while eta ** (most + 1) <= largest:
        most += 1
    return [_bracket(largest, eta, s, most) for s in range(most, -1, -1)]


def _bracket(largest: int, eta: int, s: int, most: int) -> list[Rung]:
    # n = ⌈(s_max + 1) ηˢ / (s + 1)⌉: every bracket costs about (s_max + 1) R
    count = math.ceil((most + 1) * eta**s / (s + 1))
    # nᵢ = ⌊n η⁻ⁱ⌋, rᵢ = R ηⁱ⁻ˢ
    return [Rung(count // eta**i, max(1, round(largest / eta ** (s - i)))) for i in range(s + 1)]


def successive_halving(
    space: Space,
    evaluate: Evaluate,
    *,
    rungs: Sequence[Rung] | None = None,
    mode: Mode = "max",
    generator: torch.Generator | None = None,
    run: Run = map,
) -> list[Trial]:
    """Try many configs a little, and go on with the best of them.

    Args:
        space: what may be chosen.
        evaluate: config and budget → score.
        rungs: configs and budgets, `halving()` by default.
        mode: whether small or large scores are good.
        generator: what the configs are drawn from; torch's global one without it.
        run: `map`, or an executor's, for several at a time.

    Returns:
        All trials, in the order of the rungs.
    """
    rungs = halving() if rungs is None else rungs
    trials: list[Trial] = []
    survivors = random(space, rungs[0].configs, generator)
    for rung in rungs:
        tried = try_all(survivors[: rung.configs], evaluate, budget=rung.budget, run=run)
        survivors = [trial.config for trial in ranked(tried, mode)]
        trials += tried
    return trials


def hyperband(
    space: Space,
    evaluate: Evaluate,
    *,
    plan: Sequence[Sequence[Rung]] | None = None,
    mode: Mode = "max",
    generator: torch.Generator | None = None,
    run: Run = map,
) -> list[Trial]:
    """Successive halving several times, since nobody knows beforehand how early a score can be trusted.

    Args:
        space: what may be chosen.
        evaluate: config and budget → score.
        plan: rungs of each halving, `brackets()` by default.
        mode: whether small or large scores are good.
        generator: what the configs are drawn from; torch's global one without it.
        run: `map`, or an executor's, for several at a time.

    Returns:
        All trials, in the order of the brackets.
    """
    plan = brackets() if plan is None else plan
    halvings = (
        successive_halving(space, evaluate, rungs=rungs, mode=mode, generator=generator, run=run) for rungs in plan
    )
    return [trial for trials in halvings for trial in trials]


def _check_whole(*, eta: int, **sizes: int) -> None:
    if eta < 2:
        raise ValueError(f"expected `eta` ≥ 2, got {eta}")
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"expected `{name}` ≥ 1, got {size}")
