"""The velocities hidden in a whole vector of environments at once.

* ``MaskVelocityVectorWrapper`` - Sets the velocity coordinates of all observations to zero
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from recurrent_rl.wrappers._indices import as_integers, check_indices
from recurrent_rl.wrappers._velocities import box_of, known_indices, masked_space

__all__ = ["MaskVelocityVectorWrapper"]

FINAL_KEYS = ("final_obs", "final_observation")  # Gymnasium's name since 1.0, and before


class MaskVelocityVectorWrapper(VectorWrapper[Any, Any, Any, Any, Any]):
    """Sets the velocity coordinates of the observations to zero, for a vector of environments.

    It does what ``MaskVelocityWrapper`` does in each environment, for vectors that are not made of
    single ones: EnvPool's, Gymnasium's own vectorised CartPole, simulators on a GPU whose
    observations are tensors.

    The last observations of episodes, which autoreset puts into the infos (``final_obs``), are
    masked too. Arrays and tensors of the wrapped vector are never modified, nor are its infos.

    Example:
        >>> import gymnasium as gym
        >>> from recurrent_rl.wrappers import MaskVelocityVectorWrapper
        >>> envs = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="vector_entry_point")
        >>> envs = MaskVelocityVectorWrapper(envs)
        >>> envs.reset(seed=42)[0]
        array([[ 0.0273956 ,  0.        , -0.04058227,  0.        ],
               [-0.00611216,  0.        ,  0.04756223,  0.        ]],
              dtype=float32)
        >>> envs.single_observation_space.high
        array([4.8       , 0.        , 0.41887903, 0.        ], dtype=float32)
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], indices: Iterable[int] | None = None) -> None:
        """Constructor for the vector's mask velocity wrapper.

        Args:
            env: The vector to wrap. The observation space of one environment is a ``Box`` of shape
                ``(D,)``.
            indices: The coordinates to mask: distinct integers in ``[0, D)``, at least one of them.
                ``None`` takes them from ``VELOCITY_INDICES`` by the environments' id.

        Raises:
            TypeError: If ``env`` is not a ``gymnasium.vector.VectorEnv``, its observation space is
                not a ``Box``, or ``indices`` are not integers.
            ValueError: If the observation space is not one-dimensional, the id is unknown or not in
                the table, or ``indices`` are empty, repeated or out of range.
        """
        if not isinstance(env, VectorEnv):
            raise TypeError(
                f"env: expected a gymnasium.vector.VectorEnv, got {type(env).__name__}; for a "
                "single environment there is MaskVelocityWrapper"
            )
        if indices is not None:
            indices = as_integers(indices)
        super().__init__(env)
        space = box_of(env.single_observation_space)
        if indices is None:
            indices = known_indices(env, type(self).__name__, "single_observation_space")
        self.indices: Final = indices
        check_indices(self.indices, space.shape[0])
        self._target: Final = list(self.indices)  # as NumPy and others take them
        self.single_observation_space = masked_space(space, np.array(indices, dtype=np.intp))
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets the vector.

        Args:
            seed: As the vector takes it
            options: As the vector takes them

        Returns:
            The masked observations, shape ``(E, D)``, and the infos
        """
        observations, infos = self.env.reset(seed=seed, options=options)
        return self._masked(observations), self._masked_finals(infos)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps the vector.

        Args:
            actions: As the vector takes them

        Returns:
            The masked observations, shape ``(E, D)``, and what else the vector returned, with what
            was final masked too
        """
        observations, rewards, terminations, truncations, infos = self.env.step(actions)
        masked = self._masked(observations)
        return masked, rewards, terminations, truncations, self._masked_finals(infos)

    def _masked(self, observations: Any) -> Any:
        """Sets the masked coordinates to zero in a copy, shape ``(..., D)``."""
        # A tensor's copy is called clone.
        copied = observations.clone() if hasattr(observations, "clone") else observations.copy()
        copied[..., self._target] = 0  # assigned, not multiplied: NaN * 0 is NaN
        return copied

    def _masked_finals(self, infos: dict[str, Any]) -> dict[str, Any]:
        """Masks the episodes' last observations in a copy of the infos."""
        finals = {key: infos[key] for key in FINAL_KEYS if infos.get(key) is not None}
        if not finals:
            return infos
        return {**infos, **{key: self._masked_each(value) for key, value in finals.items()}}

    def _masked_each(self, finals: Any) -> Any:
        """Masks the observations of some environments, with ``None`` for the others."""
        if not isinstance(finals, list | tuple) and finals.dtype != object:
            return self._masked(finals)
        each: NDArray[Any] = np.full(len(finals), None, dtype=object)
        for i, final in enumerate(finals):
            each[i] = None if final is None else self._masked(final)
        return each
