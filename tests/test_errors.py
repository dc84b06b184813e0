"""What messages look like, and that errors can be caught, copied and read."""

from __future__ import annotations

import pickle

import pytest

from tensorscope import errors
from tensorscope.errors import ModelError, RunError, ShapeError, TensorscopeError, message


def test_a_message_is_title_facts_and_hint() -> None:
    text = message(
        "`fc1` got 1600 features and takes 4096", {"at": "model.py:23", "expected": "4096\nor less"}, "change it"
    )
    assert text == (
        "`fc1` got 1600 features and takes 4096\n"
        "  at        model.py:23\n"
        "  expected  4096\n"
        "            or less\n"
        "\n"
        "hint: change it"
    )


def test_a_message_without_facts_is_its_title() -> None:
    assert message("nothing else") == "nothing else"
    assert str(RunError("nothing else")) == "nothing else"


@pytest.mark.parametrize(("error", "builtin"), [(ShapeError, ValueError), (ModelError, TypeError), (RunError, OSError)])
def test_errors_are_also_the_builtin_that_a_caller_would_catch(error: type[TensorscopeError], builtin: type) -> None:
    assert issubclass(error, builtin)
    assert issubclass(error, TensorscopeError)


def test_errors_keep_their_facts_through_a_pickle() -> None:
    for name in ("TensorscopeError", "ShapeError", "DimsError", "ModelError", "RunError", "GraphError"):
        error = getattr(errors, name)("title", facts={"got": 3}, hint="do it")
        copy = pickle.loads(pickle.dumps(error))
        assert (copy.title, copy.facts, copy.hint, str(copy)) == ("title", {"got": 3}, "do it", str(error))
