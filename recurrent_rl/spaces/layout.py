"""Observations of any space, kept as one array each.

An observation, however nested, is kept as one array, so that nothing between the environment and
the network needs to know its structure. A simple space (Box, Discrete, ...) keeps its own shape.
Of a Dict or a Tuple the *leaves* are laid one after the other into a flat record: numbers and
indices as float32, then bytes and bits. If it has both, the record is one of bytes, which begins
with those of the numbers.

Letters: ... any leading axes, N rows, B bytes or numbers of a record.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from recurrent_rl.spaces.array import Array

Path = tuple[str | int, ...]
SUPPORTED_OBSERVATIONS = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these"
NUMBER = 4  # bytes of a float32
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
        in_bytes, dtype = space.dtype == np.uint8, np.dtype(space.dtype)
        if len(space.shape) == 3 or (in_bytes and len(space.shape) == 2):  # a grey image
            yield Leaf(path, space, Kind.BYTE_IMAGE if in_bytes else Kind.IMAGE, space.shape, dtype)
        else:
            yield Leaf(path, space, Kind.BYTES if in_bytes else Kind.NUMBERS, space.shape, dtype)
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


class ObservationLayout:
    """How observations of a space are kept in arrays.

    Attributes:
        space: of one observation.
        leaves: its simple spaces, in the order of a record.
        nested: it is a Dict or a Tuple, so observations are records.
        shape: of one stored observation.
        array_dtype: of arrays that observations are passed on in.
        dtype: of a rollout's store: float32 for Box, but bytes stay bytes.
        blank: what stands where there is no observation, [*shape].

    """

    def __init__(self, space: gym.Space[Any]) -> None:
        """See how a space's observations are to be kept.

        Raises:
            TypeError: it is not supported; the message says which are.
            ValueError: a Dict or Tuple has choices beyond what float32 tells apart.

        """
        found = list(leaves_of(space))
        if not found:
            raise TypeError(f"observation_space: expected at least one part, got {space}")
        self.space = space
        self.leaves = sorted(found, key=lambda leaf: leaf.kind.value)
        self.nested = isinstance(space, spaces.Dict | spaces.Tuple)
        self.numbers, self.bytes = (
            sum(leaf.size for leaf in self.leaves if leaf.kind.in_bytes == in_bytes)
            for in_bytes in (False, True)
        )
        first = self.leaves[0]
        if not self.nested:
            self.shape, self.array_dtype = first.shape, first.dtype
            by_kind: dict[Kind, torch.dtype] = {
                Kind.INDEX: torch.int64,
                Kind.BYTES: torch.uint8,
                Kind.BITS: torch.int8,
                Kind.BYTE_IMAGE: torch.uint8,
            }
            self.dtype = by_kind.get(first.kind, torch.float32)
        elif self.bytes:
            # Rounded up: numbers can be seen in bytes only where their size divides all strides.
            size = self.numbers * NUMBER + self.bytes
            self.shape = (-(-size // NUMBER) * NUMBER if self.numbers else size,)
            self.dtype, self.array_dtype = torch.uint8, np.dtype(np.uint8)
        else:
            self.shape = (self.numbers,)
            self.dtype, self.array_dtype = torch.float32, np.dtype(np.float32)
        # Where each leaf lies: in the bytes rather than the numbers, from, to.
        self.places: list[tuple[bool, int, int]] = []
        ends = [0, 0]
        for leaf in self.leaves:
            begin, ends[leaf.kind.in_bytes] = (
                ends[leaf.kind.in_bytes],
                ends[leaf.kind.in_bytes] + leaf.size,
            )
            self.places.append((leaf.kind.in_bytes, begin, ends[leaf.kind.in_bytes]))
        if self.nested:
            self._check_exact()
        self.blank = self._blank()

    def _check_exact(self) -> None:
        for leaf in self.leaves:
            if (
                leaf.kind is Kind.INDEX
                and max(np.abs(bound).max() for bound in leaf.bounds) > EXACT
            ):
                raise ValueError(
                    f"{leaf.name}: expected choices between -2^24 and 2^24 within a Dict or Tuple, "
                    f"whose numbers are kept as float32, got {leaf.space}; let them start at 0"
                )

    def _blank(self) -> Array:
        blank = np.zeros(self.shape, self.array_dtype)
        for leaf, value in zip(self.leaves, self._parts(blank), strict=True):
            if leaf.kind is Kind.INDEX:  # zero need not be a choice
                value[...] = leaf.bounds[0].reshape(leaf.shape)
        return blank

    def sections(self, flat: Any) -> tuple[Any, Any]:
        """Split a flat record [..., B], NumPy's or torch's, into its numbers and its bytes."""
        if not (self.numbers and self.bytes):
            return flat, flat
        kind = np.dtype(np.float32) if isinstance(flat, np.ndarray) else torch.float32
        middle = self.numbers * NUMBER
        return flat[..., :middle].view(kind), flat[..., middle:]

    def _parts(self, stored: Array) -> list[Array]:
        """Each leaf's part of stored observations [..., *shape], as views: [..., *leaf.shape]."""
        if not self.nested:
            return [stored]
        both, lead = self.sections(stored), stored.shape[:-1]
        return [
            both[in_bytes][..., begin:end].reshape((*lead, *leaf.shape))
            for leaf, (in_bytes, begin, end) in zip(self.leaves, self.places, strict=True)
        ]

    def pack(self, observation: Any, lead: tuple[int, ...] = ()) -> Array:
        """Return observations of ``lead`` axes as one array, [*lead, *shape].

        Raises:
            TypeError: not what the space says.
            ValueError: of another shape; names the part.

        """
        if not self.nested:
            return as_stored(self.leaves[0], np.asarray(observation))
        stored = np.zeros((*lead, *self.shape), self.array_dtype)
        both = self.sections(stored)
        try:
            for leaf, (in_bytes, begin, end) in zip(self.leaves, self.places, strict=True):
                value = observation
                for key in leaf.path:
                    value = value[key]
                array = np.asarray(value)
                if array.shape != (*lead, *leaf.shape):
                    raise ValueError(
                        f"{leaf.name}: expected shape {[*lead, *leaf.shape]}, got "
                        f"{list(array.shape)}"
                    )
                flat = as_stored(leaf, array).reshape((*lead, leaf.size))
                both[in_bytes][..., begin:end] = flat
        except (KeyError, IndexError, TypeError) as error:
            raise TypeError(
                f"observation: expected {' and '.join(leaf.name for leaf in self.leaves)} as in "
                f"{self.space}, got {type(observation).__name__} "
                f"{list(observation) if isinstance(observation, Mapping) else ''}"
            ) from error
        return stored

    def unpack(self, stored: Array) -> Any:
        """Return stored observations [..., *shape] in the structure of the space."""
        if not self.nested:
            return stored
        parts = zip(self.leaves, self._parts(stored), strict=True)
        by_path = {leaf.path: part.astype(leaf.dtype) for leaf, part in parts}
        return nest(self.space, by_path)

    def check(self, observation: Any, rows: int) -> Array:
        """Return an outside observation of N rows as a valid array [N, *shape], or say what is off.

        Raises:
            TypeError: not numbers, or not of the space's structure.
            ValueError: wrong shape, numbers that are not finite, indices out of range.

        """
        if not self.nested:
            check_leaf(self.leaves[0], np.asarray(observation), rows)
            return as_stored(self.leaves[0], np.asarray(observation))
        stored = self.pack(observation, (rows,))
        self.check_stored(stored, rows)
        return stored

    def check_stored(self, stored: Array, rows: int) -> None:
        """Check what ``pack`` returned for N rows; raises as ``check`` does."""
        for leaf, part in zip(self.leaves, self._parts(stored), strict=True):
            check_leaf(leaf, part, rows)

    def batched(self, observation: Any) -> tuple[Any, int, bool]:
        """Give a single observation a leading axis.

        Returns:
            observations of N rows; N; whether it was a single one.

        """
        leaf = min(self.leaves, key=lambda leaf: len(leaf.path))
        value = observation
        try:
            for key in leaf.path:
                value = value[key]
            array = np.asarray(value)
            if array.ndim == len(leaf.shape):
                return _with_axis(self.space, observation), 1, True
        except (KeyError, IndexError, TypeError, ValueError):
            return observation, 1, False  # ``check`` will say what is wrong
        return observation, len(array) if array.ndim else 1, False

    def fault(self, stored: Array) -> tuple[str, str, str] | None:
        """Say what is wrong with one stored observation [*shape].

        Returns:
            name of the part, what was expected of it, what it is; None if nothing is wrong.

        """
        for leaf, part in zip(self.leaves, self._parts(stored), strict=True):
            try:
                check_leaf(leaf, part[None], 1)
            except ValueError:
                finite = bool(np.isfinite(part).all())
                expected = f"choices of {leaf.space}" if finite else "finite numbers"
                shown = part.tolist() if part.size <= 20 else np.array2string(part, threshold=20)
                return leaf.name.removeprefix("observation"), expected, str(shown)
        return None


