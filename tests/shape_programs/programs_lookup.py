"""Looking things up: embeddings, gather, scatter, indices, masks, ranges."""

import torch
import torch.nn.functional as F
from torch import nn

from shape_programs.record import case


class Bigram(nn.Module):
    def __init__(self, vocab=9):
        super().__init__()
        self.table = nn.Embedding(vocab, vocab)

    def forward(self, ids):
        return self.table(ids)


@case(
    module="table",
    op="embedding",
    line="self.table(ids)",
    operands=((2, 3), (9, 9)),
    origin="ids",
    fix=("Embedding(10", "10"),
    fixed=("vocab=9", "vocab=10"),
    ids="X5",
)
def id_outside_the_vocabulary():
    return Bigram(), (torch.tensor([[0, 1, 2], [3, 9, 4]]),)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 8)
        self.positions = nn.Embedding(12, 8)
        self.out = nn.Linear(8, 4)

    def forward(self, ids):
        where = torch.arange(ids.shape[1])
        return self.out(self.words(ids) + self.positions(where))


@case(
    module="positions",
    op="embedding",
    line="self.positions(where)",
    operands=((15,), (12, 8)),
    origin=("arange", "ids"),
    fix=("15", "12"),
    fixed=("nn.Embedding(12, 8)", "nn.Embedding(15, 8)"),
    ids="X6",
)
def learned_positions_run_out():
    return Tagger(), (torch.randint(0, 50, (2, 15)),)


@case(
    module="words",
    op="embedding",
    line="self.words(ids)",
    operands=((2, 6), (50, 8)),
    origin="ids",
    fix=("long()", "torch.long", "int64", ".long"),
    verified=True,
    fixed=("torch.rand(2, 6)", "torch.rand(2, 6).long()"),
    ids="X4",
)
def float_ids():
    return Tagger(), (torch.rand(2, 6),)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 16)
        self.q = nn.Linear(16, 3)

    def forward(self, state, action):
        values = self.q(F.relu(self.body(state)))
        return torch.gather(values, 1, action)


@case(
    op="gather",
    line="torch.gather(values, 1, action)",
    operands=((8, 3), (8,)),
    origin=("action", "q"),
    fix=("unsqueeze(1)", "unsqueeze(-1)", "[:, None]"),
    verified=True,
    fixed=("1, action)", "1, action.unsqueeze(1))"),
    ids="S4",
)
def gather_with_flat_actions():
    return Policy(), (torch.randn(8, 4), torch.randint(0, 3, (8,)))


@case(
    op="gather",
    line="torch.gather(values, 1, action)",
    operands=((8, 3), (8, 1)),
    origin=("action", "q"),
    fix=("4", "3"),
    fixed=("torch.full((8, 1), 3)", "torch.full((8, 1), 2)"),
    ids="S4",
)
def gather_action_out_of_range():
    return Policy(), (torch.randn(8, 4), torch.full((8, 1), 3))


