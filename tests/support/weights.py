"""What weights are like."""

import torch
from torch import Tensor


def assert_orthogonal(weight: Tensor, gain: float) -> None:
    """Rows, or columns if there are fewer of them, are orthogonal and of length ``gain``."""
    wide = weight if weight.shape[0] <= weight.shape[1] else weight.T
    expected = gain**2 * torch.eye(len(wide))
    torch.testing.assert_close(wide @ wide.T, expected, rtol=1e-4, atol=1e-5)
