"""Trainings: repeatable by seed, measured as they should be, and good enough."""

from __future__ import annotations

from operator import mul

import pytest
import torch

from reference_models import PRESETS, train
from reference_models.cnn import SimpleCNN
from reference_models.data import Samples
from reference_models.training import evaluate


def test_the_small_network_reaches_its_target():
    result = train("cnn-tiny")
    assert result.met
    assert result.test_accuracy >= result.target == 0.95
    assert result.train_accuracy >= result.test_accuracy - 0.02


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_reaches_its_target(name, seed):
    assert train(name, seed=seed).met


def test_a_seed_fixes_the_whole_training():
    def losses(seed):
        seen = []
        train("cnn-tiny", seed=seed, epochs=1, on_step=lambda step, loss, accuracy: seen.append(loss))
        return torch.stack(seen)

    first = losses(4)
    torch.rand(7)
    assert torch.equal(losses(4), first)
    assert not torch.equal(losses(5), first)


def test_the_loop_leaves_the_global_random_state_alone():
    task = PRESETS["cnn-tiny"].build(0)
    before = torch.get_rng_state()
    list(task.epochs(1))
    task.result()
    assert torch.equal(torch.get_rng_state(), before)


def test_every_step_is_told_with_scalars_that_need_no_gradient():
    task, steps = PRESETS["cnn-tiny"].build(0), []
    epochs = list(task.epochs(2, on_step=lambda *told: steps.append(told)))
    assert [step for step, _, _ in steps] == list(range(2 * task.steps_per_epoch))
    assert all(loss.shape == accuracy.shape == () for _, loss, accuracy in steps)
    assert not any(value.requires_grad for _, *values in steps for value in values)
    assert [epoch.number for epoch in epochs] == [0, 1]
    assert epochs[1].loss < epochs[0].loss
    # An epoch's numbers are means over samples: the short last batch counts less.
    sizes = [len(batch) for batch in task.train.batches(task.preset.batch)]
    losses = [float(loss) for _, loss, _ in steps[: task.steps_per_epoch]]
    assert sizes[-1] < sizes[0]
    assert epochs[0].loss == pytest.approx(sum(map(mul, losses, sizes)) / sum(sizes), rel=1e-5)
    assert task.seconds > 0


def test_training_runs_in_training_mode_and_evaluation_does_not():
    task, modes = PRESETS["cnn-tiny"].build(0), []
    task.model.register_forward_hook(lambda model, _, y: modes.append((model.training, y.requires_grad)))
    next(task.epochs(1))
    assert modes[: task.steps_per_epoch] == [(True, True)] * task.steps_per_epoch
    assert set(modes[task.steps_per_epoch :]) == {(False, False)}


def test_evaluation_weighs_samples_not_batches_and_restores_the_mode():
    model = torch.nn.Identity().train()
    logits = torch.tensor([[9.0, 0.0]] * 4 + [[0.0, 9.0]])
    _, accuracy = evaluate(model, Samples(logits, torch.zeros(5, dtype=torch.long)), batch=4)
    assert accuracy == pytest.approx(0.8)
    assert model.training


def test_a_failing_evaluation_restores_the_mode():
    model = SimpleCNN.tiny().train()
    with pytest.raises(ValueError, match="`images` has 3 axes"):
        evaluate(model, Samples(torch.zeros(2, 8, 8), torch.zeros(2, dtype=torch.long)))
    assert model.training


def test_no_epoch_leaves_a_network_that_guesses():
    result = train("cnn-tiny", epochs=0)
    assert not result.met
    assert result.test_accuracy < 0.4
