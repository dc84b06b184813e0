"""Steps are found from passes and optimizers alone; each script below is one way to train."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorscope.live.steps import PATIENCE, StepFinder

Emitted = list[tuple[int, list[int]]]


def run(script: str, *, optimizer_exists: bool = True) -> tuple[Emitted, list[int]]:
    """Play a script: f a training pass, e an evaluation pass, s an explicit step, l a look, a capital an optimizer.

    A small a, b or c: that optimizer exists no more; several at once if they stand side by side.

    Returns:
        The steps with the numbers of the phases in them, and the numbers that were looked at.
    """
    emitted: Emitted = []
    phases: list[int] = []

    def new() -> int:
        phases.append(len(phases))
        return phases[-1]

    finder = StepFinder(new, lambda bundles, step: emitted.append((step, bundles)), lambda: optimizer_exists)
    numbers = []
    for part in re.findall("[abc]+|.", script):
        letter = part[0]
        if letter in "abc":
            finder.optimizers_gone({ord(gone.upper()) for gone in part})
        elif letter in "fe":
            finder.pass_begins(gradients=letter == "f")
        elif letter == "s":
            finder.step()
        elif letter == "l":
            numbers.append(finder.number)
        else:
            finder.optimizer_stepped(ord(letter))
    finder.close()
    return emitted, numbers


@pytest.mark.parametrize(
    ("script", "steps"),
    [
        ("fA" * 4, [[0], [1], [2], [3]]),
        ("ffffA" * 2, [[0, 1, 2, 3], [4]]),  # gradient accumulation: the first time it could be anything
        ("fAee" * 3, [[0], [1], [2]]),  # evaluation
        ("efA" * 3, [[0], [1], [2]]),
        ("fDfG" * 3, [[0, 1], [2, 3], [4, 5]]),  # a GAN: both optimizers make one step
        ("fDfDfDfG" * 2, [[0], [1], [2], [3, 4], [5], [6]]),  # a critic ahead: its steps count
        ("fA" * 2 + "fB" * 3, [[0], [1], [2], [3], [4]]),  # a new optimizer takes over
        ("f" * 5, [[0], [1], [2], [3], [4]]),  # the optimizer that exists never steps
        ("fs" * 3, [[0], [1], [2]]),
        ("fAafBbfCc", [[0], [1], [2]]),  # an optimizer for each step, gone after it
        ("fAfBafCbfAc", [[0], [1], [2], [3]]),  # likewise, gone once the next one is there
        ("fAfBab" * 2, [[0, 1], [2, 3]]),  # two that take turns, made anew for each step
        ("fDfGfDfGa", [[0, 1], [2, 3]]),  # one that never stepped
        ("fAfAs" * 2, [[0], [1], [2]]),
        ("", []),
    ],
)
def test_steps_are_what_a_user_would_count(script: str, steps: list[list[int]]) -> None:
    emitted, _ = run(script)
    assert [step for step, _ in emitted] == list(range(len(emitted)))
    if steps:
        assert [phases for _, phases in emitted][: len(steps)] == steps


@pytest.mark.parametrize("script", ["fff", "eee", "fef"])
def test_without_an_optimizer_every_pass_is_a_step(script: str) -> None:
    emitted, _ = run(script, optimizer_exists=False)
    assert len(emitted) == 3


def test_a_look_after_the_optimizer_names_the_step_just_done() -> None:
    assert run("fAl" * 4)[1] == [0, 1, 2, 3]
    assert run("fDfGl" * 4)[1][1:] == [1, 2, 3]
    assert run("ffffAl" * 3)[1][1:] == [1, 2]


def test_patience_with_an_optimizer_ends() -> None:
    emitted, numbers = run("f" * (PATIENCE + 3) + "l")
    assert len(emitted) == PATIENCE + 3
    assert numbers == [PATIENCE + 2]


@given(st.text("feABabsl", max_size=60), st.booleans())
def test_whatever_happens_steps_are_numbered_in_order_and_no_phase_is_lost_or_doubled(
    script: str, exists: bool
) -> None:
    emitted, numbers = run(script, optimizer_exists=exists)
    assert [step for step, _ in emitted] == list(range(len(emitted)))
    phases = [phase for _, bundle in emitted for phase in bundle]
    assert phases == sorted(set(phases))
    assert all(number >= 0 for number in numbers)
