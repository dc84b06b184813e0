"""Runs a module or function with drawn sizes and tells the smallest ones with which it breaks its contract."""

from __future__ import annotations

import copy
import inspect
import operator
import random
from dataclasses import dataclass, field
from itertools import combinations, permutations, product
from typing import TYPE_CHECKING, Any

import torch
from hypothesis import HealthCheck, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample, Unsatisfiable
from torch import nn

from tensorscope.errors import DimsError, ShapeError
from tensorscope.live.fitted import VARIADIC
from tensorscope.live.places import dtype_name
from tensorscope.live.tensors import tensors_in
from tensorscope.testing.drawing import Call, Given, Plan, arguments, planned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tensorscope.dims import Sizes
    from tensorscope.live.fitted import Fitted
    from tensorscope.testing.sizes import Pins

_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_ENOUGH = 3  # different calls that passed before anything is said of what they share
_LONGEST = 200  # characters of what the target raised


def check_contract(
    target: Any, contract: str | None = None, *, sizes: Pins = None, given: Given = None, max_examples: int = 100
) -> None:
    """Run a module or function with drawn sizes and hold what comes back against its contract.

        check_contract(attend)
        check_contract(Block(dim=64, heads=4), sizes={"dim": 64})
        check_contract(nn.Linear(3, 5), "*batch 3 -> *batch 5")

    Sizes are odd ones: 1, primes, powers of two and their neighbours. A module is copied first, gradients are off, and
    the random state afterwards is that of before.

    Args:
        target: what is called: a module or function.
        contract: what it should do, where it does not declare it itself with `@shapes`.
        sizes: of names that are fixed, such as by the constructor; or strategies for them.
        given: arguments that the contract does not tell, as for `arguments`.
        max_examples: how many calls are tried.

    Raises:
        ShapeError: the target raises or returns other shapes for sizes that its contract lets through; tells the
            smallest such sizes. What the target raised is the cause.
        DimsError: there is no contract, or no sizes fulfil it.
    """
    plan = planned(target, contract)
    if plan.check is None:
        raise DimsError("a contract alone cannot be called", hint="pass the function or module, then the contract")
    trial = _Trial(copy.deepcopy(target) if isinstance(target, nn.Module) else target, plan.check, plan.bound)
    calls = arguments(plan, sizes=sizes, given=given)
    try:
        _search(calls, trial.survey, max_examples)
        failing = _search(calls, trial.fails, max_examples) if trial.failed else None
    except Unsatisfiable:
        facts, hint = {"contract": str(plan.contract)}, "pin sizes that go together: `sizes={…}`"
        raise DimsError(f"no sizes fulfil the contract of `{plan.name}`", facts=facts, hint=hint) from None
    error = trial.error_of(failing) if failing else None
    if failing and error:
        raise _broken(plan, failing, error, trial) from error


