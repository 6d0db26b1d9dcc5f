"""What a simple space's observations must be, checked before they are stored and after.

Letters: N rows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from recurrent_rl.spaces.array import Array, as_array
from recurrent_rl.spaces.leaves import Kind, Leaf

RowName = Callable[[int], str]


def leaf_array(leaf: Leaf, value: Any) -> Array:
    """Return a value as an array, or say what it was to be."""
    try:
        return as_array(value)
    except ValueError as error:  # lists of different lengths
        raise ValueError(
            f"{leaf.name}: expected numbers of shape [..., {str(list(leaf.shape))[1:]}, got what "
            f"makes no array: {error}"
        ) from None


def as_stored(leaf: Leaf, array: Array) -> Array:
    """Return observations that lose nothing when they are stored, or raise ValueError.

    What is stored as whole numbers would otherwise be cut down to these, or wrapped around, in
    silence: 200 is -56 in an int8.
    """
    if array.dtype == np.bool_ or (array.dtype == leaf.dtype and leaf.kind is not Kind.BITS):
        return array
    kind = array.dtype.kind
    if leaf.dtype.kind == "f":
        return in_float32(array) if leaf.dtype == np.float32 else array
    if kind not in "fiu":
        if leaf.kind.in_bytes:
            raise _not_storable(leaf, array)
        return array  # to be found by ``check_leaf``
    if leaf.kind is Kind.INDEX:
        low, high = (bound.reshape(leaf.shape) for bound in leaf.bounds)
        if ((array < low) | (array > high) | (array != np.trunc(array))).any():
            raise not_an_index(leaf, array)
        return array
    least, most = leaf.storable
    if ((array < least) | (array > most) | (array != np.trunc(array))).any():
        raise _not_storable(leaf, array)
    return array.astype(leaf.dtype)


def _not_storable(leaf: Leaf, array: Array) -> ValueError:
    least, most = leaf.storable
    shown = f"{array.dtype}"
    if array.dtype.kind in "fiu" and array.size:
        shown += f" from {array.min():g} to {array.max():g}"
    return ValueError(
        f"{leaf.name}: expected whole numbers in [{least}, {most}], as in {leaf.space}, got "
        f"{shown}; is it scaled already, or of another dtype? Then say so in the space"
    )


def check_leaf(leaf: Leaf, array: Array, rows: int, name: RowName = "row {}".format) -> None:
    """Check N outside observations of a simple space; ``name`` says in words what a row is."""
    expected = (rows, *leaf.shape)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{leaf.name}: expected numbers of shape {list(expected)}, got dtype {array.dtype}"
        )
    if array.shape != expected:
        hint = "is it of another environment, or not wrapped as in training?"
        if array.shape == leaf.shape:
            hint = "one observation needs a leading axis: obs[None]"
        raise ValueError(
            f"{leaf.name}: expected shape [N, ...] = {list(expected)}, got {list(array.shape)}; "
            f"{hint}"
        )
    if leaf.kind is Kind.INDEX:
        low, high = (bound.reshape(leaf.shape) for bound in leaf.bounds)
        whole = array.dtype.kind != "f" or (
            bool(leaf.path) and not (array != np.trunc(array)).any()
        )
        outside = (array < low) | (array > high)
        if not whole or outside.any():
            where = f" in {name(_first(outside))}" if outside.any() else ""
            raise not_an_index(leaf, array, where)
    if array.dtype.kind == "f":
        finite = np.isfinite(in_float32(array))
        if not finite.all():
            row = _first(~finite)
            large = "; networks take float32, up to 3.4e38" if np.isfinite(array).all() else ""
            raise ValueError(
                f"{leaf.name}: expected finite numbers, got {array[row]} in {name(row)}{large}"
            )
    if leaf.enforced is not None:
        low, high = leaf.enforced
        outside = (array < low) | (array > high)
        if outside.any():
            row = _first(outside)
            got = f"{array[row][outside[row]].flat[0]:g} in {name(row)}"
            raise ValueError(
                f"{leaf.name}: expected {expected_of(leaf)}, got {got}; what a network sees is "
                f"scaled by these bounds, so let the space say what there may be"
            )


def expected_of(leaf: Leaf) -> str:
    """Say which values an index or a scaled number may have."""
    if leaf.enforced is None:
        return f"choices of {leaf.space}"
    low, high = leaf.enforced
    return f"numbers in [{low.min():g}, {high.max():g}] as in {leaf.space}"


def in_float32(array: Array) -> Array:
    """Return numbers as networks take them: what is too large becomes infinite."""
    if array.dtype.kind != "f" or array.dtype.itemsize <= 4:
        return array
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _first(rows: Array) -> int:
    """Return the first row, of [N, ...], that has a True."""
    return int(np.argwhere(rows)[0][0])


def not_an_index(leaf: Leaf, array: Array, where: str = "") -> ValueError:
    """Return the error for what is no choice."""
    low, high = (bound.reshape(leaf.shape).tolist() for bound in leaf.bounds)
    return ValueError(
        f"{leaf.name}: expected integers in [{low}, {high}], got {array.tolist()}{where}"
    )
