"""Which changes are told as tried: those with which the program then runs, the best first, and no endless search."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from crashes import Flattened, caught, images
from torch import nn

from tensorscope.live.postmortem import trial
from tensorscope.live.postmortem.crash import read_crash
from tensorscope.live.postmortem.programs import programs
from tensorscope.live.postmortem.replay import Edit, Program, Replay, replay
from tensorscope.live.postmortem.scene import Mismatch, Remedy, Scene
from tensorscope.live.postmortem.trial import try_fixes
from tensorscope.reports import Fix


@pytest.fixture
def scene() -> Scene:
    program = next(iter(programs(read_crash(caught(Flattened(), images())))))
    seen = replay(program)
    assert seen.failure is not None
    return Scene(program, seen, seen.failure)


def layer(width: int) -> Edit:
    """The failed layer with another width; 36 is right."""
    return Edit(modules={"fc": lambda _: nn.Linear(width, 2)})


def broken(_: nn.Module) -> nn.Module:
    raise ValueError("no such module")


def tried(scene: Scene, *remedies: Remedy, layout: bool = False) -> tuple[Fix, ...]:
    return try_fixes(scene, Mismatch("", remedies=list(remedies), layout=layout), real=True)


def test_only_what_runs_is_verified_and_the_rest_is_not_told(scene: Scene) -> None:
    found = tried(scene, Remedy("wrong", layer(35)), Remedy("right", layer(36), "m.py:3"))
    assert found == (Fix("right", verified=True, scope="program", where="m.py:3"),)


def test_what_cannot_be_tried_comes_last_and_says_so(scene: Scene) -> None:
    found = tried(scene, Remedy("advice", rank=1), Remedy("right", layer(36), rank=9))
    assert [(fix.text, fix.verified) for fix in found] == [("right", True), ("advice", False)]


def test_the_best_comes_first(scene: Scene) -> None:
    found = tried(scene, *(Remedy(f"rank {rank}", layer(36), rank=rank) for rank in (30, 10, 20)))
    assert [fix.text for fix in found] == ["rank 10", "rank 20", "rank 30"]


def test_much_worse_ones_than_the_best_are_not_told(scene: Scene) -> None:
    found = tried(scene, *(Remedy(f"rank {rank}", layer(36), rank=rank) for rank in (5, 35, 36)))
    assert [fix.text for fix in found] == ["rank 5", "rank 35"]


def test_three_are_enough(scene: Scene) -> None:
    assert len(tried(scene, *(Remedy(f"{n}", layer(36)) for n in range(5)))) == 3


def test_one_text_is_told_once(scene: Scene) -> None:
    assert len(tried(scene, Remedy("same", layer(36)), Remedy("same", layer(36)))) == 1


def test_a_change_that_cannot_be_made_is_none(scene: Scene) -> None:
    assert (
        tried(scene, Remedy("broken", Edit(modules={"fc": broken})), Remedy("nowhere", Edit(modules={"no": broken})))
        == ()
    )


def test_siblings_are_changed_too_where_one_alone_does_not_help(scene: Scene) -> None:
    both = tried(scene, Remedy("it", layer(35), wider=layer(36)))
    one = tried(scene, Remedy("it", layer(36), wider=layer(36)))
    assert [fix.text for fix in both + one] == ["it, and likewise its siblings", "it"]


def test_the_search_ends(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Edit | None] = []

    def fails(program: Program, edit: Edit | None = None, **_: Any) -> Replay:
        runs.append(edit)
        return scene.replay

    monkeypatch.setattr(trial, "replay", fails)
    assert tried(scene, *(Remedy(f"{n}", layer(n), wider=layer(n)) for n in range(50))) == ()
    assert len(runs) == trial._MOST


def test_other_layouts_are_tried_where_nothing_else_helps() -> None:
    class Wrong(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return torch.bmm(x, x.t())

    program = next(iter(programs(read_crash(caught(Wrong(), torch.zeros(3, 4))))))
    seen = replay(program)
    assert seen.failure is not None
    scene = Scene(program, seen, seen.failure)
    assert tried(scene) == ()
    assert all(fix.verified for fix in tried(scene, layout=True))
