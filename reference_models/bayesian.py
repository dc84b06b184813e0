"""Chapter 28: a search that learns from the scores where to look next.

A Gaussian process guesses the score of every config from those tried, and says how sure it is. The next config is the
one that is expected to improve most on the best: where the guess is good, or where little is known.

Glossary
    X, y         what was tried (n, features), and its loss (n), small is good
    x*           what might be tried (candidates, features)
    k(a, b)      kernel: how alike the losses at a and b are, 1 at a = b
    ℓ            length over which a loss changes
    σ²ₙ          noise of a loss
    K            k(X, X) + σ²ₙ I = L Lᵀ, L lower triangular
    α            K⁻¹ y
    μ, σ         mean and deviation of the guess at x*
    f*           the smallest loss so far
    φ, Φ         density and distribution function of the normal distribution

Source: chapter 28 of the book, which shows a skeleton; Rasmussen and Williams, Gaussian Processes for Machine Learning
(2006), algorithm 2.1 and equation 4.17; Jones, Schonlau and Welch, Efficient Global Optimization (1998), equation 15.

Differs from the book: the surrogate and its acquisition are there, and what is sampled is not the base config (E-56).
Does not handle: a length per parameter, several trials at a time, gradients of the Matérn kernel at equal points.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch

from reference_models.search import Trial
from tensorscope import shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from reference_models.search import Evaluate, Mode
    from reference_models.spaces import Space

    Kernel = Callable[[Tensor, Tensor], Tensor]

STARTS = 5  # random trials before the first guess
CANDIDATES = 256  # drawn from everywhere, and as many from around the best
NEARBY = 0.05  # how far around, in parts of a parameter's range
LENGTHS = (0.1, 0.2, 0.4, 0.8, 1.6)
NOISES = (1e-6, 1e-3, 1e-1)


@shapes("samples features, others features -> samples others")
def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """How far each row of one is from each of the other, squared.

    Args:
        a: (samples, features) float tensor.
        b: (others, features) float tensor.
    """
    return (a.unsqueeze(1) - b).square().sum(2)


@shapes("samples features, others features -> samples others")
def rbf(a: Tensor, b: Tensor, length: float = 1.0) -> Tensor:
    """The kernel of functions that are smooth everywhere.

    Args:
        a: (samples, features) float tensor.
        b: (others, features) float tensor.
        length: ℓ.
    """
    # k = exp(-r² / 2ℓ²)
    return (squared_distances(a, b) / (-2 * length**2)).exp()


@shapes("samples features, others features -> samples others")
def matern(a: Tensor, b: Tensor, length: float = 1.0) -> Tensor:
    """The Matérn kernel with ν = 5/2, of functions that are smooth to the second derivative, as scores rather are.

    Args:
        a: (samples, features) float tensor.
        b: (others, features) float tensor.
        length: ℓ.
    """
    # k = (1 + t + t²/3) exp(-t),  t = √5 r / ℓ
    t = squared_distances(a, b).sqrt() * (math.sqrt(5) / length)
    return (1 + t + t**2 / 3) * (-t).exp()


class GaussianProcess:
    """A distribution over functions, narrowed down to those that go through what is known.

    Args:
        inputs: X, (samples, features) float64 tensor.
        targets: y, (samples) float64 tensor.
        kernel: k.
        noise: σ²ₙ, which also keeps K invertible where two inputs are alike.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, kernel: Kernel = matern, noise: float = 1e-6) -> None:
        self.inputs, self.targets, self.kernel = inputs, targets, kernel
        # L = cholesky(K),  α = L⁻ᵀ L⁻¹ y
        known = kernel(inputs, inputs) + noise * torch.eye(len(inputs), dtype=inputs.dtype)
        self._triangle: Tensor = torch.linalg.cholesky(known)
        self._weights = torch.cholesky_solve(targets.unsqueeze(1), self._triangle).squeeze(1)

    @shapes("candidates features -> candidates, candidates")
    def posterior(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the function at some points.

        Args:
            points: x*, (candidates, features) float64 tensor.
        """
        shared = self.kernel(points, self.inputs)
        # μ = k(x*, X) α
        mean = shared @ self._weights
        # σ² = k(x*, x*) - ‖L⁻¹ k(X, x*)‖², where k(x*, x*) = 1
        explained = torch.linalg.solve_triangular(self._triangle, shared.T, upper=False).square().sum(0)
        return mean, (1 - explained).clamp(min=0).sqrt()

    @shapes("->")
    def log_likelihood(self) -> Tensor:
        """How well kernel and noise explain what is known."""
        # log p(y) = -½ yᵀα - Σᵢ log Lᵢᵢ - n/2 log 2π
        fit = -0.5 * self.targets @ self._weights
        return fit - self._triangle.diagonal().log().sum() - len(self.targets) / 2 * math.log(2 * math.pi)


@shapes("samples features, samples")
def fitted(inputs: Tensor, targets: Tensor) -> GaussianProcess:
    """The Gaussian process with the length and the noise that explain best what is known.

    Args:
        inputs: X, (samples, features) float64 tensor.
        targets: y, (samples) float64 tensor, of mean 0 and variance 1.
    """
    guesses = [
        GaussianProcess(inputs, targets, partial(matern, length=length), noise)
        for length in LENGTHS
        for noise in NOISES
    ]
    return max(guesses, key=lambda guess: float(guess.log_likelihood()))


@shapes("candidates, candidates -> candidates")
def expected_improvement(mean: Tensor, deviation: Tensor, lowest: float) -> Tensor:
    """By how much a loss is expected to fall below the lowest, counting 0 where it does not.

    Args:
        mean: μ, (candidates) float tensor.
        deviation: σ, (candidates) float tensor.
        lowest: f*.
    """
    # EI = (f* - μ) Φ(z) + σ φ(z),  z = (f* - μ) / σ
    gain = lowest - mean
    z = gain / deviation
    below = torch.erfc(-z / math.sqrt(2)) / 2
    density = (-z.square() / 2).exp() / math.sqrt(2 * math.pi)
    # What is certain improves by exactly the gain, if at all.
    return torch.where(deviation > 0, gain * below + deviation * density, gain).clamp(min=0)


def bayesian(
    space: Space,
    evaluate: Evaluate,
    *,
    count: int = 20,
    budget: int = 1,
    mode: Mode = "max",
    generator: torch.Generator | None = None,
) -> list[Trial]:
    """Try configs one after the other, each where the scores so far promise most.

    Args:
        space: what may be chosen.
        evaluate: config and budget → score.
        count: trials, of which the first are random.
        budget: of each.
        mode: whether small or large scores are good.
        generator: what is drawn from; torch's global one without it.

    Returns:
        All trials, in their order.
    """
    if mode not in {"min", "max"}:
        raise ValueError(f"expected `mode` to be 'min' or 'max', got {mode!r}")
    trials: list[Trial] = []
    places = torch.rand(min(STARTS, count), len(space), dtype=torch.float64, generator=generator)
    for number in range(count):
        if number >= STARTS:
            places = torch.cat([places, _propose(space, places, _losses(trials, mode), generator)])
        config = space.at(places[number].tolist())
        trials.append(Trial(config, budget, float(evaluate(config, budget))))
    return trials


def _losses(trials: Sequence[Trial], mode: Mode) -> Tensor:
    """What the surrogate learns: small is good, mean 0, variance 1, and all of it finite."""
    scores = torch.tensor([trial.score for trial in trials], dtype=torch.float64)
    losses = scores if mode == "min" else -scores
    # A training that diverged is as bad as the worst that did not; its own number would hide all other differences.
    known = losses[losses.isfinite()]
    losses = torch.where(losses.isfinite(), losses, known.max() if len(known) else 0)
    deviation = losses.std(correction=0)
    return (losses - losses.mean()) / torch.where(deviation > 0, deviation, 1)


def _propose(space: Space, places: Tensor, losses: Tensor, generator: torch.Generator | None) -> Tensor:
    """The candidate of the largest expected improvement, (1, parameters)."""
    size = (CANDIDATES, len(space))
    anywhere = torch.rand(size, dtype=torch.float64, generator=generator)
    near = places[losses.argmin()] + NEARBY * torch.randn(size, dtype=torch.float64, generator=generator)
    candidates = torch.cat([anywhere, near.clamp(0, 1)])
    mean, deviation = fitted(_features(space, places), losses).posterior(_features(space, candidates))
    chosen = expected_improvement(mean, deviation, float(losses.min())).argmax()
    return candidates[chosen].unsqueeze(0)


def _features(space: Space, places: Tensor) -> Tensor:
    rows = [space.coordinates(space.at(row)) for row in places.tolist()]
    return torch.tensor(rows, dtype=torch.float64)
