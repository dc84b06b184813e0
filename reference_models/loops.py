"""Trainings whose loop is part of what a chapter teaches: a rule, gradients by hand, one number at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from reference_models.backprop import TwoLayerNet, half_mse, noisy_line
from reference_models.optimizers import SGD
from reference_models.perceptron import Perceptron, truth_table
from reference_models.rnn import next_numbers, predict_next, train_epoch
from reference_models.training import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from reference_models.training import Numbers


class Rosenblatt(Task):
    """A perceptron that learns a function of two bits by its own rule, one sample a step; there is no optimizer.

    Args:
        function: as `reference_models.perceptron.truth_table` knows it.
    """

    def __init__(self, function: str) -> None:
        self.samples, self.neuron = truth_table(function), Perceptron()
        super().__init__(self.neuron, length=20, steps=len(self.samples))

    def train_once(self, told: Callable[[Numbers], None]) -> dict[str, float]:
        """See `Task`."""
        mistakes = 0
        for one in self.samples.batches(1):
            mistaken = self.neuron.fit(one.inputs, one.labels, epochs=1)[0]
            told({"mistakes": torch.tensor(float(mistaken))})
            mistakes += mistaken
        return {"mistakes": mistakes}

    def scores(self) -> dict[str, float]:
        """See `Task`."""
        right = self.neuron(self.samples.inputs) == self.samples.labels
        return {"accuracy": float(right.float().mean())}


class HandMade(Task):
    """Chapter 9's network, whose gradients are written by hand; gradient descent over all points at once.

    Args:
        model: the network.
        seed: of the points.
        lr: learning rate.
        epochs: steps.
    """

    def __init__(self, model: TwoLayerNet, seed: int, *, lr: float, epochs: int) -> None:
        self.samples, self.net = noisy_line(generator=torch.Generator().manual_seed(seed)), model
        self.optimizer = SGD(model.parameters(), lr)
        super().__init__(model, length=epochs, steps=1)

    def train_once(self, told: Callable[[Numbers], None]) -> dict[str, float]:
        """See `Task`."""
        self.optimizer.zero_grad()
        self.net(self.samples.inputs)
        loss = self.net.backward(self.samples.labels)
        self.optimizer.step()
        told({"loss": 2 * loss})
        return {"loss": 2 * float(loss)}

    @torch.no_grad()
    def scores(self) -> dict[str, float]:
        """See `Task`: the mean squared error, which the book prints."""
        return {"loss": 2 * float(half_mse(self.net(self.samples.inputs), self.samples.labels))}


class NextNumber(Task):
    """Counting from 1 to 8, as chapters 15 and 16 teach it: seven steps an epoch, remembering from one to the next.

    Args:
        model: takes a sequence and a state, returns outputs and the new state.
        lr: learning rate.
        epochs: how often the numbers are read.
    """

    def __init__(self, model: nn.Module, *, lr: float, epochs: int) -> None:
        self.optimizer = SGD(model.parameters(), lr)
        super().__init__(model, length=epochs, steps=next_numbers()[0].shape[1])

    def train_once(self, told: Callable[[Numbers], None]) -> dict[str, float]:
        """See `Task`: the loss is the sum over the seven numbers, as the book prints it."""
        total = torch.zeros(())
        for loss in train_epoch(self.model, self.optimizer):
            total += loss
            told({"loss": loss})
        return {"loss": float(total)}

    def scores(self) -> dict[str, float]:
        """See `Task`: what it makes of 8, which it was never asked, is told but has no target."""
        found = predict_next(self.model)
        errors = found[:7] - next_numbers()[1].flatten()
        return {"loss": float(errors.square().sum()), "worst": float(errors.abs().max()), "after_8": float(found[7])}
