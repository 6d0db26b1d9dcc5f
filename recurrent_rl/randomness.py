"""Random streams: seeded, derived from each other, and saved."""

import contextlib
import itertools
import operator
import pickle
import random
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch

_CALLS = itertools.count()  # of ``base_seed``


def seeded(seed: int | None) -> torch.Generator:
    """Return a generator on the CPU; None takes fresh entropy."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(operator.index(seed))  # which may be NumPy's
    return generator


def derived_seed(*numbers: int, bits: Literal[31, 63] = 63) -> int:
    """Return a seed that follows from some numbers, unlike that of any others.

    Args:
        numbers: at least 0 each.
        bits: the seed lies in [0, 2**bits); environments take no more than 31.

    """
    kind = np.uint64 if bits == 63 else np.uint32
    return int(np.random.SeedSequence(numbers).generate_state(1, kind)[0]) >> 1


def peek(generator: torch.Generator, high: int) -> int:
    """Return the next number in [0, high) of a stream, which stays where it is."""
    copy = torch.Generator()
    copy.set_state(generator.get_state())
    return int(torch.randint(high, (), generator=copy))


def seed_this_process(seed: int | None) -> None:
    """Seed the global generators of Python, NumPy and torch (CPU), for worker processes.

    Forked processes begin with copies of their parent's, so all of them would draw the same.

    Args:
        seed: None takes fresh entropy.

    """
    sequence = np.random.SeedSequence(None if seed is None else abs(seed))
    python, numpy, torch_seed = (int(part) for part in sequence.generate_state(3))
    random.seed(python)
    np.random.seed(numpy)  # noqa: NPY002 - the one that environments draw from
    # Not torch.manual_seed, which would reach for GPUs, as a forked process must not.
    torch.default_generator.manual_seed(torch_seed)


@contextlib.contextmanager
def seeded_globals(*numbers: int) -> Iterator[None]:
    """Seed the global generators for a while, by numbers >= 0, and put them back as they were."""
    before = _states()
    seed_this_process(derived_seed(*numbers))
    try:
        yield
    finally:
        _go_on(before)


def base_seed() -> int:
    """Return a seed that follows from NumPy's global generator, which stays as it is.

    So runs that seed it are repeatable; each call gives another seed all the same.
    """
    state = pickle.dumps(np.random.get_state())  # noqa: NPY002
    return zlib.crc32(state, next(_CALLS))


class PrivateGenerators:
    """States of the global generators that some code works with, instead of this process's.

    Looking at NumPy's takes a tenth of a millisecond, so it is done only for code that draws.

    Attributes:
        state: where the code goes on; None: it has not been seeded, or does not draw.

    """

    def __init__(self) -> None:
        """Begin with this process's generators."""
        self.state: tuple[Any, ...] | None = None

    def run(self, work: Callable[[], None], seed: int | None) -> None:
        """Do some work; what it draws leaves this process's generators as they were.

        Args:
            work: what to do; with a seed it begins with ``seed_this_process(seed)``, once or for
                each of its parts, the last of them with this seed.
            seed: None goes on where the last work stopped.

        """
        if seed is None and self.state is None:
            work()
            return
        before = _states()
        try:
            if seed is None:
                assert self.state is not None
                _go_on(self.state)
                work()
                self.state = _states()
            else:
                seed_this_process(seed)
                undrawn = _states()
                work()
                after = _states()
                self.state = None if _alike(after, undrawn) else after
        finally:
            _go_on(before)


def _states() -> tuple[Any, ...]:
    """Return where the global generators are: Python's, NumPy's, torch's."""
    numpy = np.random.get_state()  # noqa: NPY002
    return random.getstate(), numpy, torch.default_generator.get_state()


def _go_on(states: tuple[Any, ...]) -> None:
    python, numpy, of_torch = states
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.default_generator.set_state(of_torch)


def _alike(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    numpy = all(np.array_equal(a, b) for a, b in zip(one[1], other[1], strict=True))
    return one[0] == other[0] and numpy and torch.equal(one[2], other[2])


class RandomStream:
    """Whoever draws from a stream of its own that goes into checkpoints.

    Attributes:
        generator: the stream, on the CPU.

    """

    def __init__(self, seed: int | None) -> None:
        """Begin the stream; None takes fresh entropy."""
        self.generator = seeded(seed)

    def state_dict(self) -> dict[str, Any]:
        """Return what goes into a checkpoint."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.generator.set_state(state["generator"].cpu())
