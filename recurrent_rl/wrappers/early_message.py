"""A PettingZoo wrapper under which messages are heard in the first steps of an episode only.

* ``EarlyMessageWrapper`` - Sets the messages in later observations of the listening agents to zero
* ``MESSAGE_INDICES`` - Which coordinates are the message, by environment and agent
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper

from recurrent_rl.wrappers._indices import as_integers, check_indices

__all__ = ["MESSAGE_INDICES", "EarlyMessageWrapper"]

MESSAGE_INDICES: Final[Mapping[str, Mapping[str, tuple[int, ...]]]] = MappingProxyType(
    {
        # Velocity (2), landmarks seen from the listener (3 times 2), what the speaker says (3).
        "simple_speaker_listener": MappingProxyType({"listener_0": (8, 9, 10)}),
    }
)
"""Environment, without its version -> listening agent -> coordinates that hold the message."""


class EarlyMessageWrapper(BaseParallelWrapper):  # type: ignore[misc] # PettingZoo is untyped
    """Lets listening agents hear a message in the first steps of an episode only.

    Afterwards the message is zero, so a listener has to remember what it was told: without memory,
    it can follow the message for ``steps`` steps and knows nothing from then on.

    The observation that ``reset`` returns is number 0, the one that the episode's k-th ``step``
    returns is number k. **Observations 0 to ``steps`` are left as they are**; in every later one,
    the coordinates ``indices[agent]`` are exactly zero, whatever the environment returned. In
    ``simple_speaker_listener_v4`` nobody has spoken yet in observation 0, and observation k holds
    what was said in step k: the message is heard ``steps`` times.

    Only observations are changed, and with ``silent`` the speakers' infos; ``state()`` and rewards
    are the environment's own. Agents that are missing from the observations stay missing. The
    wrapped environment, its arrays, its infos and its spaces are never modified.

    What a speaker says when nobody hears it makes no difference, and to learn from it is to learn
    from noise. ``silent`` puts an action for it into its infos as ``env_defined_actions``, from
    observation ``steps`` on: a learner that honours them takes that action and does not train on
    the step.

    The environments of ``MESSAGE_INDICES`` need no ``indices``; every other environment does, and
    its listeners' observation spaces are one-dimensional ``Box`` spaces that contain zero there.

    Example:
        >>> from mpe2 import simple_speaker_listener_v4
        >>> from recurrent_rl.wrappers import EarlyMessageWrapper
        >>> env = EarlyMessageWrapper(simple_speaker_listener_v4.parallel_env(), steps=2)
        >>> observations, infos = env.reset(seed=42)
        >>> for step in range(1, 5):
        ...     observations, *_ = env.step({"speaker_0": 1, "listener_0": 0})
        ...     print(step, observations["listener_0"][8:])
        1 [0. 1. 0.]
        2 [0. 1. 0.]
        3 [0. 0. 0.]
        4 [0. 0. 0.]

    Example - Any other environment, here three adversaries that hear their leader:
        >>> from mpe2 import simple_world_comm_v3
        >>> env = EarlyMessageWrapper(
        ...     simple_world_comm_v3.parallel_env(),
        ...     indices={f"adversary_{i}": range(30, 34) for i in range(3)},
        ... )

    Example - The speaker is excused once nobody hears it:
        >>> env = EarlyMessageWrapper(
        ...     simple_speaker_listener_v4.parallel_env(), steps=1, silent={"speaker_0": 0}
        ... )
        >>> env.reset(seed=42)[1]["speaker_0"]
        {}
        >>> env.step({"speaker_0": 1, "listener_0": 0})[-1]["speaker_0"]
        {'env_defined_actions': array([0])}
    """

    def __init__(
        self,
        env: ParallelEnv[str, NDArray[Any], Any],
        steps: int = 3,
        indices: Mapping[str, Iterable[int]] | None = None,
        silent: Mapping[str, Any] | None = None,
    ) -> None:
        """Constructor for the early message wrapper.

        Args:
            env: The parallel environment to wrap.
            steps: The last step of an episode whose observation still holds the message, at least
                1.
            indices: For each listening agent the coordinates of its observation, of shape ``(D,)``,
                that hold the message: distinct integers in ``[0, D)``, at least one of them.
                ``None`` takes them from ``MESSAGE_INDICES``.
            silent: For each speaking agent that is to be excused once nobody hears it, the action
                to be taken in its stead.

        Raises:
            TypeError: If ``env`` is not a parallel environment, ``steps`` is not an integer,
                ``indices`` do not map agents to integers, ``silent`` does not map agents, or a
                listener does not observe a ``Box``.
            ValueError: If ``steps`` is below 1, the environment is not in the table, an agent is
                not the environment's, its coordinates are none, repeated or out of range, or its
                observation space is not one-dimensional or excludes zero there; or if a silent
                agent's action is not in its action space.
        """
        _check_env(env)
        super().__init__(env)
        self.steps: Final = _check_steps(steps)
        self.indices: Final = _known_indices(env) if indices is None else _by_agent(env, indices)
        for agent, hidden in self.indices.items():
            _check_space(env.observation_space(agent), hidden, agent)
        self.silent: Final = {} if silent is None else _silent_actions(env, silent)
        self._time = 0

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, dict[str, Any]]]:
        observations, infos = self.env.reset(seed=seed, options=options)
        self._time = 0
        return observations, infos

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        observations, rewards, terminations, truncations, infos = self.env.step(actions)
        self._time += 1
        if self._time > self.steps:
            observations = {agent: self._hide(agent, obs) for agent, obs in observations.items()}
        # What is done upon observation k is heard in observation k + 1.
        if self._time >= self.steps and self.silent:
            infos = {agent: self._excuse(agent, info) for agent, info in infos.items()}
        return observations, rewards, terminations, truncations, infos

    def _excuse(self, agent: str, info: dict[str, Any]) -> dict[str, Any]:
        """Adds the action of a silent agent to a copy of its info."""
        if agent not in self.silent:
            return info
        return {**info, "env_defined_actions": self.silent[agent].copy()}

    def _hide(self, agent: str, observation: NDArray[Any]) -> NDArray[Any]:
        """Sets the message to zero in a copy of a listener's observation, shape ``(D,)``."""
        if agent in self.indices:
            # Assigned, not multiplied: NaN * 0 is NaN.
            observation = observation.copy()
            observation[list(self.indices[agent])] = 0
        return observation


