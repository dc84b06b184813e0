"""The first number that is not finite is traced to the operation, the line and the operand that made it."""

from __future__ import annotations

import pytest
import torch
from origin_programs import PROGRAMS, Program, around
from torch import nn

from tensorscope.live.origin import find_origin, remember
from tensorscope.run.origin import Origin


def searched(model: nn.Module, *args: object, **kwargs: object) -> Origin:
    """Train a model for one step with the squares of its output as the loss, and look for the origin."""
    pass_ = remember(model, args, kwargs)
    model(*args, **kwargs).square().sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert not all(gradient.isfinite().all() for gradient in gradients), "nobody would ask"
    return find_origin(pass_, model)


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_the_operation_the_line_and_the_module_are_found(program: Program) -> None:
    found = searched(around(program.run), torch.randn(4, 6))
    assert (found.direction, found.op, found.within) == (program.direction, program.op, program.within)
    assert found.module == "1"
    assert found.where is not None
    assert (found.where.file, found.where.line) == (program.run.__code__.co_filename, program.line)
    assert found.sure
    if program.zeros is not None:
        assert found.culprits[0].zeros == program.zeros
