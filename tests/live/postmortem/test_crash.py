"""What a traceback says: the user's line, the modules on the way to it, and the call they began with."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
import torch
from crashes import Flattened, caught, images
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

import tensorscope
from tensorscope.live import explain
from tensorscope.live.postmortem import crash as crash_module
from tensorscope.live.postmortem.crash import Crash, is_torchs, is_users, read_crash, running_place


def crash_of(function: Any, *args: Any, **kwargs: Any) -> Crash:
    return read_crash(caught(function, *args, **kwargs))


def line_of(crash: Crash) -> str:
    """The user's line."""
    assert crash.user is not None
    return crash.user.place.text


class Deep(nn.Module):
    """The failing layer is three containers down."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(5, 2))))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


def test_the_users_line_of_nested_sequentials_is_the_call_of_the_outermost() -> None:
    model = Deep()
    crash = crash_of(model, torch.zeros(1, 3))
    assert line_of(crash).startswith("return self.body(x)")
    assert crash.module is model.get_submodule("body.1.1.0")


def test_the_users_line_of_a_bare_torch_layer_is_the_line_that_calls_it() -> None:
    layer = nn.Linear(3, 4)
    crash = crash_of(lambda: layer(torch.zeros(1, 2)))
    assert line_of(crash) == "crash = crash_of(lambda: layer(torch.zeros(1, 2)))"
    assert crash.module is layer


def test_without_any_module_there_is_neither_module_nor_entry() -> None:
    crash = crash_of(lambda: torch.zeros(2) + torch.zeros(3))
    assert crash.module is None
    assert crash.entry is None


def test_a_method_of_the_users_module_is_that_modules() -> None:
    model = Flattened()
    crash = crash_of(model, images())
    assert crash.module is model.fc
    assert crash.scene is not None
    assert crash.scene.module is model
    assert line_of(crash) == "return self.fc(x.flatten(1))"


def test_a_function_that_hangs_on_a_module_as_a_hook_fails_in_that_module() -> None:
    model = Flattened(36)
    model.norm.register_forward_hook(lambda module, args, result: result + torch.zeros(7))
    crash = crash_of(model, images())
    assert crash.module is model.norm
    assert "register_forward_hook" in line_of(crash)


class Listening(nn.Module):
    """Hangs a method of its own on a part."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(3, 3)
        self.part.register_forward_pre_hook(self.shift)

    def shift(self, _: nn.Module, args: Any) -> Tensor:
        return args[0] + torch.zeros(7)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x)  # type: ignore[no-any-return]


def test_a_method_that_hangs_on_another_module_as_a_hook_fails_in_that_other_module() -> None:
    model = Listening()
    crash = crash_of(model, torch.zeros(1, 3))
    assert crash.module is model.part
    assert line_of(crash).startswith("return args[0] + torch.zeros(7)")


