"""What a central critic sees of an environment: its state, or what all agents see, joined.

Letters: E environments, A agents of the whole team, n rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from recurrent_rl.envs.agent_table import AgentBlock, AgentTable
from recurrent_rl.envs.multi_agent_vector import MultiAgentVectorEnv
from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.layout import ObservationLayout


class JointView(ABC):
    """A view of each environment of a vector, one for all agents in it.

    Attributes:
        layout: how views are stored.

    """

    layout: ObservationLayout

    @abstractmethod
    def now(self, before: Array | None) -> Array:
        """Return the views of the present, stored form, [E, *shape].

        Args:
            before: those before the last step; None after a reset.

        """

    @abstractmethod
    def final(self) -> Array:
        """Return what there was to see at the end of episodes and lives that a limit has cut.

        It means something where somebody was truncated in the last step, [E, *shape].
        """


class StateView(JointView):
    """What the environments' own ``state()`` says."""

    def __init__(self, env: MultiAgentVectorEnv) -> None:
        """See a vector whose environments have a ``state_space``."""
        env.read_state()
        self._table = env.table
        assert env.table.state_layout is not None
        self.layout = env.table.state_layout

    def now(self, before: Array | None) -> Array:
        return self._table.state

    def final(self) -> Array:
        return self._table.final_state


class JoinedView(JointView):
    """The observations of all agents, and who is there.

    Who lives but is not shown anything at the moment, as in turn-based games all but one are not,
    is there with what it saw last. Who does not live, or has not seen anything so far, is blank.
    """

    def __init__(self, env: MultiAgentVectorEnv, agents: Sequence[str]) -> None:
        """See a vector; ``agents`` are all of its agents, in the order that counts."""
        self._table, self._envs = env.table, env.num_envs
        self._agents = list(agents)
        self.layout = ObservationLayout(joined_space(env.observation_spaces, agents))
        places = dict(zip((x.path for x in self.layout.leaves), self.layout.places, strict=True))
        # Of each agent: its block, its place there, and where its parts go, one by one.
        self._parts: list[tuple[AgentBlock, int, list[tuple[bool, slice]]]] = []
        for number, agent in enumerate(agents):
            block, i = env.table.place[agent]
            found = [places[number, *leaf.path] for leaf in block.layout.leaves]
            where = [(in_bytes, slice(begin, end)) for in_bytes, begin, end in found]
            self._parts.append((block, i, where))
        _, begin, end = places[len(agents),]
        self._there = slice(begin, end)
        self._blank = self.layout.blank

    def now(self, before: Array | None) -> Array:
        table = self._table
        exists = self._of_agents(table, "exists")
        if exists.all():
            return self._joined("observation", exists)
        view = self._joined("observation", exists)
        if before is None:
            return view
        old, new = self.layout.sections(before), self.layout.sections(view)
        ends = self._of_agents(table, "terminated") | self._of_agents(table, "truncated")
        stays = (old[0][:, self._there] > 0) & ~ends & ~table.ended[:, None] & ~exists
        for number, (_, _, where) in enumerate(self._parts):
            silent = stays[:, number]
            if silent.any():
                for in_bytes, part in where:
                    new[in_bytes][silent, part] = old[in_bytes][silent, part]
        new[0][:, self._there] = exists | stays
        return view

    def final(self) -> Array:
        shown, exists = (self._of_agents(self._table, name) for name in ("shown", "exists"))
        # Of an episode that goes on, those whom the limit has not met are seen as they are now.
        going = exists & ~shown & ~self._table.ended[:, None]
        view = self._joined("final", shown)
        if going.any():
            now = self.layout.sections(self._joined("observation", going))
            sections = self.layout.sections(view)
            for number, (_, _, where) in enumerate(self._parts):
                rows = going[:, number]
                for in_bytes, part in where:
                    sections[in_bytes][rows, part] = now[in_bytes][rows, part]
            sections[0][:, self._there] += now[0][:, self._there]
        return view

    def _of_agents(self, table: AgentTable, name: str) -> Array:
        """Return one of the table's flags for all agents, bool [E, A]."""
        return np.stack([getattr(block, name)[:, i] for block, i, _ in self._parts], axis=1)

    def _joined(self, name: str, there: Array) -> Array:
        """Join one of the table's arrays of observations, of agents that are there, bool [E, A]."""
        view = np.repeat(self._blank[None], self._envs, axis=0)
        sections, everybody = self.layout.sections(view), bool(there.all())
        parts_of = {
            id(block): block.layout.parts(getattr(block, name)) for block, _, _ in self._parts
        }
        with np.errstate(over="ignore"):  # what float32 does not hold is found as such
            for number, (block, i, where) in enumerate(self._parts):
                rows: Any = slice(None) if everybody else there[:, number]
                for part, (in_bytes, to) in zip(parts_of[id(block)], where, strict=True):
                    own = part[:, i].reshape(self._envs, -1)
                    sections[in_bytes][rows, to] = own[rows]
        sections[0][:, self._there] = there
        return view


def joined_space(spaces: Mapping[str, gym.Space[Any]], agents: Sequence[str]) -> gym.Space[Any]:
    """Return the space of what all agents see, and who is there: the last part, [A] of 0 or 1."""
    there = gym.spaces.Box(0.0, 1.0, (len(agents),), np.float32)
    return gym.spaces.Tuple([*(spaces[agent] for agent in agents), there])
