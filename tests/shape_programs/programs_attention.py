"""Attention written out: heads, transposes, merges, masks."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from shape_programs.record import case


class SelfAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.head_dim = dim // heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def split(self, t):
        B, T, _ = t.shape
        return t.view(B, T, self.heads, self.head_dim).transpose(1, 2)

    def forward(self, x):
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
        merged = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.out(merged)


class TinyEncoder(nn.Module):
    def __init__(self, dim=100, heads=8):
        super().__init__()
        self.embed = nn.Linear(32, dim)
        self.attention = SelfAttention(dim, heads)

    def forward(self, x):
        h = self.embed(x)
        return h + self.attention(h)


@case(
    module="attention",
    op="view",
    line="t.view(B, T, self.heads, self.head_dim)",
    operands=((2, 10, 100),),
    origin="attention.query",
    fix=("96", "104", "divisible", "divide", "heads", "-1"),
    fixed=("dim=100", "dim=96"),
    ids="R2",
)
def heads_do_not_divide():
    return TinyEncoder(), (torch.randn(2, 10, 32),)


class ScoreAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        B, T, C = x.shape
        qkv = self.qkv(x).reshape(B, T, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        att = (q @ k) * (C // self.heads) ** -0.5
        att = att.softmax(dim=-1)
        y = (att @ v).transpose(1, 2).reshape(B, T, C)
        return self.proj(y)


class ViTBlock(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = ScoreAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SmallViT(nn.Module):
    def __init__(self, dim=32, depth=3, heads=4, classes=10):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, 8, stride=8)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList([ViTBlock(dim, heads) for _ in range(depth)])
        self.head = nn.Linear(dim, classes)

    def forward(self, image):
        x = self.patch_embed(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


@case(
    module="blocks.0.attn",
    op="matmul",
    line="(q @ k)",
    operands=((2, 4, 17, 8),),
    origin=("blocks.0.attn.qkv", "qkv"),
    fix=("transpose(-2, -1)", "mT", "transpose(-1, -2)", "transpose(2, 3)"),
    verified=True,
    fixed=("(q @ k)", "(q @ k.transpose(-2, -1))"),
    ids=("S1", "R2"),
)
def key_not_transposed():
    return SmallViT(), (torch.randn(2, 3, 32, 32),)


class MergeAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        b, t, d = x.size()
        q, k, v = self.qkv(x).split(d, dim=2)
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in (q, k, v))
        causal = torch.ones(t, t, dtype=torch.bool).triu(1)
        att = (q @ k.mT / k.size(-1) ** 0.5).masked_fill(causal, float("-inf"))
        y = att.softmax(-1) @ v
        y = y.transpose(1, 2).view(b, t, d)
        return self.proj(y)


class GPTBlock(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = MergeAttention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x):
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class GPT(nn.Module):
    def __init__(self, vocab=65, dim=32, depth=12, heads=4, context=16):
        super().__init__()
        self.wte = nn.Embedding(vocab, dim)
        self.wpe = nn.Embedding(context, dim)
        self.h = nn.ModuleList([GPTBlock(dim, heads) for _ in range(depth)])
        self.ln_f = nn.LayerNorm(dim)
        self.lm_head = nn.Linear(dim, vocab, bias=False)

    def forward(self, idx):
        pos = torch.arange(idx.shape[1], device=idx.device)
        x = self.wte(idx) + self.wpe(pos)
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


@case(
    module="h.0.attn",
    op="view",
    line="y.transpose(1, 2).view(b, t, d)",
    operands=((2, 12, 4, 8),),
    origin=("transpose", "h.0.attn"),
    fix=("reshape", "contiguous"),
    verified=True,
    fixed=(".view(b, t, d)", ".reshape(b, t, d)"),
    ids=("R2", "F1"),
)
def merge_heads_with_view():
    return GPT(), (torch.randint(0, 65, (2, 12)),)


class ForgetfulMerge(nn.Module):
    def __init__(self, dim=24, heads=3):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim) for _ in range(3))
        self.to_out = nn.Linear(dim, dim)

    def forward(self, x):
        B, T, D = x.shape
        q, k, v = [
            f(x).view(B, T, self.heads, D // self.heads).transpose(1, 2) for f in (self.to_q, self.to_k, self.to_v)
        ]
        weights = torch.softmax(torch.einsum("bhid,bhjd->bhij", q, k), dim=-1)
        context = torch.einsum("bhij,bhjd->bhid", weights, v)
        return self.to_out(context.transpose(1, 2))


@case(
    module="to_out",
    op="linear",
    line="self.to_out(context.transpose(1, 2))",
    operands=((2, 7, 3, 8), (24, 24)),
    origin=("transpose", "einsum"),
    fix=("flatten(2)", "reshape", "flatten"),
    verified=True,
    fixed=("context.transpose(1, 2)", "context.transpose(1, 2).flatten(2)"),
    ids="R2",
)
def heads_not_merged():
    return ForgetfulMerge(), (torch.randn(2, 7, 24),)


class MaskedAttention(nn.Module):
    def __init__(self, dim=16, context=8):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.register_buffer("mask", torch.tril(torch.ones(context, context)))

    def forward(self, x):
        att = self.q(x) @ self.k(x).transpose(-2, -1)
        att = att.masked_fill(self.mask == 0, float("-inf"))
        return att.softmax(-1) @ self.v(x)


@case(
    op="masked_fill",
    line="att.masked_fill(self.mask == 0",
    operands=((2, 12, 12), (8, 8)),
    origin=("mask", "x"),
    fix=("mask[:", "context", "8", "12"),
    fixed=("context=8", "context=12"),
    ids="X6",
)
def sequence_longer_than_mask():
    return MaskedAttention(), (torch.randn(2, 12, 16),)


class PaddingMask(nn.Module):
    def __init__(self, dim=16, heads=2):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)

    def forward(self, x, padding):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = q @ k.mT
        scores = scores.masked_fill(padding, -1e9)
        return scores.softmax(-1) @ v


@case(
    op="masked_fill",
    line="scores.masked_fill(padding, -1e9)",
    operands=((3, 2, 6, 6), (3, 6)),
    origin=("padding", "qkv"),
    fix=("padding[:, None, None", "unsqueeze", "padding[:, None, None, :]"),
    verified=True,
    fixed=("masked_fill(padding,", "masked_fill(padding[:, None, None, :],"),
    ids="S2",
)
def padding_mask_not_broadcast():
    return PaddingMask(), (torch.randn(3, 6, 16), torch.zeros(3, 6, dtype=torch.bool))


class SDPAMask(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(8, 24)

    def forward(self, x, lengths):
        q, k, v = self.proj(x).chunk(3, dim=-1)
        mask = torch.arange(x.shape[1]) < lengths[:, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


@case(
    op="scaled_dot_product_attention",
    line="F.scaled_dot_product_attention(q, k, v, attn_mask=mask)",
    operands=((3, 5, 8), (3, 5)),
    origin=("mask", "lengths", "proj"),
    fix=("mask[:, None", "unsqueeze"),
    verified=True,
    fixed=("attn_mask=mask", "attn_mask=mask[:, None, :]"),
    ids="S2",
)
def sdpa_mask_rank():
    return SDPAMask(), (torch.randn(3, 5, 8), torch.tensor([5, 3, 2]))


class SDPATypes(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        T = x.shape[1]
        mask = torch.ones(T, T).tril().long()
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


@case(
    op="scaled_dot_product_attention",
    line="F.scaled_dot_product_attention(",
    operands=((2, 5, 8), (5, 5)),
    origin=("mask", "long", "qkv"),
    fix=("bool", "float"),
    verified=True,
    fixed=(".tril().long()", ".tril().bool()"),
    ids="X8",
)
def sdpa_mask_of_integers():
    return SDPATypes(), (torch.randn(2, 5, 8),)


class BatchlessAttention(nn.Module):
    def __init__(self, d=12):
        super().__init__()
        self.wq, self.wk, self.wv = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)

    def forward(self, x):
        q, k, v = self.wq(x), self.wk(x), self.wv(x)
        scores = torch.matmul(q, k.t()) / math.sqrt(q.shape[-1])
        return torch.softmax(scores, dim=1) @ v


@case(
    op="t",
    line="torch.matmul(q, k.t())",
    operands=((4, 6, 12),),
    origin="wk",
    fix=("transpose(-2, -1)", "mT", "transpose(1, 2)", "transpose(-1, -2)"),
    verified=True,
    fixed=("k.t()", "k.transpose(-2, -1)"),
    ids="P1",
)
def t_of_a_batch():
    return BatchlessAttention(), (torch.randn(4, 6, 12),)
