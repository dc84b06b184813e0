"""The trainings of the book: right sizes, gradients everywhere, targets reached, and faults where they are meant."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil

import pytest
import torch

import reference_models
from reference_models import PRESETS, train
from reference_models.presets import FAILING, HEALTHY

FAST = [preset.name for preset in HEALTHY if not preset.is_slow]
PARAMETERS = {
    "addition-mlp": 65, "simple-mlp": 652, "iris-mlp": 259, "linear-regression": 2, "scheduled-mlp": 31,
    "cnn": 225_034, "elman": 141, "lstm": 1781, "regularized-mlp": 235_146, "python-mlp": 41, "dead-relu": 7,
    "zero-init": 41, "high-learning-rate": 31,
}  # fmt: skip


@pytest.mark.parametrize("name", FAST)
def test_a_fast_training_reaches_its_targets(name):
    result = train(name)
    assert result.met, result.scores


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", [preset.name for preset in HEALTHY])
def test_every_training_reaches_its_targets(name, seed):
    result = train(name, seed=seed)
    assert result.met, result.scores


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_model_has_as_many_parameters_as_the_book_counts(name):
    assert sum(p.numel() for p in PRESETS[name].build().model.parameters()) == PARAMETERS[name]


WITHOUT = {"zero-init", "dead-relu"}  # gradients: that is their fault


@pytest.mark.parametrize("name", [p.name for p in PRESETS.values() if p.name[:10] != "perceptron" and not p.is_slow])
def test_every_parameter_gets_a_gradient_in_the_first_steps(name):
    task, seen = PRESETS[name].build(), set()

    def on_step(step, numbers):
        seen.update(n for n, p in task.model.named_parameters() if p.grad is not None and (p.grad != 0).any())
        if step == 5:
            raise StopIteration

    with pytest.raises((StopIteration, RuntimeError)):  # what stops a generator becomes a RuntimeError
        list(task.epochs(10, on_step=on_step))
    assert (seen == {name for name, _ in task.model.named_parameters()}) == (name not in WITHOUT)


def test_unknown_names_are_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match=r"no reference model `iris`; there are perceptron-and, "):
        train("iris")


@pytest.mark.parametrize("preset", FAILING, ids=lambda preset: preset.name)
def test_what_is_meant_to_fail_fails(preset):
    scores = train(preset.name).scores
    fails = {
        "perceptron-xor": lambda: scores["accuracy"] <= 0.75,
        "dead-relu": lambda: scores["loss"] > 30,  # the variance of what is to be learned: the output is constant
        "vanishing-sigmoid": lambda: scores["test_accuracy"] < 0.2,
        "exploding-init": lambda: math.isnan(scores["train_loss"]) or scores["test_accuracy"] < 0.3,
        "high-learning-rate": lambda: scores["train_loss"] > 10,
        "zero-init": lambda: scores["train_loss"] > 0.5,
        "random-labels": lambda: scores["train_accuracy"] > 0.7 and scores["test_accuracy"] < 0.2,
    }
    assert fails[preset.name](), scores


def test_every_forward_says_its_shapes():
    names = [module.name for module in pkgutil.iter_modules(reference_models.__path__, "reference_models.")]
    everything = [value for name in names for value in vars(importlib.import_module(name)).values()]
    classes = {c for c in everything if inspect.isclass(c) and issubclass(c, torch.nn.Module)}
    ours = [c for c in classes if c.__module__.startswith("reference_models") and "forward" in vars(c)]
    assert len(ours) > 30
    assert [c.__name__ for c in ours if not hasattr(c.forward, "__tensorscope_shapes__")] == []
