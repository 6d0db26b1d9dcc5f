"""PettingZoo environments as rows of arrays: who is there, what they see, what came of it.

Letters: E environments, A agents of a block.

A parallel or turn-based (AEC) environment is played into its rows of an ``AgentTable``, whose
arrays may lie in memory that processes share. In a turn-based environment every turn is a step, in
which the others are absent.

An agent *lives* from its first observation to the step that terminates or truncates it; it may live
again. It may see nothing for a while: then it lives on, but is not there.
"""

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from pettingzoo import AECEnv, ParallelEnv

from recurrent_rl.spaces.actions import action_codec
from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.layout import ObservationLayout
from recurrent_rl.spaces.masks import flat_mask, part_mask, without_mask

Allocate = Callable[[tuple[int, ...], Any], Array]


@dataclass(frozen=True)
class AgentSpaces:
    """What one agent sees and does.

    Attributes:
        agent: its name.
        observation: space of the observation proper.
        action: space of its actions.
        mask_in_observation: the environment gives an "action_mask" within the observation.

    """

    agent: str
    observation: gym.Space[Any]
    action: gym.Space[Any]
    mask_in_observation: bool


def describe(env: Any) -> list[AgentSpaces]:
    """Return the agents of a PettingZoo environment, in the order of ``possible_agents``.

    Raises:
        TypeError: no PettingZoo environment, or a space that is not supported.
        ValueError: no agents, or one without spaces.

    """
    if not isinstance(env, ParallelEnv | AECEnv):
        raise TypeError(
            f"env: expected a PettingZoo parallel or AEC environment, got {type(env).__name__}; "
            f"for Gymnasium environments there are PPO and make_vect_envs"
        )
    agents = list(getattr(env, "possible_agents", ()))
    if not agents:
        raise ValueError(
            f"env: expected possible_agents to name the agents that there may ever be, got none "
            f"from {env}; set it in the environment's __init__"
        )
    return [_describe_agent(env, agent) for agent in agents]


def _describe_agent(env: Any, agent: str) -> AgentSpaces:
    found = []
    for name in ("observation_space", "action_space"):
        try:
            space = getattr(env, name)(agent)
        except Exception as error:  # mostly a KeyError, from a table of the environment's own
            raise ValueError(
                f"env: expected {name}({agent!r}) to return a space, got {type(error).__name__}: "
                f"{error}; every agent of possible_agents needs both spaces"
            ) from error
        if not isinstance(space, gym.Space):
            raise ValueError(
                f"env: expected {name}({agent!r}) to return a space, got {space!r}; every agent of "
                f"possible_agents needs both spaces"
            )
        found.append(space)
    observation, masked = without_mask(*found)
    try:
        ObservationLayout(observation)
        action_codec(found[1])
    except TypeError as error:
        raise TypeError(f"{error} (agent {agent!r})") from None
    return AgentSpaces(agent, observation, found[1], masked)


