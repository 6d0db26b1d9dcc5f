"""Random streams: seeded, derived from each other, and saved."""

import operator
from typing import Any, Literal

import numpy as np
import torch


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
