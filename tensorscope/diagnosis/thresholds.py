"""Every number that a rule compares with, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Limits of the rules.

    Attributes:
        dead_warning: share of a rectifier's units that must be dead for a warning. Amazon SageMaker Debugger's
            `DeadRelu` asks for 50 % of a layer's units.
        dead_error: share from which it is an error: next to nothing passes.
        vanishing_ratio: gradient of the first layer over that of the last, each relative to its weights, below which
            gradients count as vanished. AutoTrainer (Zhang et al., ICSE 2021) uses 1e-3 on absolute gradients; relative
            ones vary less, and healthy deep networks reach 1e-3.
        learned_share: share of its first value to which the loss must have fallen for a network to count as learning,
            whatever its gradients look like.
        fewest_steps: measured steps without which there is no talk of a trend.
    """

    dead_warning: float = 0.5
    dead_error: float = 0.9
    vanishing_ratio: float = 1e-4
    learned_share: float = 0.5
    fewest_steps: int = 10


DEFAULTS = Thresholds()
