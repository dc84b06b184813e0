"""The trainings of chapters 2 to 16: one entry each, which says all there is to say of it.

Targets are those of the book where it has any that can be reached, otherwise what several seeds have reached, less a
margin. Those at the end are meant to fail: each shows one fault that chapters 9 to 12 and 27 warn of.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from reference_models import losses
from reference_models.alexnet import AlexNet
from reference_models.backprop import TwoLayerNet
from reference_models.cnn import SimpleCNN
from reference_models.data import Samples, digits, iris, split
from reference_models.initialization import normal
from reference_models.linear_regression import LinearRegression, line
from reference_models.loops import HandMade, NextNumber, Rosenblatt
from reference_models.lstm import GRU, LSTM
from reference_models.mlp import MLP
from reference_models.optimizers import SGD, Adam, AdamW
from reference_models.perceptron import XORNet, truth_table
from reference_models.resnet import ResNetMini
from reference_models.rnn import ElmanRNN
from reference_models.schedules import Scheduler, step
from reference_models.training import Data, Preset, Recipe, Supervised, Target, Task
from reference_models.transforms import fit_min_max

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from reference_models.training import OnStep, Result


def flat_digits(image: int = 8) -> Samples:
    """Digits as rows of pixels, (sample, image²)."""
    return digits(image).mapped(lambda images: images.flatten(1))


def classifier(
    model: Callable[[], nn.Module], samples: Callable[[], Samples], recipe: Recipe, *, scaled: bool = False
) -> Callable[[int], Task]:
    """A model that learns the classes of four fifths of the samples, and is tested with the others.

    Args:
        model: builds it.
        samples: loads them all.
        recipe: how it is trained.
        scaled: whether inputs are brought to [0, 1], by the range of those that are trained on.
    """

    def make(seed: int) -> Task:
        train, test = split(samples(), seed)
        if scaled:
            scale = fit_min_max(train.inputs)
            train, test = train.mapped(scale), test.mapped(scale)
        return Supervised(model(), Data(train, test), recipe, seed=seed)

    return make


def fitting(
    model: Callable[[], nn.Module],
    samples: Callable[[torch.Generator], Samples],
    recipe: Recipe,
    measure: Callable[[nn.Module], dict[str, float]] | None = None,
    *,
    fresh: bool = False,
) -> Callable[[int], Task]:
    """A model that learns samples which are made, or all that there are.

    Args:
        model: builds it.
        samples: makes them.
        recipe: how it is trained.
        measure: finds further scores of the trained model.
        fresh: whether each epoch has samples of its own.
    """

    def make(seed: int) -> Task:
        data = samples if fresh else samples(torch.Generator().manual_seed(seed))
        return Supervised(model(), Data(data), recipe, measure=measure, seed=seed)

    return make


# --- data of chapters 3, 4 and of the one on Python ------------------------------------------------------------------


def additions(generator: torch.Generator, *, count: int = 3200, most: float = 10.0) -> Samples:
    """Pairs of numbers (count, 2) from [0, most) and their sums (count, 1)."""
    pairs = torch.rand(count, 2, generator=generator) * most
    return Samples(pairs, pairs.sum(1, keepdim=True))


def weighted_sums(generator: torch.Generator, *, weights: tuple[float, ...] = (2.0, 3.0), count: int = 100) -> Samples:
    """Numbers (count, inputs) from [0, 1) and one weighted sum of each row (count, 1)."""
    inputs = torch.rand(count, len(weights), generator=generator)
    return Samples(inputs, inputs @ torch.tensor(weights).unsqueeze(1))


def rotations(generator: torch.Generator, *, count: int = 640) -> Samples:
    """Ten numbers a row, and two that depend on them: y = W x for a W that the generator draws, too."""
    weight = torch.randn(2, 10, generator=generator) / 10**0.5
    inputs = torch.randn(count, 10, generator=generator)
    return Samples(inputs, inputs @ weight.T)


# --- scores that are not means over samples --------------------------------------------------------------------------


@torch.no_grad()
def worst_addition(model: nn.Module) -> dict[str, float]:
    """How far the model is off at the worst of chapter 3's six pairs, and on average with larger numbers."""
    pairs = torch.tensor([[3, 5], [2.5, 7.5], [1.2, 3.4], [8, 9], [0, 0], [10, 10]])
    beyond = additions(torch.Generator().manual_seed(0), count=100, most=20.0)
    return {
        "worst_pair": float((model(pairs) - pairs.sum(1, keepdim=True)).abs().max()),
        "beyond": float((model(beyond.inputs) - beyond.labels).abs().mean()),
    }


