"""What watching a training costs, as a ratio over the bare step: printed, never judged.

Every way has a twin of the model with the same weights. All stay entered; what they hang on torch itself is put away
while another is measured. Rounds of a few steps alternate: bare, one way, bare, the next way, and so on; the ratio of a
round is its mean step over the mean step of the bare rounds before and after it.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median, quantiles

import pytest
import torch
from models import CASES, Case
from ways import WAYS, GlobalHooks, Step, Way, bare, is_installed

from tensorscope import open_run

ROUNDS = int(os.environ.get("ROUNDS", "15"))  # times that every way is measured, in turn
ROUND_SECONDS = 0.25  # how long a bare round is
FEWEST, MOST = 4, 60  # steps in it
SETTLING_STEPS, SETTLING_SECONDS = 100, 20.0  # for the interval of a trace to settle, whichever comes first
INTERVALS = 3  # intervals of a trace in a round, so that its measured steps count with their share
SLOW_SECONDS = 2.0  # how long a round of a slow way may be, but for its one step

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))  # `make bench THREADS=2`
pytestmark = [pytest.mark.bench, pytest.mark.filterwarnings("ignore")]  # the peers' own


@dataclass
class Entrant:
    """A way, entered on its twin of the model.

    Attributes:
        steps: steps of a round.
        ratios: mean step of each round over the bare one.
    """

    name: str
    step: Step
    hooks: GlobalHooks
    folder: Path
    steps: int = 1
    ratios: list[float] = field(default_factory=list)

    def round(self, steps: int) -> float:
        """Seconds of the mean step."""
        gc.collect()
        self.hooks.bring_back()
        self.step()  # what the other ways left cold is warm again
        began = time.perf_counter()
        for _ in range(steps):
            self.step()
        seconds = time.perf_counter() - began
        self.hooks.put_away()
        return seconds / steps

    def settle(self, bare_steps: int) -> None:
        """Warm up, and choose how long a round is."""
        self.hooks.bring_back()
        began, taken = time.perf_counter(), 0
        while taken < SETTLING_STEPS and time.perf_counter() - began < SETTLING_SECONDS:
            self.step()
            taken += 1
        self.hooks.put_away()
        seconds = (time.perf_counter() - began) / taken
        self.steps = max(1, min(bare_steps, int(SLOW_SECONDS / seconds)))
        if (interval := self.interval()) is not None:
            self.steps = max(self.steps, INTERVALS * interval)

    def interval(self) -> int | None:
        """Steps between two measured ones, if this is one of our traces."""
        if not (self.folder / "run").exists():
            return None
        with_steps = open_run(self.folder / "run")
        steps = with_steps.measured_steps
        with_steps.close()
        return steps[-1] - steps[-2] if len(steps) > 1 else 1


@pytest.fixture(scope="module")
def board() -> Iterator[dict[str, dict[str, str]]]:
    """What is printed at the end, ready for a README: way → model → ratio."""
    rows: dict[str, dict[str, str]] = {name: {} for name in WAYS}
    yield rows
    models = list(dict.fromkeys(model for row in rows.values() for model in row))
    print("\n| mean step over the bare one |", *(f"{model} |" for model in models))
    print("|---|" + "---|" * len(models))
    for name, row in rows.items():
        print(f"| {name} |", *(f"{row.get(model, '')} |" for model in models))


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_cost_of_a_step(make: Callable[[], Case], tmp_path: Path, board: dict[str, dict[str, str]]) -> None:
    with ExitStack() as stack:
        plain = enter(stack, "bare", bare, make, tmp_path)
        case = make()
        plain.settle(1)
        steps = max(FEWEST, min(MOST, round(ROUND_SECONDS / plain.round(FEWEST))))
        print(f"\n{case.name}: bare step {plain.round(steps) * 1e3:.1f} ms, {len(list(case.model.modules()))} modules,")
        print(f"  torch {torch.__version__}, {torch.get_num_threads()} of {os.cpu_count()} cores, {ROUNDS} rounds")
        entrants = []
        for name, way in WAYS.items():
            try:
                entrants.append(enter(stack, name, way, make, tmp_path))
                entrants[-1].settle(steps)
            except Exception as error:  # a peer's own failure is a result
                del entrants[sum(e.name != name for e in entrants) :]
                board[name][case.name] = type(error).__name__ if is_installed(name) else "not installed"
                print(f"  {name:40} {board[name][case.name]}: {str(error).splitlines()[0][:60]}")
        measure(plain, entrants, steps)
        for entrant in entrants:
            low, middle, high = quantiles(entrant.ratios, n=4)
            interval = f", every {entrant.interval()}" if entrant.interval() else ""
            print(f"  {entrant.name:40} {middle:6.3f}  ({low:.3f} to {high:.3f}; {entrant.steps} steps{interval})")
            board[entrant.name][case.name] = f"{middle:.2f}"


def enter(stack: ExitStack, name: str, way: Way, make: Callable[[], Case], folder: Path) -> Entrant:
    """Enter a way on a twin of its own; when the stack ends its hooks are back, so that it finds and removes them."""
    torch.manual_seed(0)
    own = folder / "".join(letter for letter in name if letter.isalnum())
    own.mkdir()
    hooks = GlobalHooks()
    step = stack.enter_context(way(make(), own))
    hooks.put_away()
    stack.callback(hooks.bring_back)
    return Entrant(name, step, hooks, own)


def measure(plain: Entrant, entrants: list[Entrant], steps: int) -> None:
    """Alternate: bare, a way, bare, the next way, and so on."""
    before = plain.round(steps)
    for _ in range(ROUNDS):
        for entrant in entrants:
            seconds = entrant.round(entrant.steps)
            after = plain.round(steps)
            entrant.ratios.append(seconds / mean((before, after)))
            before = after


def test_the_method_finds_no_difference_where_there_is_none(tmp_path: Path) -> None:
    """The noise of all the figures above: bare steps measured as if they were a way."""
    with ExitStack() as stack:
        plain, same = (enter(stack, name, bare, CASES[0], tmp_path) for name in ("bare", "also bare"))
        steps = max(FEWEST, min(MOST, round(ROUND_SECONDS / plain.round(FEWEST))))
        same.steps = steps
        measure(plain, [same], steps)
        low, _, high = quantiles(same.ratios, n=4)
        print(f"\nthe bare step over itself: {median(same.ratios):.3f} ({low:.3f} to {high:.3f})")
