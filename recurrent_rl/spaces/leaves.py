"""Leaves of observation spaces: the simple spaces that a Dict or a Tuple is made of."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from recurrent_rl.spaces.array import Array

Path = tuple[str | int, ...]
SUPPORTED_OBSERVATIONS = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these"
EXACT = 2**24  # whole numbers up to here are exact in float32


class Kind(Enum):
    """What a leaf is to a network, in the order of a record: numbers first, then bytes."""

    NUMBERS = 0
    INDEX = 1
    IMAGE = 2
    BYTES = 3
    BITS = 4
    BYTE_IMAGE = 5

    @property
    def in_bytes(self) -> bool:
        """Whether a record has it among its bytes rather than its numbers."""
        return self.value >= Kind.BYTES.value

    @property
    def is_image(self) -> bool:
        """Whether it goes through convolutions."""
        return self in (Kind.IMAGE, Kind.BYTE_IMAGE)


@dataclass(frozen=True)
class Leaf:
    """A simple space within an observation space.

    Attributes:
        path: keys that lead to it; () if it is the whole.
        space: itself.
        kind: what it is to a network.
        shape: of one observation.
        dtype: of the environment's arrays.

    """

    path: Path
    space: gym.Space[Any]
    kind: Kind
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        """As in ``observation['image']``."""
        return "observation" + "".join(f"[{key!r}]" for key in self.path)

    @property
    def bounds(self) -> tuple[Array, Array]:
        """Least and greatest index of each component, flat; for Kind.INDEX only."""
        if isinstance(self.space, spaces.Discrete):
            start, count = np.array([int(self.space.start)]), np.array([int(self.space.n)])
        else:
            assert isinstance(self.space, spaces.MultiDiscrete)
            start, count = self.space.start.flatten(), self.space.nvec.flatten()
        return start.astype(np.int64), (start + count - 1).astype(np.int64)

    @cached_property
    def storable(self) -> tuple[int, int]:
        """Least and greatest whole number that the environment's arrays hold."""
        if self.kind is Kind.BITS or self.dtype.kind == "b":
            return 0, 1
        held = np.iinfo(self.dtype)
        return int(held.min), int(held.max)

    @cached_property
    def limits(self) -> tuple[Array, Array] | None:
        """Least and greatest values, [*shape], by which a network's input is scaled.

        They are those of the space, for bytes and for images of any whole numbers. None for all
        else, and where the bounds say nothing, being beyond what float32 tells apart.
        """
        space = self.space
        if not isinstance(space, spaces.Box) or space.dtype.kind not in "iu":
            return None
        if space.dtype.itemsize > 1 and not self.kind.is_image:
            return None  # wider ones are counts of anything, bounded by a guess
        low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
        if not low.size or max(np.abs(low).max(), np.abs(high).max()) > EXACT:
            return None
        return low, high

    @cached_property
    def enforced(self) -> tuple[Array, Array] | None:
        """The ``limits``, if observations may break them without being cut in the storing."""
        if self.limits is None:
            return None
        low, high = self.limits
        least, most = self.storable
        return None if low.max() <= least and high.min() >= most else (low, high)


def leaves_of(space: gym.Space[Any], path: Path = ()) -> Iterator[Leaf]:
    """Yield the simple spaces within a space; those of a Dict in the order of its sorted keys.

    Gymnasium's Dict keeps the keys' order or sorts them, depending on how it is built, and is equal
    all the same: a loaded agent's order might differ from its environment's.

    Raises:
        TypeError: one that is not supported; the message says which are.

    """
    if isinstance(space, spaces.Dict):
        for key in sorted(space.spaces, key=str):
            yield from leaves_of(space.spaces[key], (*path, key))
    elif isinstance(space, spaces.Tuple):
        for i, part in enumerate(space.spaces):
            yield from leaves_of(part, (*path, i))
    elif isinstance(space, spaces.Box):
        yield Leaf(path, space, _kind(space), space.shape, np.dtype(space.dtype))
    elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        yield Leaf(path, space, Kind.INDEX, space.shape or (), np.dtype(np.int64))
    elif isinstance(space, spaces.MultiBinary):
        yield Leaf(path, space, Kind.BITS, space.shape, np.dtype(np.int8))
    else:
        where = "observation_space" + "".join(f"[{key!r}]" for key in path)
        raise TypeError(
            f"{where}: expected {SUPPORTED_OBSERVATIONS}, got {space}; leave it out with "
            f"gymnasium.wrappers.FilterObservation, or turn it into numbers with "
            f"gymnasium.wrappers.TransformObservation"
        )


def _kind(space: spaces.Box) -> Kind:
    in_bytes = space.dtype == np.uint8
    # Pictures, stacks of them, and grey pictures without an axis for channels.
    if len(space.shape) in (3, 4) or (
        len(space.shape) == 2 and space.dtype in (np.uint8, np.uint16)
    ):
        return Kind.BYTE_IMAGE if in_bytes else Kind.IMAGE
    return Kind.BYTES if in_bytes else Kind.NUMBERS
