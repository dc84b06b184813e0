"""The loop: repeatable by seed, counted as it should be, and in the right mode."""

from __future__ import annotations

import math
from operator import mul

import pytest
import torch

from reference_models import PRESETS, train
from reference_models.data import Samples
from reference_models.losses import accuracy, cross_entropy, mse
from reference_models.mlp import MLP
from reference_models.optimizers import SGD
from reference_models.training import Data, Recipe, Supervised, Target, evaluate


def losses_of(name, seed):
    seen = []
    train(name, seed=seed, epochs=2, on_step=lambda step, numbers: seen.append(next(iter(numbers.values()))))
    return torch.stack(seen)


@pytest.mark.parametrize("name", ["digits-mlp", "addition-mlp", "backprop", "elman"])
def test_a_seed_fixes_the_whole_training(name):
    first = losses_of(name, 4)
    torch.rand(7)
    assert torch.equal(losses_of(name, 4), first)
    assert not torch.equal(losses_of(name, 5), first)


def test_a_loop_without_dropout_leaves_the_global_random_state_alone():
    task = PRESETS["cnn-tiny"].build(0)
    before = torch.get_rng_state()
    list(task.epochs(1))
    task.result()
    assert torch.equal(torch.get_rng_state(), before)


def test_every_step_is_told_with_scalars_that_need_no_gradient():
    task, steps = PRESETS["cnn-tiny"].build(0), []
    epochs = list(task.epochs(2, on_step=lambda *told: steps.append(told)))
    assert [step for step, _ in steps] == list(range(2 * task.steps_per_epoch))
    assert all(set(numbers) == {"loss", "accuracy"} for _, numbers in steps)
    assert all(number.shape == () and not number.requires_grad for _, numbers in steps for number in numbers.values())
    assert [epoch.number for epoch in epochs] == [0, 1]
    assert set(epochs[0].numbers) == {"loss", "accuracy", "test_loss", "test_accuracy"}
    assert epochs[1].numbers["loss"] < epochs[0].numbers["loss"]
    # An epoch's numbers are means over samples: the short last batch counts less.
    sizes = [len(batch) for batch in task.train.batches(task.batch)]
    losses = [float(numbers["loss"]) for _, numbers in steps[: task.steps_per_epoch]]
    assert sizes[-1] < sizes[0]
    assert epochs[0].numbers["loss"] == pytest.approx(sum(map(mul, losses, sizes)) / sum(sizes), rel=1e-5)
    assert task.seconds > 0


def test_training_goes_on_where_it_was():
    task = PRESETS["addition-mlp"].build(0)
    numbers = [epoch.number for epoch in task.epochs(2)] + [epoch.number for epoch in task.epochs(1)]
    assert numbers == [0, 1, 2]


def test_training_runs_in_training_mode_and_evaluation_does_not():
    task, modes = PRESETS["cnn-tiny"].build(0), []
    task.model.register_forward_hook(lambda model, _, y: modes.append((model.training, y.requires_grad)))
    next(task.epochs(1))
    assert modes[: task.steps_per_epoch] == [(True, True)] * task.steps_per_epoch
    assert set(modes[task.steps_per_epoch :]) == {(False, False)}


def test_evaluation_weighs_samples_not_batches_and_restores_the_mode():
    model = torch.nn.Identity().train()
    logits = torch.tensor([[9.0, 0.0]] * 4 + [[0.0, 9.0]])
    found = evaluate(model, Samples(logits, torch.zeros(5, dtype=torch.long)), {"accuracy": accuracy}, batch=4)
    assert found == {"accuracy": pytest.approx(0.8)}
    assert model.training


def test_evaluation_that_fails_restores_the_mode():
    model = MLP(2, 3)
    with pytest.raises(RuntimeError):
        evaluate(model, Samples(torch.zeros(5, 7), torch.zeros(5, dtype=torch.long)), {"loss": cross_entropy})
    assert model.training


def test_samples_that_are_made_are_made_anew_for_each_epoch():
    made = []

    def samples(generator):
        made.append(Samples(torch.rand(6, 2, generator=generator), torch.zeros(6, 1)))
        return made[-1]

    task = Supervised(MLP(2, 1), Data(samples), Recipe(lambda p: SGD(p, 0.01), 3, 4, mse))
    list(task.epochs())
    assert len(made) == 3
    assert not torch.equal(made[0].inputs, made[1].inputs)
    assert task.steps_per_epoch == 2


def test_a_target_is_met_on_its_own_side_and_never_by_nan():
    assert Target("accuracy", 0.96).met(float(torch.tensor(144 / 150)))
    assert not Target("accuracy", 0.96).met(0.9599)
    assert Target("loss", 0.1, at_most=True).met(0.1)
    assert not Target("loss", 0.1, at_most=True).met(0.1001)
    assert not Target("loss", 0.1).met(math.nan)
    assert not Target("loss", 0.1, at_most=True).met(math.nan)
    assert [str(Target("a", 0.95)), str(Target("b", 1e-3, at_most=True))] == ["a ≥ 0.95", "b ≤ 0.001"]
