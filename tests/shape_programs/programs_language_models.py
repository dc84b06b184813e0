"""Larger models of text whose mistake lies far upstream of the line that raises."""

import torch
import torch.nn.functional as F
from torch import nn

from shape_programs.record import case


class BertEmbeddings(nn.Module):
    def __init__(self, vocab, dim):
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab, dim)
        self.position_embeddings = nn.Embedding(32, dim)
        self.token_type_embeddings = nn.Embedding(2, dim // 2)
        self.LayerNorm = nn.LayerNorm(dim)

    def forward(self, ids, types):
        positions = torch.arange(ids.size(1)).unsqueeze(0)
        h = self.word_embeddings(ids) + self.position_embeddings(positions)
        h = h + self.token_type_embeddings(types)
        return self.LayerNorm(h)


class Bert(nn.Module):
    def __init__(self):
        super().__init__()
        self.embeddings = BertEmbeddings(40, 16)
        self.pooler = nn.Linear(16, 16)

    def forward(self, ids, types):
        return torch.tanh(self.pooler(self.embeddings(ids, types)[:, 0]))


@case(
    module="embeddings",
    op="add",
    line="h + self.token_type_embeddings(types)",
    operands=((2, 9, 16), (2, 9, 8)),
    origin="embeddings.token_type_embeddings",
    fix=("16", "8"),
    verified=True,
    fixed=("dim // 2", "dim"),
    ids="S2",
)
def token_type_width():
    return Bert(), (torch.randint(0, 40, (2, 9)), torch.zeros(2, 9, dtype=torch.long))


class ImageTower(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 4, stride=4)
        self.project = nn.Linear(12, width)

    def forward(self, image):
        return F.normalize(self.project(self.conv(image).mean((2, 3))), dim=-1)


class TextTower(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.embed = nn.Embedding(70, 10)
        self.project = nn.Linear(10, width)

    def forward(self, ids):
        return F.normalize(self.project(self.embed(ids).mean(1)), dim=-1)


class CLIP(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = ImageTower(20)
        self.text = TextTower(24)
        self.temperature = nn.Parameter(torch.zeros(()))

    def forward(self, image, ids):
        a, b = self.image(image), self.text(ids)
        return a @ b.T * self.temperature.exp()


@case(
    op="matmul",
    line="a @ b.T * self.temperature.exp()",
    operands=((3, 20), (24, 3)),
    origin=("text.project", "image.project"),
    fix=("20", "24"),
    verified=True,
    fixed=("TextTower(24)", "TextTower(20)"),
    ids="S1",
)
def two_towers_of_unequal_width():
    return CLIP(), (torch.randn(3, 3, 16, 16), torch.randint(0, 70, (3, 7)))


class PointNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp1 = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU())
        self.mlp2 = nn.Sequential(nn.Conv1d(16, 32, 1), nn.BatchNorm1d(32), nn.ReLU())
        self.segment = nn.Conv1d(32, 5, 1)

    def forward(self, points):
        local = self.mlp1(points.transpose(1, 2))
        wide = self.mlp2(local)
        pooled = wide.max(dim=2, keepdim=True).values.expand(-1, -1, local.shape[2])
        return self.segment(torch.cat([local, pooled], dim=1))


@case(
    module="segment",
    op="conv1d",
    line="self.segment(torch.cat(",
    operands=((2, 48, 30), (5, 32, 1)),
    origin=("cat", "mlp2", "mlp1"),
    fix="48",
    verified=True,
    fixed=("nn.Conv1d(32, 5, 1)", "nn.Conv1d(32 + 16, 5, 1)"),
    ids="S1",
)
def points_with_global_features():
    return PointNet(), (torch.randn(2, 30, 3),)


class AlphaNet(nn.Module):
    def __init__(self, board=9, channels=8):
        super().__init__()
        self.trunk = nn.Conv2d(3, channels, 3, padding=1)
        self.policy_conv = nn.Conv2d(channels, 2, 1)
        self.policy_fc = nn.Linear(2 * board * board, board * board + 1)
        self.value_conv = nn.Conv2d(channels, 1, 1)
        self.value_fc = nn.Linear(2 * board * board, 1)

    def forward(self, state):
        h = F.relu(self.trunk(state))
        policy = self.policy_fc(self.policy_conv(h).flatten(1))
        value = self.value_fc(self.value_conv(h).flatten(1))
        return policy, torch.tanh(value)


@case(
    module="value_fc",
    op="linear",
    line="self.value_fc(self.value_conv(h).flatten(1))",
    operands=((2, 81), (1, 162)),
    origin="value_conv",
    fix=("81", "2"),
    verified=True,
    fixed=("nn.Linear(2 * board * board, 1)", "nn.Linear(board * board, 1)"),
    ids="S1b",
)
def value_head_width():
    return AlphaNet(), (torch.randn(2, 3, 9, 9),)


class BahdanauAttention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.Wa = nn.Linear(dim, dim)
        self.Ua = nn.Linear(dim, dim)
        self.Va = nn.Linear(dim, 1)

    def forward(self, query, keys):
        scores = self.Va(torch.tanh(self.Wa(query) + self.Ua(keys)))
        weights = F.softmax(scores.squeeze(2).unsqueeze(1), dim=-1)
        return torch.bmm(weights, keys), weights


class AttentionDecoder(nn.Module):
    def __init__(self, dim, vocab):
        super().__init__()
        self.embedding = nn.Embedding(vocab, dim)
        self.attention = BahdanauAttention(dim)
        self.gru = nn.GRU(dim, dim, batch_first=True)
        self.out = nn.Linear(dim, vocab)

    def forward(self, encoded, hidden, tokens):
        outputs = []
        for t in range(tokens.shape[1]):
            context, _ = self.attention(hidden.permute(1, 0, 2), encoded)
            step = torch.cat((self.embedding(tokens[:, t : t + 1]), context), dim=2)
            output, hidden = self.gru(step, hidden)
            outputs.append(self.out(output))
        return torch.cat(outputs, dim=1)


class AttentiveTranslator(nn.Module):
    def __init__(self, dim=12):
        super().__init__()
        self.embedding = nn.Embedding(25, dim)
        self.encoder = nn.GRU(dim, dim, batch_first=True)
        self.decoder = AttentionDecoder(dim, 25)

    def forward(self, source, target):
        encoded, hidden = self.encoder(self.embedding(source))
        return self.decoder(encoded, hidden, target)


@case(
    module="decoder.gru",
    op="gru",
    line="self.gru(step, hidden)",
    operands=((2, 1, 24),),
    origin=("cat", "decoder.embedding", "bmm"),
    fix=("24", "2 * dim"),
    verified=True,
    fixed=(
        "nn.GRU(dim, dim, batch_first=True)\n        self.out",
        "nn.GRU(2 * dim, dim, batch_first=True)\n        self.out",
    ),
    ids="S1e",
)
def attention_decoder_input():
    return AttentiveTranslator(), (torch.randint(0, 25, (2, 7)), torch.randint(0, 25, (2, 4)))


class GatedFFN(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)
        self.w3 = nn.Linear(dim, dim, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class GroupedQueryAttention(nn.Module):
    def __init__(self, dim, heads, kv_heads):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.wq = nn.Linear(dim, heads * self.head_dim, bias=False)
        self.wk = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.wv = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.wo = nn.Linear(dim, dim, bias=False)

    def forward(self, x):
        b, t, _ = x.shape
        q = self.wq(x).view(b, t, self.heads, self.head_dim).transpose(1, 2)
        k = self.wk(x).view(b, t, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.wv(x).view(b, t, self.kv_heads, self.head_dim).transpose(1, 2)
        scores = torch.matmul(q, k.transpose(2, 3)) / self.head_dim**0.5
        return self.wo(torch.matmul(scores.softmax(-1), v).transpose(1, 2).reshape(b, t, -1))


class LlamaBlock(nn.Module):
    def __init__(self, dim, kv_heads):
        super().__init__()
        self.attention_norm, self.ffn_norm = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.attention = GroupedQueryAttention(dim, 4, kv_heads)
        self.feed_forward = GatedFFN(dim, dim * 3 if kv_heads == 4 else dim)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.ffn_norm(x))


class Llama(nn.Module):
    def __init__(self, kv_heads=4):
        super().__init__()
        self.tok_embeddings = nn.Embedding(50, 16)
        self.layers = nn.ModuleList([LlamaBlock(16, kv_heads) for _ in range(3)])
        self.output = nn.Linear(16, 50, bias=False)

    def forward(self, tokens):
        h = self.tok_embeddings(tokens)
        for layer in self.layers:
            h = layer(h)
        return self.output(h)


@case(
    module="layers.0.feed_forward",
    op="mul",
    line="F.silu(self.w1(x)) * self.w3(x)",
    operands=((2, 6, 48), (2, 6, 16)),
    origin="layers.0.feed_forward.w",
    fix=("48", "16", "hidden"),
    verified=True,
    fixed=("self.w3 = nn.Linear(dim, dim, bias=False)", "self.w3 = nn.Linear(dim, hidden, bias=False)"),
    ids="S2",
)
def gated_ffn_width():
    return Llama(), (torch.randint(0, 50, (2, 6)),)


@case(
    module="layers.0.attention",
    op="matmul",
    line="torch.matmul(q, k.transpose(2, 3))",
    operands=((2, 4, 6, 4), (2, 2, 4, 6)),
    origin="layers.0.attention.wk",
    fix=("repeat_interleave", "4", "expand", "repeat"),
    fixed=("Llama(kv_heads=2)", "Llama(kv_heads=1)"),
    ids="R2",
)
def grouped_heads_not_repeated():
    return Llama(kv_heads=2), (torch.randint(0, 50, (2, 6)),)
