"""What the wrappers ask of the coordinates that they are given."""

from __future__ import annotations

import operator
from collections.abc import Iterable

import numpy as np

__all__ = ["as_integers", "check_indices"]


def as_integers(indices: Iterable[int], name: str = "indices") -> tuple[int, ...]:
    """Checks that ``indices`` are integers and returns them as plain ``int``, in the same order."""
    if not isinstance(indices, Iterable) or getattr(indices, "ndim", 1) == 0:
        raise TypeError(
            f"{name}: expected an iterable of integers, got {indices!r} "
            f"({type(indices).__name__}); for one coordinate write {name}=[{indices!r}]"
        )
    integers: list[int] = []
    for index in indices:
        # True would pass for 1, yet it comes from a boolean mask, where it does not mean 1.
        if isinstance(index, bool | np.bool_):
            raise TypeError(
                f"{name}: expected integers, got {index!r} ({type(index).__name__}); "
                "turn a boolean mask into indices with np.flatnonzero(mask)"
            )
        try:
            integers.append(operator.index(index))
        except TypeError:
            raise TypeError(
                f"{name}: expected integers, got {index!r} ({type(index).__name__}); "
                f"pass coordinates of the observation such as {name}=[1, 3]"
            ) from None
    return tuple(integers)


def check_indices(indices: tuple[int, ...], size: int, name: str = "indices") -> None:
    """Checks that ``indices`` are distinct, in ``[0, size)`` and at least one."""
    if not indices:
        raise ValueError(
            f"{name}: expected at least one coordinate, got none; "
            "pass indices=None to look them up, or leave it out altogether"
        )
    outside = [index for index in indices if not 0 <= index < size]
    if outside:
        raise ValueError(
            f"{name}: expected integers in [0, {size}) for an observation of shape ({size},), "
            f"got {outside}; count the coordinates from 0, without negative indices"
        )
    repeated = sorted({index for index in indices if indices.count(index) > 1})
    if repeated:
        raise ValueError(
            f"{name}: expected each coordinate once, got {repeated} more than once in "
            f"{list(indices)}; remove the repetitions"
        )
