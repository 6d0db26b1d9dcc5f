"""Step one PettingZoo environment, of either kind, and write what happens into a table.

Letters: E environments, n actions to choose from.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from recurrent_rl.envs.agent_table import AgentBlock, AgentTable
from recurrent_rl.envs.final_infos import Numbers, numbers_of
from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.masks import flat_mask, part_mask

ByAgent = Mapping[str, Any]


class EnvRows(ABC):
    """One environment, and its rows of an ``AgentTable``.

    Who counts in a step: whoever was there when it began, listed in ``env.agents`` or alive, and
    has not ended since it came. Rewards for others are dropped, and noted in ``table.unearned``.

    An agent that ends and is listed and shown something at once begins another life. If the next
    step ends it again it had only been kept in the list, as some environments do with those who
    have ended; then that step counts for nothing (``void``).

    Attributes:
        env: the environment.
        table: the arrays, of all E environments.
        index: of the environment in the table.
        alive: the agents that are alive.
        waits: an episode that ends is followed by nothing until the next reset.
        reads_state: the environment's state is written, too.
        time: steps of the episode so far.
        final_infos: if the last step ended the episode, the numbers of the agents' infos, of those
            who gave any: the last that an agent gave when it ended, or when the episode did.

    """

    def __init__(self, env: Any, table: AgentTable, index: int) -> None:
        """See ``env`` as environment number ``index`` of a table."""
        self.env, self.table, self.index, self.time = env, table, index, 0
        self._source = env  # whose attributes are read
        self.alive: set[str] = set()
        self.waits = self._over = self.reads_state = self._has_begun = False
        self._left: set[str] = set()  # who has ended, and has been kept in the list since
        self._back: set[str] = set()  # who ended in the last step and was there again at once
        self._void = False  # somebody's last step never was
        self.final_infos: dict[str, Numbers] = {}
        self._last_infos: dict[str, Numbers] = {}  # of who has ended in this episode
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
        """Step.

        Returns:
            observations, rewards, terminations, truncations, infos; and of those who end final
            observations and final infos, which may have others' too.

        """

    @abstractmethod
    def _has_ended(self, flagged: set[str]) -> bool:
        """Whether the episode has, now that some agents have been terminated or truncated."""

    @abstractmethod
    def _there(self) -> set[str]:
        """Return who is there: listed or alive, and not ended since."""

    @abstractmethod
    def _back_at_once(self, flagged: set[str], observations: ByAgent) -> set[str]:
        """Return those of the flagged that are there again already."""

    def _doubted(self, back: set[str], infos: ByAgent, finals: ByAgent) -> tuple[set[str], ByAgent]:
        """Return those of ``back`` that may have ended for good, and the final observations."""
        return set(), finals

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        """Start an episode, in which nobody is alive yet."""
        self.time, self._has_begun = 0, True
        observations, infos = self._reset(seed, options)
        agents = self._source.agents
        if isinstance(agents, str) or not isinstance(agents, Collection):
            raise TypeError(
                f"environment {self.index}: expected env.agents to be a list of names, got "
                f"{agents!r}; fill self.agents in reset()"
            )
        if not len(agents):
            raise ValueError(
                f"environment {self.index}: expected agents after reset, got none; fill "
                f"self.agents in reset()"
            )
        self._over = False
        for names in (self.alive, self._left, self._back):
            names.clear()
        self._last_infos = {}
        for block in self.table.blocks:
            # Agents that come later may have masks: the policy must expect them from the start.
            block.masked[self.index] |= block.mask_size > 0 and (
                block.mask_in_observation
                or self._mask_method is not None
                or any(a not in agents for a in block.agents)
                or any("action_mask" in (infos.get(a) or {}) for a in block.agents)
            )
        self._write_observations(observations, infos, set())
        if self.reads_state:
            self._write_state(self.table.state)

    def step(self) -> None:
        """Take the table's actions; an episode that ends is followed by the next at once."""
        self.final_infos = {}
        if self._over:
            self._write_nothing()
            return
        # Mostly everybody is there, and nobody ends: then nothing of this costs anything.
        there = None if len(self.alive) == len(self.table.place) else self._there()
        self.time += 1
        observations, rewards, terminations, truncations, infos, finals, last = self._step()
        flagged = {a for flags in (terminations, truncations) for a, flag in flags.items() if flag}
        void = self._back & flagged
        if void:
            self.alive -= void
            self._left |= void
            there = self._there() - void if there is None else there - void
        ended = self._has_ended(flagged)
        if self.reads_state:
            self._write_state(self.table.state)
            if flagged or ended:
                self.table.final_state[self.index] = self.table.state[self.index]
        back: set[str] = set()
        if flagged and not ended:
            back = self._back_at_once(flagged, observations)
        had_void = bool(self._back)
        self._back, finals = self._doubted(back, infos, finals) if back else (back, finals)
        self._write_rewards(rewards, there)
        for block in self.table.blocks:
            block.terminated[self.index] = block.truncated[self.index] = False
            block.shown[self.index] = False
        if had_void or self._void:
            self._write_void(void)
        if flagged or ended:
            self._keep_infos(last, None if ended else flagged & self.alive)
            self._write_ends(terminations, truncations, finals, infos, ended)
        self.table.ended[self.index] = ended
        if ended:
            self.final_infos = self._last_infos
        if ended and self.waits:
            self._over = True
            self._write_nobody()
        elif ended:
            self.reset()
        else:
            if self._left:
                self._left.intersection_update(self._source.agents)
            self._write_observations(observations, infos, flagged - back)

    def read_state(self) -> None:
        """Write the environment's state from now on."""
        self.reads_state = True
        if self._has_begun:  # before a reset there need not be one
            self._write_state(self.table.state)

    def _keep_infos(self, infos: ByAgent, agents: set[str] | None) -> None:
        """Keep the numbers that some agents (None: all) have in their infos, if they have any."""
        for agent, info in infos.items():
            counts = agent in (self.table.place if agents is None else agents)
            if counts and (numbers := numbers_of(info)):
                self._last_infos[agent] = numbers

    def _write_state(self, states: Array) -> None:
        """Write the environment's state into its row of ``states``."""
        layout = self.table.state_layout
        assert layout is not None
        try:
            array = layout.pack(self.env.state())
        except (TypeError, ValueError) as error:
            error.add_note(f"the state() of environment {self.index}")
            raise
        if array.shape != layout.shape:
            raise ValueError(
                f"environment {self.index}: expected a state() of shape {list(layout.shape)}, as "
                f"its state_space says, got {list(array.shape)}"
            )
        states[self.index] = array

    def _write_void(self, void: set[str]) -> None:
        """Write whose step never was."""
        self._void = bool(void)
        for block in self.table.blocks:
            block.void[self.index] = [agent in void for agent in block.agents]

    def _write_rewards(self, rewards: ByAgent, there: set[str] | None) -> None:
        """Write what those who are there get (None: all); an agent without a reward gets 0."""
        e = self.index
        for block in self.table.blocks:
            given = [rewards.get(agent, 0) for agent in block.agents]
            try:
                block.reward[e] = given
            except (TypeError, ValueError):  # one number in an array, or no numbers
                pairs = zip(block.agents, given, strict=True)
                block.reward[e] = [self._number(agent, reward) for agent, reward in pairs]
            if there is None:
                block.lived[e] = True
                continue
            block.lived[e] = lived = [agent in there for agent in block.agents]
            for i, agent in enumerate(block.agents):
                if not lived[i] and block.reward[e, i] != 0:
                    block.reward[e, i] = 0
                    self.table.unearned[e] = 1 + list(self.table.place).index(agent)

    def _number(self, agent: str, reward: Any) -> float:
        """Return a reward as a number."""
        try:
            array = np.asarray(reward, np.float64)
        except (TypeError, ValueError):
            array = np.empty(0)
        if array.size != 1 or reward is None:
            raise ValueError(
                f"reward: expected a number for agent {agent!r}, got {reward!r} from environment "
                f"{self.index}; leave agents without a reward out, or give 0"
            )
        return float(array.item())

    def wait(self, waits: bool) -> None:
        """Let nothing follow upon episodes that end until the next reset, or the next again."""
        self.waits, self._over = waits, False

    def _write_nothing(self) -> None:
        """Write a step in which nobody is there, as the episode is over."""
        e = self.index
        for block in self.table.blocks:
            block.reward[e] = 0
            block.lived[e] = block.terminated[e] = block.truncated[e] = False
            block.shown[e] = block.void[e] = False
        self.table.ended[e] = False

    def _write_nobody(self) -> None:
        """Write that nobody sees anything."""
        e = self.index
        for block in self.table.blocks:
            block.start[e] = block.exists[e] = block.forced[e] = False
            block.observation[e] = block.layout.blank
            block.mask[e] = True

    def _write_ends(
        self,
        terminations: ByAgent,
        truncations: ByAgent,
        finals: ByAgent,
        infos: ByAgent,
        ended: bool,
    ) -> None:
        """Write who was terminated or truncated, with what the latter saw last, and might do."""
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
            self._left.add(agent)
            block.terminated[self.index, i] = bool(terminated)
            block.truncated[self.index, i] = bool(truncated)
            final = finals.get(agent) if truncated else None
            if final is not None:
                array, mask = self._split_observation(block, agent, final)
                block.final[self.index, i] = array
                block.shown[self.index, i] = True
                mask = (infos.get(agent) or {}).get("action_mask", mask)
                allowed = True if mask is None else flat_mask(mask)
                if np.shape(allowed) not in ((), (block.mask_size,)):
                    allowed = True  # nobody is asked, so nobody is told
                block.final_mask[self.index, i] = allowed

    def _write_observations(self, observations: ByAgent, infos: ByAgent, flagged: set[str]) -> None:
        """Write which agents exist now, what they see, and what their infos say."""
        e, present = self.index, set(self._source.agents)
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
                        self._left.discard(agent)
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
