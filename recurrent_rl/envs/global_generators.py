"""The process's global random generators, which many environments draw from.

A fork copies them, so environments in worker processes would all draw the same numbers.
"""

import contextlib
import itertools
import pickle
import random
import sys
import zlib
from collections.abc import Iterator

import numpy as np

_VECTORS = itertools.count()


def seed_globals(*numbers: int) -> None:
    """Seed NumPy's, Python's and (where it is in use) torch's global generators."""
    words = np.random.SeedSequence(numbers).generate_state(3, np.uint32)
    np.random.seed(words[0])  # noqa: NPY002 - it is environments that draw from it
    random.seed(int(words[1]))
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(int(words[2]))


def base_seed() -> int:
    """Return a seed that follows from NumPy's global generator, which stays as it is.

    So runs that seed it are repeatable; each call gives another seed all the same.
    """
    state = pickle.dumps(np.random.get_state())  # noqa: NPY002
    return zlib.crc32(state, next(_VECTORS))


@contextlib.contextmanager
def seeded_globals(*numbers: int) -> Iterator[None]:
    """Seed the global generators for a while, and put them back as they were."""
    torch = sys.modules.get("torch")
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002
    torch_state = None if torch is None else torch.get_rng_state()
    seed_globals(*numbers)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
        if torch is not None and torch_state is not None:
            torch.set_rng_state(torch_state)
