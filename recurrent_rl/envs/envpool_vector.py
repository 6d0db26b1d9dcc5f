"""EnvPool's environments, which threads step in compiled code, as a Gymnasium vector.

Source: Weng et al. 2022, "EnvPool: A Highly Parallel Reinforcement Learning Environment Execution
Engine".

Letters: E environments.
"""

import difflib
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from recurrent_rl.extras import extra_package
from recurrent_rl.randomness import base_seed, derived_seed
from recurrent_rl.validation import Range, checked, shown

# Of each environment's number and player; of steps, which this package counts itself.
_IDLE_INFOS = ("env_id", "players", "elapsed_step")
# Beyond these EnvPool ends the process, or never an episode.
_RANGES: dict[str, Any] = {
    "num_threads": Annotated[int, Range(0, 1024)],
    "max_episode_steps": Annotated[int, Range(1, 2**31 - 1)],
}
_OWN_OPTIONS = {
    "seed": "seeds come with env.reset(seed=...), or from the agent's seed=",
    "env_seed": "seeds come with env.reset(seed=...), or from the agent's seed=",
    "batch_size": "all environments are stepped together",
    "max_num_players": "one agent plays in each environment",
    "gym_reset_return_info": "resets return infos",
}


class EnvPoolVectorEnv(VectorEnv[Any, Any, Any]):
    """Environments of EnvPool that do what Gymnasium's vectors promise.

    EnvPool resets an environment in the step after its episode's end, and ignores that step's
    action (NEXT_STEP). Its seeds are fixed when it is built: a reset with a seed builds it again,
    which takes a millisecond for classic control, and seconds for many of Atari's games.

    Where an episode ends by itself in the very step in which its time limit is reached, EnvPool
    says ``truncated`` only, and nothing tells the two apart.

    Attributes:
        options: keyword arguments that would build another like it, beside its id and E.

    """

    def __init__(self, env_name: str, num_envs: int, **options: Any) -> None:
        """Build the environments.

        Args:
            env_name: one of ``envpool.list_all_envs()``.
            num_envs: E >= 1.
            options: of ``envpool.make_gymnasium``, such as ``num_threads`` and
                ``max_episode_steps``.

        Raises:
            ImportError: EnvPool is not installed; says what to install.
            TypeError: no id, or an unknown option.
            ValueError: an unknown id, or an option that is not to be chosen.

        """
        self._envpool = extra_package("envpool", "envpool", "backend='envpool'")
        _check(self._envpool, env_name, options)
        self.env_name, self.num_envs, self.options = env_name, num_envs, options
        self.metadata = {
            "render_modes": ["rgb_array"],
            "autoreset_mode": AutoresetMode.NEXT_STEP,
        }
        self.spec = EnvSpec(env_name)
        # Unseeded runs differ, unless NumPy's global generator was seeded.
        self._build([derived_seed(base_seed(), i, bits=31) for i in range(num_envs)])
        self.render_mode = self._pool.render_mode
        self.single_observation_space = _checked_space(self._pool.observation_space)
        self.single_action_space = _checked_space(self._pool.action_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def _build(self, seeds: list[int]) -> None:
        try:
            self._pool = self._envpool.make_gymnasium(
                self.env_name, num_envs=self.num_envs, seed=seeds, **self.options
            )
        except TypeError as error:
            raise TypeError(f"make_vect_envs: EnvPool refuses {self.options}: {error}") from None
        except AssertionError as error:
            raise ValueError(f"make_vect_envs: EnvPool refuses {self.options}: {error}") from None
        with warnings.catch_warnings():
            # Bounds in float64 of observations in float32; nobody can do anything about it.
            warnings.filterwarnings("ignore", ".*precision lowered by casting", UserWarning)
            # The pool builds its spaces when they are asked for, in its first reset at the latest.
            _ = self._pool.observation_space, self._pool.action_space

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start all episodes afresh.

        Args:
            seed: environment i gets seed + i; or one for each; None goes on with the random streams
                that there are.
            options: none are known.

        """
        if options:
            raise ValueError(f"options: expected none for EnvPool's environments, got {options}")
        if seed is not None:
            self._build(self._seeds(seed))
        observation, info = self._pool.reset()
        return observation, _told(info)

    def _seeds(self, seed: int | Sequence[int | None]) -> list[int]:
        """Return a seed in [0, 2**31) for each environment."""
        if isinstance(seed, int | np.integer):
            given: list[int | None] = [int(seed) + i for i in range(self.num_envs)]
        else:
            given = list(seed)
        if len(given) != self.num_envs:
            raise ValueError(
                f"seed: expected one number, or one for each of {self.num_envs} environments, got "
                f"{len(given)}"
            )
        fresh = base_seed()
        return [
            derived_seed(fresh, i, bits=31) if one is None else int(one) % 2**31
            for i, one in enumerate(given)
        ]

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take a step in all environments; actions [E, ...]."""
        observation, reward, terminated, truncated, info = self._pool.step(actions)
        return observation, reward, terminated, truncated, _told(info)

    def render(self) -> tuple[Any, ...] | None:
        """Return a picture of each environment, if built with ``render_mode="rgb_array"``."""
        if self.render_mode is None:
            return None
        return tuple(self._pool.render(env_ids=np.arange(self.num_envs)))

    def close_extras(self, **kwargs: Any) -> None:
        """End EnvPool's threads, with the last reference to it."""
        if hasattr(self, "_pool"):
            self._pool.close()
            del self._pool


def _told(info: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in info.items() if name not in _IDLE_INFOS}


def _check(envpool: Any, env_name: Any, options: dict[str, Any]) -> None:
    """Check an id and options, of which numbers become Python's own.

    Raises:
        TypeError: no id, or no number.
        ValueError: an unknown one, or an option that is not to be chosen.

    """
    if not isinstance(env_name, str):
        raise TypeError(f"env_name: expected an id of EnvPool's, got {shown(env_name)}")
    known = envpool.list_all_envs()
    if env_name not in known:
        near = difflib.get_close_matches(env_name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "envpool.list_all_envs() has them all"
        raise ValueError(f"env_name: expected an id of EnvPool's, got {env_name!r}; {hint}")
    for name, why in _OWN_OPTIONS.items():
        if name in options:
            raise ValueError(
                f"{name}: expected to be left out with backend='envpool', as {why}, got "
                f"{shown(options[name])}"
            )
    for name, hint in _RANGES.items():
        if name in options:
            options[name] = checked(name, options[name], hint)


def _checked_space(space: Any) -> gym.Space[Any]:
    if isinstance(space, gym.Space):
        return space
    raise TypeError(f"env: expected a space of Gymnasium's from EnvPool, got {shown(space)}")
