"""Programs whose errors have nothing to do with shapes, dtypes or devices: they are left alone."""

import torch
import torch.nn.functional as F
from torch import nn

from shape_programs.record import unrelated


class Scored(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.options = {"scale": 2.0}

    def forward(self, x, mode="scale"):
        h = self.fc(x)
        return h * self.options[mode]


@unrelated
def missing_key():
    return Scored(), (torch.randn(2, 4), "shift")


class Misspelt(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer_1(x)


@unrelated
def missing_attribute():
    return Misspelt(), (torch.randn(2, 4),)


class TensorMethod(nn.Module):
    def forward(self, x):
        return x.flaten(1)


@unrelated
def missing_tensor_method():
    return TensorMethod(), (torch.randn(2, 4, 4),)


def average(losses):
    return sum(losses) / len(losses)


@unrelated
def division_by_zero():
    return average, ([],)


class Checked(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x, temperature):
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        return self.fc(x) / temperature


@unrelated
def own_value_error():
    return Checked(), (torch.randn(2, 3), 0.0)


@unrelated
def missing_argument():
    return Checked(), (torch.randn(2, 3),)


@unrelated
def unexpected_argument():
    return Checked(), (torch.randn(2, 3), 1.0), {"temprature": 3}


class OwnRuntimeError(nn.Module):
    def forward(self, x):
        h = x * 2
        raise RuntimeError("the size of the cache was never set: call prepare() first")
        return h


@unrelated
def own_runtime_error():
    return OwnRuntimeError(), (torch.randn(2, 3),)


def no_graph(x):
    loss = (x * 2).sum()
    loss.backward()


@unrelated
def nothing_requires_grad():
    return no_graph, (torch.randn(3),)


def twice(model, x):
    loss = model(x).sum()
    loss.backward()
    loss.backward()


@unrelated
def backward_twice():
    return twice, (nn.Sequential(nn.Linear(3, 3), nn.Tanh()), torch.randn(2, 3))


def modified(model, x):
    h = torch.sigmoid(model(x))
    h += 1
    h.sum().backward()


@unrelated
def modified_in_place():
    return modified, (nn.Linear(3, 3), torch.randn(2, 3))


def leaf(model, x):
    for p in model.parameters():
        p.add_(1)
    return model(x)


@unrelated
def leaf_modified_in_place():
    return leaf, (nn.Linear(3, 3), torch.randn(2, 3))


class Headless(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)


@unrelated
def forward_not_written():
    return Headless(), (torch.randn(1, 2),)


def restore(model, path):
    model.load_state_dict(torch.load(path))


@unrelated
def missing_file():
    return restore, (nn.Linear(2, 2), "no/such/checkpoint.pt")


def huge(model, x):
    scratch = torch.empty(1 << 50)
    return model(x) + scratch.sum()


@unrelated
def out_of_memory():
    return huge, (nn.Linear(2, 2), torch.randn(1, 2))


class Asserted(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.dropout = dropout
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        assert self.dropout < 1, "dropout is a probability"
        return F.dropout(self.fc(x), self.dropout)


@unrelated
def assertion_on_a_number():
    return Asserted(50), (torch.randn(1, 2),)


def parse(model, text):
    return model(torch.full((1, 2), int(text)))


@unrelated
def number_from_text():
    return parse, (nn.Linear(2, 2), "x")


class Endless(nn.Module):
    def forward(self, x):
        return self.forward(x + 1)


@unrelated
def endless_recursion():
    return Endless(), (torch.randn(1),)


def exhausted(model, loader):
    batches = iter(loader)
    while True:
        model(next(batches))


@unrelated
def loader_runs_out():
    return exhausted, (nn.Linear(2, 2), [torch.randn(1, 2)])


def negative_rate(model):
    return torch.optim.SGD(model.parameters(), lr=-1.0)


@unrelated
def negative_learning_rate():
    return negative_rate, (nn.Linear(2, 2),)


def too_likely(x):
    return F.dropout(x, 1.5)


@unrelated
def dropout_above_one():
    return too_likely, (torch.randn(3),)


def plain_index(model, names, x):
    h = model(x)
    return h, names[x.shape[0]]


@unrelated
def list_index():
    return plain_index, (nn.Linear(2, 2), ["a", "b"], torch.randn(3, 2))


def unpack_pair(model, x, options):
    h = model(x)
    low, high = options
    return h.clamp(low, high)


@unrelated
def unpacking_a_list():
    return unpack_pair, (nn.Linear(2, 2), torch.randn(3, 2), [0, 1, 2])


def sampled(model, x):
    return torch.multinomial(model(x), 1)


@unrelated
def negative_probabilities():
    return sampled, (nn.Sequential(nn.Linear(2, 2), nn.LogSigmoid()), torch.randn(3, 2))


def tensor_of_strings(model, labels):
    return model(torch.tensor(labels))


@unrelated
def strings_into_a_tensor():
    return tensor_of_strings, (nn.Linear(2, 2), ["cat", "dog"])


class NoneBranch(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def encode(self, x):
        self.fc(x)

    def forward(self, x):
        return self.encode(x) + 1


@unrelated
def forgotten_return():
    return NoneBranch(), (torch.randn(1, 2),)


class Interrupted(nn.Module):
    def forward(self, x):
        raise NotImplementedError("attention for sequences longer than 4096")


@unrelated
def own_not_implemented():
    return Interrupted(), (torch.randn(1, 2),)


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])

    def forward(self, x):
        for i in range(4):
            x = self.layers[i](x)
        return x


@unrelated
def module_list_index():
    return Layers(), (torch.randn(1, 2),)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleDict({"policy": nn.Linear(2, 2)})

    def forward(self, x):
        return self.heads["value"](x)


@unrelated
def module_dict_key():
    return Named(), (torch.randn(1, 2),)


class Configured(nn.Module):
    def __init__(self, names):
        super().__init__()
        self.names = names
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        h = self.fc(x)
        if len(self.names) != 3:
            raise ValueError(f"expected 3 class names, got size {len(self.names)}")
        return h


@unrelated
def own_error_about_a_list():
    return Configured(["a", "b"]), (torch.randn(1, 3),)


class NotCallable(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.act = "relu"

    def forward(self, x):
        return self.act(self.fc(x))


@unrelated
def text_is_not_callable():
    return NotCallable(), (torch.randn(1, 3),)


def pass_a_list(model):
    return model([0.5, 1.0])


@unrelated
def list_instead_of_tensor():
    return pass_a_list, (nn.Linear(2, 2),)


def strict_keys(model):
    model.load_state_dict({"kernel": torch.zeros(2, 2)})


@unrelated
def missing_keys_in_a_checkpoint():
    return strict_keys, (nn.Linear(2, 2),)


def numpy_of_a_leaf(model, x):
    return model(x).numpy()


@unrelated
def numpy_before_detach():
    return numpy_of_a_leaf, (nn.Linear(2, 2), torch.randn(1, 2))
