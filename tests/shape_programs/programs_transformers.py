"""Torch's own attention and transformer layers: masks, memories, batch_first, positions."""

import torch
from torch import nn

from shape_programs.record import case, either


class CrossLayer(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.cross = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x, memory):
        attended, _ = self.cross(x, memory, memory)
        return self.norm(x + attended)


class Captioner(nn.Module):
    def __init__(self):
        super().__init__()
        self.image_encoder = nn.Conv2d(3, 48, 4, stride=4)
        self.embed = nn.Embedding(50, 32)
        self.layers = nn.ModuleList([CrossLayer(32, 4) for _ in range(2)])

    def forward(self, image, caption):
        memory = self.image_encoder(image).flatten(2).transpose(1, 2)
        h = self.embed(caption)
        for layer in self.layers:
            h = layer(h, memory)
        return h


@case(
    module="layers.0.cross",
    op=("multi_head_attention_forward", "linear"),
    line="self.cross(x, memory, memory)",
    operands=(either((2, 16, 48), (16, 2, 48)),),
    origin="image_encoder",
    fix=("kdim", "48", "32"),
    verified=True,
    fixed=("nn.Conv2d(3, 48, 4, stride=4)", "nn.Conv2d(3, 32, 4, stride=4)"),
    ids="R2",
)
def cross_attention_memory_width():
    return Captioner(), (torch.randn(2, 3, 16, 16), torch.randint(0, 50, (2, 6)))


