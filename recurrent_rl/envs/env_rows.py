"""Step one PettingZoo environment, parallel or turn-based, and write what happens into a table.

Letters: E environments, n actions to choose from.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from recurrent_rl.envs.agent_table import AgentBlock, AgentTable
from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.masks import flat_mask, part_mask

ByAgent = Mapping[str, Any]


class EnvRows(ABC):
    """One environment, and its rows of an ``AgentTable``.

    Attributes:
        env: the environment.
        table: the arrays, of all E environments.
        index: of the environment in the table.
        alive: the agents that are alive.
        waits: an episode that ends is followed by nothing until the next reset.

    """

    def __init__(self, env: Any, table: AgentTable, index: int) -> None:
        """See ``env`` as environment number ``index`` of a table."""
        self.env, self.table, self.index = env, table, index
        self.alive: set[str] = set()
        self.waits = self._over = False
        method = getattr(env, "action_masks", None)
        self._mask_method = method if callable(method) else None
        for block in table.blocks:
            block.observation[index] = block.layout.blank
            block.mask[index] = True

    @abstractmethod
    def _reset(self, seed: int | None, options: Any) -> tuple[ByAgent, ByAgent]:
        """Start an episode; observations and infos by agent."""

    @abstractmethod
    def _step(self) -> tuple[ByAgent, ...]:
        """Step; observations, rewards, terminations, truncations, infos, final observations."""

    @abstractmethod
    def _has_ended(self, flagged: set[str]) -> bool:
        """Whether the episode has, now that some agents have been terminated or truncated."""

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        """Start an episode, in which nobody is alive yet."""
        observations, infos = self._reset(seed, options)
        if not self.env.agents:
            raise ValueError(
                f"environment {self.index}: expected agents after reset, got none; fill "
                f"self.agents in reset()"
            )
        self.alive.clear()
        self._over = False
        for block in self.table.blocks:
            # Agents that come later may have masks: the policy must expect them from the start.
            block.masked[self.index] |= block.mask_size > 0 and (
                block.mask_in_observation
                or self._mask_method is not None
                or any(a not in self.env.agents for a in block.agents)
                or any("action_mask" in (infos.get(a) or {}) for a in block.agents)
            )
        self._write_observations(observations, infos, set())

    def step(self) -> None:
        """Take the table's actions; an episode that ends is followed by the next at once."""
        if self._over:
            self._write_nothing()
            return
        observations, rewards, terminations, truncations, infos, finals = self._step()
        flagged = {a for flags in (terminations, truncations) for a, flag in flags.items() if flag}
        ended = self._has_ended(flagged)
        for block in self.table.blocks:
            block.reward[self.index] = [rewards.get(agent, 0) for agent in block.agents]
            block.lived[self.index] = [agent in self.alive for agent in block.agents]
            block.terminated[self.index] = block.truncated[self.index] = False
            block.shown[self.index] = False
        if flagged or ended:
            self._write_ends(terminations, truncations, finals, ended)
        self.table.ended[self.index] = ended
        if ended and self.waits:
            self._over = True
            self._write_nobody()
        elif ended:
            self.reset()
        else:
            self._write_observations(observations, infos, flagged)

    def wait(self, waits: bool) -> None:
        """Let nothing follow upon episodes that end until the next reset, or the next again."""
        self.waits, self._over = waits, False

    def _write_nothing(self) -> None:
        """Write a step in which nobody is there, as the episode is over."""
        e = self.index
        for block in self.table.blocks:
            block.reward[e] = 0
            block.lived[e] = block.terminated[e] = block.truncated[e] = block.shown[e] = False
        self.table.ended[e] = False

    def _write_nobody(self) -> None:
        """Write that nobody sees anything."""
        e = self.index
        for block in self.table.blocks:
            block.start[e] = block.exists[e] = block.forced[e] = False
            block.observation[e] = block.layout.blank
            block.mask[e] = True

    def _write_ends(
        self, terminations: ByAgent, truncations: ByAgent, finals: ByAgent, ended: bool
    ) -> None:
        """Write who was terminated or truncated, with the last observations of the latter."""
        # An agent that is alive when the episode ends, but has neither flag, gets the flag that
        # the others have.
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
                block.final[self.index, i] = self._split_observation(block, agent, final)[0]
                block.shown[self.index, i] = True

    def _write_observations(self, observations: ByAgent, infos: ByAgent, flagged: set[str]) -> None:
        """Write which agents exist now, what they see, and what their infos say."""
        e, present = self.index, set(self.env.agents)
        self._check_names(present)
        masks = self._masks_of_method()
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
                    array, mask = self._split_observation(block, agent, observation)
                    block.observation[e, i] = array
                    block.exists[e, i] = True
                elif before[i]:
                    block.observation[e, i] = block.layout.blank
                info = infos.get(agent)
                mask = masks.get(agent) if mask is None else mask
                if info or mask is not None:
                    self._write_info(block, i, info or {}, mask)

    def _check_names(self, present: set[str]) -> None:
        if not present <= self.table.place.keys():
            unknown = sorted(present - self.table.place.keys())
            raise ValueError(
                f"environment {self.index}: expected agents of possible_agents = "
                f"{list(self.table.place)}, got {unknown}; name everybody there may ever be in "
                f"possible_agents"
            )

    def _masks_of_method(self) -> ByAgent:
        """Return the action masks that the environment's ``action_masks()`` gives."""
        if self._mask_method is None:
            return {}
        masks = self._mask_method()
        if not isinstance(masks, Mapping):
            raise TypeError(
                f"action_masks(): expected a dictionary by agent, got {type(masks).__name__} from "
                f"environment {self.index}"
            )
        return masks

    def _split_observation(self, block: AgentBlock, agent: str, value: Any) -> tuple[Array, Any]:
        """Return the observation proper as an array, and the mask that came in it, or None."""
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

    def _write_info(self, block: AgentBlock, i: int, info: ByAgent, mask: Any) -> None:
        """Write an action that the environment has chosen, and the allowed actions.

        Args:
            block: the agent's block.
            i: the agent's index in it.
            info: the agent's; a mask in it goes before ``mask``.
            mask: allowed actions from elsewhere, [n], or None.

        """
        where = f"environment {self.index}, agent {block.agents[i]!r}"
        forced_action = info.get("env_defined_actions")
        if forced_action is not None:
            try:
                block.forced_action[self.index, i] = block.codec.check(forced_action)
            except ValueError as error:
                raise ValueError(f"env_defined_actions: {error} from {where}") from None
            block.forced[self.index, i] = True
        mask_in_info = info.get("action_mask")
        mask = mask if mask_in_info is None else mask_in_info
        if mask is None:
            return
        try:
            array = flat_mask(mask)
        except ValueError as error:
            raise ValueError(f"{error} from {where}") from None
        if array.shape != (block.mask_size,) or not block.mask_size:
            expected = f"{block.mask_size} values" if block.mask_size else "none"
            raise ValueError(
                f"action_mask: expected {expected} for {block.action_space}, got shape "
                f"{list(array.shape)} from {where}"
            )
        block.mask[self.index, i] = array
        block.masked[self.index] = True

    def _action(self, agent: str) -> Any:
        """Return a copy of the agent's next action, in the environment's form."""
        block, i = self.table.place[agent]
        source = block.forced_action if block.forced[self.index, i] else block.action
        value = source[self.index, i]
        # An array for a Box, even for one without dimensions.
        return value if block.is_number else np.array(value)


