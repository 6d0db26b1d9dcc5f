"""Gymnasium spaces to network inputs, and back: the only place that asks which space it is."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

SUPPORTED_OBSERVATIONS = "Box (numbers of any shape, but no uint8 images as yet) and Discrete"
SUPPORTED_ACTIONS = "Discrete and Box"


class ObservationCodec:
    """How observations of one space are stored and shown to a network.

    Attributes:
        space: the Gymnasium space of one observation.
        shape: of one stored observation: the Box's own, () for an index.
        dtype: of the store.
        features: D, width of the network's input.

    """

    def __init__(self, space: gym.Space[Any]) -> None:
        """Raise TypeError, saying what is supported, for any other space."""
        self.space = space
        is_image = len(space.shape or ()) == 3 and space.dtype == np.uint8
        if isinstance(space, spaces.Box) and not is_image:
            self.shape: tuple[int, ...] = space.shape
            self.dtype, self.features = torch.float32, math.prod(space.shape)
        elif isinstance(space, spaces.Discrete):
            self.shape, self.dtype, self.features = (), torch.int64, int(space.n)
        else:
            raise TypeError(
                f"observation_space: expected {SUPPORTED_OBSERVATIONS}, got {space}; flatten it "
                f"with gymnasium.wrappers.FlattenObservation"
            )

    def encode(self, observation: Tensor) -> Tensor:
        """Turn stored observations [..., *shape] into features [..., D], float."""
        if isinstance(self.space, spaces.Discrete):
            index = observation - int(self.space.start)
            return torch.nn.functional.one_hot(index, self.features).to(torch.get_default_dtype())
        if len(self.shape) == 1:
            return observation
        return observation.reshape(*observation.shape[: observation.ndim - len(self.shape)], -1)

    def check(self, observation: Any, rows: int) -> np.ndarray[Any, Any]:
        """Return an outside observation as a finite array [N, *shape], or say what is wrong."""
        array = np.asarray(observation)
        expected = (rows, *self.shape)
        if array.dtype.kind not in "fiub":
            raise TypeError(
                f"observation: expected numbers of shape {list(expected)}, got dtype {array.dtype}"
            )
        if array.shape != expected:
            raise ValueError(
                f"observation: expected shape [N, ...] = {list(expected)}, got "
                f"{list(array.shape)}; one observation needs a leading axis: obs[None]"
            )
        if isinstance(self.space, spaces.Discrete):
            low, high = int(self.space.start), int(self.space.start) + self.features - 1
            if array.dtype.kind == "f" or ((array < low) | (array > high)).any():
                raise ValueError(
                    f"observation: expected integers in [{low}, {high}], got {array.tolist()}"
                )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            raise ValueError(f"observation: expected finite numbers, got {array[row]} in row {row}")
        return array


def without_mask(space: gym.Space[Any]) -> tuple[gym.Space[Any], bool]:
    """Split the action mask off: the space of the observation proper, and whether there was one.

    PettingZoo's way of stating which actions are allowed is an observation
    ``{"observation": ..., "action_mask": ...}``.
    """
    if isinstance(space, spaces.Dict) and set(space.keys()) == {"observation", "action_mask"}:
        return space["observation"], True
    return space, False


def same_space(ours: gym.Space[Any], theirs: gym.Space[Any], *, bounds: bool = False) -> bool:
    """Whether data of ``theirs`` can be fed to networks made for ``ours``.

    Bounds of observations may differ (a wrapper may tighten them), those of actions (``bounds``)
    may not; nor may shapes, dtypes' kinds and the numbers of choices.
    """
    if isinstance(ours, spaces.Box) and isinstance(theirs, spaces.Box):
        if ours.shape != theirs.shape or ours.dtype.kind != theirs.dtype.kind:
            return False
        return not bounds or (
            np.allclose(ours.low, theirs.low) and np.allclose(ours.high, theirs.high)
        )
    return ours == theirs


def space_to_dict(space: gym.Space[Any]) -> dict[str, Any]:
    """Describe a supported space in tensors and plain values, for a checkpoint."""
    if isinstance(space, spaces.Box):
        return {
            "kind": "Box",
            "low": torch.from_numpy(space.low.copy()),
            "high": torch.from_numpy(space.high.copy()),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    raise TypeError(f"space: expected Box or Discrete, got {space}")


def space_from_dict(data: dict[str, Any]) -> gym.Space[Any]:
    """Rebuild what ``space_to_dict`` described."""
    if data["kind"] == "Box":
        dtype = np.dtype(data["dtype"])
        return spaces.Box(data["low"].numpy(), data["high"].numpy(), dtype=dtype.type)
    if data["kind"] == "Discrete":
        return spaces.Discrete(data["n"], start=data["start"])
    raise ValueError(f"space: expected the kind Box or Discrete, got {data['kind']!r}")


def array_form(space: gym.Space[Any]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return how an element is stored in an array: shape, dtype, and what stands where none is.

    Raises:
        TypeError: neither Box nor Discrete.

    """
    if isinstance(space, spaces.Box):
        return space.shape, np.dtype(space.dtype), 0
    if isinstance(space, spaces.Discrete):
        return (), np.dtype(np.int64), int(space.start)
    raise TypeError(f"space: expected Box or Discrete, got {space}")


def mask_size(space: gym.Space[Any]) -> int:
    """Return the width of an action mask; 0 where masks make no sense."""
    return int(space.n) if isinstance(space, spaces.Discrete) else 0


def check_action(space: gym.Space[Any], action: Any) -> np.ndarray[Any, Any]:
    """Return an outside action as an array of the space, or say what is wrong with it.

    A Discrete action may also come as an array of one value.
    """
    shape, dtype, _ = array_form(space)
    array = np.asarray(action)
    if isinstance(space, spaces.Discrete) and array.shape == (1,):
        array = array[0]
    if array.shape != shape:
        expected = "one value" if shape == () else f"shape {list(shape)}"
        raise ValueError(f"expected {expected} of {space}, got {action!r}")
    if dtype.kind == "i" and array.dtype.kind == "f" and (array % 1 != 0).any():
        raise ValueError(f"expected whole numbers of {space}, got {action!r}")
    array = array.astype(dtype, copy=False)
    if not space.contains(array if shape else dtype.type(array)):
        raise ValueError(f"expected an action in {space}, got {action!r}")
    return array
