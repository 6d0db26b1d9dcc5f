"""Arrays for the agents of several PettingZoo environments, and what agents' spaces must be.

Letters: E environments, A agents of a block, n actions to choose from.

``env_rows`` writes what happens in an environment into its rows of an ``AgentTable``, whose arrays
may lie in memory that processes share. In a turn-based (AEC) environment every turn is a step, in
which the other agents are absent.

An agent is *alive* from its first observation to the step that terminates or truncates it, and may
come back later in the episode. While it is alive it may receive no observation: then its row does
not *exist* for a while.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from pettingzoo import AECEnv, ParallelEnv

from recurrent_rl.spaces.actions import action_codec
from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.layout import ObservationLayout
from recurrent_rl.spaces.masks import without_mask

NAMES_HINT = (
    "name agents by text, such as f'agent_{i}', in the environment's possible_agents, agents and "
    "dictionaries, as what comes before the last _ names the group that shares a policy"
)
Allocate = Callable[[tuple[int, ...], Any], Array]


@dataclass(frozen=True)
class AgentSpaces:
    """The spaces of one agent.

    Attributes:
        agent: its name.
        observation: space of its observations, without an action mask in them.
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
        TypeError: no PettingZoo environment, names that are not text, or a space that is not
            supported.
        ValueError: no agents, or one without spaces.

    """
    if not isinstance(env, ParallelEnv | AECEnv):
        raise TypeError(
            f"env: expected a PettingZoo parallel or AEC environment, got {type(env).__name__}; "
            f"for Gymnasium environments there are PPO and make_vect_envs, and those with several "
            f"agents have Tuple spaces for observations and actions, with an entry for each agent"
        )
    agents = list(getattr(env, "possible_agents", ()))
    if not agents:
        raise ValueError(
            f"env: expected possible_agents to name the agents that there may ever be, got none "
            f"from {env}; set it in the environment's __init__"
        )
    if isinstance(env.possible_agents, str | set | frozenset) or len(set(agents)) < len(agents):
        raise TypeError(
            f"env: expected possible_agents to be a list of different names, in an order that "
            f"stays, got {env.possible_agents!r} from {type(env).__name__}"
        )
    for agent in agents:
        if not isinstance(agent, str):
            raise TypeError(
                f"env: expected possible_agents to hold names, each of them text, got {agent!r} "
                f"of type {type(agent).__name__} from {type(env).__name__}; {NAMES_HINT}"
            )
    return [_describe_agent(env, agent) for agent in agents]


def _describe_agent(env: Any, agent: str) -> AgentSpaces:
    observation_and_mask = _space(env, "observation_space", agent)
    action = _space(env, "action_space", agent)
    observation, has_mask = without_mask(observation_and_mask, action)
    try:
        ObservationLayout(observation)
        action_codec(action)
    except TypeError as error:
        raise TypeError(f"{error} (agent {agent!r})") from None
    return AgentSpaces(agent, observation, action, has_mask)


def _space(env: Any, name: str, agent: str) -> gym.Space[Any]:
    try:
        space = getattr(env, name)(agent)
    except Exception as error:  # mostly a KeyError, from a dictionary of the environment's own
        raise ValueError(
            f"env: expected {name}({agent!r}) to return a space, got {type(error).__name__}: "
            f"{error}; every agent of possible_agents needs both spaces"
        ) from error
    if not isinstance(space, gym.Space):
        raise ValueError(
            f"env: expected {name}({agent!r}) to return a space, got {space!r}; every agent of "
            f"possible_agents needs both spaces"
        )
    return space


def state_space_of(env: Any) -> gym.Space[Any] | None:
    """Return the space of an environment's ``state()``; None where there is none that we can keep.

    Few environments have one. A kind of space that is not supported is of no account either, as
    hardly anybody asks for states.
    """
    space = getattr(env, "state_space", None)
    if not isinstance(space, gym.Space):
        return None
    try:
        ObservationLayout(space)
    except TypeError:
        return None
    return space


def check_alike(expected: Sequence[AgentSpaces], env: Any, index: int) -> None:
    """Raise ValueError if an environment has other agents or spaces than the first."""
    got = describe(env)
    if got != list(expected):
        raise ValueError(
            f"environment {index}: expected agents and spaces like environment 0's, {expected}, "
            f"got {got}; all environments of a vector must be alike"
        )


class AgentBlock:
    """Arrays for the agents with the same spaces, [E, A, ...] each.

    Attributes:
        agents: their names, in the order of ``possible_agents``.
        layout: how their observations are kept.
        codec: how their actions are kept.
        action_space: space of their actions.
        mask_in_observation: the environment gives an "action_mask" within the observation.
        mask_size: n; 0 where action masks make no sense.
        is_number: an action is a plain number.
        observation: what the agents see; the layout's ``blank`` where they see nothing.
        exists: the observation is real, bool.
        start: the agent has just become alive, bool.
        action: the action to take next, in the environment's form.
        forced: the environment has chosen the next action, bool.
        forced_action: the action that the environment has chosen; where ``forced``.
        mask: allowed actions, bool [E, A, n].
        masked: the environment gives masks to some of the agents, bool [E].
        reward: of the last step.
        lived: the agent was there when the last step began, so that the step counts for it, bool.
        terminated: the agent was terminated by the last step, bool.
        truncated: the agent was truncated by the last step, bool; it may be terminated as well.
        void: the agent's last step never was, as it had ended before; see ``EnvRows``, bool.
        shown: the agent was truncated and has a last observation, bool.
        final: the last observation of an agent that was truncated; where ``shown``.
        final_mask: what would be allowed there; where ``shown``, bool [E, A, n].

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
        self.mask, self.final_mask = (allocate((*size, self.mask_size), np.bool_) for _ in range(2))
        self.reward = allocate(size, np.float64)
        self.start, self.exists, self.forced = (allocate(size, np.bool_) for _ in range(3))
        self.lived, self.terminated, self.truncated, self.shown, self.void = (
            allocate(size, np.bool_) for _ in range(5)
        )
        self.masked = allocate((num_envs,), np.bool_)


