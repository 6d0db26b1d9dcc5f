"""Gymnasium spaces: actions, action masks, and spaces compared, saved and rebuilt.

With ``observations`` this is the only place that asks which space it is.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

SUPPORTED_OBSERVATIONS = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these"
SUPPORTED_ACTIONS = "Discrete, MultiDiscrete, MultiBinary and Box"
Array = np.ndarray[Any, Any]

# --- action masks -------------------------------------------------------------------------------


def choices(space: gym.Space[Any]) -> tuple[int, ...]:
    """Return how many choices an action has, one number for each of its components.

    Empty for actions that are no choices out of a few, for which masks make no sense.
    """
    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(int(n) for n in space.nvec.flat)
    return ()


def mask_size(space: gym.Space[Any]) -> int:
    """Return the width of an action mask; 0 where masks make no sense."""
    return sum(choices(space))


def flat_mask(mask: Any) -> Array:
    """Return masks as bool [..., n]: those of a MultiDiscrete space's components are joined.

    Args:
        mask: an array, or a (nested) tuple of one for each component, as Gymnasium's spaces take
            it.

    Raises:
        ValueError: it is neither.

    """
    if isinstance(mask, tuple):
        return np.concatenate([flat_mask(part) for part in mask], axis=-1)
    try:
        return np.asarray(mask).astype(bool)
    except ValueError:
        raise ValueError(
            f"action_mask: expected an array, or a tuple with an array for each component of a "
            f"MultiDiscrete action, got {mask!r}"
        ) from None


def allows_something(mask: Array, sizes: Sequence[int]) -> Array:
    """Whether each component has an allowed choice: bool [..., n] to bool [...].

    Args:
        mask: [..., n].
        sizes: from ``choices``, which add up to n.

    """
    begins = np.cumsum((0, *sizes[:-1]))
    allowed: Array = np.logical_or.reduceat(mask, begins, axis=-1)
    return np.asarray(allowed.all(-1))


def without_mask(
    space: gym.Space[Any], action_space: gym.Space[Any]
) -> tuple[gym.Space[Any], bool]:
    """Split the action mask off: the space of the observation proper, and whether there was one.

    A Dict observation may state which actions are allowed under "action_mask". If there is nothing
    beside it but an "observation", as is PettingZoo's way, that is the observation.
    """
    if isinstance(space, spaces.Dict) and "action_mask" in space.spaces and choices(action_space):
        rest = {key: part for key, part in space.spaces.items() if key != "action_mask"}
        if rest.keys() == {"observation"}:
            return rest["observation"], True
        if rest:
            return spaces.Dict(rest), True
    return space, False


def part_mask(observation: Any) -> tuple[Any, Any]:
    """Split an observation whose space ``without_mask`` has split; the mask is None if missing."""
    if not isinstance(observation, Mapping) or "action_mask" not in observation:
        return observation, None
    if observation.keys() == {"observation", "action_mask"}:
        return observation["observation"], observation["action_mask"]
    return observation, observation["action_mask"]


# --- spaces as such -----------------------------------------------------------------------------


def same_space(ours: gym.Space[Any], theirs: gym.Space[Any], *, bounds: bool = False) -> bool:
    """Whether data of ``theirs`` can be fed to networks made for ``ours``.

    Bounds of observations may differ (a wrapper may tighten them), those of actions (``bounds``)
    may not; nor may shapes, dtypes' kinds and the numbers of choices.
    """
    if isinstance(ours, spaces.Box) and isinstance(theirs, spaces.Box):
        if ours.shape != theirs.shape or ours.dtype.kind != theirs.dtype.kind:
            return False
        if (ours.dtype == np.uint8) != (theirs.dtype == np.uint8):
            return False  # bytes are stored as such, and images of them scaled
        return not bounds or (
            np.allclose(ours.low, theirs.low) and np.allclose(ours.high, theirs.high)
        )
    if isinstance(ours, spaces.Dict) and isinstance(theirs, spaces.Dict):
        return ours.spaces.keys() == theirs.spaces.keys() and all(
            same_space(part, theirs.spaces[key]) for key, part in ours.spaces.items()
        )
    if isinstance(ours, spaces.Tuple) and isinstance(theirs, spaces.Tuple):
        pairs = zip(ours.spaces, theirs.spaces, strict=False)
        return len(ours.spaces) == len(theirs.spaces) and all(same_space(a, b) for a, b in pairs)
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
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "kind": "MultiDiscrete",
            "nvec": torch.from_numpy(space.nvec.astype(np.int64)),
            "start": torch.from_numpy(space.start.astype(np.int64)),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.MultiBinary):
        # MultiBinary(3) and MultiBinary([3]) are not equal.
        return {"kind": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
    if isinstance(space, spaces.Dict):
        parts = [[key, space_to_dict(part)] for key, part in space.spaces.items()]
        return {"kind": "Dict", "parts": parts}
    if isinstance(space, spaces.Tuple):
        return {"kind": "Tuple", "parts": [space_to_dict(part) for part in space.spaces]}
    raise TypeError(f"space: expected {SUPPORTED_OBSERVATIONS}, got {space}")


def space_from_dict(data: dict[str, Any]) -> gym.Space[Any]:
    """Rebuild what ``space_to_dict`` described."""
    kind = data["kind"]
    if kind == "Box":
        dtype = np.dtype(data["dtype"])
        return spaces.Box(data["low"].numpy(), data["high"].numpy(), dtype=dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(data["n"], start=data["start"])
    if kind == "MultiDiscrete":
        dtype = np.dtype(data["dtype"])
        return spaces.MultiDiscrete(
            data["nvec"].numpy(), dtype=dtype.type, start=data["start"].numpy()
        )
    if kind == "MultiBinary":
        return spaces.MultiBinary(data["n"])
    if kind == "Dict":
        return spaces.Dict({key: space_from_dict(part) for key, part in data["parts"]})
    if kind == "Tuple":
        return spaces.Tuple([space_from_dict(part) for part in data["parts"]])
    raise ValueError(f"space: expected a kind out of {SUPPORTED_OBSERVATIONS}, got {kind!r}")


# --- actions ------------------------------------------------------------------------------------


def action_form(space: gym.Space[Any]) -> tuple[tuple[int, ...], np.dtype[Any], Any]:
    """Return how an action is stored in an array: shape, dtype, and what stands where none is.

    Raises:
        TypeError: a space that is not supported; the message says which are.

    """
    if isinstance(space, spaces.Box):
        return space.shape, np.dtype(space.dtype), 0
    if isinstance(space, spaces.Discrete):
        return (), np.dtype(np.int64), int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        return space.shape, np.dtype(space.dtype), space.start
    if isinstance(space, spaces.MultiBinary):
        return space.shape, np.dtype(np.int8), 0
    raise TypeError(f"action_space: expected {SUPPORTED_ACTIONS}, got {space}")


def action_features(space: gym.Space[Any]) -> int:
    """Return the width of an action as a network's input: choices as one-hot vectors."""
    shape, _, _ = action_form(space)
    return mask_size(space) or math.prod(shape)


def check_action(space: gym.Space[Any], action: Any) -> Array:
    """Return an outside action as an array of the space, or say what is wrong with it.

    A Discrete action may also come as an array of one value.
    """
    shape, dtype, _ = action_form(space)
    array = np.asarray(action)
    if isinstance(space, spaces.Discrete) and array.shape == (1,):
        array = array[0]
    if array.shape != shape:
        expected = "one value" if shape == () else f"shape {list(shape)}"
        raise ValueError(f"expected {expected} of {space}, got {action!r}")
    if dtype.kind in "iu" and array.dtype.kind == "f" and (array % 1 != 0).any():
        raise ValueError(f"expected whole numbers of {space}, got {action!r}")
    array = array.astype(dtype, copy=False)
    if not space.contains(array if shape else dtype.type(array)):
        raise ValueError(f"expected an action in {space}, got {action!r}")
    return array
