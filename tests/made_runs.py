"""Hand-made run files, for tests that need a run and no training."""

from __future__ import annotations

import json
import math
import os
import socket
from typing import TYPE_CHECKING

import numpy as np

from tensorscope.events import Kind, ModuleInfo, Shape, Site
from tensorscope.graphs.graph import Call, Edge, Graph, Module, Op, Role, Value
from tensorscope.reports import Fix, Operand, OriginStep, ShapeReport, Where
from tensorscope.run import schema
from tensorscope.run.writer import Writer

if TYPE_CHECKING:
    from pathlib import Path

GAUGES = ("step_seconds", "tracing_seconds", "interval", "memory", "lr", "lr[1]", "clip")
SETTINGS = {"lr": 1e-4, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "amsgrad": False, "fused": None}
OPTIMIZER = {
    "type": "AdamW",
    "groups": [
        {"settings": SETTINGS, "parameters": ["conv1.weight", "conv2.weight"], "others": 0},
        {"settings": SETTINGS | {"lr": 3e-4}, "parameters": ["fc1.weight", "fc2.weight"], "others": 1},
    ],
}
MODES = [
    {"step": 0, "training": True, "toggled": [], "frozen": []},
    {"step": 40, "training": True, "toggled": ["pool1"], "frozen": ["conv1"]},
]
MACHINE = {
    "every": None, "overhead": 0.05, "interval": 8, "argv": ["train.py", "--lr", "1e-4"], "folder": "/work/cnn",
    "git": {"commit": "c0ffee" * 6, "branch": "main", "dirty": True, "changed": ["train.py"],
            "remote": "https://example.org/cnn.git"},
    "tensorscope": "0.1.0", "torch": "2.9.0", "python": "3.12.1", "numpy": "2.1.0", "host": "atlas",
    "platform": "Linux-6.1-x86_64", "cpu": "Some processor", "cpus": 16, "threads": 8, "memory": 64_000_000_000,
    "accelerators": [{"kind": "cuda", "count": 2, "names": ["Some GPU", "Some GPU"]}], "seed": 7,
    "deterministic": False, "variables": {"OMP_NUM_THREADS": "8"}, "kernel": True,
}  # fmt: skip