class AgentTable:
    """Arrays for all agents of E environments.

    Attributes:
        blocks: of agents with the same spaces.
        place: an agent's block, and its index within the block; by agent.
        ended: the last step ended the environment's episode, bool [E].
        state_layout: how the environments' states are kept; None where they have none, or one of a
            kind that cannot be kept.
        state: of the environments, [E, *shape]; only written where somebody asks for it.
        final_state: as the last step left it, where somebody ended with it, [E, *shape].
        unearned: 1 + the position in ``place`` of an agent that was paid without being
            there, whose reward was dropped; 0 for none, [E]. It stays until somebody clears it.

    """

    def __init__(
        self,
        agents: Sequence[AgentSpaces],
        num_envs: int,
        allocate: Allocate = np.zeros,
        state_space: gym.Space[Any] | None = None,
    ) -> None:
        """Allocate for the agents that ``describe`` found, and for states."""
        alike: list[list[AgentSpaces]] = []
        for spaces in agents:
            for same in alike:
                if _have_same_spaces(spaces, same[0]):
                    same.append(spaces)
                    break
            else:
                alike.append([spaces])
        self.blocks = [AgentBlock(same, num_envs, allocate) for same in alike]
        self.place = {a: (block, i) for block in self.blocks for i, a in enumerate(block.agents)}
        self.ended = allocate((num_envs,), np.bool_)
        self.unearned = allocate((num_envs,), np.int64)
        self.state_layout = None if state_space is None else ObservationLayout(state_space)
        if self.state_layout is not None:
            shape, dtype = self.state_layout.shape, self.state_layout.array_dtype
            self.state, self.final_state = (allocate((num_envs, *shape), dtype) for _ in range(2))


def _have_same_spaces(one: AgentSpaces, other: AgentSpaces) -> bool:
    return (one.observation, one.action, one.mask_in_observation) == (
        other.observation,
        other.action,
        other.mask_in_observation,
    )
