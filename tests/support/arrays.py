"""Hypothesis strategies for tensors of numbers and of flags."""

import hypothesis.extra.numpy as hnp
import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

NUMBERS = st.floats(-10, 10, width=32)


def numbers(*shape: int) -> st.SearchStrategy[Tensor]:
    """Float64, so that comparisons can be strict."""
    return hnp.arrays(np.float64, shape, elements=NUMBERS).map(torch.from_numpy)


def bools(*shape: int) -> st.SearchStrategy[Tensor]:
    """Of any share."""
    return hnp.arrays(bool, shape).map(torch.from_numpy)