def _search(calls: st.SearchStrategy[Call], wanted: Callable[[Call], bool], max_examples: int) -> Call | None:
    """The smallest call that is wanted, None if none of so many is."""
    # The same calls every time, nothing written to disk, and no time limit that a slow module would miss.
    quiet = settings(max_examples=max_examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    try:
        return find(calls, wanted, settings=quiet, random=random.Random(0))
    except NoSuchExample:
        return None


@dataclass
class _Trial:
    """Calls of one target, and with which sizes they went well."""

    target: Any
    check: Fitted
    bound: bool
    passed: list[Sizes] = field(default_factory=list)
    failed: list[Sizes] = field(default_factory=list)

    def survey(self, call: Call) -> bool:
        """Remember whether the target breaks its contract; never satisfied, so that all calls are tried."""
        (self.failed if self.fails(call) else self.passed).append(call.sizes)
        return False

    def fails(self, call: Call) -> bool:
        """Whether the target breaks its contract."""
        return self.error_of(call) is not None

    def error_of(self, call: Call) -> Exception | None:
        """What is raised by the target, or by the contract about what it returned."""
        args, kwargs = copy.deepcopy((call.args, call.kwargs))  # the drawn ones stay as they are
        whole = (None, *args) if self.bound else args
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                sizes = self.check.enter(whole, kwargs)
                self.check.leave(self.target(*args, **kwargs), sizes, whole, kwargs)
        except Exception as error:  # noqa: BLE001  (whatever the target raises is what is looked for)
            return error
        return None


def _broken(plan: Plan, call: Call, error: Exception, trial: _Trial) -> ShapeError:
    said = (str(error).strip().splitlines() or ["nothing said"])[0]
    if not isinstance(error, ShapeError):
        said = f"{type(error).__name__}: {said}"
    relations = telling(trial.passed, trial.failed)
    tried = len(trial.passed) + len(trial.failed)
    facts = {
        "contract": str(plan.contract),
        "called": "\n".join(_tensors(plan, call)) or "without tensors",
        "raised": said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…",
        "passed": f"{len(trial.passed)} of {tried} calls" + _just(relations),
    }
    sizes = ", ".join(f"{name} = {size}" for name, size in call.sizes.items())
    title = f"`{plan.name}` breaks its contract" + (f" with {sizes}" if sizes else "")
    return ShapeError(title, facts=facts, hint=_hint(plan, call.sizes, trial, relations))


def _just(relations: Sequence[Relation]) -> str:
    return f", just those with {' and '.join(map(str, relations))}" if relations else ""


def _hint(plan: Plan, sizes: Sizes, trial: _Trial, relations: Sequence[Relation]) -> str:
    pins = {pin.left: pin.pin for pin in relations if pin.pin}
    if len(pins) == len(relations) > 0:
        written = ", ".join(f'"{name}": {pin}' for name, pin in pins.items())
        return f"repair it, or leave the other sizes out: `sizes={{{written}}}`"
    if relations or not sizes:
        return "repair it, or declare what it takes"
    if _different(trial.passed) < _ENOUGH:
        names = ", ".join(f'"{name}": …' for name in sizes)
        return f"give the sizes that the constructor fixed, some of `sizes={{{names}}}`"
    return f"call `{plan.name}` with tensors like these to see where"


def _tensors(plan: Plan, call: Call) -> list[str]:
    """The drawn tensors by name, each with its shape and dtype."""
    names = [parameter.name for parameter in plan.parameters if parameter.kind not in (*VARIADIC, _KEYWORD)]
    given = {names[i] if i < len(names) else str(i): value for i, value in enumerate(call.args)} | call.kwargs
    return [
        f"{'.'.join(filter(None, (name, place)))} {tuple(tensor.shape)} {dtype_name(tensor)}"
        for name, value in given.items()
        for place, tensor in tensors_in(value)
    ]


def telling(passed: Sequence[Sizes], failed: Sequence[Sizes]) -> tuple[Relation, ...]:
    """One or two relations between sizes that all hold whenever a call passed, and never when it failed.

    Args:
        passed: sizes of the calls that passed.
        failed: those of the others.
    """
    if _different(passed) < _ENOUGH:
        return ()
    true = [relation for relation in _relations(passed) if all(map(relation.holds, passed))]
    for together in ((relation,) for relation in true), combinations(true, 2):
        for relations in together:
            if not any(all(relation.holds(sizes) for relation in relations) for sizes in failed):
                return relations
    return ()


def _different(calls: Sequence[Sizes]) -> int:
    return len({tuple(sizes.values()) for sizes in calls})


@dataclass(frozen=True)
class Relation:
    """Something that two sizes may have to do with each other, or a size with a number."""

    left: str
    words: str
    right: str | int
    test: Callable[[int, int], bool]

    def holds(self, sizes: Sizes) -> bool:
        """Whether it is true of these sizes."""
        left, right = sizes[self.left], sizes[self.right] if isinstance(self.right, str) else self.right
        return isinstance(left, int) and isinstance(right, int) and self.test(left, right)

    @property
    def pin(self) -> str:
        """How `sizes` says it, empty where it cannot."""
        n = self.right
        if isinstance(n, str):
            return ""
        if self.words == "divisible by":
            return f"st.integers(1, 9).map(lambda n: {n} * n)"
        return {"=": str(n), "≥": f"st.integers({n}, {n + 9})", "≤": f"st.integers(1, {n})"}[self.words]

    def __str__(self) -> str:
        return f"`{self.left}` {self.words} {f'`{self.right}`' if isinstance(self.right, str) else self.right}"


def _divides(size: int, divisor: int) -> bool:
    return divisor != 0 and size % divisor == 0


def _relations(calls: Sequence[Sizes]) -> Iterator[Relation]:
    """What may be true of sizes like these, the simplest first."""
    names = [name for name, size in calls[0].items() if isinstance(size, int)]
    ranges = {name: [size for sizes in calls if isinstance(size := sizes[name], int)] for name in names}
    yield from (Relation(name, "=", ranges[name][0], operator.eq) for name in names)
    yield from (Relation(a, "=", b, operator.eq) for a, b in combinations(names, 2))
    yield from (Relation(name, "divisible by", n, _divides) for n, name in product((2, 3, 4, 8), names))
    yield from (Relation(name, "≥", min(ranges[name]), operator.ge) for name in names)
    yield from (Relation(name, "≤", max(ranges[name]), operator.le) for name in names)
    yield from (Relation(a, "divisible by", b, _divides) for a, b in permutations(names, 2))
    yield from (Relation(a, "≤", b, operator.le) for a, b in permutations(names, 2))
