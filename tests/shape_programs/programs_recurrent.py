"""Recurrent networks: input sizes, ranks, hidden states, batch_first, packed sequences, cells."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from shape_programs.record import case


class Sentiment(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(60, 20)
        self.lstm = nn.LSTM(24, 16, batch_first=True)
        self.fc = nn.Linear(16, 2)

    def forward(self, ids):
        h, _ = self.lstm(self.embedding(ids))
        return self.fc(h[:, -1])


@case(
    module="lstm",
    op="lstm",
    line="self.lstm(self.embedding(ids))",
    operands=((3, 9, 20),),
    origin="embedding",
    fix=("20", "24"),
    verified=True,
    fixed=("nn.LSTM(24,", "nn.LSTM(20,"),
    ids="S1e",
)
def lstm_input_size():
    return Sentiment(), (torch.randint(0, 60, (3, 9)),)


class ImageReader(nn.Module):
    def __init__(self):
        super().__init__()
        self.cnn = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.rnn = nn.RNN(8, 12, batch_first=True)

    def forward(self, image):
        features = self.cnn(image)
        outputs, _ = self.rnn(features)
        return outputs


@case(
    module="rnn",
    op=("rnn_tanh", "rnn"),
    line="self.rnn(features)",
    operands=((2, 8, 6, 6),),
    origin="cnn",
    fix=("flatten(2)", "permute", "reshape", "transpose"),
    verified=True,
    fixed=("self.rnn(features)", "self.rnn(features.flatten(2).transpose(1, 2))"),
    ids="R1",
)
def images_into_an_rnn():
    return ImageReader(), (torch.randn(2, 1, 12, 12),)


class BiReader(nn.Module):
    def __init__(self, layers=2):
        super().__init__()
        self.gru = nn.GRU(6, 10, num_layers=layers, bidirectional=True, batch_first=True)
        self.layers = layers

    def forward(self, x):
        h0 = torch.zeros(self.layers, x.size(0), 10)
        out, _ = self.gru(x, h0)
        return out


@case(
    module="gru",
    op="gru",
    line="self.gru(x, h0)",
    operands=((3, 5, 6), (2, 3, 10)),
    origin=("h0", "zeros", "x"),
    fix=("4", "2 * "),
    fixed=("torch.zeros(self.layers,", "torch.zeros(2 * self.layers,"),
    ids="R1",
)
def hidden_state_of_two_directions():
    return BiReader(), (torch.randn(3, 5, 6),)


class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 8)
        self.state = (torch.zeros(1, 16, 8), torch.zeros(1, 16, 8))

    def forward(self, x):
        out, self.state = self.lstm(x, self.state)
        return out


@case(
    module="lstm",
    op="lstm",
    line="self.lstm(x, self.state)",
    operands=((5, 10, 4), (1, 16, 8)),
    origin=("state", "x"),
    fix=("10", "16"),
    fixed=("torch.randn(5, 10, 4)", "torch.randn(5, 16, 4)"),
    ids="R1",
)
def hidden_state_of_the_last_batch():
    return Stateful(), (torch.randn(5, 10, 4),)


class Decoder(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.embed = nn.Embedding(30, dim)
        self.rnn = nn.GRU(dim, 24, batch_first=True)
        self.out = nn.Linear(24, 30)

    def forward(self, ids, hidden):
        h, _ = self.rnn(self.embed(ids), hidden)
        return self.out(h)


class Seq2Seq(nn.Module):
    def __init__(self):
        super().__init__()
        self.source = nn.Embedding(30, 12)
        self.encoder = nn.GRU(12, 16, batch_first=True)
        self.decoder = Decoder(12)

    def forward(self, src, tgt):
        _, hidden = self.encoder(self.source(src))
        return self.decoder(tgt, hidden)


@case(
    module="decoder.rnn",
    op="gru",
    line="self.rnn(self.embed(ids), hidden)",
    operands=((2, 6, 12), (1, 2, 16)),
    origin="encoder",
    fix=("24", "16"),
    verified=True,
    fixed=("nn.GRU(12, 16,", "nn.GRU(12, 24,"),
    ids="R1",
)
def decoder_hidden_size():
    return Seq2Seq(), (torch.randint(0, 30, (2, 8)), torch.randint(0, 30, (2, 6)))


class BothWays(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 12, bidirectional=True, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        h, _ = self.rnn(x)
        return self.head(h[:, -1])


@case(
    module="head",
    op="linear",
    line="self.head(h[:, -1])",
    operands=((4, 24), (3, 12)),
    origin="rnn",
    fix="24",
    verified=True,
    fixed=("nn.Linear(12, 3)", "nn.Linear(24, 3)"),
    ids="S1e",
)
def bidirectional_features():
    return BothWays(), (torch.randn(4, 7, 5),)


class CellLoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(6, 8)

    def forward(self, x):
        h = torch.zeros(x.shape[0], 8)
        c = torch.zeros(x.shape[0], 8)
        for step in x:
            h, c = self.cell(step, (h, c))
        return h


@case(
    module="cell",
    op="lstm_cell",
    line="self.cell(step, (h, c))",
    operands=((7, 6), (3, 8)),
    origin=("x", "unbind", "zeros"),
    fix=("unbind(1)", "transpose", "x.shape[1]", "7"),
    fixed=("for step in x:", "for step in x.unbind(1):"),
    ids="R1",
)
def cell_over_the_batch_axis():
    return CellLoop(), (torch.randn(3, 7, 6),)


class CellSize(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 10)
        self.cell = nn.GRUCell(6, 8)

    def forward(self, x):
        h = torch.zeros(x.size(1), 8)
        for t in range(x.size(0)):
            h = self.cell(self.embed(x[t]), h)
        return h


@case(
    module="cell",
    op="gru_cell",
    line="self.cell(self.embed(x[t]), h)",
    operands=((2, 10),),
    origin="embed",
    fix=("10", "6"),
    verified=True,
    fixed=("nn.Linear(3, 10)", "nn.Linear(3, 6)"),
    ids="S1e",
)
def cell_input_size():
    return CellSize(), (torch.randn(4, 2, 3),)


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 8, batch_first=True)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=False)
        out, _ = self.rnn(packed)
        return pad_packed_sequence(out, batch_first=True)[0]


@case(
    op=("pack_padded_sequence", "_pack_padded_sequence"),
    line="pack_padded_sequence(x, lengths",
    operands=((3, 6, 4), (3,)),
    origin=("x", "lengths"),
    fix=("batch_first=True", "transpose(0, 1)"),
    verified=True,
    fixed=("batch_first=False", "batch_first=True"),
    ids="R3",
)
def packed_lengths():
    return Packed(), (torch.randn(3, 6, 4), torch.tensor([6, 4, 2]))


class Scored(nn.Module):
    def __init__(self, dim=8):
        super().__init__()
        self.encoder = nn.GRU(5, dim, batch_first=True)
        self.w = nn.Linear(2 * dim, 1)

    def forward(self, x):
        states, last = self.encoder(x)
        query = last.transpose(0, 1)
        return self.w(torch.cat([states, query], dim=-1)).softmax(1)


@case(
    op="cat",
    line="torch.cat([states, query], dim=-1)",
    operands=((3, 6, 8), (3, 1, 8)),
    origin="encoder",
    fix=("expand", "repeat"),
    fixed=("[states, query]", "[states, query.expand_as(states)]"),
    ids="S6",
)
def additive_attention_query():
    return Scored(), (torch.randn(3, 6, 5),)