@torch.no_grad()
def line_errors(model: nn.Module) -> dict[str, float]:
    """How far the model is from 1, 11 and 21 at 0, 5 and 10."""
    found: Tensor = model(torch.tensor([[0.0], [5.0], [10.0]])).flatten() - torch.tensor([1.0, 11.0, 21.0])
    return {f"error_at_{x}": float(error) for x, error in zip((0, 5, 10), found.abs(), strict=True)}


# --- models that are made so that they fail --------------------------------------------------------------------------


def wild(model: nn.Module) -> nn.Module:
    """Draw every weight from N(0, 1), however many inputs it has."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(normal(*parameter.shape, std=1.0))
    return model


def zeroed(model: nn.Module) -> nn.Module:
    """Set every parameter to 0, so that no unit differs from another."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def buried(net: TwoLayerNet) -> TwoLayerNet:
    """Let chapter 9's hidden units start so far below 0 that none fires: with its own start one dies now and then."""
    with torch.no_grad():
        net.bias1.fill_(-1)
    return net


def random_labels(count: int = 500) -> Samples:
    """Digits with labels that have nothing to do with them."""
    few = flat_digits()[:count]
    return Samples(few.inputs, torch.randint(0, 10, (count,), generator=torch.Generator().manual_seed(0)))


MSE = partial(Recipe, loss=losses.mse)
AT_LEAST_95 = (Target("test_accuracy", 0.95),)
DEEP = (64, *[64] * 10, 10)

HEALTHY = (
    Preset("perceptron-and", "2", "AND, by Rosenblatt's rule", lambda _: Rosenblatt("AND"), (Target("accuracy", 1),)),
    Preset("perceptron-or", "2", "OR, by Rosenblatt's rule", lambda _: Rosenblatt("OR"), (Target("accuracy", 1),)),
    Preset(
        "xor-mlp", "2", "XOR, which one neuron cannot learn",
        fitting(
            XORNet, lambda _: truth_table("XOR"),
            Recipe(partial(Adam, lr=0.05), 500, None, losses.bce_with_logits,
                   {"accuracy": lambda logits, labels: ((logits > 0) == (labels > 0)).float().mean()}),
        ),
        (Target("train_accuracy", 1),),
    ),
    Preset(
        "alexnet", "2", "digits of 32×32 pixels",
        classifier(AlexNet, partial(digits, 32), Recipe(partial(AdamW, lr=1e-3), 8)), (Target("test_accuracy", 0.9),),
        is_slow=True,
    ),
    Preset(
        "addition-mlp", "3", "the sum of two numbers",
        fitting(MLP.addition, additions, MSE(partial(AdamW, lr=1e-2), 20, 32), worst_addition, fresh=True),
        (Target("train_loss", 1e-3, at_most=True), Target("worst_pair", 0.3, at_most=True)),
    ),
    Preset(
        "simple-mlp", "4", "two weighted sums of ten numbers",
        fitting(MLP.simple, rotations, MSE(partial(Adam, lr=1e-3), 50)),
        (Target("train_loss", 0.02, at_most=True),),
    ),
    Preset(
        "iris-mlp", "7", "three species by four lengths",
        classifier(MLP.iris, iris, Recipe(partial(AdamW, lr=0.01), 100, 32), scaled=True),
        (Target("test_accuracy", 0.9),),
    ),
    Preset(
        "iris-mlp-book", "7", "the same as the book has it: no flower is kept for the test",
        fitting(MLP.iris, lambda _: iris(scaled=True), Recipe(partial(AdamW, lr=0.01), 100, 32)),
        (Target("train_accuracy", 0.96),),
    ),
    Preset(
        "linear-regression", "8", "a line through noisy points",
        fitting(LinearRegression, line, MSE(partial(AdamW, lr=0.1), 400, None), line_errors),
        (Target("train_loss", 0.02, at_most=True), Target("error_at_0", 0.3, at_most=True),
         Target("error_at_5", 0.1, at_most=True), Target("error_at_10", 0.3, at_most=True)),
    ),
    Preset(
        "backprop", "9", "the same, gradients by hand",
        lambda seed: HandMade(TwoLayerNet(8), seed, lr=0.01, epochs=1000),
        (Target("loss", 0.01, at_most=True),),
    ),
    Preset(
        "scheduled-mlp", "11", "the same, learning rate falling in steps",
        fitting(
            partial(MLP, 1, 10, 1), line,
            MSE(partial(SGD, lr=0.003), 300, None, schedule=lambda o: Scheduler(o, step(0.003, 100, 0.5)).step),
        ),
        (Target("train_loss", 0.05, at_most=True),),
    ),
    Preset(
        "cnn", "13", "digits of 28×28 pixels",
        classifier(SimpleCNN, partial(digits, 28), Recipe(partial(AdamW, lr=1e-3), 10)), AT_LEAST_95, is_slow=True,
    ),
    Preset(
        "cnn-tiny", "13", "digits of 8×8 pixels",
        classifier(SimpleCNN.tiny, digits, Recipe(partial(AdamW, lr=2e-3), 15)), AT_LEAST_95,
    ),
    Preset(
        "cnn-dropout", "13", "the same with dropout before the output",
        classifier(partial(SimpleCNN, dropout=0.5), partial(digits, 28), Recipe(partial(AdamW, lr=1e-3), 10)),
        AT_LEAST_95, is_slow=True,
    ),
    Preset(
        "elman", "15", "the next number, 1 to 8", lambda _: NextNumber(ElmanRNN(), lr=0.05, epochs=1000),
        (Target("loss", 1e-4, at_most=True), Target("worst", 0.02, at_most=True)), is_slow=True,
    ),
    Preset(
        "lstm", "16", "the next number, 1 to 8", lambda _: NextNumber(LSTM(), lr=0.01, epochs=2000),
        (Target("worst", 0.1, at_most=True),), is_slow=True,
    ),
    Preset(
        "gru", "16", "the same", lambda _: NextNumber(GRU(), lr=0.01, epochs=2000),
        (Target("worst", 0.1, at_most=True),), is_slow=True,
    ),
    Preset(
        "digits-mlp", "28", "digits of 8×8 pixels",
        classifier(MLP.digits, flat_digits, Recipe(partial(AdamW, lr=0.00342, weight_decay=5e-4), 20)),
        (Target("test_accuracy", 0.96),),
    ),
    Preset(
        "regularized-mlp", "opt.", "digits of 28×28 pixels, with dropout",
        classifier(MLP.regularized, partial(flat_digits, 28), Recipe(partial(AdamW, lr=1e-3), 30)), AT_LEAST_95,
        is_slow=True,
    ),
    Preset(
        "resnet", "opt.", "digits of 8×8 pixels",
        classifier(ResNetMini, digits, Recipe(partial(AdamW, lr=2e-3), 10)), (Target("test_accuracy", 0.97),),
        is_slow=True,
    ),
    Preset(
        "python-mlp", "py.", "2x₁ + 3x₂",
        fitting(partial(MLP, 2, 10, 1), weighted_sums, MSE(partial(SGD, lr=0.1), 300, None)),
        (Target("train_loss", 0.01, at_most=True),),
    ),
)  # fmt: skip

