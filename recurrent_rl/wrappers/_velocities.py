"""Which coordinates of observations are velocities, and spaces without them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

VELOCITY_INDICES: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {
        "CartPole-v1": (1, 3),  # of the cart; of the pole's angle
        "MountainCar-v0": (1,),
        "MountainCarContinuous-v0": (1,),
        "Pendulum-v1": (2,),  # angular
        "LunarLander-v3": (2, 3, 5),  # horizontal; vertical; angular
        "LunarLanderContinuous-v3": (2, 3, 5),
    }
)
"""Environment id -> coordinates of the observation that are velocities."""


def box_of(space: gym.Space[Any]) -> Box[Any]:
    """Checks that ``space`` is a one-dimensional ``Box`` and returns it."""
    if not isinstance(space, Box):
        raise TypeError(
            f"observation_space: expected a one-dimensional Box, got {space}; "
            "apply gymnasium.wrappers.FlattenObservation first and pass indices="
        )
    if len(space.shape) != 1:
        raise ValueError(
            f"observation_space: expected a one-dimensional Box, got shape {space.shape}; "
            "apply gymnasium.wrappers.FlattenObservation first and pass indices="
        )
    return space


def known_indices(env: Any, wrapper: str, space: str) -> tuple[int, ...]:
    """Looks up the velocities of ``env`` in ``VELOCITY_INDICES``.

    Args:
        env: The environment, or a vector of them.
        wrapper: The name of the wrapper that asks.
        space: The name of the attribute that has the space of one observation.
    """
    known = ", ".join(VELOCITY_INDICES)
    spec = env.unwrapped.spec
    # What others call a spec may have no id.
    env_id = None if spec is None else getattr(spec, "id", None)
    if env_id is None:
        raise ValueError(
            f"env: expected one of the ids {known}, got an environment without a spec (not built "
            "by gymnasium.make); pass the velocity coordinates with indices="
        )
    if env_id not in VELOCITY_INDICES:
        raise ValueError(
            f"env: expected one of the ids {known}, got {env_id!r}; "
            "pass the velocity coordinates with indices="
        )
    # The table describes the environment's own observation, not one that other wrappers rearranged.
    own, seen = getattr(env.unwrapped, space).shape, getattr(env, space).shape
    if own != seen:
        raise ValueError(
            f"{space}: expected shape {own} as {env_id} defines it, got {seen}; apply "
            f"{wrapper} before the wrappers that change the observation, or pass the "
            "velocity coordinates with indices="
        )
    return VELOCITY_INDICES[env_id]


def masked_space(space: Box[Any], indices: NDArray[np.intp]) -> Box[Any]:
    """Returns a new ``Box`` like ``space`` whose coordinates at ``indices`` are bounded by zero."""
    low, high = space.low.copy(), space.high.copy()  # [D], [D]
    low[indices] = 0
    high[indices] = 0
    masked = Box(low, high, dtype=space.dtype)
    # An integer Box keeps "unbounded" in these flags only, which its bounds do not tell.
    masked.bounded_below = space.bounded_below.copy()
    masked.bounded_above = space.bounded_above.copy()
    masked.bounded_below[indices] = True
    masked.bounded_above[indices] = True
    return masked
