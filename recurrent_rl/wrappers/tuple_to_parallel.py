"""Gymnasium environments with Tuples of agents as PettingZoo's parallel environments.

* ``TupleToParallelWrapper`` - Gives the entries of Tuple spaces names: ``agent_0``, ``agent_1``...
* ``make_tuple_env`` - Builds such an environment from its Gymnasium id
* ``has_agent_tuples`` - Whether an environment is one of those that the wrapper takes
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Tuple
from gymnasium.wrappers import PassiveEnvChecker
from pettingzoo import ParallelEnv

__all__ = ["TupleToParallelWrapper", "has_agent_tuples", "make_tuple_env"]

PACKAGES: Final[Mapping[str, str]] = MappingProxyType({"Foraging": "lbforaging", "rware": "rware"})
"""How ids begin -> the package that registers them."""

_EXTRA = "gridworlds"


class TupleToParallelWrapper(ParallelEnv):  # type: ignore[misc] # PettingZoo is untyped
    """Shows a Gymnasium environment of A agents as a parallel environment of PettingZoo.

    Level-based foraging (``lbforaging``), the multi-robot warehouse (``rware``) and others are
    Gymnasium environments whose observation and action spaces are ``Tuple`` spaces with one entry
    for each agent. Here entry i belongs to ``agent_i``.

    * Rewards come as a list, tuple or array of A numbers. A single number is everybody's: each
      agent gets the whole of it.
    * ``terminated`` and ``truncated`` are one flag each, for all agents at once.
    * The info is copied to each agent, whole, so that ``infos["agent_0"]["is_success"]`` is what
      the environment said; the values themselves are not copied. Only ``info["action_mask"]``,
      which holds A masks, is taken apart.
    * Observations are the environment's own arrays.

    There is no ``state()``, and ``unwrapped`` is the Gymnasium environment below all wrappers.
    Gymnasium's environment checker, which ``gymnasium.make`` applies, takes several rewards for a
    mistake: its check of the first step is turned off. Otherwise the environment stays as it is.

    Example:
        >>> import gymnasium as gym
        >>> import lbforaging
        >>> from recurrent_rl.wrappers import TupleToParallelWrapper
        >>> env = TupleToParallelWrapper(gym.make("Foraging-8x8-2p-1f-v3"))
        >>> observations, infos = env.reset(seed=42)
        >>> observations["agent_1"]
        array([5., 2., 1., 3., 6., 1., 6., 5., 1.], dtype=float32)
        >>> env.step({"agent_0": 4, "agent_1": 2})[1]
        {'agent_0': 0.0, 'agent_1': 0.0}
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        """Constructor for the wrapper of tuples of agents.

        Args:
            env: The environment to wrap, with A >= 1 agents.

        Raises:
            TypeError: If ``env`` is not a ``gymnasium.Env``, or has other spaces than two
                ``Tuple`` spaces.
            ValueError: If these have different lengths, or none.
        """
        _check_env(env)
        self.env: Final = env
        self.possible_agents = [f"agent_{i}" for i in range(len(env.action_space))]  # type: ignore[arg-type]
        self.agents: list[str] = []
        # Both are Tuples, which iterate over the agents' own.
        spaces: tuple[Any, Any] = env.observation_space, env.action_space
        self.observation_spaces: dict[str, gym.Space[Any]] = self._by_agent(spaces[0])
        self.action_spaces: dict[str, gym.Space[Any]] = self._by_agent(spaces[1])
        name = type(env.unwrapped).__name__ if env.spec is None else env.spec.id
        self.metadata = {"name": name, **env.metadata}
        # Gym's render(mode), which lbforaging and rware still have, ignores ``render_mode``.
        self._renders_by_mode = "mode" in inspect.signature(env.unwrapped.render).parameters
        _expect_several_rewards(env)

    @property
    def unwrapped(self) -> gym.Env[Any, Any]:
        """The Gymnasium environment below all wrappers."""
        return self.env.unwrapped

    @property
    def render_mode(self) -> str | None:
        """The environment's."""
        return self.env.render_mode

    def observation_space(self, agent: str) -> gym.Space[Any]:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gym.Space[Any]:
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Starts an episode.

        Args:
            seed: Given to the environment's ``reset``.
            options: Likewise.

        Returns:
            Observations and infos by agent

        Raises:
            ValueError: If the environment returns something else than A observations and an info.
        """
        returned = self.env.reset(seed=seed, options=options)
        observations, info = _parts("reset", returned, ("observations", "info"))
        self.agents = self.possible_agents[:]
        return self._split("observations", observations), self._infos(info)

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[
        dict[str, Any],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """Takes a step.

        Args:
            actions: One for each agent.

        Returns:
            Observations, rewards, terminations, truncations and infos by agent

        Raises:
            RuntimeError: If no episode is under way.
            ValueError: If ``actions`` are not the agents', or the environment returns something
                else than A observations, A rewards or one, two flags and an info.
        """
        if not self.agents:
            raise RuntimeError("step: expected an episode under way, got none; call reset() first")
        if actions.keys() != self.action_spaces.keys():
            raise ValueError(
                f"actions: expected one for each of {self.possible_agents}, got those of "
                f"{list(actions)}"
            )
        returned = self.env.step(tuple(actions[agent] for agent in self.possible_agents))
        observations, rewards, terminated, truncated, info = _parts(
            "step", returned, ("observations", "rewards", "terminated", "truncated", "info")
        )
        terminated, truncated = _flag("terminated", terminated), _flag("truncated", truncated)
        results = (
            self._split("observations", observations),
            self._rewards(rewards),
            dict.fromkeys(self.possible_agents, terminated),
            dict.fromkeys(self.possible_agents, truncated),
            self._infos(info),
        )
        if terminated or truncated:
            self.agents = []
        return results

    def render(self) -> Any:
        """Renders as the environment does in its ``render_mode``."""
        if self._renders_by_mode and self.render_mode is not None:
            return self.env.unwrapped.render(mode=self.render_mode)  # type: ignore[call-arg]
        return self.env.render()

    def close(self) -> None:
        self.env.close()

    def _by_agent(self, values: Iterable[Any]) -> dict[str, Any]:
        return dict(zip(self.possible_agents, values, strict=True))

    def _split(self, name: str, values: Any) -> dict[str, Any]:
        """Returns A values, a sequence or an array of shape ``(A, ...)``, by agent."""
        count = len(self.possible_agents)
        is_many = isinstance(values, tuple | list) or (
            isinstance(values, np.ndarray) and values.ndim
        )
        if not is_many or len(values) != count:
            got = f"{len(values)} in a {type(values).__name__}" if is_many else repr(values)
            raise ValueError(
                f"{name}: expected one for each of {count} agents from {self}, got {got}; return a "
                f"tuple with as many as the spaces have"
            )
        return self._by_agent(values)

    def _rewards(self, rewards: Any) -> dict[str, float]:
        count = len(self.possible_agents)
        try:
            array = np.asarray(rewards)
            is_right = array.dtype.kind in "buif" and array.shape in ((), (count,))
        except ValueError:  # a ragged list
            is_right = False
        if not is_right:
            raise ValueError(
                f"rewards: expected one number for each of {count} agents from {self}, or a single "
                f"one that all of them get, got {rewards!r}"
            )
        return self._by_agent(np.broadcast_to(array.astype(float), count).tolist())

    def _infos(self, info: Any) -> dict[str, dict[str, Any]]:
        if not isinstance(info, Mapping):
            raise ValueError(
                f"info: expected a dictionary from {self}, got {info!r}; return {{}} if there is "
                f"nothing to say"
            )
        infos = {agent: dict(info) for agent in self.possible_agents}
        if "action_mask" in info:
            for agent, mask in self._split('info["action_mask"]', info["action_mask"]).items():
                infos[agent]["action_mask"] = mask
        return infos


def has_agent_tuples(env: object) -> bool:
    """Tells whether ``env`` is a Gymnasium environment with Tuples of observations and actions."""
    return isinstance(env, gym.Env) and all(
        isinstance(getattr(env, name, None), Tuple)
        for name in ("observation_space", "action_space")
    )


def make_tuple_env(env_id: str, /, **kwargs: Any) -> TupleToParallelWrapper:
    """Builds a Gymnasium environment whose spaces are Tuples of agents, and wraps it.

    The packages of ``PACKAGES`` are imported when one of their ids is asked for.

    The time limits that ``lbforaging`` and ``rware`` have of their own (50 and 500 steps) count as
    terminations. Gymnasium's count as truncations, after which values are bootstrapped; give it a
    limit that comes first: ``max_episode_steps=49`` with ``lbforaging``, and ``max_steps=None,
    max_episode_steps=500`` with ``rware``.

    Args:
        env_id: The id, such as ``"Foraging-8x8-2p-2f-v3"`` or ``"rware-tiny-2ag-v2"``;
            ``"package:Id-v0"`` imports the package that registers it.
        kwargs: Given to ``gymnasium.make``.

    Returns:
        The environment as a parallel environment of PettingZoo

    Raises:
        ImportError: If the package that registers ``env_id`` is not installed.
        ValueError: If there is no such id.
        TypeError: If the environment's spaces are not Tuples.
    """
    if env_id not in gym.registry:
        _register(env_id)
    try:
        env = gym.make(env_id, **kwargs)
    except gym.error.Error as error:
        if env_id.rpartition(":")[2] in gym.registry:
            raise
        raise ValueError(
            f"env: expected the id of a Gymnasium environment whose spaces are Tuples of agents, "
            f"such as 'Foraging-8x8-2p-2f-v3' or 'rware-tiny-2ag-v2', got {env_id!r} ({error}); "
            f"import what registers it, or write 'package:Id-v0'. For PettingZoo's environments "
            f"pass their function, such as simple_spread_v3.parallel_env"
        ) from error
    return TupleToParallelWrapper(env)


def _register(env_id: str) -> None:
    """Imports the package that registers an id, if it is one of ``PACKAGES``."""
    for beginning, package in PACKAGES.items():
        if not env_id.startswith(beginning):
            continue
        try:
            module = importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name != package:
                raise
            raise ImportError(
                f"{env_id}: expected the package {package}, which has it, got none; install it, or "
                f"recurrent_rl[{_EXTRA}]",
                name=package,
            ) from error
        # The warehouse registers those with images only when told to.
        if env_id.startswith("rware-img") and env_id not in gym.registry:
            module.image_registration()


def _check_env(env: Any) -> None:
    """Checks that ``env`` has two Tuple spaces of the same length."""
    if not isinstance(env, gym.Env):
        raise TypeError(f"env: expected a gymnasium.Env, got {type(env).__name__}")
    for name in ("observation_space", "action_space"):
        space = getattr(env, name, None)
        if not isinstance(space, Tuple):
            raise TypeError(
                f"env.{name}: expected a gymnasium.spaces.Tuple with a space for each agent, got "
                f"{space} from {env}; an environment with one agent goes to make_vect_envs"
            )
    counts = len(env.observation_space), len(env.action_space)  # type: ignore[arg-type]
    if counts[0] != counts[1] or not all(counts):
        raise ValueError(
            f"env: expected spaces for the same agents, one or more, got {counts[0]} in the "
            f"observation_space and {counts[1]} in the action_space of {env}"
        )


def _expect_several_rewards(env: gym.Env[Any, Any]) -> None:
    """Turns the check of the first step's reward off, which warns of anything but a number."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, PassiveEnvChecker):
            env.checked_step = True
        env = env.env


def _parts(call: str, returned: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    """Checks that ``reset`` or ``step`` returned as many things as Gymnasium says."""
    if not isinstance(returned, tuple) or len(returned) != len(names):
        many = isinstance(returned, tuple)
        got = f"{len(returned)} values" if many else type(returned).__name__
        raise ValueError(
            f"{call}: expected the environment to return {', '.join(names)}, got {got}; Gymnasium "
            f"has returned {len(names)} since version 0.26: bring the environment up to date"
        )
    return returned


def _flag(name: str, value: Any) -> bool:
    """Checks that a flag is a single one and returns it as a plain ``bool``."""
    if np.shape(value) == () and np.asarray(value).dtype.kind in "bui":
        return bool(value)
    raise ValueError(
        f"{name}: expected one flag for all agents, got {value!r}; return all({name}), or any"
    )