FAILING = (
    Preset(
        "perceptron-xor", "2", "XOR, by Rosenblatt's rule", lambda _: Rosenblatt("XOR"),
        provokes=("loss_not_decreasing",),
    ),
    Preset(
        "dead-relu", "9", "a line, two hidden units that never fire",
        lambda seed: HandMade(buried(TwoLayerNet(2)), seed, lr=0.01, epochs=1000), provokes=("dead_relu",),
    ),
    Preset(
        "vanishing-sigmoid", "10", "digits, ten layers of sigmoids",
        classifier(partial(MLP, *DEEP, nonlinearity="sigmoid"), flat_digits, Recipe(partial(SGD, lr=0.1), 10)),
        provokes=("vanishing_gradient",),
    ),
    Preset(
        "exploding-init", "10", "digits, ten layers of N(0, 1) weights",
        classifier(lambda: wild(MLP(*DEEP)), flat_digits, Recipe(partial(SGD, lr=0.01), 5)),
        provokes=("exploding_gradient", "bad_initialisation", "nan_inf"),
    ),
    Preset(
        "high-learning-rate", "11", "a line, learning rate 0.1",
        fitting(partial(MLP, 1, 10, 1), line, MSE(partial(SGD, lr=0.1), 100, None)), provokes=("lr_too_high",),
    ),
    Preset(
        "zero-init", "py.", "2x₁ + 3x₂, all parameters 0 at first",
        fitting(lambda: zeroed(MLP(2, 10, 1)), weighted_sums, MSE(partial(SGD, lr=0.01), 100, None)),
        provokes=("bad_initialisation",),
    ),
    Preset(
        "random-labels", "27", "digits with labels that mean nothing",
        classifier(partial(MLP, 64, 256, 10), random_labels, Recipe(partial(AdamW, lr=5e-3), 60)),
        provokes=("overfitting",),
    ),
)  # fmt: skip

PRESETS = {preset.name: preset for preset in (*HEALTHY, *FAILING)}


def train(name: str = "cnn", *, seed: int = 0, epochs: int | None = None, on_step: OnStep | None = None) -> Result:
    """Build a preset, train it and measure it.

    Args:
        name: one of `PRESETS`.
        seed: of weights, split and order of the batches.
        epochs: the preset's by default.
        on_step: called after each optimizer step with its number and what is known of its batch, such as `loss`.

    Raises:
        ValueError: there is no such preset.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no reference model `{name}`; there are {', '.join(PRESETS)}")
    task = PRESETS[name].build(seed)
    for _ in task.epochs(epochs, on_step=on_step):
        pass
    return task.result()
