"""An observation wrapper that hides the velocities of classic-control-like environments.

* ``MaskVelocityWrapper`` - Sets the velocity coordinates of a one-dimensional observation to zero
* ``VELOCITY_INDICES`` - Which coordinates are velocities, by environment id
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import gymnasium as gym
import numpy as np
from gymnasium.core import ActType
from numpy.typing import NDArray

from recurrent_rl.wrappers._indices import as_integers, check_indices
from recurrent_rl.wrappers._velocities import VELOCITY_INDICES, box_of, known_indices, masked_space

__all__ = ["VELOCITY_INDICES", "MaskVelocityWrapper"]


class MaskVelocityWrapper(
    gym.ObservationWrapper[NDArray[Any], ActType, NDArray[Any]],
    gym.utils.RecordConstructorArgs,
):
    """Sets the velocity coordinates of the observation to zero.

    What is left does not tell which way things move, so the Markov decision process becomes
    partially observable: an agent has to remember earlier observations to infer the velocities.

    The masked coordinates are exactly zero whatever the environment returned, ``NaN`` and infinity
    included, and their bounds in :attr:`observation_space` are zero. The shape and the dtype stay.
    The wrapped environment, its arrays and its spaces are never modified.

    The environments of ``VELOCITY_INDICES`` need no argument; for every other environment with a
    one-dimensional ``Box`` observation space, name the coordinates with ``indices``.

    A vector environment is masked through its sub-environments, as in the second example.

    The wrapper and its index table originate from ``rl_zoo3/wrappers.py`` of `RL Baselines3 Zoo
    <https://github.com/DLR-RM/rl-baselines3-zoo>`_, adapted there from
    https://github.com/LiuWenlin595/FinalProject.

    Example:
        >>> import gymnasium as gym
        >>> from recurrent_rl.wrappers import MaskVelocityWrapper
        >>> env = gym.make("CartPole-v1")
        >>> env.reset(seed=42)
        (array([ 0.0273956 , -0.00611216,  0.03585979,  0.0197368 ], dtype=float32), {})
        >>> env = MaskVelocityWrapper(env)
        >>> env.reset(seed=42)
        (array([0.0273956 , 0.        , 0.03585979, 0.        ], dtype=float32), {})
        >>> env.observation_space.high
        array([4.8       , 0.        , 0.41887903, 0.        ], dtype=float32)

    Example - In a vector environment:
        >>> envs = gym.make_vec(
        ...     "Pendulum-v1", num_envs=2, vectorization_mode="sync", wrappers=[MaskVelocityWrapper]
        ... )
        >>> envs.reset(seed=42)[0]
        array([[-0.14995256,  0.9886932 ,  0.        ],
               [ 0.5760367 ,  0.8174238 ,  0.        ]], dtype=float32)

    Example - Any other one-dimensional Box, here Acrobot's two angular velocities:
        >>> env = MaskVelocityWrapper(gym.make("Acrobot-v1"), indices=[4, 5])
        >>> env.reset(seed=42)[0][4:]
        array([0., 0.], dtype=float32)
    """

    def __init__(
        self, env: gym.Env[NDArray[Any], ActType], indices: Iterable[int] | None = None
    ) -> None:
        """Constructor for the mask velocity wrapper.

        Args:
            env: The environment to wrap. Its observation space is a ``Box`` of shape ``(D,)``.
            indices: The coordinates to mask: distinct integers in ``[0, D)``, at least one of them.
                ``None`` takes them from ``VELOCITY_INDICES`` by the environment's id.

        Raises:
            TypeError: If ``env`` is not a ``gymnasium.Env``, its observation space is not a
                ``Box``, or ``indices`` are not integers.
            ValueError: If the observation space is not one-dimensional, the id is not in the table,
                or ``indices`` are empty, repeated or out of range.
        """
        if indices is not None:
            # Once and for all a tuple: a generator could neither be recorded nor be read twice.
            indices = as_integers(indices)
        gym.utils.RecordConstructorArgs.__init__(self, indices=indices)
        if not isinstance(env, gym.Env):
            raise TypeError(
                f"env: expected a gymnasium.Env, got {type(env).__name__}; to mask a vector "
                "environment, wrap each sub-environment, for example with "
                "gym.make_vec(..., wrappers=[MaskVelocityWrapper]), or one that is not made of "
                "single environments with MaskVelocityVectorWrapper"
            )
        gym.ObservationWrapper.__init__(self, env)

        space = box_of(env.observation_space)
        self.indices: Final = (
            known_indices(env, type(self).__name__, "observation_space")
            if indices is None
            else indices
        )
        check_indices(self.indices, space.shape[0])

        array = np.array(self.indices, dtype=np.intp)
        self.observation_space = masked_space(space, array)
        # NumPy writes one element through an integer 3 times as fast as through an index array.
        self._target: Final = self.indices[0] if len(self.indices) == 1 else array
        self._array: Final = array
        self._unmasked: NDArray[Any] | None = None

    @property
    def hidden_values(self) -> NDArray[Any]:
        """What the masked coordinates of the last observation really were, shape ``(n,)``.

        For pictures and tests; an agent never sees them.

        Raises:
            RuntimeError: If there was no observation yet.
        """
        if self._unmasked is None:
            raise RuntimeError("hidden_values: expected an observation before; call reset() first")
        return self._unmasked[self._array].copy()

    def observation(self, observation: NDArray[Any]) -> NDArray[Any]:
        """Sets the masked coordinates to zero in a copy of the observation.

        Args:
            observation: The environment's observation, shape ``(D,)``

        Returns:
            The masked observation, shape ``(D,)``, in the same dtype
        """
        self._unmasked = observation
        # Assigned, not multiplied: NaN * 0 is NaN.
        masked = observation.copy()
        masked[self._target] = 0
        return masked
