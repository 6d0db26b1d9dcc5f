"""Vectors of PettingZoo environments: what they give, wherever the environments are.

Letters: E environments, A agents of a block.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from recurrent_rl.envs.agent_table import AgentBlock, AgentTable, describe, state_space_of
from recurrent_rl.envs.final_infos import Numbers
from recurrent_rl.spaces.array import Array

Seeds = int | Sequence[int | None] | None
ByAgent = dict[str, Array]
FinalInfos = dict[int, Mapping[str, Numbers]]


class MultiAgentVectorEnv(ABC):
    """E PettingZoo environments with the same agents, stepped together.

    An episode that ends is followed by the next at once; its last observations are in the infos.
    Observations, rewards and flags are dictionaries by agent of arrays [E, ...] (of observations in
    Dict and Tuple spaces, the dictionaries and tuples of these), infos are dictionaries by agent of

    * ``exists``: the observation is real, bool [E]; where it is not, it is zeros;
    * ``start``: the agent has just become alive, so a policy's memory must be zeroed, bool [E];
    * ``env_defined_actions``: a list of E entries, None or the action that will be taken;
    * ``action_mask``: allowed actions, bool [E, n], if the environment gives any;
    * ``final_obs``: the last observations of truncated agents, [E, ...], if there are any; it means
      nothing in the other environments;
    * ``final_info``: the numbers that episodes which ended had in the agent's last info, by name
      [E], NaN in the other environments, if there are any; see ``envs.final_infos``.

    Attributes:
        num_envs: E.
        possible_agents: names of all agents that there may ever be.
        state_space: of the environments' ``state()``; None where they have none.
        table: the arrays that ``reset_rows`` and ``step_rows`` read and write.
        final_infos: the numbers of the infos with which the last step ended episodes, by
            environment and agent; of those who gave any.
        closed: whether the environments have been closed.

    """

    num_envs: int
    table: AgentTable
    final_infos: FinalInfos

    def __init__(self, example: Any) -> None:
        """Arg ``example``: one of the environments, or one like them."""
        agents = describe(example)
        self.state_space = state_space_of(example)
        self._spaces = {spaces.agent: spaces for spaces in agents}
        self.possible_agents = list(self._spaces)
        self.final_infos = {}
        self.closed = self._has_warned = self._reads_state = False

    @abstractmethod
    def reset_rows(self, seeds: Sequence[int | None], options: Any = None) -> None:
        """Start all episodes afresh; what the agents see is in the table."""

    @abstractmethod
    def step_rows(self) -> None:
        """Take the actions in the table; what they led to is in the table."""

    @abstractmethod
    def wait_after_episodes(self, waits: bool) -> None:
        """Let nothing follow upon episodes that end until the next reset; False: the next one."""

    def read_state(self) -> None:
        """Have the environments' states in the table from now on; they cost time.

        Raises:
            ValueError: they have none.

        """
        if self.state_space is None:
            raise ValueError(
                "state: expected environments with a state() and a state_space of a supported "
                "kind, got none; without state_space critics see what all agents see"
            )
        if not self._reads_state:
            self._reads_state = True
            self._read_state()

    @abstractmethod
    def _read_state(self) -> None:
        """Have every environment write its state, at once and after each reset and step."""

    def state(self) -> Any:
        """Return the environments' states, [E, ...]; ValueError: they have none."""
        self.read_state()
        assert self.table.state_layout is not None
        return self.table.state_layout.unpack(self.table.state.copy())

    @abstractmethod
    def close(self) -> None:
        """Close the environments; safe to call twice."""

    @property
    def agents(self) -> list[str]:
        """All agents; the infos say which of them exist at the moment."""
        return self.possible_agents

    def single_observation_space(self, agent: str) -> gym.Space[Any]:
        """Return an agent's observation space, without the action mask that may come with it."""
        return self._spaces[agent].observation

    def single_action_space(self, agent: str) -> gym.Space[Any]:
        """Return an agent's action space."""
        return self._spaces[agent].action

    @property
    def observation_spaces(self) -> dict[str, gym.Space[Any]]:
        """Observation spaces by agent, without action masks."""
        return {agent: spaces.observation for agent, spaces in self._spaces.items()}

    @property
    def action_spaces(self) -> dict[str, gym.Space[Any]]:
        """Action spaces by agent."""
        return {agent: spaces.action for agent, spaces in self._spaces.items()}

    def reset(
        self, seed: Seeds = None, options: Any = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Start all episodes afresh.

        Args:
            seed: environment e gets seed + e, or seed[e] of a list.
            options: given to every environment's ``reset``.

        Returns:
            observations, infos; see the class.

        """
        self.reset_rows(self.seeds(seed), options)
        return self._observations(), self._infos()

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, Any], ByAgent, ByAgent, ByAgent, dict[str, dict[str, Any]]]:
        """Take a step in every environment.

        Args:
            actions: [E, *shape] by agent. Those of agents that do not exist mean nothing, and
                those of agents whose action the environment defines are replaced.

        Returns:
            observations, rewards, terminations, truncations, infos; see the class.

        Raises:
            ValueError: an agent without actions, or actions of the wrong shape.

        """
        for agent, (block, i) in self.table.place.items():
            expected = (self.num_envs, *block.action.shape[2:])
            action = np.asarray(actions[agent]) if agent in actions else None
            if action is None or action.shape != expected:
                got = "none" if action is None else f"shape {list(action.shape)}"
                raise ValueError(
                    f"actions[{agent!r}]: expected shape [E, ...] = {list(expected)}, got {got}"
                )
            block.action[:, i] = action
        self.step_rows()
        rewards, terminations, truncations = (
            self._by_agent(name) for name in ("reward", "terminated", "truncated")
        )
        return self._observations(), rewards, terminations, truncations, self._infos()

    def seeds(self, seed: Seeds) -> list[int | None]:
        """Return each environment's own seed, [E]."""
        if seed is None or isinstance(seed, int | np.integer):
            return [None if seed is None else int(seed) + e for e in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"seed: expected {self.num_envs} seeds, got {len(seed)}")
        # Gymnasium refuses NumPy's integers.
        return [None if s is None else int(s) for s in seed]

    def _warn_of_unearned(self) -> None:
        """Say once that somebody was paid who was not there."""
        if self._has_warned or not self.table.unearned.any():
            return
        self._has_warned = True
        e = int(self.table.unearned.nonzero()[0][0])
        agent = list(self.table.place)[self.table.unearned[e] - 1]
        warnings.warn(
            f"environment {e} rewards agent {agent!r}, which was not there when the step began: it "
            f"had ended, or had not come yet. Such rewards count nowhere: not in returns, not in "
            f"learning, not in team rewards. If they are to count, let the environment keep the "
            f"agent alive until they are given, or train on team_reward and give them to those who "
            f"are there",
            stacklevel=3,
        )

    def _check_open(self) -> None:
        if self.closed:
            raise RuntimeError("env: expected open environments, got closed ones; build them anew")

    def _by_agent(self, name: str) -> ByAgent:
        return {
            agent: getattr(block, name)[:, i].copy()
            for agent, (block, i) in self.table.place.items()
        }

    def _observations(self) -> dict[str, Any]:
        return {
            agent: block.layout.unpack(block.observation[:, i].copy())
            for agent, (block, i) in self.table.place.items()
        }

    def _infos(self) -> dict[str, dict[str, Any]]:
        infos: dict[str, dict[str, Any]] = {}
        for agent, (block, i) in self.table.place.items():
            infos[agent] = info = {
                "exists": block.exists[:, i].copy(),
                "start": block.start[:, i].copy(),
                "env_defined_actions": [
                    action.copy() if forced else None
                    for forced, action in zip(
                        block.forced[:, i], block.forced_action[:, i], strict=True
                    )
                ],
            }
            if block.masked.any():
                info["action_mask"] = masks_of(block)[:, i].copy()
            if block.shown[:, i].any():
                info["final_obs"] = block.layout.unpack(block.final[:, i].copy())
        for e, by_agent in self.final_infos.items():
            for agent, numbers in by_agent.items():
                final = infos[agent].setdefault("final_info", {})
                for name, number in numbers.items():
                    final.setdefault(name, np.full(self.num_envs, np.nan))[e] = number
        return infos

    def __enter__(self) -> "MultiAgentVectorEnv":
        """Return the vector itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()


def masks_of(block: AgentBlock) -> Array:
    """Return the allowed actions, [E, A, n]; all in the environments that give no masks."""
    if block.masked.all():
        return block.mask
    return block.mask | ~block.masked[:, None, None]
