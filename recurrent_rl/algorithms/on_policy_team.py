"""Teams that learn from the rollout that they have just collected."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch

from recurrent_rl.acting.against_pool import RowsAgainstPool
from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.acting.opponents import OpponentPool
from recurrent_rl.algorithms.multi_agent import MultiAgent
from recurrent_rl.algorithms.on_policy import OnPolicyTrainer, learn_all
from recurrent_rl.algorithms.on_policy_agent import OnPolicyAgent
from recurrent_rl.algorithms.ppo_update import Diagnostics
from recurrent_rl.algorithms.schedule_functions import without_functions
from recurrent_rl.envs.multi_agent_vector import MultiAgentVectorEnv
from recurrent_rl.envs.rows import RowSource
from recurrent_rl.validation import shown


class OnPolicyTeam(OnPolicyAgent, MultiAgent):
    """What IPPO and MAPPO have in common: each group is trained on its own rollout."""

    _opponents: OpponentPool | None = None

    @property
    def opponents(self) -> OpponentPool | None:
        """Past selves that play the other sides in collection; None: all learn from each other."""
        return self._opponents

    @opponents.setter
    def opponents(self, pool: OpponentPool | None) -> None:
        if pool is not None:
            if not isinstance(pool, OpponentPool):
                raise TypeError(f"opponents: expected an OpponentPool or None, got {shown(pool)}")
            pool.check(self.agent_ids)
            player = None if pool.player is None else pool.player()
            if player is not None and player is not self and player.opponents is pool:
                raise ValueError(
                    "opponents: expected a pool of this agent's own, as its matches are of one "
                    "agent's environments, got one that another agent plays against; give each a "
                    "pool of its own"
                )
            pool.player = weakref.ref(self)
        self._opponents = pool

    def own_metrics(self) -> dict[str, float]:
        if self.opponents is None:
            return {}
        return {f"opponents/{name}": value for name, value in self.opponents.metrics().items()}

    def rows_to_learn_in(self, env: Any) -> RowSource:
        rows = self.team.rows_of(env, judged=True)
        if self.opponents is None:
            return rows
        return RowsAgainstPool(rows, self.opponents, self.groups, self.env_steps)

    def for_agents(self, agent_ids: Sequence[str]) -> Self:
        """Return an independent copy for other agents of the same groups: more, fewer, or others.

        Policies are those of the groups. ``IPPO`` may go on learning with them. A ``MAPPO``, whose
        critics were built for the agents that there were, can act and be tested only. A pool of
        opponents stays with the agents that it was made for.

        Args:
            agent_ids: names; of agents that are new, what stands before the final "_" says which
                group they belong to. Groups without agents are left out.

        Raises:
            TypeError: no list, or names that are not text.
            ValueError: an agent of no known group; or policies that are shown which of the agents
                they act for, of whom there are more now.

        """
        team, other = self.team.with_agents(agent_ids), self.clone()
        for name, agents in team.grouped_agents.items():
            known = self.grouped_agents[name]
            told = other.trainers[name].policy.tells_apart
            if told and agents != known[: len(agents)]:
                raise ValueError(
                    f"agent_ids: expected some of {known}, the first ones, as policies of group "
                    f"{name!r} are shown which of these they act for, got {agents}; build the "
                    f"agent without agent_id_input"
                )
        if team.agent_ids != self.agent_ids:
            other.opponents = None
        other._resettle(team=team)
        other.trainers = {name: other.trainers[name] for name in team.grouped_agents}
        for name, trainer in other.trainers.items():
            trainer.group.name_agents(team.grouped_agents[name])
        return other

    def _for_env(self, env: MultiAgentVectorEnv) -> Self:
        known = self.team.knows(env.possible_agents)  # others get the usual error
        if set(env.possible_agents) == set(self.agent_ids) or not known:
            return self
        return self.for_agents(env.possible_agents)

    @property
    def trainees(self) -> dict[str, OnPolicyTrainer]:
        """What trains each group, by name; rollouts are of N = E * A rows, row e * A + a."""
        return self.trainers

    def learn(self) -> dict[str, Diagnostics]:
        """Train each group on the rollout that ``collect_rollouts_recurrent`` has filled it with.

        Returns:
            losses and what else there is to know, by group; a group nobody of which acted, or
            whose policy is frozen, has ``updates`` 0.

        Raises:
            RuntimeError: nothing has been collected since the last call, everything is frozen, or
                a policy or an optimiser was changed beyond what learning can go on from; no group
                has learned then.
            FloatingPointError: a gradient was not finite.

        """
        self.join_world()
        self.check_ranks()
        learned = learn_all(self.trainers)
        if self.opponents is not None:
            self.opponents.grow(self.groups, self.env_steps)
        return learned

    def _draw_apart(self, rank: int) -> None:
        super()._draw_apart(rank)
        if self.opponents is not None:
            self.opponents.reseed(rank)

    def offspring(self, index: int) -> Self:
        child = super().offspring(index)
        if child.opponents is not None:
            child.opponents.reseed(index)
        return child

    # --- saving -----------------------------------------------------------------------------

    def to_checkpoint(self) -> dict[str, Any]:
        pool = self.opponents
        return {**super().to_checkpoint(), "opponents": None if pool is None else pool.to_data()}

    @classmethod
    def from_checkpoint(
        cls, data: dict[str, Any], device: torch.device | str = "cpu", **parts: Any
    ) -> Self:
        agent = super().from_checkpoint(data, device, **parts)
        if (pool := data.get("opponents")) is not None:  # older checkpoints do not know
            agent._opponents = OpponentPool.from_data(pool, agent._past_group)
        return agent

    def _past_group(self, number: int, data: Mapping[str, Any]) -> AgentGroup:
        """Rebuild a snapshot of one of the groups."""
        config = self.config_type.from_dict(without_functions(data["config"]))
        now = self.groups[number]
        return AgentGroup.from_data(data, config, now.device, now.custom_networks, now.kind)
