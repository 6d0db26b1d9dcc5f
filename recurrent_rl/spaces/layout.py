"""Observations of any space, kept as one array each.

An observation, however nested, is kept as one array, so that nothing between the environment and
the network needs to know its structure. A simple space (Box, Discrete, ...) keeps its own shape.
Of a Dict or a Tuple the *leaves* are laid one after the other into a flat record: numbers and
indices as float32, then bytes and bits. If it has both, the record is one of bytes, which begins
with those of the numbers.

Letters: ... any leading axes, N rows, B bytes or numbers of a record.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from recurrent_rl.spaces.array import Array, as_array
from recurrent_rl.spaces.leaf_checks import (
    RowName,
    as_stored,
    check_leaf,
    expected_of,
    in_float32,
    leaf_array,
)
from recurrent_rl.spaces.leaves import EXACT, Kind, Path, leaves_of

Place = tuple[bool, int, int]  # in the bytes rather than the numbers of a record, from, to
NUMBER = 4  # bytes of a float32


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
        self._store_dtype = torch.zeros((), dtype=self.dtype).numpy().dtype
        self.places: list[Place] = []  # where each leaf lies
        ends = [0, 0]
        for leaf in self.leaves:
            begin, ends[leaf.kind.in_bytes] = (
                ends[leaf.kind.in_bytes],
                ends[leaf.kind.in_bytes] + leaf.size,
            )
            self.places.append((leaf.kind.in_bytes, begin, ends[leaf.kind.in_bytes]))
        if self.nested:
            self._check_exact()
        self._casts = True  # see ``of_numbers``
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
        for leaf, value in zip(self.leaves, self.parts(blank), strict=True):
            if leaf.kind is Kind.INDEX:  # zero need not be a choice
                value[...] = leaf.bounds[0].reshape(leaf.shape)
            elif leaf.enforced is not None:
                value[...] = np.clip(0, *leaf.enforced)
        return blank

    def sections(self, flat: Any) -> tuple[Any, Any]:
        """Split a flat record [..., B], NumPy's or torch's, into its numbers and its bytes."""
        if not (self.numbers and self.bytes):
            return flat, flat
        if not self._casts:
            return flat[..., : self.numbers], flat[..., self.numbers :]
        kind = np.dtype(np.float32) if isinstance(flat, np.ndarray) else torch.float32
        middle = self.numbers * NUMBER
        numbers = flat[..., :middle]
        if isinstance(flat, torch.Tensor) and not flat.numel():
            numbers = numbers.new_empty(numbers.shape)  # of no rows, which may lack strides
        return numbers.view(kind), flat[..., middle:]

    def of_numbers(self) -> "ObservationLayout":
        """Return a layout whose records hold bytes as numbers, which ``record`` makes.

        Networks see the same. Bytes are seen as numbers by a cast of their bits, for which exported
        graphs have no operator.
        """
        twin = copy.copy(self)
        twin._casts = False
        return twin

    def record(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Lay parts of observations, [N, *leaf.shape] each, into one tensor, by ``of_numbers``.

        Returns:
            a record [N, D] of float32; of a simple space the part itself, in the store's dtype.

        """
        if not self.nested:
            return parts[0].to(self.dtype)
        flat = [
            # [N, *leaf.shape] -> [N, size]
            part.to(torch.float32).reshape(part.shape[0], leaf.size)
            for leaf, part in zip(self.leaves, parts, strict=True)
        ]
        return torch.cat(flat, -1)

    def parts(self, stored: Array) -> list[Array]:
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
            return as_stored(self.leaves[0], leaf_array(self.leaves[0], observation))
        stored = np.zeros((*lead, *self.shape), self.array_dtype)
        both = self.sections(stored)
        try:
            for leaf, (in_bytes, begin, end) in zip(self.leaves, self.places, strict=True):
                value = observation
                for key in leaf.path:
                    value = value[key]
                array = leaf_array(leaf, value)
                if array.shape != (*lead, *leaf.shape):
                    raise ValueError(
                        f"{leaf.name}: expected shape {[*lead, *leaf.shape]}, got "
                        f"{list(array.shape)}"
                    )
                flat = in_float32(as_stored(leaf, array)).reshape((*lead, leaf.size))
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
            return stored.astype(self.space.dtype, copy=False)  # choices may be of fewer bits
        parts = zip(self.leaves, self.parts(stored), strict=True)
        by_path = {leaf.path: part.astype(leaf.space.dtype) for leaf, part in parts}
        return nest(self.space, by_path)

    def check(self, observation: Any, rows: int) -> Array:
        """Return an outside observation of N rows as a valid array [N, *shape], or say what is off.

        Raises:
            TypeError: not numbers, or not of the space's structure.
            ValueError: wrong shape, numbers that are not finite, indices out of range.

        """
        if not self.nested:
            array = leaf_array(self.leaves[0], observation)
            check_leaf(self.leaves[0], array, rows)
            return as_stored(self.leaves[0], array)
        stored = self.pack(observation, (rows,))
        self.check_stored(stored, rows)
        return stored

    def check_stored(self, stored: Array, rows: int, name: RowName = "row {}".format) -> None:
        """Check what ``pack`` returned for N rows; raises as ``check`` does.

        Args:
            stored: [N, *shape].
            rows: N.
            name: says in words what a row is.

        """
        for leaf, part in zip(self.leaves, self.parts(stored), strict=True):
            check_leaf(leaf, part, rows, name)

    def tensor(self, stored: Array) -> torch.Tensor:
        """Return what ``pack`` returned as a rollout's store has it, on the CPU.

        It may share memory. Whatever NumPy can hold will do: torch knows no negative strides, no
        foreign order of bytes, not all dtypes, and warns of what is read-only.
        """
        with np.errstate(over="ignore"):  # infinities are found as such
            array = np.asarray(stored, dtype=self._store_dtype, order="C")
        return torch.from_numpy(array if array.flags.writeable else array.copy())

    def batched(self, observation: Any) -> tuple[Any, int, bool]:
        """Give a single observation a leading axis.

        Returns:
            observations of N rows; N; whether it was a single one.

        Raises:
            TypeError: it comes together with its info.

        """
        if not isinstance(self.space, spaces.Tuple):
            refuse_pair("observation", observation)
        leaf = min(self.leaves, key=lambda leaf: len(leaf.path))
        value = observation
        try:
            for key in leaf.path:
                value = value[key]
            array = as_array(value)
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
        for leaf, part in zip(self.leaves, self.parts(stored), strict=True):
            try:
                check_leaf(leaf, part[None], 1)
            except ValueError:
                finite = bool(np.isfinite(part).all())
                expected = expected_of(leaf) if finite else "finite numbers"
                shown = part.tolist() if part.size <= 20 else np.array2string(part, threshold=20)
                return leaf.name.removeprefix("observation"), expected, str(shown)
        return None


def refuse_pair(name: str, value: Any) -> None:
    """Raise TypeError if a value is the pair that ``env.reset()`` returns."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Mapping):
        raise TypeError(
            f"{name}: expected an observation alone, got it in a tuple with its info, as "
            f"env.reset() returns them; write obs, info = env.reset()"
        )


def _with_axis(space: gym.Space[Any], observation: Any) -> Any:
    """Give each part of an observation a leading axis."""
    if isinstance(space, spaces.Dict):
        # What is missing, ``check`` will name.
        parts = {key: part for key, part in space.spaces.items() if key in observation}
        return {key: _with_axis(part, observation[key]) for key, part in parts.items()}
    if isinstance(space, spaces.Tuple):
        pairs = zip(space.spaces, observation, strict=True)
        return tuple(_with_axis(part, value) for part, value in pairs)
    return as_array(observation)[None]


def nest(space: gym.Space[Any], by_path: Mapping[Path, Any], path: Path = ()) -> Any:
    """Put what belongs to the leaves of a space into its structure."""
    if isinstance(space, spaces.Dict):
        return {k: nest(part, by_path, (*path, k)) for k, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(nest(part, by_path, (*path, i)) for i, part in enumerate(space.spaces))
    return by_path[path]
