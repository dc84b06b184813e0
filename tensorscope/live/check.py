"""Checking a model before it runs: every module's shapes and costs, and the sizes that its inputs may have."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tensorscope.errors import ModelError
from tensorscope.live.explain import explaining
from tensorscope.live.rehearsal.forward import Rehearsal, perform, rehearse
from tensorscope.live.rehearsal.inputs import given as read
from tensorscope.live.rehearsal.ranges import Trials, constraints
from tensorscope.live.rehearsal.search import primes, settle
from tensorscope.live.sandbox import kept_random_state
from tensorscope.live.silent import mistakes
from tensorscope.tables import Constraint, Row, ShapeTable, TensorShape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tensorscope.events import Finding
    from tensorscope.live.rehearsal.inputs import Given
    from tensorscope.live.rehearsal.ledger import Seen

_SMALL = 30_000_000  # parameters and elements of inputs up to which a model may run for real, on copies
_OTHER_SIZES = 2  # examples tried for an axis whose size is 1, or another axis's too


def check(model: nn.Module, *inputs: Any, **kwargs: Any) -> ShapeTable:
    """Find out the shapes of all modules and for which sizes of its inputs a model runs, without running it.

    Nothing is computed: the forward runs on tensors without data, so weights, buffers and random state stay as they
    are, and a model on the meta device will do. Where that cannot follow (a branch on a tensor's values), a small
    model runs for real, on copies.

    Args:
        model: the model.
        inputs: its positional arguments: tensors, or in their place dims such as `batch 3 height width`, a dtype in
            front if it is not float32 (`int64 batch seq`, `int64[batch seq]`). Names without a size get one with which
            the model runs. Anything else goes to the model as it is.
        kwargs: its keyword arguments, likewise.

    Returns:
        The table; `str()` of it is the text.

    Raises:
        ModelError: `model` is not a `torch.nn.Module`, or cannot be followed without data.
        DimsError: dims cannot be read.
        Exception: what the model's forward raises, with its explanation as a note.
    """
    _require_model(model)
    unwrapped = _unwrapped(model)
    taken, found = settle(unwrapped, read(unwrapped, inputs, kwargs))
    run = rehearse(unwrapped, taken, found.sizes) if found.symbols else found
    notes = [
        f"`{slot.name}` is taken to be int64" for slot in taken.slots if slot.dtype is torch.int64 and not slot.declared
    ]
    if not run.runs:
        run, reason = _for_real(unwrapped, taken, run)
        notes.append(reason)
    symbolic = _with_symbols(unwrapped, taken, run, found)
    if symbolic is not None and not symbolic.runs and not run.real:
        notes.append(f"sizes without formulas, for symbols cannot follow: {_said(symbolic.error)}")
    return ShapeTable(
        model=type(unwrapped).__name__,
        inputs={slot.name: _input(slot, run.sizes) for slot in taken.slots},
        sizes=run.sizes,
        rows=tuple(_rows(unwrapped, run, symbolic)),
        constraints=_constraints(unwrapped, taken, run, symbolic),
        findings=_silent_mistakes(unwrapped, taken, (inputs, kwargs), run),
        notes=(*notes, *_uncalled(unwrapped, run)),
    )


def example(model: nn.Module, *inputs: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs of zeros and noise with which a model runs, for dims as `check` takes them; tensors stay as they are.

    Raises:
        ModelError: as for `check`.
        DimsError: as for `check`.
    """
    _require_model(model)
    if not any(isinstance(value, str) for value in (*inputs, *kwargs.values())):
        return inputs, kwargs
    taken, found = settle(_unwrapped(model), read(_unwrapped(model), inputs, kwargs))
    return taken.made(found.sizes)[:2]


def _require_model(model: object) -> None:
    if not isinstance(model, nn.Module):
        hint = "pass an instance, `Model()`" if isinstance(model, type) else "pass the module whose forward it is"
        raise ModelError(
            "this is not a `torch.nn.Module`", facts={"got": f"{type(model).__name__} {model!r:.60}"}, hint=hint
        )
    for name, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise ModelError(f"the parameter `{name}` has no shape yet", hint="run one batch through the model first")


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model inside a wrapper that would talk to other processes, or that compiles it."""
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    inner: nn.Module = model.module if isinstance(model, wrappers) else model
    return inner._modules.get("_orig_mod") or inner


def _said(error: Exception | None) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]:.100}"


# -- where nothing could be imagined, or something is wrong ------------------------------------------------------------


def _for_real(model: nn.Module, given: Given, run: Rehearsal) -> tuple[Rehearsal, str]:
    """Run a small model on copies, for the error is then its own; or it does run, and only could not be imagined."""
    assert run.error is not None
    with explaining(model):
        if _is_small(model, given, run.sizes):
            real = perform(model, given, run.sizes)
            if real.runs:
                return real, f"run for real, on copies and with made-up inputs, for without data: {_said(run.error)}"
            raise perform(model, given, run.sizes, watched=False).error or real.error or run.error
        if run.imaginable:
            raise run.error
    raise ModelError(
        f"`{type(model).__name__}` cannot be checked without data",
        facts={"error": _said(run.error)},
        hint="its way depends on values, and it is too large, or on the meta device, to run on copies",
    ) from run.error


def _is_small(model: nn.Module, given: Given, sizes: dict[str, int]) -> bool:
    tensors = [*model.parameters(), *model.buffers()]
    elements = sum(tensor.numel() for tensor in tensors)
    elements += sum(math.prod(slot.shape(sizes)) for slot in given.slots)
    return elements <= _SMALL and not any(tensor.is_meta for tensor in tensors)


def _silent_mistakes(
    model: nn.Module, given: Given, original: tuple[tuple[Any, ...], dict[str, Any]], run: Rehearsal
) -> tuple[Finding, ...]:
    """What runs and is wrong; looked for where the model is small enough to run."""
    if not _is_small(model, given, run.sizes):
        return ()
    try:
        with kept_random_state():
            torch.manual_seed(0)
            made = given.made(run.sizes)
            real = not any(isinstance(leaf, str) for leaf in (*original[0], *original[1].values()))
            return tuple(mistakes(model, *(original if real else made[:2])))
    except Exception:  # noqa: BLE001  (looking for mistakes is an extra, the table stands without it)
        return ()


# -- sizes as symbols --------------------------------------------------------------------------------------------------


def _with_symbols(model: nn.Module, given: Given, run: Rehearsal, found: Rehearsal) -> Rehearsal | None:
    """The forward with a symbol for every size."""
    if not run.sizes:
        return None
    whole = found.symbols is not None and len(found.symbols.names) == len(run.sizes)
    symbolic = found if whole else rehearse(model, given, run.sizes, run.sizes)
    alike = _taken_together(symbolic)
    apart = _told_apart(model, given, run.sizes, alike) if alike else run.sizes
    return symbolic if apart == run.sizes else rehearse(model, given, apart, run.sizes)


def _taken_together(symbolic: Rehearsal) -> set[str]:
    """Names of axes that the program took to be equal, or to be 1; perhaps only because the examples are."""
    found: set[str] = set()
    for condition in symbolic.symbols.conditions() if symbolic.symbols else ():
        if condition.equates:
            small = [name for name in condition.uses if symbolic.sizes[name] <= 1]
            found.update(small if len(condition.uses) == 1 else condition.uses)
    return found


def _told_apart(model: nn.Module, given: Given, sizes: dict[str, int], names: set[str]) -> dict[str, int]:
    """Examples for these names that no other axis has, as far as the model runs with them."""
    examples = dict(sizes)
    for name in names:
        others = [other for key, other in examples.items() if key != name]
        if sizes[name] > 1 and sizes[name] not in others:
            continue
        fresh = (prime for prime in primes(max(sizes[name] + 1, 3)) if prime not in others)
        for prime in islice(fresh, _OTHER_SIZES):
            if rehearse(model, given, examples | {name: prime}).runs:
                examples[name] = prime
                break
    return examples


def _constraints(model: nn.Module, given: Given, run: Rehearsal, symbolic: Rehearsal | None) -> tuple[Constraint, ...]:
    if symbolic is None:
        return ()
    conditions = symbolic.symbols.conditions() if symbolic.symbols and symbolic.runs and not run.real else []
    return constraints(Trials(model, given, run.sizes, conditions, run.operations, run.real))


# -- rows --------------------------------------------------------------------------------------------------------------


def _rows(model: nn.Module, run: Rehearsal, symbolic: Rehearsal | None) -> Iterator[Row]:
    aliases: dict[int, list[str]] = defaultdict(list)
    for path, module in model.named_modules(remove_duplicate=False):
        aliases[id(module)].append(path)
    held = _Holdings(model)
    depths: dict[str, int] = {}
    formulas = symbolic.ledger.accounts if symbolic is not None and symbolic.runs else {}
    for path, account in run.ledger.accounts.items():
        module = model.get_submodule(path)
        depths[path] = 0 if account.parent is None else depths[account.parent] + 1
        twin = formulas.get(path)
        total, trainable = held.of(path)
        yield Row(
            path,
            type(module).__name__,
            depths[path],
            path.removeprefix(f"{account.parent}.") if account.parent else path,
            account.number,
            _shapes(account.inputs, twin.inputs if twin else (), run, symbolic),
            _shapes(account.outputs, twin.outputs if twin else (), run, symbolic),
            account.varying,
            total,
            trainable,
            account.flops,
            held.shared(path, module),
            tuple(aliases[id(module)][1:]),
        )


class _Holdings:
    """Whose parameters are whose: each counts where it is met first."""

    def __init__(self, model: nn.Module) -> None:
        self.home = {id(parameter): path for path, parameter in model.named_parameters()}
        self.parameters = dict(model.named_parameters())

    def of(self, path: str) -> tuple[int, int]:
        """Elements of the parameters below a module, and how many of them are trainable."""
        start = f"{path}." if path else ""
        below = [parameter for name, parameter in self.parameters.items() if name.startswith(start)]
        return sum(p.numel() for p in below), sum(p.numel() for p in below if p.requires_grad)

    def shared(self, path: str, module: nn.Module) -> tuple[tuple[str, str], ...]:
        """Parameters of a module itself that count elsewhere."""
        own = ((f"{path}.{name}" if path else name, p) for name, p in module.named_parameters(recurse=False))
        return tuple((name, self.home[id(p)]) for name, p in own if self.home[id(p)] != name)


def _shapes(
    seen: tuple[Seen, ...], twins: tuple[Seen, ...], run: Rehearsal, symbolic: Rehearsal | None
) -> tuple[TensorShape, ...]:
    paired = [*twins, *[None] * len(seen)][: len(seen)]
    return tuple(
        TensorShape(each.shape, _formulas(each, twin, run, symbolic), each.dtype, each.place)
        for each, twin in zip(seen, paired, strict=True)
    )


def _formulas(seen: Seen, twin: Seen | None, run: Rehearsal, symbolic: Rehearsal | None) -> tuple[str, ...]:
    """How each size follows from the inputs', where that gives the size that was seen."""
    if twin is None or len(twin.shape) != len(seen.shape) or symbolic is None or symbolic.symbols is None:
        return ("",) * len(seen.shape)
    texts = []
    for size, formula in zip(seen.shape, twin.shape, strict=True):
        text, value = symbolic.symbols.text(formula)
        texts.append(text if value is not None and value(run.sizes) == size else "")
    return tuple(texts)


def _input(slot: Any, sizes: dict[str, int]) -> TensorShape:
    formulas = tuple("" if isinstance(axis, int) else str(axis) for axis in slot.axes)
    return TensorShape(tuple(slot.shape(sizes)), formulas, str(slot.dtype).removeprefix("torch."))


def _uncalled(model: nn.Module, run: Rehearsal) -> Iterator[str]:
    """Modules with parameters that no forward called, unless their parent is torch's own and reads the parameters."""
    called = run.ledger.accounts
    for path, module in model.named_modules():
        parent = model.get_submodule(path.rpartition(".")[0])
        container = isinstance(parent, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        torchs = type(parent).__module__.startswith("torch.") and not container and path
        if path not in called and not torchs and any(True for _ in module.parameters(recurse=False)):
            yield f"`{path}` ({type(module).__name__}) is not called"
