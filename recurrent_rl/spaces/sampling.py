"""Actions drawn uniformly at random, for opponents that know nothing."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Discrete, MultiDiscrete

from recurrent_rl.spaces.array import Array


def random_action(space: gym.Space[Any], mask: Array | None, generator: np.random.Generator) -> Any:
    """Return an action, as the environment takes it, uniformly among those that are allowed.

    Args:
        space: of actions.
        mask: allowed choices, of the components joined, bool [n]; None allows all.
        generator: of the draw.

    """
    if mask is None or not isinstance(space, Discrete | MultiDiscrete):
        space.seed(int(generator.integers(2**31)))
        return space.sample()
    counts = np.atleast_1d(space.n if isinstance(space, Discrete) else space.nvec)
    parts = np.split(mask, np.cumsum(counts.ravel())[:-1])
    # Where nothing is allowed nobody is asked.
    drawn = [generator.choice(np.flatnonzero(part)) if part.any() else 0 for part in parts]
    if isinstance(space, Discrete):
        return drawn[0] + space.start
    return np.array(drawn).reshape(space.nvec.shape) + space.start
