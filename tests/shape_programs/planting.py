"""Random small programs whose sizes agree, and one mistake planted in their source."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

# What the drafted class is called, and the classes around it: reports name paths from the outermost one.
OWNERS = {
    "Net": "",
    "Body": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = Body()

    def forward(self, x):
        return self.body(x)

""",
    "Block": """
class Stack(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Identity(), Block())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleDict({"first": nn.ModuleList([Stack()])})

    def forward(self, x):
        for stage in self.stages["first"]:
            x = stage(x)
        return x

""",
}


@dataclass(frozen=True, slots=True)
class Mistake:
    """One line of a program written wrongly.

    Attributes:
        old: the line as it should be.
        new: the line as it is.
        names: modules, inputs or operations that may be blamed for it, one of which a report must mention.
        kind: what sort of mistake it is.
    """

    old: str
    new: str
    names: tuple[str, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Planted:
    """A program with a mistake in it."""

    right: str
    mistake: Mistake

    @property
    def source(self) -> str:
        """The source with the mistake in it."""
        assert self.right.count(self.mistake.old) == 1, self.mistake
        return self.right.replace(self.mistake.old, self.mistake.new)

    def __repr__(self) -> str:
        return f"{self.mistake.kind}: `{self.mistake.new}` instead of `{self.mistake.old}`\n\n{self.source}"


@dataclass(slots=True)
class Draft:
    """A model being written: attributes, steps of `forward`, and the mistakes that could be planted."""

    draw: st.DrawFn
    attributes: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    taken: set[int] = field(default_factory=set)

    def size(self, low: int = 3, high: int = 40, multiple: int = 1) -> int:
        """A size that no other axis of the program has, so that no mistake passes by accident."""
        free = [n * multiple for n in range(low, high) if n * multiple not in self.taken]
        size = self.draw(st.sampled_from(free))
        self.taken.add(size)
        return size

    def choose(self, low: int, high: int) -> int:
        """An integer, both ends included."""
        return self.draw(st.integers(low, high))

    def attribute(self, name: str, code: str) -> str:
        """Add `self.name = code`."""
        line = f"self.{name} = {code}"
        self.attributes.append(line)
        return line

    def step(self, code: str) -> str:
        """Add a line to `forward`."""
        self.steps.append(code)
        return code

    def plant(self, kind: str, line: str, swap: tuple[str, str], *names: str) -> None:
        """Note a mistake: part of a line replaced by something else."""
        old, new = swap
        assert line.count(old) >= 1, (line, old)
        before, _, after = line.rpartition(old)
        self.mistakes.append(Mistake(line, before + new + after, names, kind))

    def resize(self, line: str, swap: tuple[str, str], *names: str) -> None:
        """Note a mistake of size, `swap` having `{}` where the wrong size goes: the name's own layer is to blame."""
        right, template = swap
        self.plant("size", line, (right, template.format(self.size())), *names)

    def source(self, inputs: str) -> str:
        """The whole program."""
        body = "\n".join(f"        {line}" for line in self.attributes)
        steps = "\n".join(f"        {line}" for line in self.steps)
        owner = self.draw(st.sampled_from(sorted(OWNERS)))
        return f"""import torch
import torch.nn.functional as F
from torch import nn


class {owner}(nn.Module):
    def __init__(self):
        super().__init__()
{body}

    def forward(self, x):
{steps}

{OWNERS[owner]}
def build():
    return Net(), ({inputs},)
"""


def linear(draft: Draft, name: str, sizes: tuple[int, int], *, first: bool = False) -> None:
    """A linear layer; its input size can be wrong, and its output size where something follows."""
    inp, out = sizes
    line = draft.attribute(name, f"nn.Linear({inp}, {out})")
    if not first:
        draft.resize(line, (f"({inp}, {out})", f"({{}}, {out})"), name)
    if name != "head":
        draft.resize(line, (f"({inp}, {out})", f"({inp}, {{}})"), name)


def mlp(draft: Draft) -> str:
    """Linear layers, some normalised."""
    width = first = draft.size()
    for i in range(draft.choose(1, 4)):
        out = draft.size()
        linear(draft, f"fc{i}", (width, out))
        norm = ("", "LayerNorm", "BatchNorm1d")[draft.choose(0, 2)]
        inner = f"self.fc{i}(x)"
        if norm:
            line = draft.attribute(f"norm{i}", f"nn.{norm}({out})")
            draft.resize(line, (f"({out})", "({})"), f"norm{i}")
            inner = f"self.norm{i}({inner})"
        draft.step(f"x = F.relu({inner})")
        width = out
    linear(draft, "head", (width, draft.size()))
    step = draft.step("return self.head(x)")
    draft.plant("transpose", step, ("(x)", "(x.t())"), "t", "head")
    batch = draft.size()
    step = draft.steps[0]
    draft.plant("view", step, ("(x)", f"(x.view({batch}, {first + 1}))"), "view", "fc0", "x")
    return draft.source(f"torch.randn({batch}, {first})")


def cnn(draft: Draft) -> str:
    """Convolutions and poolings, flattened into a linear layer."""
    channels = first = draft.size(2, 12)
    size = image = draft.size(20, 32)
    for i in range(draft.choose(1, 3) if image > 25 else 2):
        out, padding = draft.size(4, 20), draft.choose(0, 1)
        line = draft.attribute(f"conv{i}", f"nn.Conv2d({channels}, {out}, 3, padding={padding})")
        draft.resize(line, (f"({channels}, {out},", f"({{}}, {out},"), f"conv{i}")
        draft.resize(line, (f"({channels}, {out},", f"({channels}, {{}},"), f"conv{i}")
        inner = f"self.conv{i}(x)"
        if draft.choose(0, 1):
            norm = draft.attribute(f"bn{i}", f"nn.BatchNorm2d({out})")
            draft.resize(norm, (f"({out})", "({})"), f"bn{i}")
            inner = f"self.bn{i}({inner})"
        draft.step(f"x = F.max_pool2d(F.relu({inner}), 2)")
        channels, size = out, (size + 2 * padding - 2) // 2
    draft.plant("kernel", line, (f"padding={padding}", f"padding={padding + 2}"), f"conv{i}", "head")
    line = draft.attribute("head", f"nn.Linear({channels} * {size} * {size}, {draft.size()})")
    draft.plant("spatial", line, (f"* {size} * {size}", f"* {size + 1} * {size + 1}"), "head")
    draft.plant("spatial", line, (f" * {size} * {size}", f" * {size} * {size + 2}"), "head")
    step = draft.step("x = x.flatten(1)")
    if size > 1:
        draft.plant("flatten", step, ("(1)", "(2)"), "flatten", "head")
    draft.plant("view", step, ("flatten(1)", f"view(-1, {channels * size * size + 1})"), "view")
    draft.step("return self.head(x)")
    return draft.source(f"torch.randn({draft.choose(2, 4)}, {first}, {image}, {image})")


def unet(draft: Draft) -> str:
    """Two levels, joined by a skip connection."""
    first, narrow, wide = draft.size(2, 6), draft.size(4, 16), draft.size(4, 16)
    size, up = 2 * draft.size(5, 12), draft.size(4, 16)
    draft.taken.update({narrow + up, size})
    for name, (inp, out) in {"down": (first, narrow), "middle": (narrow, wide), "merge": (narrow + up, wide)}.items():
        line = draft.attribute(name, f"nn.Conv2d({inp}, {out}, 3, padding=1)")
        draft.resize(line, (f"({inp}, {out},", f"({{}}, {out},"), name)
        if name != "merge":
            draft.resize(line, (f"({inp}, {out},", f"({inp}, {{}},"), name)
        if name == "middle":
            draft.plant("kernel", line, ("padding=1", "padding=0"), name)
    line = draft.attribute("up", f"nn.ConvTranspose2d({wide}, {up}, 2, stride=2)")
    draft.resize(line, (f"({wide}, {up},", f"({{}}, {up},"), "up")
    draft.resize(line, (f"({wide}, {up},", f"({wide}, {{}},"), "up", "merge")
    draft.plant("stride", line, ("stride=2", "stride=1"), "up")
    draft.step("skip = F.relu(self.down(x))")
    step = draft.step("h = F.relu(self.middle(F.max_pool2d(skip, 2)))")
    draft.plant("window", step, ("(skip, 2)", "(skip, 3)"), "max_pool2d", "up")
    step = draft.step("h = torch.cat([skip, self.up(h)], dim=1)")
    draft.plant("cat", step, ("dim=1", "dim=2"), "cat", "merge", "up")
    draft.step("return self.merge(h)")
    return draft.source(f"torch.randn(2, {first}, {size}, {size})")


def residual(draft: Draft) -> str:
    """Sequence features through residual layers, attention of torch's own between them."""
    heads = draft.choose(2, 4)
    draft.taken.update(range(9))
    dim, hidden, seq = draft.size(4, 9, multiple=heads), draft.size(20, 60), draft.size(5, 12)
    first = draft.size()
    line = draft.attribute("lift", f"nn.Linear({first}, {dim})")
    draft.resize(line, (f"({first}, {dim})", f"({first}, {{}})"), "lift")
    draft.attribute("attention", f"nn.MultiheadAttention({dim}, {heads}, batch_first=True)")
    line = draft.attribute("shrink", f"nn.Linear({hidden}, {dim})")
    draft.resize(line, (f"({hidden}, {dim})", f"({{}}, {dim})"), "shrink")
    draft.resize(line, (f"({hidden}, {dim})", f"({hidden}, {{}})"), "shrink")
    line = draft.attribute("grow", f"nn.Linear({dim}, {hidden})")
    draft.resize(line, (f"({dim}, {hidden})", f"({dim}, {{}})"), "grow")
    draft.resize(line, (f"({dim}, {hidden})", f"({{}}, {hidden})"), "grow")
    line = draft.attribute("mask", f"torch.ones({seq}, {seq}, dtype=torch.bool).triu(1)")
    draft.plant("mask", line, (f"({seq}, {seq},", f"({seq + 2}, {seq + 2},"), "mask", "attention")
    draft.step("x = self.lift(x)")
    step = draft.step("x = x + self.attention(x, x, x, attn_mask=self.mask)[0]")
    draft.plant("transpose", step, ("x + ", "x.transpose(1, 2) + "), "transpose", "attention")
    step = draft.step("x = x + self.shrink(F.gelu(self.grow(x)))")
    draft.plant("forgotten", step, ("self.shrink(F.gelu(self.grow(x)))", "self.grow(x)"), "grow")
    step = draft.step("return x.mean(1)")
    draft.plant("axis", step, ("mean(1)", "mean(3)"), "mean")
    return draft.source(f"torch.randn(3, {seq}, {first})")


def transformer(draft: Draft) -> str:
    """Embeddings, one block of written-out attention, a head."""
    heads = draft.choose(2, 4)
    draft.taken.update(range(9))
    dim, seq = draft.size(4, 9, multiple=heads), draft.size(5, 30)
    draft.taken.add(dim // heads)
    vocab, batch = draft.size(30, 60), draft.choose(2, 3)
    line = draft.attribute("embed", f"nn.Embedding({vocab}, {dim})")
    draft.resize(line, (f", {dim})", ", {})"), "embed")
    line = draft.attribute("position", f"nn.Parameter(torch.randn({seq}, {dim}))")
    draft.plant("table", line, (f"({seq}, {dim})", f"({seq - 1}, {dim})"), "position", "x")
    line = draft.attribute("norm", f"nn.LayerNorm({dim})")
    draft.resize(line, (f"({dim})", "({})"), "norm")
    line = draft.attribute("qkv", f"nn.Linear({dim}, {3 * dim})")
    draft.resize(line, (f"({dim}, {3 * dim})", f"({{}}, {3 * dim})"), "qkv")
    line = draft.attribute("out", f"nn.Linear({dim}, {dim})")
    draft.resize(line, (f"({dim}, {dim})", f"({{}}, {dim})"), "out")
    draft.resize(line, (f"({dim}, {dim})", f"({dim}, {{}})"), "out")
    draft.step("x = self.embed(x) + self.position")
    step = draft.step("q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)")
    if seq % 3 == 0:
        draft.plant("chunk", step, ("dim=-1", "dim=1"), "chunk", "qkv")
    step = draft.step(f"q, k, v = (t.unflatten(-1, ({heads}, {dim // heads})).transpose(1, 2) for t in (q, k, v))")
    draft.plant("heads", step, (f"({heads}, {dim // heads})", f"({heads + 1}, {dim // heads})"), "unflatten", "qkv")
    step = draft.step("scores = (q @ k.transpose(-2, -1)).softmax(-1)")
    draft.plant("transpose", step, ("transpose(-2, -1)", "transpose(1, 2)"), "transpose")
    draft.plant("transpose", step, ("k.transpose(-2, -1)", "k"), "unflatten", "transpose", "qkv", "matmul")
    step = draft.step("merged = (scores @ v).transpose(1, 2).flatten(2)")
    draft.plant("merge", step, (".transpose(1, 2).flatten(2)", ".flatten(2)"), "flatten", "out")
    draft.plant("merge", step, (".flatten(2)", f".view({batch}, {seq}, {dim})"), "view", "transpose")
    draft.step("x = x + self.out(merged)")
    linear(draft, "head", (dim, draft.size()))
    draft.step("return self.head(x)")
    return draft.source(f"torch.randint(0, {vocab}, ({batch}, {seq}))")


def recurrent(draft: Draft) -> str:
    """Embeddings, a recurrent network, a head."""
    cell = ("RNN", "GRU", "LSTM")[draft.choose(0, 2)]
    ways = draft.choose(1, 2)
    dim, hidden, seq, vocab = draft.size(), draft.size(), draft.size(4, 12), draft.size(30, 60)
    draft.taken.add(2 * hidden)
    line = draft.attribute("embed", f"nn.Embedding({vocab}, {dim})")
    draft.resize(line, (f", {dim})", ", {})"), "embed")
    flags = "batch_first=True" + (", bidirectional=True" if ways == 2 else "")
    line = draft.attribute("rnn", f"nn.{cell}({dim}, {hidden}, {flags})")
    draft.resize(line, (f"({dim}, {hidden},", f"({{}}, {hidden},"), "rnn")
    draft.resize(line, (f"({dim}, {hidden},", f"({dim}, {{}},"), "rnn")
    if ways == 2:
        draft.plant("directions", line, (", bidirectional=True", ""), "rnn")
    draft.step("x = self.embed(x)")
    draft.step("x, _ = self.rnn(x)")
    if draft.choose(0, 1):
        step = draft.step(f"x = x.reshape(len(x), {seq * hidden * ways})")
        draft.plant("view", step, (f"{seq * hidden * ways}", f"{seq * hidden * ways + 1}"), "reshape")
        linear(draft, "head", (seq * hidden * ways, draft.size()))
    else:
        step = draft.step("x = torch.cat([x[:, -1], x[:, 0]], dim=1)")
        draft.plant("cat", step, ("dim=1", "dim=0"), "cat", "head")
        if ways == 1:
            draft.plant("directions", line, ("batch_first=True", "batch_first=True, bidirectional=True"), "rnn")
        linear(draft, "head", (2 * hidden * ways, draft.size()))
    draft.step("return self.head(x)")
    return draft.source(f"torch.randint(0, {vocab}, (3, {seq}))")


@st.composite
def planted_programs(draw: st.DrawFn) -> Planted:
    """A program of a random kind and size, and one of the mistakes that it could have."""
    draft = Draft(draw)
    right = draw(st.sampled_from([mlp, cnn, unet, transformer, residual, recurrent]))(draft)
    kinds = sorted({mistake.kind for mistake in draft.mistakes})
    kind = draw(st.sampled_from(kinds))
    return Planted(right, draw(st.sampled_from([m for m in draft.mistakes if m.kind == kind])))
