"""The rule on what running the first bad pass again has shown: one sentence, the exact step, a hint that fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import make_run

from tensorscope.diagnosis.evidence import Evidence
from tensorscope.diagnosis.nan_inf import nan_inf
from tensorscope.diagnosis.nonfinite_advice import advice
from tensorscope.diagnosis.thresholds import DEFAULTS
from tensorscope.events import Finding, Severity
from tensorscope.reports import Where
from tensorscope.run.origin import Culprit, Direction, Origin
from tensorscope.run.reader import Run, open_run

LINE = Where("model.py", 31, "return x / x.norm(dim=1)", "Norm.forward")
ZEROS = Culprit("x.norm(dim=1)", (4, 1), "float32", 0.0, 2.5, 3, 0)
DIV = Origin(Direction.FORWARD, "encoder.norm", "div", where=LINE, culprits=(ZEROS,), nonfinite=12, step=17)


def found(run: Path, origin: Origin | None, patch: pytest.MonkeyPatch) -> list[Finding]:
    """What the rule says about a run that has an origin."""
    patch.setattr(Run, "origin", origin, raising=False)
    opened = open_run(run)
    try:
        return list(nan_inf(Evidence(opened, DEFAULTS)))
    finally:
        opened.close()


def test_the_finding_names_operation_line_module_operand_and_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (finding,) = found(make_run(tmp_path, steps=12), DIV, monkeypatch)
    assert finding.summary == (
        "`div` at model.py:31 in `encoder.norm` divided by 3 zeros in `x.norm(dim=1)`: "
        "the first values that are not finite, at step 17"
    )
    assert (finding.rule, finding.site, finding.severity) == ("nan_inf", "encoder.norm", Severity.ERROR)
    assert (finding.first_step, finding.last_step) == (17, 17)
    assert finding.evidence == {"nonfinite": 12, "bad_steps": 1, "zeros": 3, "min": 0, "max": 2.5}
    assert "`eps`" in finding.hint


def test_a_run_without_an_origin_and_without_bad_values_has_no_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found(make_run(tmp_path, steps=12), None, monkeypatch) == []


def test_bad_steps_that_were_measured_later_belong_to_the_same_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (finding,) = found(make_run(tmp_path, steps=12, nan_from=9), replace(DIV, step=7), monkeypatch)
    assert (finding.first_step, finding.last_step, finding.evidence["bad_steps"]) == (7, 11, 4)
    assert finding.site == "encoder.norm"


def test_a_bad_step_that_was_measured_earlier_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = found(make_run(tmp_path, steps=12, nan_from=5), DIV, monkeypatch)
    assert (finding.site, finding.first_step) == ("fc1.weight", 5)


@pytest.mark.parametrize(("sure", "site"), [(True, "encoder.norm"), (False, "fc1.weight")])
def test_at_a_measured_step_the_measure_outweighs_what_is_not_sure(
    sure: bool, site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = replace(DIV, step=5, sure=sure)
    (finding,) = found(make_run(tmp_path, steps=12, nan_from=5), origin, monkeypatch)
    assert (finding.site, finding.first_step) == (site, 5)


def test_between_measured_steps_even_what_is_not_sure_is_told_with_its_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = Origin(Direction.LOSS, culprits=(replace(ZEROS, name="output"),), sure=False, note="of 4 passes", step=90)
    (finding,) = found(make_run(tmp_path, steps=12), origin, monkeypatch)
    assert (finding.site, finding.first_step) == ("loss", 90)
    assert "(of 4 passes)" in finding.summary


def backward(op: str, **changes: object) -> Origin:
    return replace(DIV, direction=Direction.BACKWARD, op=op, **changes)  # type: ignore[arg-type]


LARGE = Culprit("x", (4, 6), "float32", -3e38, 3e38, 0, 0)
HALF = Culprit("x", (4, 6), "float16", -6e4, 6e4, 0, 0)
BAD = Culprit("scores", (4, 4), "float32", 0.0, 1.0, 0, 4)


@pytest.mark.parametrize(("origin", "said", "hint"), [
    (backward("sqrt"), "the backward of `sqrt` at model.py:31 in `encoder.norm` gave 12 values not finite: "
                       "`x.norm(dim=1)` held 3 zeros", "`(x + eps).sqrt()`"),
    (backward("norm", within="normalize"), "`norm` (inside `normalize`) at model.py:31", "a norm's slope at 0"),
    (backward("pow"), "held 3 zeros", "power below 1"),
    (backward("", culprits=(), module="head"), "in the backward of `head`", ""),
    (backward("mul", culprits=(HALF,)), "-6e+04 to 6e+04", "GradScaler"),
    (replace(DIV, op="log"), "took the logarithm of 3 zeros", "clamp(min=eps).log()"),
    (replace(DIV, op="log", culprits=(replace(ZEROS, min=-2.0),)), "took the logarithm of values down to -2", "clamp"),
    (replace(DIV, op="exp", culprits=(LARGE,)), "exponentiated values up to 3e+38", "subtract the largest"),
    (replace(DIV, op="linear", culprits=(HALF,)), "made 12 values not finite of `x` (4, 6) float16", "bfloat16"),
    (replace(DIV, op="mul", culprits=(LARGE,)), "made 12 values not finite of `x`", "outgrow their type"),
    (replace(DIV, op="softmax", culprits=(BAD,)), "was given 4 values not finite in `scores`", "unmasked"),
    (replace(DIV, op="mul", culprits=(BAD,)), "was given 4 values", "hands it what is not finite"),
    (Origin(Direction.INPUT, culprits=(BAD,)), "the model's input `scores` held 4 values not finite", "batched"),
    (Origin(Direction.PARAMETER, "fc", culprits=(replace(BAD, name="fc.weight"),)), "`fc.weight` held 4", "clip"),
    (Origin(Direction.LOSS, culprits=(replace(LARGE, name="output"),), ops=("sub", "log")),
     "the loss (`sub`, `log`) made it of the model's output `output` (4, 6) float32: -3e+38 to 3e+38", "log"),
    (Origin(Direction.LOSS), "the loss made it", "look at what the loss does"),
    (Origin(Direction.UNKNOWN, sure=False, note="KeyError"), "(KeyError)", "every=1"),
])  # fmt: skip
def test_the_sentence_and_the_hint_fit_the_operation(origin: Origin, said: str, hint: str) -> None:
    assert said in str(origin)
    assert hint in advice(origin)


@pytest.mark.parametrize("origin", [
    DIV, backward("sqrt", note="x", sure=False), Origin(Direction.UNKNOWN),
    Origin(Direction.LOSS, culprits=(replace(LARGE, min=None, max=None),), ops=("a",)),
])  # fmt: skip
def test_an_origin_is_read_again_as_it_was_written(origin: Origin) -> None:
    assert Origin.from_json(origin.to_json()) == origin


@pytest.mark.parametrize("text", ["[]", "{}", '{"direction": "sideways"}', "nonsense"])
def test_what_is_no_origin_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Origin.from_json(text)