class Memory(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("slots", torch.zeros(6, 4))
        self.write = nn.Linear(3, 4)

    def forward(self, x, index):
        return self.slots.scatter(0, index, self.write(x))


@case(
    op="scatter",
    line="self.slots.scatter(0, index, self.write(x))",
    operands=((6, 4), (2,), (2, 4)),
    origin=("index", "write", "slots"),
    fix=("unsqueeze", "expand", "index_copy", "index_add"),
    fixed=("scatter(0, index,", "scatter(0, index[:, None].expand(-1, 4),"),
    ids="S4",
)
def scatter_of_rows():
    return Memory(), (torch.randn(2, 3), torch.tensor([0, 5]))


class PickRows(nn.Module):
    def __init__(self):
        super().__init__()
        self.keys = nn.Parameter(torch.randn(10, 4))

    def forward(self, chosen):
        return self.keys.index_select(0, chosen)


@case(
    op="index_select",
    line="self.keys.index_select(0, chosen)",
    operands=((10, 4), (2, 3)),
    origin=("chosen", "keys"),
    fix=("flatten", "view(-1)", "reshape(-1)", "[chosen]"),
    verified=True,
    fixed=("index_select(0, chosen)", "index_select(0, chosen.flatten())"),
    ids="S4",
)
def index_select_with_a_table():
    return PickRows(), (torch.randint(0, 10, (2, 3)),)


class TakeAlong(nn.Module):
    def __init__(self):
        super().__init__()
        self.rank = nn.Linear(5, 5)

    def forward(self, x):
        order = self.rank(x).argsort(-1)[0]
        return torch.take_along_dim(x, order, dim=1)


@case(
    op="take_along_dim",
    line="torch.take_along_dim(x, order, dim=1)",
    operands=((3, 5), (5,)),
    origin=("argsort", "rank", "x"),
    fix=("unsqueeze(0)", "[None]"),
    fixed=("argsort(-1)[0]", "argsort(-1)"),
    ids="S4",
)
def take_along_another_rank():
    return TakeAlong(), (torch.randn(3, 5),)


class Row(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 20)

    def forward(self, x):
        h = self.fc(x)
        return h[15]


@case(
    op=("getitem", "__getitem__", "select", "index"),
    line="return h[15]",
    operands=((10, 20),),
    origin=("fc", "x"),
    fix=("h[:, 15]", "9", "10"),
    fixed=("h[15]", "h[:, 15]"),
    ids="S4",
)
def row_out_of_bounds():
    return Row(), (torch.randn(10, 6),)


class LastToken(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 6)

    def forward(self, x, lengths):
        h = self.body(x)
        return h[torch.arange(h.size(0)), lengths]


@case(
    op=("getitem", "__getitem__", "index"),
    line="h[torch.arange(h.size(0)), lengths]",
    operands=((3, 5, 6), (3,)),
    origin=("lengths", "body", "arange"),
    fix=("- 1", "4", "5"),
    fixed=(", lengths]", ", lengths - 1]"),
    ids="S4",
)
def last_token_off_by_one():
    return LastToken(), (torch.randn(3, 5, 6), torch.tensor([2, 5, 3]))


class Keep(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(4, 9)

    def forward(self, x, valid):
        return self.proj(x)[valid].mean()


@case(
    op=("getitem", "__getitem__", "index"),
    line="self.proj(x)[valid]",
    operands=((5, 6, 9), (5, 9)),
    origin=("valid", "proj"),
    fix=("(5, 6)", "6", "valid"),
    fixed=("torch.ones(5, 9,", "torch.ones(5, 6,"),
    ids="S4",
)
def boolean_mask_of_another_axis():
    return Keep(), (torch.randn(5, 6, 4), torch.ones(5, 9, dtype=torch.bool))


class AxisIndex(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh())

    def forward(self, x):
        return self.net(x)[:, :, -1]


@case(
    op=("getitem", "__getitem__", "index", "select"),
    line="self.net(x)[:, :, -1]",
    operands=((5, 8),),
    origin="net",
    fix=("[:, -1]", "2"),
    fixed=("[:, :, -1]", "[:, -1]"),
    ids="S4",
)
def too_many_indices():
    return AxisIndex(), (torch.randn(5, 4),)


class Cached(nn.Module):
    def __init__(self, context=4):
        super().__init__()
        self.proj = nn.Linear(6, 6)
        self.register_buffer("cache", torch.zeros(1, context, 6))

    def forward(self, x):
        k = self.proj(x)
        self.cache[:, : k.size(1)] = k
        return self.cache


@case(
    op=("setitem", "__setitem__", "copy_"),
    line="self.cache[:, : k.size(1)] = k",
    operands=((1, 7, 6),),
    origin=("proj", "x", "cache"),
    fix=("7", "4"),
    fixed=("context=4", "context=8"),
    ids=("S4", "X6"),
)
def cache_too_short():
    return Cached(), (torch.randn(1, 7, 6),)


class BagOfWords(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(40, 8)

    def forward(self, ids, offsets):
        return self.bag(ids, offsets)


@case(
    module="bag",
    op="embedding_bag",
    line="self.bag(ids, offsets)",
    operands=((3, 5), (3,)),
    origin=("offsets", "ids"),
    fix=("offsets", "flatten", "view(-1)", "reshape(-1)"),
    fixed=("self.bag(ids, offsets)", "self.bag(ids.flatten(), offsets)"),
    ids="X4",
)
def bag_with_offsets():
    return BagOfWords(), (torch.randint(0, 40, (3, 5)), torch.tensor([0, 5, 10]))


def encode_labels(labels):
    return F.one_hot(labels, num_classes=4).float()


@case(
    op="one_hot",
    line="F.one_hot(labels, num_classes=4)",
    operands=((3,),),
    origin="labels",
    fix=("5", "num_classes"),
    fixed=("num_classes=4", "num_classes=5"),
    ids="X5",
)
def one_hot_too_few_classes():
    return encode_labels, (torch.tensor([0, 4, 2]),)


class Router(nn.Module):
    def __init__(self, dim, experts):
        super().__init__()
        self.gate = nn.Linear(dim, experts)
        self.experts = nn.ModuleList([nn.Linear(dim, dim) for _ in range(experts - 1)] + [nn.Linear(dim + 4, dim)])

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        choice = self.gate(flat).argmax(-1)
        out = torch.zeros_like(flat)
        for i, expert in enumerate(self.experts):
            rows = (choice == i).nonzero().squeeze(1)
            out[rows] = expert(flat[rows])
        return out.view_as(x)


class MoE(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.moe = Router(8, 3)

    def forward(self, x):
        return x + self.moe(self.norm(x))


@case(
    module="moe.experts.2",
    op="linear",
    line="out[rows] = expert(flat[rows])",
    operands=((8, 12),),
    origin=("norm", "flat", "reshape", "x"),
    fix=("8", "12"),
    verified=True,
    fixed=("nn.Linear(dim + 4, dim)", "nn.Linear(dim, dim)"),
    ids="S1e",
)
def one_expert_too_wide():
    return MoE(), (torch.randn(4, 10, 8),)