def _with_axis(space: gym.Space[Any], observation: Any) -> Any:
    """Give each part of an observation a leading axis."""
    if isinstance(space, spaces.Dict):
        # What is missing, ``check`` will name.
        parts = {key: part for key, part in space.spaces.items() if key in observation}
        return {key: _with_axis(part, observation[key]) for key, part in parts.items()}
    if isinstance(space, spaces.Tuple):
        pairs = zip(space.spaces, observation, strict=True)
        return tuple(_with_axis(part, value) for part, value in pairs)
    return np.asarray(observation)[None]


def as_stored(leaf: Leaf, array: Array) -> Array:
    """Return observations that lose nothing when they are stored, or raise ValueError.

    What is stored as bytes or whole numbers would otherwise be cut down to these in silence.
    """
    if array.dtype == np.bool_ or (array.dtype == leaf.dtype and leaf.kind is not Kind.BITS):
        return array
    if not leaf.kind.in_bytes:
        # Whole numbers are kept as such in places, where a fraction or a NaN would vanish.
        if leaf.dtype.kind in "iu" and array.dtype.kind == "f" and (array % 1 != 0).any():
            if leaf.kind is Kind.INDEX:
                raise _not_an_index(leaf, array)
            raise ValueError(
                f"{leaf.name}: expected whole numbers, as in {leaf.space}, got {array.dtype} "
                f"{_range(array)}"
            )
        return array
    least, most = (0, 1) if leaf.kind is Kind.BITS else (0, 255)
    if array.dtype.kind not in "fiu" or ((array < least) | (array > most) | (array % 1 != 0)).any():
        raise ValueError(
            f"{leaf.name}: expected whole numbers in [{least}, {most}], as in {leaf.space}, got "
            f"{array.dtype} {_range(array)}; is it scaled already? Then say so in the space"
        )
    return array.astype(leaf.dtype)


