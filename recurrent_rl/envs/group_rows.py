"""A vector of PettingZoo environments as groups of rows, which policies work on.

Letters: E environments, A agents in a group, N = E * A rows, row e * A + a.
"""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np

from recurrent_rl.envs.agent_table import AgentTable
from recurrent_rl.envs.final_infos import Numbers
from recurrent_rl.envs.joint_view import JointView
from recurrent_rl.envs.multi_agent_vector import FinalInfos, MultiAgentVectorEnv, masks_of
from recurrent_rl.envs.rows import NO_ROWS, Observed, Outcome, RowSource
from recurrent_rl.spaces.array import Array


class GroupRows(RowSource):
    """A vector of PettingZoo environments as the rows of groups of agents.

    Attributes:
        team_reward: "sum" or "mean" of the rewards of those who were there when the step began,
            which these get instead of their own; None leaves each agent its own. Rewards for
            others are dropped in any case, see ``EnvRows``.
        view: what a central critic sees; None without one.

    """

    final_is_next = False

    def __init__(
        self,
        env: MultiAgentVectorEnv,
        groups: Sequence[Sequence[str]],
        team_reward: str | None = None,
        view: JointView | None = None,
    ) -> None:
        """See ``env`` as rows.

        Args:
            env: the vector.
            groups: the agents of each group, which have the same spaces (``IPPO`` checks that).
            team_reward: see the class.
            view: likewise.

        """
        self.env, self.num_envs, self.team_reward = env, env.num_envs, team_reward
        self.view = view
        self._views = [_GroupView(env.table, agents, env.num_envs) for agents in groups]

    def name(self, group: int, row: int) -> str:
        """Say which agent and environment a row is."""
        agents = self._views[group].agents
        return f"agent {agents[row % len(agents)]!r} in environment {row // len(agents)}"

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Let environments wait for a reset after their episodes."""
        self.env.wait_after_episodes(True)
        try:
            yield
        finally:
            if not self.env.closed:
                self.env.wait_after_episodes(False)

    def reset(self, seed: int | None = None) -> list[Observed]:
        """Start all episodes afresh."""
        self.env.reset_rows(self.env.seeds(seed))
        return self._observed(None)

    def _observed(self, before: Array | None) -> list[Observed]:
        """Return what each group sees; ``before`` is the joint view before the last step."""
        seen = [view.observed() for view in self._views]
        if self.view is None:
            return seen
        joint = self.view.now(before)
        return [one._replace(view=joint) for one in seen]

    def step(
        self, actions: Sequence[Array], before: Sequence[Observed]
    ) -> list[tuple[Outcome, Observed]]:
        """Take a step; what it led to, and what is seen next."""
        for view, action in zip(self._views, actions, strict=True):
            view.write_actions(action)
        self.env.step_rows()
        team = self._team_reward()
        ended = self.env.table.ended
        outcomes = [view.outcome(ended, team) for view in self._views]
        if self.view is not None and any(len(one.final_rows) for one in outcomes):
            final = self.view.final()
            for i, view in enumerate(self._views):
                envs = outcomes[i].final_rows // len(view.agents)
                outcomes[i] = outcomes[i]._replace(final_view=final[envs])
        if infos := self.env.final_infos:
            for i, view in enumerate(self._views):
                outcomes[i] = outcomes[i]._replace(final_info=view.final_info(infos))
        return list(zip(outcomes, self._observed(before[0].view), strict=True))

    def _team_reward(self) -> Array | None:
        """Return the reward that all agents of an environment share, [E]; None without one."""
        if self.team_reward is None:
            return None
        blocks = self.env.table.blocks
        total: Array = np.sum([block.reward.sum(1) for block in blocks], axis=0)
        if self.team_reward == "mean":
            total = total / np.maximum(np.sum([block.lived.sum(1) for block in blocks], axis=0), 1)
        return total


class _GroupView:
    """One group's part of a table.

    Attributes:
        agents: the group's.
        num_envs: E.
        block: the block of the table that has the agents.
        index: the agents' indices in the block.

    """

    def __init__(self, table: AgentTable, agents: Sequence[str], num_envs: int) -> None:
        self.agents, self.num_envs = list(agents), num_envs
        self.block = table.place[self.agents[0]][0]
        index = [table.place[agent][1] for agent in self.agents]
        # A group that is a whole block, as most are, is seen without a copy.
        whole = index == list(range(len(self.block.agents)))
        self.index: slice | list[int] = slice(None) if whole else index

    def rows_of(self, field: Array) -> Array:
        """Return the group's rows of an array: [E, agents of the block, ...] -> [N, ...]."""
        part = field[:, self.index]
        return part.reshape(-1, *part.shape[2:])

    def write_actions(self, action: Array) -> None:
        """Write the next actions, [N, ...], into the table."""
        block = self.block.action
        block[:, self.index] = action.reshape(self.num_envs, -1, *block.shape[2:])

    def observed(self) -> Observed:
        """Return what the group sees."""
        block = self.block
        exists, start, forced = (
            self.rows_of(field) for field in (block.exists, block.start, block.forced)
        )
        all_exist, none_forced = bool(exists.all()), not forced.any()
        active = None if all_exist and none_forced else exists & ~forced
        return Observed(
            self.rows_of(block.observation),
            start=start.copy() if start.any() else None,
            exists=None if all_exist else exists.copy(),
            active=active,
            action_mask=self.rows_of(masks_of(block)) if block.masked.any() else None,
            forced=None if none_forced else forced.copy(),
            forced_action=None if none_forced else self.rows_of(block.forced_action).copy(),
        )

    def final_info(self, infos: FinalInfos) -> dict[int, Numbers]:
        """Return what the group's agents have in infos by environment and agent, by row."""
        size = len(self.agents)
        return {
            e * size + a: by_agent[agent]
            for e, by_agent in infos.items()
            for a, agent in enumerate(self.agents)
            if agent in by_agent
        }

    def outcome(self, ended: Array, team: Array | None) -> Outcome:
        """Return what the last step led to.

        Args:
            ended: environments whose episode ended, bool [E].
            team: the reward that all agents share, [E]; None: each agent's own.

        """
        block, size = self.block, len(self.agents)
        own = self.rows_of(block.reward).copy()
        reward, score = own, None
        if team is not None:
            reward, score = np.where(self.rows_of(block.lived), team.repeat(size), 0), own
            # A sum that is not finite would hide whose reward is to blame.
            reward = np.where(np.isfinite(team).repeat(size), reward, own)
        truncated = self.rows_of(block.truncated).copy()
        final_rows, final, allowed = NO_ROWS, None, None
        if truncated.any():
            final_rows = np.flatnonzero(self.rows_of(block.shown & ~block.terminated))
            if len(final_rows):
                final = self.rows_of(block.final)[final_rows]
                if block.masked.any():
                    allowed = self.rows_of(block.final_mask)[final_rows]
        terminated = self.rows_of(block.terminated).copy()
        void = self.rows_of(block.void).copy() if block.void.any() else None
        return Outcome(
            reward,
            terminated,
            truncated,
            final_rows,
            final,
            allowed,
            score,
            ended.repeat(size),
            void=void,
        )
