"""NumPy arrays, as annotations name them, and whatever users have in their place."""

from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]

FLAGS = "0 and 1, or False and True"


def as_array(value: Any) -> Array:
    """Return a value as an array: a list, a scalar, a tensor on any device, or a list of tensors.

    Raises:
        ValueError: lists of different lengths.

    """
    if isinstance(value, torch.Tensor):
        # NumPy knows no bfloat16.
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy(force=True)
    if isinstance(value, list | tuple) and any(
        isinstance(part, torch.Tensor | list | tuple) for part in value
    ):
        value = [as_array(part) for part in value]
    return np.asarray(value)


def as_flags(value: Any, name: str) -> Array:
    """Return flags as a new bool array; ``name`` is what an error calls them.

    Raises:
        ValueError: anything but 0 and 1, such as -3, 0.5 or NaN, which would all count as True.

    """
    array = as_array(value)
    flags = array.astype(np.bool_)
    if array.dtype != np.bool_ and not bool(np.equal(array, flags).all()):
        wrong = array[np.not_equal(array, flags)].flat[0]
        raise ValueError(f"{name}: expected {FLAGS}, got {wrong!r}")
    return flags
