"""What every test starts from: one torch thread, fixed seeds, reproducible properties."""

import os
import random

import numpy as np
import pytest
import torch
from hypothesis import settings

# One thread, so that sums have one order and results do not depend on the machine's core count;
# the networks of the tests are too small to gain from more.
torch.set_num_threads(1)

# "ci", the default, draws the same examples in every run: a red test stays red until it is fixed.
# HYPOTHESIS_PROFILE=explore draws new ones, and more of them. No deadline in either: the first
# call of a torch kernel is slower than all that follow, which is no fault of the test.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Seed the global generators, so that no test depends on those that ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the generator that libraries use behind our back
    torch.manual_seed(0)