class ParallelRows(EnvRows):
    """A parallel environment: all agents act in every step."""

    def _reset(self, seed: int | None, options: Any) -> tuple[ByAgent, ByAgent]:
        observations, infos = self.env.reset(seed=seed, options=options)
        return observations, infos

    def _step(self) -> tuple[ByAgent, ...]:
        # PettingZoo expects an action for each agent that is listed, even for one without an
        # observation, whose action means nothing.
        result = self.env.step({agent: self._action(agent) for agent in self.env.agents})
        return (*result, result[0])

    def _has_ended(self, flagged: set[str]) -> bool:
        # Many environments list agents that have ended until all have.
        return flagged.issuperset(self.env.agents)


class TurnRows(EnvRows):
    """A turn-based (AEC) environment: one agent acts in each step, the others see nothing."""

    def _turn(self) -> tuple[ByAgent, ByAgent]:
        """Return the observation and the info of the agent whose turn it is."""
        if not self.env.agents:
            return {}, {}
        agent = self.env.agent_selection
        return {agent: self.env.observe(agent)}, {agent: self.env.infos.get(agent)}

    def _reset(self, seed: int | None, options: Any) -> tuple[ByAgent, ByAgent]:
        self.env.reset(seed=seed, options=options)
        observations, infos = self._turn()
        return observations, {**{a: _mask_only(i) for a, i in self.env.infos.items()}, **infos}

    def _step(self) -> tuple[ByAgent, ...]:
        env = self.env
        env.step(self._action(env.agent_selection))
        # Copies, as all of these change when agents that have ended are removed.
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
            env.step(None)  # PettingZoo's way of removing an agent that has ended
        observations, infos = self._turn()
        return observations, rewards, terminations, truncations, infos, finals

    def _has_ended(self, flagged: set[str]) -> bool:
        return not self.env.agents


def _mask_only(info: ByAgent | None) -> ByAgent:
    return {k: v for k, v in (info or {}).items() if k == "action_mask"}


def environment_rows(env: Any, table: AgentTable, index: int) -> EnvRows:
    """Return an environment, parallel or turn-based, as its rows of a table."""
    kind = ParallelRows if isinstance(env, ParallelEnv) else TurnRows
    return kind(env, table, index)
