"""What a run says about itself, in words: how it was sampled, how fast it is, the program, the machine, its parts."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tui.charts.numbers import duration, grouped, percent, short
from tui.gauges import median, memory, seconds
from tui.head import budget, samples_of, sampling, warnings_of
from tui.verdict import differences_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tensorscope.events import Stats
    from tensorscope.run.differences import RankDifference
    from tensorscope.run.reader import Run

Row = tuple[str, str]

MOST = 12  # rows of one kind, such as notes; of more the first and the newest
RECENT = 100  # measured steps that medians are of
NAMED = 4  # parameters of a group, modules of a mode, ranks of a state
_FLAGS = (False, None)  # settings that say that something is off


@dataclass(frozen=True, slots=True)
class Section:
    """Facts of one kind.

    Attributes:
        title: what they are about.
        rows: label and text of each.
    """

    title: str
    rows: tuple[Row, ...]


def sections_of(run: Run) -> list[Section]:
    """All that the run says about itself, what is wrong with the recording first."""
    meta = run.meta
    found = {
        "Recording": _recording(run, meta),
        "Speed": _speed(run, meta),
        "Program": _program(meta),
        **dict(_optimizers(run)),
        "Training modes": list(_modes(run.modes)),
        "Parts": _parts(run),
        "Ranks": _ranks(run),
        "Machine": _machine(meta),
        "Notes": _shortened([(f"step {grouped(step)}", text) for step, text in run.notes]),
    }
    return [Section(title, tuple(rows)) for title, rows in found.items() if rows]


def _recording(run: Run, meta: Mapping[str, Any]) -> list[Row]:
    said = ", ".join(text for text in (sampling(meta), budget(meta)) if text)
    sizes = sum(module.parameters for module in run.modules)
    model = f"{meta.get('model', '?')}, {sizes:,} parameters, {memory(sum(m.bytes for m in run.modules))}"
    rows = [("model", model), ("status", _status(run, meta))]
    so_far = " so far" if run.status == "running" else ""
    rows += [("measured", f"{said or '?'}; {grouped(run.measured)} of {grouped(run.last_step + 1)} steps{so_far}")]
    if meta.get("kernel") is False:
        rows.append(("statistics", "by torch's own operations: the compiled kernel is missing"))
    return rows + [("trouble", word) for word in warnings_of(run, run.notes)]


def _status(run: Run, meta: Mapping[str, Any]) -> str:
    begun, ended = meta.get("created"), meta.get("ended")
    parts = [run.status]
    if isinstance(begun, int | float):
        parts.append(f"begun {datetime.fromtimestamp(begun, UTC):%Y-%m-%d %H:%M} UTC")
        if isinstance(ended, int | float):
            parts.append(f"took {duration(ended - begun)}")
    return ", ".join(parts) + (f": {meta['error']}" if meta.get("error") else "")


def speed_of(run: Run) -> dict[str, float]:
    """Medians of the newest measured steps: `step_seconds`, `tracing_seconds`; and what follows of them.

    Returns:
        Also `steps_per_second`, without the cost of measuring, `samples_per_step` and `samples_per_second`, as far as
        they are known.
    """
    interval = run.meta.get("every") or run.meta.get("interval") or 1
    found: dict[str, float] = {}
    for name in ("step_seconds", "tracing_seconds"):
        if name in run.gauge_names:
            recent = run.scalar_envelope(name, RECENT, first=max(0, run.last_step - RECENT * interval))
            found[name] = median((recent.low + recent.high) / 2)
    if found.get("step_seconds", 0) > 0:
        found["steps_per_second"] = 1 / found["step_seconds"]
        samples = samples_of(run)
        if samples is not None:
            found["samples_per_step"] = samples
            found["samples_per_second"] = samples / found["step_seconds"]
    return found


def _speed(run: Run, meta: Mapping[str, Any]) -> list[Row]:
    found = speed_of(run)
    rows = []
    if "step_seconds" in found:
        step = found["step_seconds"]
        rows.append(("step", f"{seconds(step)}, {short(1 / step)} steps/s" if step > 0 else seconds(step)))
        if (tracing := found.get("tracing_seconds")) is not None and step > 0:
            interval = meta.get("every") or meta.get("interval") or 1
            said = f"{seconds(tracing)} in a measured step, {percent(tracing / step / interval)} over all steps"
            rows.append(("tracing", said))
    if "samples_per_second" in found:
        size = grouped(int(found["samples_per_step"]))
        rows.append(("samples", f"{short(found['samples_per_second'])}/s, {size} in a step"))
    for name in run.gauge_names:
        if name.startswith("memory"):
            most, last = run.scalar_envelope(name, 1).high, run.scalar_envelope(name, 1, first=run.last_step - interval)
            if len(most) and len(last.high):
                said = f"{memory(float(last.high[0]))}, at most {memory(float(most[0]))}"
                rows.append((name.replace("_", " "), said))
    return rows


def _program(meta: Mapping[str, Any]) -> list[Row]:
    rows = []
    argv = meta.get("argv")
    if isinstance(argv, list) and argv:
        rows.append(("command", shlex.join(map(str, argv))))
    rows += [(key, str(meta[key])) for key in ("folder",) if meta.get(key)]
    git = meta.get("git")
    if isinstance(git, dict):
        rows += list(_commit(git))
    versions = [f"{name} {meta[name]}" for name in ("tensorscope", "torch", "python", "numpy") if meta.get(name)]
    if versions:
        rows.append(("versions", " · ".join(versions)))
    if "seed" in meta:
        sure = "" if not meta.get("deterministic") else ", deterministic algorithms"
        rows.append(("seed", f"{meta['seed']}{sure}"))
    return rows


def _commit(git: Mapping[str, Any]) -> Iterator[Row]:
    changed = git.get("changed") or []
    state = f", {len(changed)} changed file{'s' if len(changed) != 1 else ''}: " if git.get("dirty") else ""
    branch = f" on {git['branch']}" if git.get("branch") else ""
    yield "commit", f"{str(git.get('commit', 'none yet'))[:12]}{branch}{state}{_few(changed) if state else ', clean'}"
    if git.get("remote"):
        yield "remote", str(git["remote"])


def _machine(meta: Mapping[str, Any]) -> list[Row]:
    rows = []
    if meta.get("host"):
        rows.append(("host", ", ".join(str(meta[key]) for key in ("host", "platform") if meta.get(key))))
    if meta.get("cpu"):
        threads = f", torch uses {meta['threads']}" if meta.get("threads") else ""
        rows.append(("processor", f"{meta['cpu']} × {meta.get('cpus', '?')}{threads}"))
    if isinstance(meta.get("memory"), int):
        rows.append(("memory", memory(meta["memory"])))
    for device in meta.get("accelerators") or ():
        names = ", ".join(dict.fromkeys(map(str, device.get("names", ())))) or "not asked for its name"
        rows.append((str(device.get("kind", "?")), f"{device.get('count', '?')} × {names}"))
    variables = meta.get("variables")
    if isinstance(variables, dict) and variables:
        rows.append(("variables", " · ".join(f"{name}={value}" for name, value in variables.items())))
    return rows


def _optimizers(run: Run) -> Iterator[tuple[str, list[Row]]]:
    """A section for each, by its title."""
    for place, optimizer in enumerate(run.optimizers):
        many = len(run.optimizers) > 1
        title = f"Optimizer{f' {place + 1}' if many else ''}: {optimizer.get('type', '?')}"
        rows: list[Row] = []
        for number, group in enumerate(optimizer.get("groups", ())):
            label = f"group {number}" if len(optimizer["groups"]) > 1 else "settings"
            rows.append((label, settings(group.get("settings", {}))))
            rows += _now(run, f"optimizer{place + 1}." if place else "", number, group.get("settings", {}))
            names = group.get("parameters", [])
            others = f" and {group['others']} outside the model" if group.get("others") else ""
            rows.append(("", f"{len(names)} parameters{others}: {_few(names)}"))
        yield title, rows


def _now(run: Run, prefix: str, group: int, at_first: Mapping[str, Any]) -> list[Row]:
    """The learning rate, if a schedule has moved it."""
    name = f"{prefix}lr[{group}]" if group else f"{prefix}lr"
    newest = [float(value) for value in run.gauge(name)[1][-1:]] if name in run.gauge_names else []
    return [("", f"lr is {short(lr)} now") for lr in newest if lr != at_first.get("lr")]


def settings(found: Mapping[str, Any]) -> str:
    """The settings of a group in one line; what is off is left out."""
    said = ((name, value) for name, value in found.items() if not any(value is flag for flag in _FLAGS))
    return " · ".join(f"{name} {_value(value)}".removesuffix(" True") for name, value in said)


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _modes(modes: Iterable[Mapping[str, Any]]) -> list[Row]:
    rows = []
    for mode in modes:
        whole = "training" if mode.get("training") else "evaluation"
        toggled = f", except {_few(mode['toggled'])}" if mode.get("toggled") else ""
        frozen = [name or "the whole model" for name in mode.get("frozen", ())]
        ice = f"; frozen: {_few(frozen)}" if frozen else ""
        rows.append((f"step {grouped(int(mode.get('step', 0)))}", f"{whole}{toggled}{ice}"))
    return [] if all(text == "training" for _, text in rows) else _shortened(rows)


def _parts(run: Run) -> list[Row]:
    parts = run.parts
    if len(parts) < 2:
        return []
    rows = []
    ends = [first - 1 for first, _ in parts[1:]] + [run.last_step]
    for number, ((first, status), last) in enumerate(zip(parts, ends, strict=True), 1):
        superseded = last < first
        steps = "superseded" if superseded else f"steps {grouped(first)} to {grouped(last)}"
        rows.append((str(number), f"{steps}, {status}"))
    return _shortened(rows)


def _ranks(run: Run) -> list[Row]:
    states = run.rank_states
    if len(states) < 2:
        return []
    rows = [
        (f"rank {n}", state.status + (f", step {grouped(state.last_step)}" if state.last_step >= 0 else ""))
        for n, state in states.items()
    ]
    return _shortened(rows) + _shortened([("differs", difference(found)) for found in differences_of(run)])


def difference(found: RankDifference) -> str:
    """Where and since when ranks differ, with their numbers."""
    few = list(found.values.items())[:NAMED]
    numbers = ", ".join(f"rank {n}: {_size(stats)}" for n, stats in few)
    more = f" and {len(found.values) - NAMED} more" if len(found.values) > NAMED else ""
    return f"{found.site} since step {grouped(found.first_step)} ({numbers}{more})"


def _size(stats: Stats) -> str:
    return f"{stats.nonfinite} NaN/Inf" if stats.nonfinite else f"rms {stats.rms:.6g}"


def _few(names: Iterable[Any]) -> str:
    every = list(map(str, names))
    more = f" … ({len(every)})" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + more


def _shortened(rows: list[Row]) -> list[Row]:
    if len(rows) <= MOST:
        return rows
    half = MOST // 2
    return [*rows[:half], ("…", f"{len(rows) - 2 * half} more"), *rows[-half:]]
