"""A loss that turns to NaN: which operation of which module did it, and at which step.

The model divides each row by its norm; one batch of the data holds an empty row.

    python examples/find_the_nan.py
    tensorscope diagnose runs/nan

It says: `div` at find_the_nan.py:22 in `normalise` divided by 1 zero in `x.norm(dim=1, keepdim=True)`: the first values
that are not finite, at step 30. Without `every=1` it says the same, though step 30 may not be measured.
"""

import torch
from torch import Tensor, nn

import tensorscope


class Normalise(nn.Module):
    """Rows of length 1; a row of zeros becomes 0/0."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=1, keepdim=True)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.hidden, self.relu, self.head = nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 3)

    @tensorscope.shapes("batch features -> batch classes")
    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.relu(self.hidden(self.normalise(words))))


torch.manual_seed(0)
model = Classifier()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
with tensorscope.trace(model, "runs/nan", every=1) as trace:
    for step in range(60):
        words = torch.rand(32, 20)
        if step == 30:
            words[5] = 0  # the empty row
        loss = nn.functional.cross_entropy(model(words), words[:, :3].argmax(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trace.log(loss=loss)
    for finding in trace.findings():
        print(f"{finding.rule} at {finding.site}: {finding.summary}")
