"""Chapter 28: a study, from the question to the one look at the test set.

    study = tune_digits_mlp(trials=12, seed=0, folder="runs")
    study.best.config, study.best.score(), study.default.score(), study.test_accuracy

Glossary
    config       what was chosen for a training
    trial        a training with a config that the search drew
    budget       epochs of a trial
    default      the config that one would have taken without a search
    validation   samples that decide between configs and are not trained on
    test         samples that decide nothing and are looked at once, at the end

Source: chapter 28 of the book; its MNIST is replaced by the digits that come with scikit-learn.

Differs from the book: the validation samples are not the test set, batches are shuffled, scores are measured
(erratum E-56); dropout is off while a model is judged (E-41).
Does not handle: the chapter's second study, of a transformer (a later chapter's model).
"""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from reference_models.data import Samples, digits, train_val_test
from reference_models.losses import accuracy, cross_entropy
from reference_models.mlp import MLP
from reference_models.optimizers import AdamW
from reference_models.regularization import EarlyStopping
from reference_models.search import random
from reference_models.spaces import Choice, LogUniform, Space, Uniform
from reference_models.stopping import progress
from reference_models.tracking import Record, Tracker, environment, ordered, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from reference_models.spaces import Config
    from reference_models.stopping import Stop

DIGITS_SPACE = Space(
    hidden=Choice((64,), (128,), (256,), (128, 64), (256, 128), (512, 256)),
    activation=Choice("relu", "tanh", "sigmoid", "gelu_tanh"),
    dropout=Uniform(0.0, 0.5),
    lr=LogUniform(1e-4, 0.1),
    batch=Choice(16, 32, 64, 128),
    weight_decay=LogUniform(1e-5, 0.1),
)


@dataclass(frozen=True, slots=True)
class MLPConfig:
    """How a multi-layer perceptron is made and trained; the defaults are the book's.

    Attributes:
        hidden: units of each hidden layer.
        activation: between the layers, by its name in `activations.py`.
        dropout: share of hidden units left out, in [0, 1).
        lr: of AdamW.
        batch: samples per step.
        weight_decay: of AdamW.
    """

    hidden: tuple[int, ...] = (128, 64)
    activation: str = "relu"
    dropout: float = 0.2
    lr: float = 1e-3
    batch: int = 64
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        checks = {
            "hidden": all(units >= 1 for units in self.hidden),
            "dropout": 0 <= self.dropout < 1,
            "lr": 0 < self.lr < math.inf,
            "batch": self.batch >= 1,
            "weight_decay": 0 <= self.weight_decay < math.inf,
        }
        for name, is_right in checks.items():
            if not is_right:
                raise ValueError(f"expected {EXPECTED[name]}, got {getattr(self, name)!r}")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> MLPConfig:
        """From what a search drew.

        Args:
            config: some of the attributes, by name.
        """
        return cls(**config)

    def build(self, inputs: int = 784, classes: int = 10) -> MLP:
        """The model, with weights from torch's global generator."""
        return MLP(inputs, *self.hidden, classes, nonlinearity=self.activation, dropout=self.dropout)


EXPECTED = {
    "hidden": "at least one unit in each layer of `hidden`",
    "dropout": "0 ≤ `dropout` < 1",
    "lr": "0 < `lr` < ∞",
    "batch": "`batch` ≥ 1",
    "weight_decay": "0 ≤ `weight_decay` < ∞",
}

# What the book says a search might find on MNIST.
BOOKS_BEST = MLPConfig((256, 128), "gelu_tanh", dropout=0.3, lr=0.00342, batch=64, weight_decay=5e-4)


def fit(
    config: MLPConfig,
    train: Samples,
    validation: Samples,
    *,
    epochs: int = 20,
    seed: int = 0,
    stops: Iterable[Stop] = (),
) -> tuple[MLP, Record]:
    """Train a model, judge it after each epoch, and write down what happened.

    Args:
        config: how.
        train: (sample, ...) inputs and their labels; inputs are flattened.
        validation: what it is judged by.
        epochs: at most how many.
        seed: of weights, dropout and order; torch's global generator stays as it was.
        stops: reasons to end earlier, asked after each epoch.

    Returns:
        The model as it was at the end, and the record.
    """
    stops, start = list(stops), time.perf_counter()
    names = ("train_loss", "gradient_norm", "validation_loss", "validation_accuracy")
    curves: dict[str, list[float]] = {name: [] for name in names}
    with _seeded(seed) as order:
        model = config.build(train.inputs[0].numel(), int(train.labels.max()) + 1)
        optimizer = AdamW(model.parameters(), config.lr, weight_decay=config.weight_decay)
        for _ in range(epochs):
            row = (*_train_once(model, optimizer, train.batches(config.batch, order)), *judge(model, validation))
            for curve, number in zip(curves.values(), row, strict=True):
                curve.append(number)
            if any(stop(curves["validation_accuracy"]) for stop in stops):
                break
    told = environment() | {"data": fingerprint(train, validation)}
    return model, Record(_chosen(config, epochs), seed, curves, seconds=time.perf_counter() - start, environment=told)