LAYERS = ("conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "flatten", "fc1", "relu3", "fc2")
SHAPES = (
    (64, 32, 26, 26), (64, 32, 26, 26), (64, 32, 13, 13), (64, 64, 11, 11), (64, 64, 11, 11), (64, 64, 5, 5),
    (64, 1600), (64, 128), (64, 128), (64, 10),
)  # fmt: skip
NAMES = ("batch", "channels", "height", "width")
TYPES = ("Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "MaxPool2d", "Flatten", "Linear", "ReLU", "Linear")
OPS = ("conv2d", "relu", "max_pool2d", "conv2d", "relu", "max_pool2d", "flatten", "linear", "relu", "linear")


def made_meta(**changes: object) -> dict[str, object]:
    """What a trace writes about itself at the start, without anything that differs between machines."""
    return {
        "model": "SimpleCNN",
        "status": "running",
        "created": 1_700_000_000.0,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "every": 1,
        "rank": 0,
        "world_size": 1,
    } | changes


def stats_row(rng: np.random.Generator, scale: float, *, zero: float = 0.0, nonfinite: int = 0) -> list[float]:
    """A plausible row of `events.STORED`."""
    noise = 1 + 0.1 * float(rng.standard_normal())
    std = scale * noise
    return [1024, 0.1 * std, std, -3 * std, 3 * std, zero, nonfinite, math.nan]


def shape_of(site: Site) -> Shape:
    """The shape that a site of the small CNN has; of a layer that it lacks, (64, 32)."""
    if site.kind is Kind.INPUT:
        return Shape(0, (64, 1, 28, 28), NAMES, "float32", "cpu")
    if site.kind is Kind.PARAMETER:
        return Shape(0, (32, 1, 3, 3) if "conv" in site else (128, 1600), (), "float32", "cpu")
    dims = dict(zip(LAYERS, SHAPES, strict=True)).get(site.path, (64, 32))
    return Shape(0, dims, NAMES if len(dims) == 4 else ("batch", "features"), "float32", "cpu")


def make_run(
    folder: Path,
    *,
    steps: int = 60,
    layers: tuple[str, ...] = LAYERS,
    nan_from: int | None = None,
    status: str = "finished",
    told: bool = False,
) -> Path:
    """Write a run of a small CNN: falling loss, shrinking gradients, histograms; the same bits every time.

    Args:
        folder: where to write it.
        steps: how many steps.
        layers: module paths.
        nan_from: first step at which `fc1` holds NaN.
        status: how the run ended; `running` leaves it open to look as if it were live.
        told: whether it also holds what a trace reads off by itself: gauges, times, updates, optimizer, environment.
    """
    rng = np.random.default_rng(0)
    writer = Writer(folder, made_meta(**(MACHINE if told else {})))
    types = dict(zip(LAYERS, TYPES, strict=True))
    writer.modules(
        [ModuleInfo("", "SimpleCNN", 0, 0)]
        + [
            ModuleInfo(
                path,
                types.get(path, "Linear"),
                320 if path.startswith(("conv", "fc")) else 0,
                0,
                bytes=1280 if path.startswith(("conv", "fc")) else 0,
            )
            for path in layers
        ]
    )
    sites = [Site("", Kind.INPUT), *(Site(path) for path in layers)]
    sites += [Site(path).grad for path in layers]
    weights = [Site(f"{path}.weight", Kind.PARAMETER) for path in layers if path.startswith(("conv", "fc"))]
    sites += weights + [weight.grad for weight in weights]
    sites += [Site(weight.path, Kind.UPDATE) for weight in weights] if told else []
    numbers = [writer.site(site) for site in sites]
    for site, number in zip(sites, numbers, strict=True):
        if site.kind is not Kind.UPDATE:
            writer.shape(number, shape_of(site))
    for step in range(steps):
        rows = []
        for depth, site in enumerate(sites):
            bad = (
                3 if nan_from is not None and step >= nan_from and site.path.startswith(("fc1", "relu3", "fc2")) else 0
            )
            scale = 10 ** (-1 - 0.2 * (depth % len(layers))) if site.gradient else 1.0
            scale = lr(step) if site.kind is Kind.UPDATE else scale
            row = stats_row(rng, scale, zero=0.6 if "relu" in site else 0.0, nonfinite=bad)
            rows.append([64 * 28 * 28, *row[1:]] if site.kind is Kind.INPUT else row)
        values = np.array(rows)
        writer.frame(schema.STATS, step, tuple(numbers), lambda values=values: values)
        if step % 10 == 0:
            bell = np.exp(-0.5 * np.linspace(-3, 3, schema.BINS) ** 2) * 100 * (1 + step / 100)
            counts = np.array([[-3.0, 3.0, *bell.round()]] * len(sites))
            writer.frame(schema.HISTOGRAMS, step, tuple(numbers), lambda counts=counts: counts)
        loss = np.array([2.3 * math.exp(-step / 25) + 0.05 * rng.random(), min(0.97, 0.1 + step / 50)])
        if nan_from is not None and step >= nan_from:
            loss[0] = math.nan
        writer.frame(schema.SCALARS, step, ("loss", "accuracy"), lambda loss=loss: loss)
        if told:
            tell_gauges(writer, step, len(layers))
    if told:
        writer.document("optimizers", json.dumps([OPTIMIZER]))
        writer.document("modes", json.dumps(MODES))
    writer.close(**({} if status == "running" else {"status": status}))
    return folder


def tell_gauges(writer: Writer, step: int, layers: int) -> None:
    """What a trace reads off by itself at a step, without clocks: learning rate, clipping, times, memory."""
    rng = np.random.default_rng(step)
    gauges = np.array([0.02 + 0.002 * rng.random(), 0.001, 8.0, 6.4e8 + 1e6 * step, lr(step), 3 * lr(step), clip(step)])
    writer.frame(schema.GAUGES, step, GAUGES, lambda: gauges)
    own = np.array([[0.0005 * (1 + n % 4), 0.001 * (1 + n % 3)] for n in range(layers)])
    times = np.vstack([own.sum(axis=0), own]) * (1 + 0.01 * rng.random())
    writer.frame(schema.TIMES, step, tuple(range(1 + layers)), lambda: times)


def lr(step: int) -> float:
    """A learning rate that is warmed up, then decays."""
    return 1e-3 * min(1.0, (step + 1) / 10) * 0.96 ** max(0, step - 10)


def clip(step: int) -> float:
    """A factor of clipping that goes to 1."""
    return min(1.0, 0.3 + step / 40)


def made_report(**changes: object) -> ShapeReport:
    """The report of a CNN whose first linear layer expects images of another size."""
    line = Where("model.py", 23, "x = self.fc1(x.flatten(1))", "SimpleCNN.forward")
    chain = (
        ("flatten", "", (4, 1600), "flatten", 23),
        ("max_pool2d", "pool2", (4, 64, 5, 5), "pool2", 22),
        ("relu", "relu2", (4, 64, 11, 11), "relu2", 22),
        ("conv2d", "conv2", (4, 64, 11, 11), "conv2", 22),
        ("max_pool2d", "pool1", (4, 32, 13, 13), "pool1", 21),
        ("relu", "relu1", (4, 32, 26, 26), "relu1", 21),
        ("conv2d", "conv1", (4, 32, 26, 26), "conv1", 21),
        ("input", "", (4, 1, 28, 28), "x", 0),
    )
    facts: dict[str, object] = {
        "title": "`fc1` got 1600 features and takes 4096",
        "error": "RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x1600 and 4096x128)",
        "op": "linear",
        "module": "fc1",
        "module_type": "Linear",
        "operands": (
            Operand("input", (4, 1600), "float32", "cpu", ("batch", "")),
            Operand("weight", (128, 4096), "float32", "cpu"),
        ),
        "where": line,
        "origin": tuple(
            OriginStep(op, path, dims, label, Where("model.py", at) if at else None)
            for op, path, dims, label, at in chain
        ),
        "formula": "1600 = 64 · 5 · 5",
        "terms": (
            ("64", "conv2.out_channels"),
            ("5", "height: 28 → conv1 26 → pool1 13 → conv2 11 → pool2 5"),
            ("5", "width, likewise"),
        ),
        "fits": "images of height and width 38 to 41",
        "fixes": (
            Fix("`nn.Linear(1600, 128)`", verified=True, where="model.py:12"),
            Fix("resize the images to 38 × 38"),
        ),
        "notes": ("the forward was replayed without data",),
    }
    return ShapeReport(**(facts | changes))  # type: ignore[arg-type]


def made_graph(*, blocks: int = 0) -> Graph:
    """The first forward of the small CNN, each layer one operation but `pool1`, which has two.

    Args:
        blocks: instead, a chain of so many blocks of two linear layers each.
    """
    dims = [(64, 1, 28, 28), *SHAPES]
    layers = list(LAYERS)
    if blocks:
        layers = [f"blocks.{block}.{half}" for block in range(blocks) for half in ("up", "down")]
        dims = [(8, 32), *((8, 64) if layer.endswith("up") else (8, 32) for layer in layers)]
    values = [Value(size, "float32", NAMES[: len(size)] if len(size) == 4 else ("batch", "features")) for size in dims]
    ops = [Op(0, "images", 0, (values[0],), Role.INPUT)]
    calls, edges = [Call(0, "", -1)], []
    ops_of = dict(zip(LAYERS, OPS, strict=True))
    for number, (layer, value) in enumerate(zip(layers, values[1:], strict=True), 1):
        calls.append(Call(number, layer, 0))
        for name in ("pad", "max_pool2d") if layer == "pool1" else (ops_of.get(layer, "linear"),):
            given = values[number - 1] if name == "pad" else value
            weights = (f"{layer}.weight",) if layer.startswith(("conv", "fc")) else ()
            edges.append(Edge(len(ops) - 1, len(ops), ops[-1].outputs[0]))
            flops = 250_000 * number if weights else 0
            ops.append(
                Op(len(ops), name, number, (given,), where=f"model.py:{20 + number}", weights=weights, flops=flops)
            )
    edges.append(Edge(len(ops) - 1, len(ops), values[-1]))
    ops.append(Op(len(ops), "output", 0, (values[-1],), Role.OUTPUT))
    types = dict(zip(LAYERS, TYPES, strict=True))
    modules = {layer: Module(layer, types.get(layer, "Linear")) for layer in layers}
    return Graph("SimpleCNN", tuple(ops), tuple(edges), tuple(calls), {"": Module("", "SimpleCNN")} | modules)