def _check_env(env: object) -> None:
    """Checks that ``env`` is a parallel environment."""
    if isinstance(env, ParallelEnv):
        return
    advice = "this wrapper is for PettingZoo's parallel environments"
    if isinstance(env, AECEnv):
        advice = "convert it first, for example with pettingzoo.utils.aec_to_parallel(env)"
    raise TypeError(f"env: expected a pettingzoo.ParallelEnv, got {type(env).__name__}; {advice}")


def _check_steps(steps: int) -> int:
    """Checks that ``steps`` is an integer of at least 1 and returns it as a plain ``int``."""
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer):
        raise TypeError(
            f"steps: expected an integer, got {steps!r} ({type(steps).__name__}); "
            "count the steps in which the message is heard, as in steps=3"
        )
    if steps < 1:
        raise ValueError(
            f"steps: expected at least 1, got {steps}; a message that nobody ever hears is better "
            "left out of the environment"
        )
    return int(steps)


def _by_agent(
    env: ParallelEnv[str, NDArray[Any], Any], indices: Mapping[str, Iterable[int]]
) -> dict[str, tuple[int, ...]]:
    """Checks that ``indices`` map agents of ``env`` to integers and returns them as tuples."""
    if not isinstance(indices, Mapping):
        raise TypeError(
            f"indices: expected a mapping from agents to coordinates, got {indices!r} "
            f"({type(indices).__name__}); pass for example {{{env.possible_agents[0]!r}: [0, 1]}}"
        )
    if not indices:
        raise ValueError(
            "indices: expected at least one listening agent, got none; "
            "pass indices=None to look them up, or leave the wrapper out"
        )
    unknown = [agent for agent in indices if agent not in env.possible_agents]
    if unknown:
        raise ValueError(
            f"indices: expected agents among {env.possible_agents}, got {unknown}; "
            "name the agents that listen"
        )
    return {agent: as_integers(own, f"indices[{agent!r}]") for agent, own in indices.items()}


def _silent_actions(
    env: ParallelEnv[str, NDArray[Any], Any], silent: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """Checks that ``silent`` maps agents of ``env`` to their actions and returns them as arrays."""
    if not isinstance(silent, Mapping):
        raise TypeError(
            f"silent: expected a mapping from agents to actions, got {silent!r} "
            f"({type(silent).__name__}); pass for example {{{env.possible_agents[0]!r}: 0}}"
        )
    for agent, action in silent.items():
        if agent not in env.possible_agents:
            raise ValueError(
                f"silent: expected agents among {env.possible_agents}, got {agent!r}; "
                "name the agents that speak"
            )
        if action not in env.action_space(agent):
            raise ValueError(
                f"silent[{agent!r}]: expected an action in {env.action_space(agent)}, got "
                f"{action!r}; this is what it will seem to say when nobody hears it"
            )
    return {agent: np.atleast_1d(np.asarray(action)) for agent, action in silent.items()}


def _known_indices(env: ParallelEnv[str, NDArray[Any], Any]) -> dict[str, tuple[int, ...]]:
    """Looks up the messages of ``env`` in ``MESSAGE_INDICES``."""
    known = ", ".join(MESSAGE_INDICES)
    # By module, as metadata["name"] may lie: all environments of mpe2 share one dictionary, which
    # names the environment that was built last.
    name = type(env.unwrapped).__module__.rpartition(".")[2]
    if name not in MESSAGE_INDICES:
        raise ValueError(
            f"env: expected one of {known}, got {name}; pass the coordinates of the message with "
            f"indices=, for example indices={{{env.possible_agents[0]!r}: [0, 1]}}"
        )
    # The table describes the environment's own observation, not one that other wrappers rearranged.
    for agent in MESSAGE_INDICES[name]:
        own = env.unwrapped.observation_space(agent).shape
        seen = env.observation_space(agent).shape
        if own != seen:
            raise ValueError(
                f"observation_space({agent!r}): expected shape {own} as {name} defines it, got "
                f"{seen}; apply EarlyMessageWrapper before the wrappers that change the "
                "observation, or pass the coordinates of the message with indices="
            )
    return dict(MESSAGE_INDICES[name])


def _check_space(space: gym.Space[Any], indices: tuple[int, ...], agent: str) -> None:
    """Checks that ``space`` is a one-dimensional ``Box`` with zero at valid ``indices``."""
    name = f"observation_space({agent!r})"
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise (ValueError if isinstance(space, Box) else TypeError)(
            f"{name}: expected a one-dimensional Box, got {space}; "
            "flatten the observations first and count the coordinates of the flat ones"
        )
    check_indices(indices, space.shape[0], f"indices[{agent!r}]")
    outside = [index for index in indices if not space.low[index] <= 0 <= space.high[index]]
    if outside:
        raise ValueError(
            f"{name}: expected bounds that include 0, the silence, got {space} which excludes it "
            f"at {outside}; are these coordinates the message?"
        )