def judge(model: nn.Module, samples: Samples) -> tuple[float, float]:
    """Mean loss and accuracy of a model, without dropout and without gradients.

    Args:
        model: classifies flat inputs.
        samples: what to classify.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = model(samples.inputs.flatten(1))
            return float(cross_entropy(logits, samples.labels)), float(accuracy(logits, samples.labels))
    finally:
        model.train(was_training)


def fingerprint(*parts: Samples) -> str:
    """Sixteen digits that change whenever one of the samples does."""
    content = hashlib.sha256()
    for part in parts:
        for tensor in (part.inputs, part.labels):
            content.update(str(tuple(tensor.shape)).encode())
            content.update(tensor.contiguous().numpy().tobytes())
    return content.hexdigest()[:16]


def _train_once(model: MLP, optimizer: AdamW, batches: Iterable[Samples]) -> tuple[float, float]:
    """Mean loss and mean norm of the gradient over the steps of an epoch."""
    told: list[Tensor] = []
    for batch in batches:
        optimizer.zero_grad()
        loss = cross_entropy(model(batch.inputs.flatten(1)), batch.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        squares = [p.grad.square().sum() for p in model.parameters() if p.grad is not None]
        told.append(torch.stack([loss.detach(), torch.stack(squares).sum().sqrt()]))
    mean_loss, mean_norm = torch.stack(told).mean(0).tolist()
    return mean_loss, mean_norm


@contextmanager
def _seeded(seed: int) -> Iterator[torch.Generator]:
    """Torch's global generator seeded for a while, and one for the order of the batches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)


@dataclass(frozen=True, slots=True)
class Objective:
    """What a search asks: config and epochs → validation accuracy. A training that is on record is not repeated.

    Attributes:
        tracker: where the records are.
        train: samples to train on.
        validation: samples to judge by.
        seed: of weights, dropout and order.
    """

    tracker: Tracker
    train: Samples
    validation: Samples
    seed: int = 0

    def __call__(self, config: Config, budget: int) -> float:
        """The score of a training, which is done or looked up.

        Args:
            config: attributes of an `MLPConfig`, by name.
            budget: epochs.
        """
        return self.record(MLPConfig.of(config), budget).score()

    def record(self, config: MLPConfig, epochs: int) -> Record:
        """The record of a training, which is done or looked up."""
        record = self.tracker.find(_chosen(config, epochs), self.seed)
        if record is None:
            patience = progress(EarlyStopping(patience=10, min_delta=1e-3, mode="max"))
            _, record = fit(config, self.train, self.validation, epochs=epochs, seed=self.seed, stops=[patience])
            self.tracker.save(record)
        return record


@dataclass(frozen=True, slots=True)
class Study:
    """What came of a search.

    Attributes:
        default: the training with the default config, which is none of the trials.
        trials: those that the search drew, the best first.
        test_accuracy: of the best trial's model, as it was in its best epoch.
    """

    default: Record
    trials: list[Record]
    test_accuracy: float

    @property
    def best(self) -> Record:
        """The best trial."""
        return self.trials[0]

    def table(self, count: int = 5) -> list[list[str]]:
        """The best trials as rows of text below a row of headings."""
        return table(self.trials[:count])


def tune_digits_mlp(trials: int = 12, seed: int = 0, *, epochs: int = 20, folder: Path | str | None = None) -> Study:
    """Search at random for a good multi-layer perceptron for the digits.

    Args:
        trials: configs to draw.
        seed: of the split, the draw, weights and order.
        epochs: of each training, at most.
        folder: where the records go and are looked for; without it they are not kept.
    """
    if trials < 1 or epochs < 1:
        raise ValueError(f"expected `trials` ≥ 1 and `epochs` ≥ 1, got {trials} and {epochs}")
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return tune_digits_mlp(trials, seed, epochs=epochs, folder=temporary)
    train, validation, test = train_val_test(digits(), seed, val=0.2, test=0.2)
    objective = Objective(Tracker(folder), train, validation, seed)
    drawn = random(DIGITS_SPACE, trials, torch.Generator().manual_seed(seed))
    records = ordered(objective.record(MLPConfig.of(config), epochs) for config in drawn)
    # The same seed and fewer epochs give the model as it was in its best epoch.
    winner = MLPConfig.of({name: x for name, x in records[0].config.items() if name != "epochs"})
    model, _ = fit(winner, train, validation, epochs=records[0].best_epoch() + 1, seed=seed)
    _, test_accuracy = judge(model, test)
    return Study(objective.record(MLPConfig(), epochs), records, test_accuracy)


def _chosen(config: MLPConfig, epochs: int) -> Config:
    return {**asdict(config), "epochs": epochs}