class KeyPadding(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(16, 2)

    def forward(self, tokens, pad):
        return self.attn(tokens, tokens, tokens, key_padding_mask=pad)[0]


@case(
    module="attn",
    op="multi_head_attention_forward",
    line="key_padding_mask=pad",
    operands=((4, 9, 16), (4, 9)),
    origin=("pad", "tokens"),
    fix=("batch_first", "transpose"),
    verified=True,
    fixed=("nn.MultiheadAttention(16, 2)", "nn.MultiheadAttention(16, 2, batch_first=True)"),
    ids="R3",
)
def mha_batch_first_forgotten():
    return KeyPadding(), (torch.randn(4, 9, 16), torch.zeros(4, 9, dtype=torch.bool))


class CausalMHA(nn.Module):
    def __init__(self, context=10):
        super().__init__()
        self.attn = nn.MultiheadAttention(16, 2, batch_first=True)
        self.register_buffer("causal", torch.ones(context, context, dtype=torch.bool).triu(1))

    def forward(self, x):
        return self.attn(x, x, x, attn_mask=self.causal, need_weights=False)[0]


@case(
    module="attn",
    op="multi_head_attention_forward",
    line="attn_mask=self.causal",
    operands=(either((2, 7, 16), (7, 2, 16)), (10, 10)),
    origin=("causal", "x"),
    fix=("causal[:7", "7", "[:"),
    fixed=("attn_mask=self.causal", "attn_mask=self.causal[: x.shape[1], : x.shape[1]]"),
    ids="S2",
)
def mha_mask_of_the_context_length():
    return CausalMHA(), (torch.randn(2, 7, 16),)


class Translator(nn.Module):
    def __init__(self, d_model=32):
        super().__init__()
        self.src = nn.Embedding(40, d_model)
        self.tgt = nn.Embedding(40, d_model)
        self.transformer = nn.Transformer(d_model, 4, 1, 1, 64)
        self.out = nn.Linear(d_model, 40)

    def forward(self, src, tgt):
        mask = nn.Transformer.generate_square_subsequent_mask(tgt.shape[1])
        h = self.transformer(self.src(src), self.tgt(tgt), tgt_mask=mask)
        return self.out(h)


@case(
    module="transformer",
    op=("transformer", "Transformer", "multi_head_attention_forward"),
    line="self.transformer(",
    operands=((3, 8, 32), (3, 5, 32)),
    origin=("tgt", "mask"),
    fix=("batch_first", "transpose"),
    verified=True,
    fixed=("nn.Transformer(d_model, 4, 1, 1, 64)", "nn.Transformer(d_model, 4, 1, 1, 64, batch_first=True)"),
    ids="R2",
)
def transformer_batch_first():
    return Translator(), (torch.randint(0, 40, (3, 8)), torch.randint(0, 40, (3, 5)))


class EncoderClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(30, 20)
        layer = nn.TransformerEncoderLayer(d_model=24, nhead=4, dim_feedforward=32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2)

    def forward(self, ids):
        return self.encoder(self.embed(ids)).mean(1)


@case(
    module=("encoder.layers.0.self_attn", "encoder.layers.0"),
    op=("multi_head_attention_forward", "transformer_encoder_layer_fwd"),
    line="self.encoder(self.embed(ids))",
    operands=(either((2, 6, 20), (6, 2, 20)),),
    origin="embed",
    fix=("24", "20"),
    verified=True,
    fixed=("nn.Embedding(30, 20)", "nn.Embedding(30, 24)"),
    ids="R2",
)
def encoder_width():
    return EncoderClassifier(), (torch.randint(0, 30, (2, 6)),)


class PositionalTable(nn.Module):
    def __init__(self, dim, max_len=16):
        super().__init__()
        self.register_buffer("table", torch.randn(1, max_len, dim))

    def forward(self, x):
        return x + self.table[:, : x.size(1)]


class LongText(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(90, 12)
        self.positions = PositionalTable(12)
        self.head = nn.Linear(12, 90)

    def forward(self, ids):
        return self.head(self.positions(self.tokens(ids)))


@case(
    module="positions",
    op="add",
    line="x + self.table",
    operands=((2, 20, 12), (1, 16, 12)),
    origin=("table", "ids"),
    fix=("20", "16"),
    fixed=("max_len=16", "max_len=20"),
    ids="X6",
)
def positional_table_too_short():
    return LongText(), (torch.randint(0, 90, (2, 20)),)


class CrossBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.q = nn.Linear(8, 8)
        self.kv = nn.Linear(8, 16)

    def forward(self, queries, context):
        k, v = self.kv(context).chunk(2, -1)
        att = torch.bmm(self.q(queries), k.transpose(1, 2)).softmax(-1)
        return torch.bmm(att, v)


@case(
    op="bmm",
    line="torch.bmm(self.q(queries), k.transpose(1, 2))",
    operands=((4, 3, 8), (2, 8, 5)),
    origin=("kv", "context"),
    fix=("repeat", "expand", "2", "4"),
    fixed=("torch.randn(2, 5, 8)", "torch.randn(4, 5, 8)"),
    ids="S1",
)
def cross_attention_batch():
    return CrossBatch(), (torch.randn(4, 3, 8), torch.randn(2, 5, 8))


class TransformerModel(nn.Module):
    def __init__(self, context=12):
        super().__init__()
        self.embed = nn.Embedding(25, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.register_buffer("causal", nn.Transformer.generate_square_subsequent_mask(context))

    def forward(self, ids):
        return self.encoder(self.embed(ids), mask=self.causal)


@case(
    module="encoder.layers.0.self_attn",
    op="multi_head_attention_forward",
    line="self.encoder(self.embed(ids), mask=self.causal)",
    operands=((12, 12),),
    origin=("causal", "ids", "embed"),
    fix=("causal[:9", "9", "[:"),
    fixed=("mask=self.causal)", "mask=self.causal[: ids.shape[1], : ids.shape[1]])"),
    ids="S2",
)
def encoder_mask_of_the_context_length():
    return TransformerModel(), (torch.randint(0, 25, (2, 9)),)


class EncoderDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.source = nn.Linear(10, 20)
        self.target = nn.Embedding(15, 16)
        self.transformer = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)

    def forward(self, features, ids):
        return self.transformer(self.source(features), self.target(ids))


@case(
    module="transformer",
    op=("transformer", "Transformer", "multi_head_attention_forward"),
    line="self.transformer(self.source(features), self.target(ids))",
    operands=((2, 7, 20), (2, 5, 16)),
    origin=("source", "target"),
    fix=("20", "16"),
    verified=True,
    fixed=("nn.Linear(10, 20)", "nn.Linear(10, 16)"),
    ids="S1e",
)
def transformer_width():
    return EncoderDecoder(), (torch.randn(2, 7, 10), torch.randint(0, 15, (2, 5)))
