"""What does not fit in attention and recurrent layers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tensorscope.live.postmortem.scene import Mismatch, Remedy
from tensorscope.reports import shape_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from tensorscope.live.postmortem.scene import Scene


def multi_head(scene: Scene) -> Mismatch | None:
    """Multi-head attention with tokens of another width, or masks of another shape."""
    call = scene.call
    query, key, value = (call.tensor(name) for name in ("query", "key", "value"))
    if query is None or key is None or value is None:
        return None
    width = call.roles.get("embed_dim_to_check", getattr(scene.module, "embed_dim", None))
    if isinstance(width, int) and query.ndim in (2, 3) and query.shape[-1] != width:
        return _other_width(scene, query, width)
    for name, tensor, attribute in (("key", key, "kdim"), ("value", value, "vdim")):
        want = getattr(scene.module, attribute, width)
        if isinstance(want, int) and tensor.ndim and tensor.shape[-1] != want:
            axis = scene.axes(tensor)[-1]
            found = Mismatch(
                f"{scene.subject} got {name}s of width {tensor.shape[-1]} and takes {want}",
                [(call.text(name), axis, want)],
            )
            sized = [scene.rebuild(scene.path, 15, kdim=key.shape[-1], vdim=value.shape[-1])]
            sized.append(scene.resized_producer(axis, want))
            found.remedies += [remedy for remedy in sized if remedy is not None]
            return found
    return _masks(scene, query, key) or _pairs(scene, query, key, value)


def _other_width(scene: Scene, query: Tensor, width: int) -> Mismatch:
    call = scene.call
    axis = scene.axes(query)[-1]
    found = Mismatch(
        f"{scene.subject} got tokens of width {query.shape[-1]} and takes {width}", [(call.text("query"), axis, width)]
    )
    heads = getattr(scene.module, "num_heads", 1)
    sized = [scene.resized_producer(axis, width)]
    if query.shape[-1] % heads == 0:
        sized.append(scene.resized_consumer("embed_dim", query.shape[-1]))
    else:
        fewer = next(n for n in range(heads, 0, -1) if query.shape[-1] % n == 0)
        sized.append(scene.rebuild(scene.path, 26, embed_dim=query.shape[-1], num_heads=fewer))
    found.remedies += [remedy for remedy in sized if remedy is not None]
    return found


def _masks(scene: Scene, query: Tensor, key: Tensor) -> Mismatch | None:
    call = scene.call
    batched = query.ndim == 3
    # Inside of torch's function the sequence comes first.
    length, batch, source = query.shape[0], query.shape[1] if batched else 1, key.shape[0]
    padding = call.tensor("key_padding_mask")
    if padding is not None and tuple(padding.shape) != ((batch, source) if batched else (source,)):
        want = (batch, source) if batched else (source,)
        shapes = shape_text(tuple(padding.shape)), shape_text(want)
        title = f"{scene.subject}: `key_padding_mask` is {shapes[0]}, (batch, keys) is {shapes[1]}"
        found = Mismatch(
            title,
            [
                ("key_padding_mask", axis, size)
                for axis, size in zip(scene.axes(padding), want, strict=False)
                if axis.size != size
            ],
        )
        if tuple(padding.shape) == want[::-1]:
            found.remedies.append(scene.transform("key_padding_mask", ".t()", 8))
        if padding.ndim == 3 and padding.shape[1] == 1:
            found.remedies.append(scene.transform("key_padding_mask", ".squeeze(1)", 8))
        found.remedies += _batch_first(scene)
        return found
    mask = call.tensor("attn_mask")
    if mask is None:
        return None
    heads = call.roles.get("num_heads", getattr(scene.module, "num_heads", 1))
    wanted = (length, source), (batch * heads, length, source)
    if tuple(mask.shape) in wanted:
        return None
    texts = f"{shape_text(wanted[0])} or (batch · heads, …) {shape_text(wanted[1])}"
    found = Mismatch(f"{scene.subject}: `attn_mask` is {shape_text(tuple(mask.shape))}, it takes {texts}")
    found.blamed = [("attn_mask", axis, None) for axis in scene.axes(mask)[-1:]]
    if tuple(mask.shape) == (batch, source) and mask.dtype == torch.bool and "attn_mask" in scene.failure.kwargs:
        func = scene.failure.func
        moved = scene.replacing(lambda *a, **k: func(*a, **{**k, "attn_mask": None, "key_padding_mask": mask}))
        said = "pass it as `key_padding_mask`: it says which keys are padding"
        found.remedies.append(Remedy(said, moved, scene.line, 5))
    if mask.ndim >= 2 and mask.shape[-2] >= length and mask.shape[-1] >= source:
        cut = f"[..., :{length}, :{source}]" if mask.ndim > 2 else f"[:{length}, :{source}]"
        found.remedies.append(scene.transform("attn_mask", cut, 10))
    if mask.ndim == 3 and mask.shape[0] == batch and mask.shape[1:] == (length, source):
        repeated = f".repeat_interleave({heads}, 0)"
        change = scene.transform("attn_mask", repeated, 8)
        found.remedies.append(change)
    if mask.ndim == 4:
        flat = scene.transform("attn_mask", f".expand(-1, {heads}, -1, -1).flatten(0, 1)", 20)
        found.remedies.append(flat)
    found.remedies += _batch_first(scene)
    return found


def _pairs(scene: Scene, query: Tensor, key: Tensor, value: Tensor) -> Mismatch | None:
    call = scene.call
    shapes = [shape_text(tuple(t.shape)) for t in (query, key, value)]
    title = f"{scene.subject}: query {shapes[0]}, key {shapes[1]} and value {shapes[2]} do not go together"
    found = Mismatch(title)
    for name, tensor in (("key", key), ("value", value)):
        for place, axis in enumerate(scene.axes(tensor)[:-1]):
            other = (query if name == "key" else key).shape[place] if tensor.ndim == query.ndim else axis.size
            if axis.size != other:
                found.blamed.append((call.text(name), axis, other))
    found.remedies += _batch_first(scene)
    return found


def transformer(scene: Scene) -> Mismatch | None:
    """A transformer that takes sequences and batches for each other."""
    call = scene.call
    tensors = [(role, t) for role, t in call.tensors().items() if t.is_floating_point() and t.ndim == 3]
    if not tensors or not scene.depth:
        return None
    shapes = " · ".join(f"`{call.text(role)}` {shape_text(tuple(t.shape))}" for role, t in tensors)
    width = getattr(scene.module, "d_model", None)
    title = f"{scene.subject}: {scene.message.partition(chr(10))[0]}: {shapes}"
    found = Mismatch(title)
    role, tensor = tensors[-1]
    wrong = next(((r, t) for r, t in tensors if type(width) is int and t.shape[-1] != width), None)
    if wrong is not None:
        role, tensor = wrong
        found.title = f"{scene.subject} got tokens of width {tensor.shape[-1]} and takes {width}"
        found.blamed = [(call.text(role), scene.axes(tensor)[-1], width)]
        if (producer := scene.resized_producer(scene.axes(tensor)[-1], int(width or 0), 15)) is not None:
            found.remedies.append(producer)
    else:
        found.blamed = [(call.text(role), axis, None) for axis in scene.axes(tensor)[:1]]
    found.remedies += _batch_first(scene)
    return found


def _batch_first(scene: Scene) -> Iterator[Remedy]:
    module = scene.module
    modules = dict(scene.root.named_modules())
    above = [".".join(scene.path.split(".")[:n]) for n in range(1, scene.path.count(".") + 2)]
    whole = next((p for p in above if p in modules and type(modules[p]).__name__.startswith("Transformer")), None)
    if scene.depth and whole is not None:
        # The layers inside take the argument from the constructor of the whole.
        parts = {p: m for p, m in modules.items() if p.startswith(whole) and hasattr(m, "batch_first")}
        first = not next(iter(parts.values())).batch_first
        said = f"make `{scene.shown(whole)}` with `batch_first={first}`"
        yield scene.reset({path: {"batch_first": first} for path in parts}, said, 8)
    elif hasattr(module, "batch_first") and scene.depth:
        remedy = scene.rebuild(scene.path, 18, batch_first=not module.batch_first)
        if remedy is not None:
            yield remedy


def dot_product(scene: Scene) -> Mismatch | None:
    """Scaled dot-product attention of queries, keys, values and a mask that do not go together."""
    call = scene.call
    query, key, value, mask = (call.tensor(n) for n in ("query", "key", "value", "attn_mask"))
    if query is None or key is None or value is None or min(query.ndim, key.ndim, value.ndim) < 2:
        return None
    if query.shape[-1] != key.shape[-1]:
        title = f"{scene.subject}: queries have width {query.shape[-1]} and keys {key.shape[-1]}"
        axes = scene.axes(query)[-1], scene.axes(key)[-1]
        found = Mismatch(
            title, [(call.text("key"), axes[1], axes[0].size), (call.text("query"), axes[0], axes[1].size)]
        )
        sized = (scene.resized_producer(axes[1], axes[0].size), scene.resized_producer(axes[0], axes[1].size))
        found.remedies += [remedy for remedy in sized if remedy is not None]
        found.remedies += [scene.transform("key", ".transpose(-2, -1)", 20)]
        return found
    if key.shape[-2] != value.shape[-2]:
        title = f"{scene.subject}: {key.shape[-2]} keys and {value.shape[-2]} values"
        found = Mismatch(title, [(call.text("value"), scene.axes(value)[-2], key.shape[-2])])
        found.remedies.append(scene.transform("value", ".transpose(-2, -1)", 20))
        return found
    if mask is None:
        return None
    return _mask_of_scores(scene, query, key, mask)


def _mask_of_scores(scene: Scene, query: Tensor, key: Tensor, mask: Tensor) -> Mismatch | None:
    call = scene.call
    scores = (*query.shape[:-1], key.shape[-2])
    name = call.text("attn_mask")
    if mask.dtype not in (torch.bool, query.dtype):
        dtype = str(mask.dtype).removeprefix("torch.")
        found = Mismatch(f"{scene.subject}: the mask `{name}` is {dtype}, it takes bool or the queries' dtype")
        found.remedies.append(scene.transform("attn_mask", ".bool()", 8))
        return found
    shapes = shape_text(tuple(mask.shape)), shape_text(scores)
    title = f"{scene.subject}: the mask `{name}` {shapes[0]} does not stretch to the scores {shapes[1]}"
    found = Mismatch(title, [(name, axis, None) for axis in scene.axes(mask)[-1:]], layout=True)
    if mask.ndim == 2 and tuple(mask.shape) == (scores[0], scores[-1]):
        found.remedies.append(scene.transform("attn_mask", "[:, None, None, :]", 5))
    if mask.ndim == 3 and len(scores) == 4:
        found.remedies.append(scene.transform("attn_mask", "[:, None]", 5))
    if mask.ndim >= 2 and mask.shape[-2] >= scores[-2] and mask.shape[-1] >= scores[-1]:
        cut = f"[..., :{scores[-2]}, :{scores[-1]}]" if mask.ndim > 2 else f"[:{scores[-2]}, :{scores[-1]}]"
        found.remedies.append(scene.transform("attn_mask", cut, 10))
    return found


def recurrent(scene: Scene) -> Mismatch | None:
    """A recurrent layer with other features, another number of axes, or a hidden state of another shape."""
    call = scene.call
    module = scene.module
    if not isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return None
    x = call.tensor("input")
    packed = call.roles.get("input")
    if x is None and isinstance(packed, nn.utils.rnn.PackedSequence):
        x = packed.data
    if x is None:
        return None
    if x.ndim not in (2, 3) or (isinstance(module, nn.RNNCellBase) and x.ndim == 3):
        return _other_rank(scene, x)
    if x.shape[-1] != module.input_size:
        axis = scene.axes(x)[-1]
        title = f"{scene.subject} got {x.shape[-1]} features and takes {module.input_size}"
        found = Mismatch(title, [(call.text("input"), axis, module.input_size)])
        sized = [scene.resized_consumer("input_size", x.shape[-1]), scene.resized_producer(axis, module.input_size)]
        found.remedies += [remedy for remedy in sized if remedy is not None]
        if x.ndim == 3 and x.shape[1] == module.input_size:
            found.remedies.append(scene.transform("input", ".transpose(1, 2)", 8))
        return found
    return _state(scene, x, module)


def _other_rank(scene: Scene, x: Tensor) -> Mismatch:
    call, module = scene.call, scene.module
    takes = "(batch, features)" if isinstance(module, nn.RNNCellBase) else "(batch, seq, features) or (seq, features)"
    if isinstance(module, nn.RNNBase) and not module.batch_first:
        takes = "(seq, batch, features) or (seq, features)"
    found = Mismatch(f"{scene.subject} takes {takes} and got {x.ndim} axes: {shape_text(tuple(x.shape))}")
    found.blamed = [(call.text("input"), axis, None) for axis in scene.axes(x)[-1:]]
    size = getattr(module, "input_size", None)
    if x.ndim == 4 and x.shape[1] == size:
        turn = scene.transform("input", ".flatten(2).transpose(1, 2)", 6)
        found.remedies.append(turn)
    if x.ndim == 4 and x.shape[-1] == size:
        found.remedies.append(scene.transform("input", ".flatten(1, 2)", 8))
    if x.ndim == 4 and x.shape[2] * x.shape[3] == size:
        found.remedies.append(scene.transform("input", ".flatten(2)", 10))
    if x.ndim == 4 and x.shape[1] * x.shape[2] == size:
        change = scene.transform("input", ".flatten(1, 2).transpose(1, 2)", 10)
        found.remedies.append(change)
    if x.ndim == 2 and size == 1:
        found.remedies.append(scene.transform("input", ".unsqueeze(-1)", 6))
    return found


def _state(scene: Scene, x: Tensor, module: nn.Module) -> Mismatch | None:
    call = scene.call
    role = next((name for name in call.tensors() if name.startswith(("hx", "hidden"))), None)
    if role is None:
        return None
    hidden = call.roles[role]
    said = re.search(r"Expected hidden(?:\[\d\])? size \(([\d, ]+)\)", scene.message)
    want = tuple(int(n) for n in said[1].split(",") if n.strip()) if said else _state_shape(x, module)
    if want is None or tuple(hidden.shape) == want:
        return None
    title = f"{scene.subject}: the hidden state is {shape_text(tuple(hidden.shape))} and has to be {shape_text(want)}"
    pairs = zip(scene.axes(hidden), want, strict=False)
    found = Mismatch(title, [(call.text(role), axis, size) for axis, size in pairs if axis.size != size])
    sized = [scene.resized_producer(axis, size, 12) for _, axis, size in found.blamed if size is not None]
    found.remedies += [remedy for remedy in sized if remedy is not None]
    if hidden.ndim == len(want) and hidden.shape[-1] != want[-1]:
        found.remedies += filter(None, [scene.rebuild(scene.path, 22, hidden_size=hidden.shape[-1])])
    found.remedies += _states(scene, role, want)
    return found


def _state_shape(x: Tensor, module: nn.Module) -> tuple[int, ...] | None:
    if isinstance(module, nn.RNNCellBase):
        return (*x.shape[:-1], int(module.hidden_size))
    if not isinstance(module, nn.RNNBase) or x.ndim != 3:
        return None
    layers = module.num_layers * (2 if module.bidirectional else 1)
    return layers, x.shape[0 if module.batch_first else 1], module.hidden_size


def _states(scene: Scene, role: str, want: tuple[int, ...]) -> Iterator[Remedy]:
    call = scene.call
    hidden = call.roles[role]
    roles = [name for name in call.roles if name.startswith(role.partition("[")[0] + "[")] or [role]

    def edit(change: Any) -> Any:
        whole = role.partition("[")[0]
        if whole == role:
            return scene.changing(role, change)
        return scene.changing(whole, lambda pair: tuple(change(state) for state in pair))

    many = " of both states" if len(roles) > 1 else ""
    if hidden.ndim == len(want) > 1 and tuple(hidden.transpose(0, 1).shape) == want:
        yield Remedy(f"`.transpose(0, 1)`{many}", edit(lambda t: t.transpose(0, 1).contiguous()), scene.line, 15)
    if hidden.ndim == len(want) - 1 and tuple(hidden.shape) == want[1:]:
        yield Remedy(f"`.unsqueeze(0)`{many}", edit(lambda t: t.unsqueeze(0)), scene.line, 6)
    steps = scene.replay.steps
    maker = scene.replay.provenance.maker(hidden)
    if maker is not None and steps[maker].op not in _BLANK:
        yield from _batch_first(scene)
        return  # a state that was computed is not to be thrown away
    zeros = edit(lambda t: t.new_zeros(want))
    old = call.texts.get(role, "")
    text, place = call.texts.get("input", ""), 0 if getattr(scene.module, "batch_first", False) else 1
    sizes = list(map(str, want))
    said = f"make the hidden state `torch.zeros({', '.join(sizes)})`"
    if old.isidentifier():
        sizes[1:2] = [f"{text}.shape[{place}]"] if text.isidentifier() and len(want) == 3 else sizes[1:2]
        said = f"`torch.zeros({', '.join(sizes)})` in place of `{old}`"
    yield Remedy(said, zeros, scene.line, 18)
    yield from _batch_first(scene)


_BLANK = ("zeros", "zeros_like", "new_zeros", "randn", "rand", "ones", "empty", "full", "to", "clone", "detach")
_TRANSFORMERS = ("transformer", "transformer_encoder", "transformer_decoder")

ANALYSES: dict[str, Any] = {
    **dict.fromkeys((*_TRANSFORMERS, "transformer_encoder_layer", "transformer_decoder_layer"), transformer),
    "multi_head_attention_forward": multi_head,
    "scaled_dot_product_attention": dot_product,
    **dict.fromkeys(("lstm", "gru", "rnn", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_cell"), recurrent),
    **dict.fromkeys(("rnn_tanh_cell", "rnn_relu_cell"), recurrent),
}
