"""Action masks: which choices of a Discrete or MultiDiscrete action are allowed.

Letters: N rows, n choices of all components of an action together.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from recurrent_rl.spaces.array import Array, as_array, as_flags


def choices(space: gym.Space[Any]) -> tuple[int, ...]:
    """Return how many choices an action has, one number for each of its components.

    Empty for actions that are no choices out of a few, for which masks make no sense.
    """
    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(int(n) for n in space.nvec.flat)
    return ()


def flat_mask(mask: Any) -> Array:
    """Return masks as bool [..., n]: those of a MultiDiscrete space's components are joined.

    Args:
        mask: an array, or a (nested) tuple of one for each component, as Gymnasium's spaces take
            it.

    Raises:
        ValueError: it is neither, or has anything but 0 and 1 in it.

    """
    if isinstance(mask, tuple):
        return np.concatenate([flat_mask(part) for part in mask], axis=-1)
    try:
        array = as_array(mask)
    except ValueError:
        raise ValueError(
            f"action_mask: expected an array, or a tuple with an array for each component of a "
            f"MultiDiscrete action, got {mask!r}"
        ) from None
    return as_flags(array, "action_mask")


def allows_something(mask: Array, sizes: Sequence[int]) -> Array:
    """Whether each component has an allowed choice: bool [..., n] to bool [...].

    Args:
        mask: [..., n].
        sizes: from ``choices``, which add up to n.

    """
    begins = np.cumsum((0, *sizes[:-1]))
    allowed: Array = np.logical_or.reduceat(mask, begins, axis=-1)
    return np.asarray(allowed.all(-1))


def check_mask(
    mask: Any,
    space: gym.Space[Any],
    rows: int,
    *,
    asked: Array | None = None,
    name: Callable[[int], str] = "row {}".format,
) -> Array:
    """Return the masks of N rows as bool [N, n].

    Args:
        mask: [N, n], or a tuple of the components' own.
        space: of one action.
        rows: N.
        asked: rows that are to choose, bool [N]; the others' masks may forbid everything. None:
            all.
        name: says in words what a row is.

    Raises:
        ValueError: another shape, masks for actions that are no choices, or nothing allowed in a
            row that is to choose.

    """
    array, sizes = flat_mask(mask), choices(space)
    if not sizes or array.shape != (rows, sum(sizes)):
        expected = f"shape [N, n] = [{rows}, {sum(sizes)}]" if sizes else "none"
        raise ValueError(
            f"action_mask: expected {expected} for {space}, got shape {list(array.shape)}"
        )
    possible = allows_something(array, sizes)
    if asked is not None:
        possible = possible | ~asked
    if not possible.all():
        row = int(np.flatnonzero(~possible)[0])
        raise ValueError(
            f"action_mask: expected at least one allowed action, got none from {name(row)}"
        )
    return array


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