class AgentBlock:
    """Arrays for the agents with the same spaces, [E, A, ...] each.

    Attributes:
        agents: their names, in the order of ``possible_agents``.
        layout: how observations are kept.
        observation: what they see; the layout's ``blank`` where they see nothing.
        start: a life begins with this observation, bool.
        exists: the observation is real, bool.
        forced: the environment has chosen the action, bool.
        forced_action: that one.
        mask: allowed actions, bool [E, A, n]; n = 0 where masks make no sense.
        is_number: an action is a plain number.
        masked: the environment gives masks to some of them, bool [E].
        action: to be taken next.
        reward: of the last step.
        lived: they were alive in the last step, bool.
        terminated: by the last step, bool.
        truncated: by the last step, bool; the terminated may be truncated as well.
        final: last observation of the truncated,
        shown: if they were shown one, bool.

    """

    def __init__(
        self, same: Sequence[AgentSpaces], num_envs: int, allocate: Allocate = np.zeros
    ) -> None:
        """Allocate for agents with the same spaces."""
        first = same[0]
        self.agents = [spaces.agent for spaces in same]
        self.action_space, self.mask_in_observation = first.action, first.mask_in_observation
        self.layout = ObservationLayout(first.observation)
        self.codec = action_codec(first.action)
        self.mask_size = self.codec.mask_size
        self.is_number = self.mask_size > 0 and not self.codec.env_shape  # Discrete
        action_shape, action_dtype = self.codec.env_shape, self.codec.env_dtype
        size = (num_envs, len(same))
        self.observation = allocate((*size, *self.layout.shape), self.layout.array_dtype)
        self.final = allocate((*size, *self.layout.shape), self.layout.array_dtype)
        self.action = allocate((*size, *action_shape), action_dtype)
        self.forced_action = allocate((*size, *action_shape), action_dtype)
        self.mask = allocate((*size, self.mask_size), np.bool_)
        self.reward = allocate(size, np.float64)
        self.start, self.exists, self.forced = (allocate(size, np.bool_) for _ in range(3))
        self.lived, self.terminated, self.truncated, self.shown = (
            allocate(size, np.bool_) for _ in range(4)
        )
        self.masked = allocate((num_envs,), np.bool_)


class AgentTable:
    """Arrays for all agents of E environments.

    Attributes:
        blocks: of agents with the same spaces.
        place: block and index within it, by agent.
        ended: the last step ended the environment's episode, bool [E].

    """

    def __init__(
        self, agents: Sequence[AgentSpaces], num_envs: int, allocate: Allocate = np.zeros
    ) -> None:
        """Allocate for the agents that ``describe`` found."""
        alike: list[list[AgentSpaces]] = []
        for spaces in agents:
            for same in alike:
                one = same[0]
                if (one.observation, one.action, one.mask_in_observation) == (
                    spaces.observation,
                    spaces.action,
                    spaces.mask_in_observation,
                ):
                    same.append(spaces)
                    break
            else:
                alike.append([spaces])
        self.blocks = [AgentBlock(same, num_envs, allocate) for same in alike]
        self.place = {a: (block, i) for block in self.blocks for i, a in enumerate(block.agents)}
        self.ended = allocate((num_envs,), np.bool_)