def _range(array: Array) -> str:
    if array.dtype.kind not in "fiu" or not array.size:
        return ""
    return f"from {array.min():g} to {array.max():g}"


def check_leaf(leaf: Leaf, array: Array, rows: int) -> None:
    """Check N outside observations of a simple space."""
    expected = (rows, *leaf.shape)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{leaf.name}: expected numbers of shape {list(expected)}, got dtype {array.dtype}"
        )
    if array.shape != expected:
        raise ValueError(
            f"{leaf.name}: expected shape [N, ...] = {list(expected)}, got "
            f"{list(array.shape)}; one observation needs a leading axis: obs[None]"
        )
    if leaf.kind is Kind.INDEX:
        low, high = (bound.reshape(leaf.shape) for bound in leaf.bounds)
        whole = array.dtype.kind != "f" or (bool(leaf.path) and not (array % 1).any())
        if not whole or ((array < low) | (array > high)).any():
            raise _not_an_index(leaf, array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise ValueError(f"{leaf.name}: expected finite numbers, got {array[row]} in row {row}")


def _not_an_index(leaf: Leaf, array: Array) -> ValueError:
    low, high = (bound.reshape(leaf.shape).tolist() for bound in leaf.bounds)
    return ValueError(f"{leaf.name}: expected integers in [{low}, {high}], got {array.tolist()}")


def nest(space: gym.Space[Any], by_path: Mapping[Path, Any], path: Path = ()) -> Any:
    """Put what belongs to the leaves of a space into its structure."""
    if isinstance(space, spaces.Dict):
        return {k: nest(part, by_path, (*path, k)) for k, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(nest(part, by_path, (*path, i)) for i, part in enumerate(space.spaces))
    return by_path[path]
