"""A vector of PettingZoo environments seen as groups of rows, which is what policies work on.

Letters: E environments, A agents in a group, N = E * A rows, row e * A + a.
"""

from collections.abc import Sequence

import numpy as np

from recurrent_rl.envs.agent_table import AgentTable
from recurrent_rl.envs.multi_agent_vector import MultiAgentVectorEnv, masks_of
from recurrent_rl.envs.rows import NO_ROWS, Observed, Outcome, RowSource
from recurrent_rl.spaces.array import Array


class GroupRows(RowSource):
    """A vector of PettingZoo environments as the rows of some groups of agents."""

    final_is_next = False

    def __init__(
        self,
        env: MultiAgentVectorEnv,
        groups: Sequence[Sequence[str]],
        team_reward: str | None = None,
    ) -> None:
        """See ``env`` as ``groups``, each of agents with the same spaces; ``IPPO`` checks that."""
        self.env, self.num_envs, self.team_reward = env, env.num_envs, team_reward
        self._views = [_GroupView(env.table, agents, env.num_envs) for agents in groups]

    def name(self, group: int, row: int) -> str:
        """Say which agent and environment a row is."""
        agents = self._views[group].agents
        return f"agent {agents[row % len(agents)]!r} in environment {row // len(agents)}"

    def reset(self, seed: int | None = None) -> list[Observed]:
        """Start all episodes afresh."""
        self.env.reset_rows(self.env.seeds(seed))
        return [view.observed() for view in self._views]

    def step(
        self, actions: Sequence[Array], before: Sequence[Observed]
    ) -> list[tuple[Outcome, Observed]]:
        """Take a step; what it led to, and what is seen next."""
        for view, action in zip(self._views, actions, strict=True):
            view.put(action)
        self.env.step_rows()
        team = self._team_reward()
        ended = self.env.table.ended
        return [(view.outcome(ended, team), view.observed()) for view in self._views]

    def _team_reward(self) -> Array | None:
        """What every agent of an environment gets instead of its own, [E]."""
        if self.team_reward is None:
            return None
        blocks = self.env.table.blocks
        total: Array = np.sum([block.reward.sum(1) for block in blocks], axis=0)
        if self.team_reward == "mean":
            total = total / np.maximum(np.sum([block.lived.sum(1) for block in blocks], axis=0), 1)
        return total


class _GroupView:
    """One group's part of a table."""

    def __init__(self, table: AgentTable, agents: Sequence[str], num_envs: int) -> None:
        self.agents, self.num_envs = list(agents), num_envs
        self.block = table.place[self.agents[0]][0]
        index = [table.place[agent][1] for agent in self.agents]
        # A group that is a whole block, as most are, is seen without a copy.
        whole = index == list(range(len(self.block.agents)))
        self.index: slice | list[int] = slice(None) if whole else index

    def take(self, field: Array) -> Array:
        """[E, A of the block, ...] -> [N, ...]."""
        part = field[:, self.index]
        return part.reshape(-1, *part.shape[2:])

    def put(self, action: Array) -> None:
        """Write the next actions, [N, ...]."""
        block = self.block.action
        block[:, self.index] = action.reshape(self.num_envs, -1, *block.shape[2:])

    def observed(self) -> Observed:
        block = self.block
        exists, start, forced = (
            self.take(field) for field in (block.exists, block.start, block.forced)
        )
        everybody, nobody = bool(exists.all()), not forced.any()
        active = None if everybody and nobody else exists & ~forced
        return Observed(
            self.take(block.observation),
            start=start.copy() if start.any() else None,
            exists=None if everybody else exists.copy(),
            active=active,
            action_mask=self.take(masks_of(block)) if block.masked.any() else None,
            forced=None if nobody else forced.copy(),
            forced_action=None if nobody else self.take(block.forced_action).copy(),
        )

    def outcome(self, ended: Array, team: Array | None) -> Outcome:
        block, size = self.block, len(self.agents)
        own = self.take(block.reward).copy()
        reward, score = own, None
        if team is not None:
            reward, score = np.where(self.take(block.lived), team.repeat(size), 0), own
            # A sum that is not finite would hide whose reward is to blame.
            reward = np.where(np.isfinite(team).repeat(size), reward, own)
        truncated = self.take(block.truncated).copy()
        final_rows, final = NO_ROWS, None
        if truncated.any():
            final_rows = np.flatnonzero(self.take(block.shown & ~block.terminated))
            final = self.take(block.final)[final_rows] if len(final_rows) else None
        terminated = self.take(block.terminated).copy()
        return Outcome(reward, terminated, truncated, final_rows, final, score, ended.repeat(size))
