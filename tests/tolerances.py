"""How far two right computations of the same number may be apart, per dtype: the one table."""

from __future__ import annotations

import torch

# dtype → (relative, absolute, for numbers of the order of 1). About 50 rounding errors, more where sums are long.
TOLERANCES = {
    torch.float64: (1e-10, 1e-10),
    torch.float32: (1e-4, 1e-5),
    torch.bfloat16: (5e-2, 5e-2),
    torch.float16: (1e-2, 1e-2),
}


def assert_close(actual: torch.Tensor, expected: torch.Tensor, *, scale: float = 1.0) -> None:
    """Equal within the table's tolerance; NaN equals NaN, infinities themselves.

    Args:
        actual: what came out.
        expected: what should have; same dtype and shape.
        scale: size of the numbers that were summed up, where it is not about 1.
    """
    relative, absolute = TOLERANCES.get(expected.dtype, (0.0, 0.0))
    torch.testing.assert_close(actual, expected, rtol=relative, atol=absolute * scale, equal_nan=True)