class EnvRows(ABC):
    """One environment, played into its rows of a table.

    Attributes:
        alive: the agents that live.

    """

    def __init__(self, env: Any, table: AgentTable, index: int) -> None:
        """Play ``env`` as environment number ``index``."""
        self.env, self.table, self.index = env, table, index
        self.alive: set[str] = set()
        method = getattr(env, "action_masks", None)
        self._mask_method = method if callable(method) else None
        for block in table.blocks:
            block.observation[index] = block.layout.blank
            block.mask[index] = True

    @abstractmethod
    def _reset(self, seed: int | None, options: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Start an episode; observations and infos by agent."""

    @abstractmethod
    def _step(self) -> tuple[Mapping[str, Any], ...]:
        """Step; observations, rewards, terminations, truncations, infos, final observations."""

    @abstractmethod
    def _has_ended(self, flagged: set[str]) -> bool:
        """Whether the episode has, now that some agents have been terminated or truncated."""

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        """Start an episode: everybody's life anew."""
        observations, infos = self._reset(seed, options)
        if not self.env.agents:
            raise ValueError(
                f"environment {self.index}: expected agents after reset, got none; fill "
                f"self.agents in reset()"
            )
        self.alive.clear()
        for block in self.table.blocks:
            # Masks may come with a later entrance; better to have the room for them.
            block.masked[self.index] |= block.mask_size > 0 and (
                block.mask_in_observation
                or self._mask_method is not None
                or any(a not in self.env.agents for a in block.agents)
                or any("action_mask" in (infos.get(a) or {}) for a in block.agents)
            )
        self._see(observations, infos, set())

    def step(self) -> None:
        """Take the table's actions; an episode that ends is followed by the next at once."""
        observations, rewards, terminations, truncations, infos, finals = self._step()
        flagged = {a for flags in (terminations, truncations) for a, flag in flags.items() if flag}
        ended = self._has_ended(flagged)
        for block in self.table.blocks:
            block.reward[self.index] = [rewards.get(agent, 0) for agent in block.agents]
            block.lived[self.index] = [agent in self.alive for agent in block.agents]
            block.terminated[self.index] = block.truncated[self.index] = False
            block.shown[self.index] = False
        if flagged or ended:
            self._end_lives(terminations, truncations, finals, ended)
        self.table.ended[self.index] = ended
        if ended:
            self.reset()
        else:
            self._see(observations, infos, flagged)

    def _end_lives(
        self,
        terminations: Mapping[str, Any],
        truncations: Mapping[str, Any],
        finals: Mapping[str, Any],
        ended: bool,
    ) -> None:
        # Who is still alive when the episode ends, and is told nothing, shares the others' fate.
        by_limit = any(truncations.values())
        for agent in list(self.alive):
            block, i = self.table.place[agent]
            terminated, truncated = terminations.get(agent), truncations.get(agent)
            if not (terminated or truncated):
                if not ended:
                    continue
                terminated, truncated = not by_limit, by_limit
            self.alive.discard(agent)
            block.terminated[self.index, i] = bool(terminated)
            block.truncated[self.index, i] = bool(truncated)
            final = finals.get(agent) if truncated else None
            if final is not None:
                block.final[self.index, i] = self._observation(block, agent, final)[0]
                block.shown[self.index, i] = True

    def _see(
        self, observations: Mapping[str, Any], infos: Mapping[str, Any], flagged: set[str]
    ) -> None:
        """Write down what comes next: who is there, and what they see."""
        e, present = self.index, set(self.env.agents)
        if not present <= self.table.place.keys():
            unknown = sorted(present - self.table.place.keys())
            raise ValueError(
                f"environment {e}: expected agents of possible_agents = {list(self.table.place)}, "
                f"got {unknown}; name everybody there may ever be in possible_agents"
            )
        allowed = {} if self._mask_method is None else self._mask_method()
        if not isinstance(allowed, Mapping):
            raise TypeError(
                f"action_masks(): expected a dictionary by agent, got "
                f"{type(allowed).__name__} from environment {e}"
            )
        for block in self.table.blocks:
            before = block.exists[e].tolist()
            block.start[e] = block.exists[e] = block.forced[e] = False
            if block.masked[e]:
                block.mask[e] = True
            for i, agent in enumerate(block.agents):
                observation, mask = observations.get(agent), None
                if observation is not None and agent in present and agent not in flagged:
                    if agent not in self.alive:
                        self.alive.add(agent)
                        block.start[e, i] = True
                    array, mask = self._observation(block, agent, observation)
                    block.observation[e, i] = array
                    block.exists[e, i] = True
                elif before[i]:
                    block.observation[e, i] = block.layout.blank
                info = infos.get(agent)
                mask = allowed.get(agent) if mask is None else mask
                if info or mask is not None:
                    self._note(block, i, info or {}, mask)

    def _observation(self, block: AgentBlock, agent: str, value: Any) -> tuple[Array, Any]:
        """Split an observation into itself and its mask, or None; check the shape."""
        mask = None
        if block.mask_in_observation:
            value, mask = part_mask(value)
        try:
            array = block.layout.pack(value)
        except (TypeError, ValueError) as error:
            error.add_note(f"the observation of agent {agent!r} in environment {self.index}")
            raise
        if array.shape != block.layout.shape:  # assignment would broadcast it
            raise ValueError(
                f"environment {self.index}: expected an observation of shape "
                f"{list(block.layout.shape)} for agent {agent!r}, got {list(array.shape)}"
            )
        return array, mask

    def _note(self, block: AgentBlock, i: int, info: Mapping[str, Any], mask: Any) -> None:
        """Write down an action that the environment has chosen, and what it allows."""
        where = f"environment {self.index}, agent {block.agents[i]!r}"
        forced = info.get("env_defined_actions")
        if forced is not None:
            try:
                block.forced_action[self.index, i] = block.codec.check(forced)
            except ValueError as error:
                raise ValueError(f"env_defined_actions: {error} from {where}") from None
            block.forced[self.index, i] = True
        given = info.get("action_mask")
        mask = mask if given is None else given
        if mask is None:
            return
        array = flat_mask(mask)
        if array.shape != (block.mask_size,) or not block.mask_size:
            expected = f"{block.mask_size} values" if block.mask_size else "none"
            raise ValueError(
                f"action_mask: expected {expected} for {block.action_space}, got shape "
                f"{list(array.shape)} from {where}"
            )
        block.mask[self.index, i] = array
        block.masked[self.index] = True

    def _action(self, agent: str) -> Any:
        """Return the agent's next action, a copy, in the environment's own form."""
        block, i = self.table.place[agent]
        source = block.forced_action if block.forced[self.index, i] else block.action
        value = source[self.index, i]
        # An array for a Box, even for one without dimensions.
        return value if block.is_number else np.array(value)


class ParallelRows(EnvRows):
    """A parallel environment: all act at once."""

    def _reset(self, seed: int | None, options: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        observations, infos = self.env.reset(seed=seed, options=options)
        return observations, infos

    def _step(self) -> tuple[Mapping[str, Any], ...]:
        # PettingZoo's contract: an action for each agent that is listed. One that was shown
        # nothing gets one, too, but it means nothing.
        result = self.env.step({agent: self._action(agent) for agent in self.env.agents})
        return (*result, result[0])

    def _has_ended(self, flagged: set[str]) -> bool:
        # Many environments keep those that are done in the list until all are.
        return flagged.issuperset(self.env.agents)


class TurnRows(EnvRows):
    """A turn-based (AEC) environment: one acts, the others see nothing."""

    def _turn(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        if not self.env.agents:
            return {}, {}
        agent = self.env.agent_selection
        return {agent: self.env.observe(agent)}, {agent: self.env.infos.get(agent)}

    def _reset(self, seed: int | None, options: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        self.env.reset(seed=seed, options=options)
        observations, infos = self._turn()
        return observations, {**{a: _mask_only(i) for a, i in self.env.infos.items()}, **infos}

    def _step(self) -> tuple[Mapping[str, Any], ...]:
        env = self.env
        env.step(self._action(env.agent_selection))
        # All of these change when the dead are taken away, which is no step of ours.
        rewards, terminations, truncations = (
            dict(x) for x in (env.rewards, env.terminations, env.truncations)
        )
        finals = {a: env.observe(a) for a in self.alive if truncations.get(a)}
        for _ in range(len(env.agents)):
            if not env.agents:
                break
            agent = env.agent_selection
            if not (env.terminations[agent] or env.truncations[agent]):
                break
            env.step(None)  # PettingZoo's way of taking a dead agent away
        observations, infos = self._turn()
        return observations, rewards, terminations, truncations, infos, finals

    def _has_ended(self, flagged: set[str]) -> bool:
        return not self.env.agents


def _mask_only(info: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {k: v for k, v in (info or {}).items() if k == "action_mask"}


def play(env: Any, table: AgentTable, index: int) -> EnvRows:
    """See an environment as rows of a table, whichever kind it is."""
    return (ParallelRows if isinstance(env, ParallelEnv) else TurnRows)(env, table, index)


def check_alike(expected: Sequence[AgentSpaces], env: Any, index: int) -> None:
    """Raise ValueError if an environment has other agents or spaces than the first."""
    got = describe(env)
    if got != list(expected):
        raise ValueError(
            f"environment {index}: expected agents and spaces like environment 0's, {expected}, "
            f"got {got}; all environments of a vector must be alike"
        )


def formatted(error: BaseException) -> str:
    """Return an exception with its traceback, as text that can cross processes."""
    return "".join(traceback.format_exception(error))
