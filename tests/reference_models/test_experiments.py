"""A study: trainings by config, and a search that looks at the test set once."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from itertools import pairwise

import pytest
import torch

from reference_models import experiments
from reference_models.data import Samples, digits, train_val_test
from reference_models.experiments import (
    BOOKS_BEST,
    DIGITS_SPACE,
    MLPConfig,
    Objective,
    fingerprint,
    fit,
    judge,
    tune_digits_mlp,
)
from reference_models.search import Rung, random, successive_halving
from reference_models.stopping import resource
from reference_models.tracking import Tracker

SMALL = MLPConfig(hidden=(16,), lr=0.01, dropout=0.0)


@pytest.fixture(scope="module")
def parts():
    return train_val_test(digits(), 0, val=0.2, test=0.2)


def test_the_books_default_model_has_as_many_parameters_as_it_should():
    model = MLPConfig().build()
    assert sum(p.numel() for p in model.parameters()) == 109_386
    assert model(torch.zeros(2, 784)).shape == (2, 10)


def test_the_config_is_on_record_and_its_learning_rate_reaches_the_training(parts):
    train, validation, _ = parts
    _, record = fit(MLPConfig(), train[:64], validation, epochs=1)
    assert record.config == {**asdict(MLPConfig()), "epochs": 1}
    frozen, _ = fit(replace(SMALL, lr=1e-12), train[:64], validation, epochs=1)
    torch.manual_seed(0)
    for trained, fresh in zip(frozen.parameters(), SMALL.build(64).parameters(), strict=True):
        torch.testing.assert_close(trained, fresh, atol=1e-9, rtol=0)


def test_a_training_learns_and_its_curves_have_a_number_per_epoch(parts):
    train, validation, _ = parts
    model, record = fit(SMALL, train, validation, epochs=4)
    assert {len(curve) for curve in record.curves.values()} == {4}
    assert record.curves["train_loss"][0] > record.curves["train_loss"][-1]
    assert record.score() > 0.8
    assert judge(model, validation)[1] == record.curves["validation_accuracy"][-1]
    assert all(norm > 0 for norm in record.curves["gradient_norm"])
    assert record.environment["data"] == fingerprint(train, validation)
    assert record.seconds > 0


def test_a_small_batch_is_learned_by_heart():
    samples = digits()[:20]
    _, record = fit(replace(SMALL, hidden=(64,), batch=20), samples, samples, epochs=80)
    assert record.score() == 1.0


def test_a_seed_fixes_the_training_and_leaves_the_global_generator_alone(parts):
    train, validation, _ = parts
    before = torch.get_rng_state()
    curves = [fit(MLPConfig((8,)), train[:200], validation, epochs=2, seed=seed)[1].curves for seed in (1, 1, 2)]
    assert torch.equal(before, torch.get_rng_state())
    assert curves[0] == curves[1] != curves[2]


def test_fewer_epochs_are_the_beginning_of_more(parts):
    train, validation, _ = parts
    short, long = (fit(MLPConfig((8,)), train[:200], validation, epochs=n)[1].curves for n in (2, 3))
    assert all(long[name][:2] == short[name] for name in short)


def test_a_model_is_judged_without_dropout_and_goes_on_as_it_was(parts):  # E-41
    model = MLPConfig(dropout=0.9).build(64)
    assert judge(model, parts[1]) == judge(model, parts[1])
    assert model.training
    model.eval()
    judge(model, parts[1])
    assert not model.training


def test_batches_are_shuffled(parts, monkeypatch):  # E-56
    train, validation, _ = parts
    seen, original = [], Samples.batches

    def spy(self, *arguments, **names):
        for batch in original(self, *arguments, **names):
            seen.append(batch.inputs)
            yield batch

    monkeypatch.setattr(Samples, "batches", spy)
    fit(replace(SMALL, batch=256), train[:256], validation, epochs=2)
    assert not torch.equal(seen[0], train.inputs[:256])
    assert not torch.equal(seen[0], seen[1])
    torch.testing.assert_close(seen[0].sum(0), seen[1].sum(0))


def test_a_reason_to_stop_stops(parts):
    train, validation, _ = parts
    _, record = fit(SMALL, train[:100], validation, epochs=9, stops=[resource(epochs=2)])
    assert len(record.curves["train_loss"]) == 2


def test_a_fingerprint_changes_with_every_number_and_with_what_is_whose():
    samples = digits()[:4]
    other = Samples(samples.inputs.clone(), samples.labels)
    assert fingerprint(samples) == fingerprint(other)
    other.inputs[3, 0, 7, 7] += 1e-6
    assert fingerprint(samples) != fingerprint(other)
    assert fingerprint(samples[:2], samples[2:]) != fingerprint(samples[:3], samples[3:])


def test_every_config_of_the_space_can_be_built():
    for config in random(DIGITS_SPACE, 30, torch.Generator().manual_seed(0)):
        model = MLPConfig.of(config).build(64)
        assert model(torch.zeros(1, 64)).shape == (1, 10)
    assert MLPConfig.of(asdict(BOOKS_BEST)) == BOOKS_BEST


def test_halving_searches_by_epochs_and_what_is_on_record_is_not_trained_again(parts, tmp_path, monkeypatch):
    train, validation, _ = parts
    objective = Objective(Tracker(tmp_path), train[:300], validation)
    rungs = [Rung(4, 1), Rung(2, 2)]
    first = successive_halving(DIGITS_SPACE, objective, rungs=rungs, generator=torch.Generator().manual_seed(0))
    assert [trial.budget for trial in first] == [1] * 4 + [2] * 2
    assert len(Tracker(tmp_path).records()) == 6
    assert max(trial.score for trial in first) == Tracker(tmp_path).top(1)[0].score()

    def refuse(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(experiments, "fit", refuse)
    again = successive_halving(DIGITS_SPACE, objective, rungs=rungs, generator=torch.Generator().manual_seed(0))
    assert again == first


def test_a_short_study_sorts_its_trials_and_looks_at_the_test_set_once(parts, tmp_path, monkeypatch):
    judged, original = [], experiments.judge

    def spy(model, samples):
        judged.append(fingerprint(samples))
        return original(model, samples)

    monkeypatch.setattr(experiments, "judge", spy)
    monkeypatch.setattr(experiments, "DIGITS_SPACE", LIGHT)
    study = tune_digits_mlp(3, epochs=2, folder=tmp_path)
    train, validation, test = (fingerprint(part) for part in parts)
    assert judged.count(test) == 1  # E-56
    assert set(judged) == {validation, test}
    assert train not in judged
    assert [one.score() for one in study.trials] == sorted((one.score() for one in study.trials), reverse=True)
    assert study.best is study.trials[0]
    assert len(study.trials) == 3
    assert len(study.table(2)) == 3
    assert len(list(tmp_path.iterdir())) == 4  # three trials and the default
    assert 0.3 < study.test_accuracy <= 1


LIGHT = experiments.Space(
    hidden=experiments.Choice((16,), (32,)), lr=experiments.LogUniform(1e-3, 0.02), batch=experiments.Choice(128)
)

MISTAKES = {
    "hidden": (MLPConfig, {"hidden": (128, 0)}, r"at least one unit in each layer of `hidden`, got \(128, 0\)"),
    "dropout": (MLPConfig, {"dropout": 1.0}, "0 ≤ `dropout` < 1, got 1.0"),
    "lr": (MLPConfig, {"lr": math.nan}, "0 < `lr` < ∞, got nan"),
    "batch": (MLPConfig, {"batch": 0}, "`batch` ≥ 1, got 0"),
    "weight decay": (MLPConfig, {"weight_decay": -1}, "0 ≤ `weight_decay` < ∞, got -1"),
    "trials": (tune_digits_mlp, {"trials": 0}, "`trials` ≥ 1 and `epochs` ≥ 1, got 0 and 20"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake):
    call, arguments, text = MISTAKES[mistake]
    with pytest.raises(ValueError, match=text):
        call(**arguments)


def test_an_activation_that_is_none_is_an_error_before_the_training():
    with pytest.raises(ValueError, match="rleu"):
        MLPConfig(activation="rleu").build()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_twelve_trials_beat_the_default(seed):
    study = tune_digits_mlp(12, seed)
    assert study.best.score() >= study.default.score()
    assert study.test_accuracy >= 0.96
    scores = [one.score() for one in study.trials]
    assert all(one >= other for one, other in pairwise(scores))