class Checkpointed(nn.Module):
    """Runs its body under activation checkpointing."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Flattened()

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.body, x, use_reentrant=False)


def test_checkpointing_hides_neither_line_nor_module() -> None:
    model = Checkpointed()
    crash = crash_of(model, images())
    assert crash.module is model.body.fc
    assert line_of(crash) == "return self.fc(x.flatten(1))"
    assert crash.entry is not None
    assert crash.entry.module is model


def test_a_functional_call_is_a_call_of_the_module() -> None:
    model, x = Flattened(), images()
    crash = crash_of(lambda: functional_call(model, dict(model.named_parameters()), (x,)))
    assert crash.module is model.fc
    assert crash.entry is not None
    assert (crash.entry.module, crash.entry.args) == (model, (x,))


def test_the_entry_is_the_outermost_module_call_with_what_it_was_given() -> None:
    model, x = Checkpointed(), images()
    crash = crash_of(model, x=x)
    assert crash.entry is not None
    assert crash.entry.module is model
    assert crash.entry.args == ()
    assert crash.entry.kwargs == {"x": x}
    assert crash.levels[crash.entry.level].module is model


def test_of_two_calls_of_a_module_the_running_one_is_the_entry() -> None:
    model, x = Flattened(4 * 9), images()
    model(x)
    wide = torch.randn(1, 1, 9, 9)
    crash = crash_of(model, wide)
    assert crash.entry is not None
    assert crash.entry.args == (wide,)


@tensorscope.shapes("batch dim, dim out -> batch out")
def projected(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight.t()


class Declared(nn.Module):
    """Its forward has a shape contract."""

    @tensorscope.shapes("batch dim -> batch dim")
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.zeros(x.shape[1] + 1)


def test_the_frames_of_a_shape_contract_are_not_the_users() -> None:
    crash = crash_of(projected, torch.zeros(2, 3), torch.zeros(3, 4))
    assert line_of(crash) == "return x @ weight.t()"
    crash = crash_of(Declared(), torch.zeros(2, 3))
    assert line_of(crash) == "return x + torch.zeros(x.shape[1] + 1)"
    assert isinstance(crash.module, Declared)


def test_a_contract_that_is_broken_is_the_callers_line() -> None:
    crash = crash_of(lambda: projected(torch.zeros(2, 3), torch.zeros(4, 4)))
    assert line_of(crash) == "crash = crash_of(lambda: projected(torch.zeros(2, 3), torch.zeros(4, 4)))"


def test_only_the_errors_own_traceback_is_read() -> None:
    def wrap() -> None:
        try:
            torch.zeros(2) + torch.zeros(3)
        except RuntimeError as error:
            raise ValueError("epoch 3 failed") from error

    crash = crash_of(wrap)
    assert line_of(crash) == 'raise ValueError("epoch 3 failed") from error'
    assert isinstance(crash.error.__cause__, RuntimeError)


@pytest.mark.parametrize("error", [RuntimeError("sizes"), KeyboardInterrupt(), ExceptionGroup("many", [ValueError()])])
def test_an_error_that_was_never_raised_has_no_frames(error: BaseException) -> None:
    crash = read_crash(error)
    assert crash.levels == ()
    assert (crash.user, crash.scene, crash.module, crash.entry) == (None, None, None, None)


def test_frames_are_outermost_first() -> None:
    crash = crash_of(Deep(), torch.zeros(1, 3))
    names = [level.place.code.co_name for level in crash.levels]
    assert names[0] == "caught"
    assert names.index("_wrapped_call_impl") < names.index("_call_impl") < names.index("forward")


def test_code_without_a_file_has_lines_but_no_text() -> None:
    space: dict[str, Any] = {"torch": torch}
    exec("def add():\n    return torch.zeros(2) + torch.zeros(3)\n", space)
    crash = crash_of(space["add"])
    assert crash.user is not None
    assert (crash.user.place.file, crash.user.place.line, crash.user.place.text) == ("<string>", 2, "")


def test_a_library_that_calls_torch_is_the_scene_and_not_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash_module, "_INSTALLED", ("/site/",))
    space: dict[str, Any] = {"torch": torch}
    exec(compile("def add():\n    return torch.zeros(2) + torch.zeros(3)\n", "/site/lib.py", "exec"), space)
    crash = crash_of(space["add"])
    assert crash.scene is not None
    assert crash.user is not None
    assert crash.scene.place.file == "/site/lib.py"
    assert crash.user.place.text == "function(*args, **kwargs)"


FILES = [
    (torch.nn.functional.__file__, True, False),
    (torch.__file__, True, False),
    (explain.__file__, True, False),
    ("<eval_with_key>.3", True, False),
    ("<frozen runpy>", True, False),
    (os.__file__, False, False),
    (pytest.__file__, False, False),
    (__file__, False, True),
    ("train.py", False, True),
    ("<stdin>", False, True),
    ("<string>", False, True),
    ("<ipython-input-1-2b3c>", False, True),
    ("/tmp/ipykernel_7/1234.py", False, True),
    (torch.nn.__file__.replace("torch/nn", "torchvision/nn"), False, False),
]


@pytest.mark.parametrize(("file", "torchs", "users"), FILES)
def test_whose_a_file_is(file: str, torchs: bool, users: bool) -> None:
    assert (is_torchs(file), is_users(file)) == (torchs, users)


def test_the_running_place_is_the_innermost_frame_of_neither_torch_nor_ours() -> None:
    here = running_place(sys._getframe(), read_crash.__code__)
    assert here is not None
    assert here.text == "here = running_place(sys._getframe(), read_crash.__code__)"
    assert running_place(None, read_crash.__code__) is None


def test_what_was_raised_while_compiling_is_told_by_the_errors_module() -> None:
    class UnsupportedError(RuntimeError):
        __module__ = "torch._dynamo.exc"

    assert Crash(UnsupportedError("shape"), ()).is_compiled
    assert not Crash(RuntimeError("shape"), ()).is_compiled
