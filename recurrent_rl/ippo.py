"""The IPPO agent that users hold: independent PPO, one policy for each group of alike agents."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import gymnasium as gym
import torch
from torch import nn

from recurrent_rl import evaluation
from recurrent_rl.agent import Agent
from recurrent_rl.config import NetConfig, PPOConfig, unknown_name
from recurrent_rl.group import AgentGroup, Networks
from recurrent_rl.group_rows import GroupRows
from recurrent_rl.learner import Diagnostics
from recurrent_rl.multi_agent import MultiAgentVectorEnv, SyncMultiAgentVectorEnv
from recurrent_rl.multi_agent_acting import Asked, MultiAgentActionOutput, act
from recurrent_rl.randomness import derived_seed
from recurrent_rl.recurrent import HiddenState
from recurrent_rl.spaces import Array, same_space, without_mask

Spaces = Mapping[str, gym.Space[Any]] | Sequence[gym.Space[Any]]
OwnNetworks = nn.Module | Mapping[str, nn.Module] | None


def group_agents(
    agent_ids: Sequence[str], groups: Mapping[str, Sequence[str]] | None = None
) -> dict[str, list[str]]:
    """Put agents into groups that will share a policy.

    >>> group_agents(["bob_0", "bob_1", "fred_0"])
    {'bob': ['bob_0', 'bob_1'], 'fred': ['fred_0']}

    Args:
        agent_ids: all agents.
        groups: names and members; None groups by what stands before the final "_".

    Raises:
        ValueError: an agent in no group, in two, or unknown.

    """
    if groups is None:
        found: dict[str, list[str]] = {}
        for agent in agent_ids:
            found.setdefault(agent.rpartition("_")[0] or agent, []).append(agent)
        return found
    members = [agent for group in groups.values() for agent in group]
    wrong = {
        "unknown": sorted(set(members) - set(agent_ids)),
        "in no group": sorted(set(agent_ids) - set(members)),
        "in more than one": sorted({agent for agent in members if members.count(agent) > 1}),
        "groups without agents": sorted(name for name, group in groups.items() if not group),
    }
    for what, agents in wrong.items():
        if agents:
            raise ValueError(
                f"groups: expected each of {list(agent_ids)} in exactly one group, got {what}: "
                f"{agents}"
            )
    return {name: [a for a in agent_ids if a in group] for name, group in groups.items()}


class IPPO(Agent):
    """Independent PPO for agents that remember: each group of alike agents has its own policy.

    Agents whose names agree up to the final ``_`` form a group: ``bob_0`` and ``bob_1`` share one
    actor, one critic and one optimiser, and each keeps a memory of its own.

    Source: de Witt et al. 2020, "Is Independent Learning All You Need in the StarCraft Multi-Agent
    Challenge?".

    >>> from mpe2 import simple_speaker_listener_v4
    >>> from recurrent_rl import IPPO, collect_rollouts_recurrent, make_multi_agent_vect_envs
    >>> env = make_multi_agent_vect_envs(
    ...     simple_speaker_listener_v4.parallel_env, 4, should_async_vector=False
    ... )
    >>> agent = IPPO(env.observation_spaces, env.action_spaces, env.agents, learn_step=32, seed=0)
    >>> agent.shared_agent_ids
    ['speaker', 'listener']
    >>> stats = collect_rollouts_recurrent(agent, env)
    >>> [(group, diagnostics.updates) for group, diagnostics in agent.learn().items()]
    [('speaker', 4), ('listener', 4)]

    Attributes:
        agent_ids: all agents.
        observation_spaces: by agent, without the action masks that may come with observations.
        action_spaces: by agent.
        grouped_agents: names of the groups and their members.
        trainees: what is trained, by group; each has a ``policy``, an ``optimizer`` and the last
            rollout in ``buffer``, of N = E * A rows, row e * A + a.
        steps: environment steps trained for, a list for training loops to append to.
        fitness: results of ``test``, in order.
        scores: returns of training episodes, for training loops to fill.

    """

    _fixed = ("agent_ids", "grouped_agents", "observation_spaces", "action_spaces", "net_configs")

    def __init__(
        self,
        observation_spaces: Spaces,
        action_spaces: Spaces,
        agent_ids: Sequence[str] | None = None,
        net_config: Mapping[str, Any] | NetConfig | None = None,
        *,
        groups: Mapping[str, Sequence[str]] | None = None,
        agent_id_input: bool = False,
        team_reward: Literal["sum", "mean"] | None = None,
        device: torch.device | str = "cpu",
        seed: int | None = None,
        actor_network: OwnNetworks = None,
        critic_network: OwnNetworks = None,
        **hyperparameters: Any,
    ) -> None:
        """Build an untrained agent.

        Args:
            observation_spaces: by agent, or a list in the order of ``agent_ids``: Box, Discrete,
                MultiDiscrete, MultiBinary, or Dict or Tuple of these; an "action_mask" within a
                Dict is split off.
            action_spaces: likewise: Discrete, MultiDiscrete, MultiBinary or Box.
            agent_ids: the environment's ``possible_agents``; needed unless the spaces are
                dictionaries.
            net_config: ``{"encoder_config": {...}, "head_config": {...}}`` for all, see
                ``NetConfig``; under the name of a group or an agent stands what is special to it,
                beside or in place of the common: ``{"encoder_config": {...}, "speaker":
                {"encoder_config": {"num_layers": 2}}}``.
            groups: names and members; None groups by what stands before the final "_".
            agent_id_input: show each policy which agent of its group it acts for, one-hot.
            team_reward: train every agent on the sum or the mean of all living agents' rewards;
                None, on its own.
            device: of the policies; rollouts are stored on the CPU.
            seed: of weights, actions, shuffling, and of the environments at each fresh start of
                collection. None takes fresh entropy and leaves environments' seeds alone.
            actor_network: by group, a module of your own in place of the encoder that
                ``net_config`` describes, see ``SequenceNetwork``; or one for all. Each group gets
                a copy.
            critic_network: likewise, for the critic alone.
            hyperparameters: the fields of ``PPOConfig``, for all groups.

        Raises:
            TypeError: a space or a value of the wrong kind.
            ValueError: an unknown name, a value out of range, agents of a group with different
                spaces; the message has what is known.

        """
        super().__init__()
        if agent_ids is None:
            if not isinstance(observation_spaces, Mapping):
                raise ValueError(
                    "agent_ids: expected the names of the agents, as observation_spaces is a list, "
                    "got None; pass env.possible_agents"
                )
            agent_ids = list(observation_spaces)
        self.agent_ids = list(agent_ids)
        if not self.agent_ids or len(set(self.agent_ids)) < len(self.agent_ids):
            raise ValueError(f"agent_ids: expected different names, got {self.agent_ids}")
        if team_reward not in (None, "sum", "mean"):
            raise ValueError(f"team_reward: expected 'sum', 'mean' or None, got {team_reward!r}")
        self.action_spaces = self._by_agent("action_spaces", action_spaces)
        self.observation_spaces = {
            agent: without_mask(space, self.action_spaces[agent])[0]
            for agent, space in self._by_agent("observation_spaces", observation_spaces).items()
        }
        self.grouped_agents = group_agents(self.agent_ids, groups)
        for name, agents in self.grouped_agents.items():
            self._check_group(name, agents)
        self.team_reward, self.agent_id_input = team_reward, agent_id_input
        self.device, self.seed = torch.device(device), seed
        configs = self._net_configs(net_config)
        config = PPOConfig.from_dict(hyperparameters)
        networks = _by_group(list(self.grouped_agents), actor_network, critic_network)
        self.trainees = {
            name: AgentGroup(
                self.observation_spaces[agents[0]],
                self.action_spaces[agents[0]],
                configs[name],
                config,
                device=device,
                seed=_group_seed(seed, i),
                agents=agents,
                identify=agent_id_input,
                networks=networks[name],
            )
            for i, (name, agents) in enumerate(self.grouped_agents.items())
        }

    def __repr__(self) -> str:
        """Groups, spaces, networks and sizes at a glance."""
        lines = [group.describe(f"{name} x {group.size}") for name, group in self.trainees.items()]
        text = "\n".join([f"IPPO after {self.env_steps:,} steps", *lines])
        return text.replace("\n", "\n  ")

    def _by_agent(self, name: str, spaces: Spaces) -> dict[str, gym.Space[Any]]:
        if not isinstance(spaces, Mapping):
            if len(spaces) != len(self.agent_ids):
                raise ValueError(
                    f"{name}: expected one for each of {self.agent_ids}, got {len(spaces)}"
                )
            spaces = dict(zip(self.agent_ids, spaces, strict=True))
        if set(spaces) != set(self.agent_ids):
            raise ValueError(
                f"{name}: expected the agents {self.agent_ids}, got {list(spaces)}; missing or "
                f"unknown: {sorted(set(spaces) ^ set(self.agent_ids))}"
            )
        return {agent: spaces[agent] for agent in self.agent_ids}

    def _check_group(self, name: str, agents: Sequence[str]) -> None:
        first = agents[0]
        for spaces in (self.observation_spaces, self.action_spaces):
            for agent in agents[1:]:
                if spaces[agent] != spaces[first]:
                    what = "observation" if spaces is self.observation_spaces else "action"
                    raise ValueError(
                        f"group {name!r}: expected equal {what} spaces, got {spaces[first]} of "
                        f"agent {first!r} and {spaces[agent]} of agent {agent!r}; agents that "
                        f"share a policy need equal spaces: name other groups with groups="
                    )

    def _net_configs(
        self, net_config: Mapping[str, Any] | NetConfig | None
    ) -> dict[str, NetConfig]:
        if isinstance(net_config, NetConfig):
            return dict.fromkeys(self.grouped_agents, net_config)
        parts = NetConfig().to_dict().keys()
        common = {k: v for k, v in (net_config or {}).items() if k in parts}
        special: dict[str, tuple[str, Any]] = {}
        for key, value in (net_config or {}).items():
            if key in parts:
                continue
            if key not in self.grouped_agents and key not in self.agent_ids:
                known = [*parts, *self.grouped_agents, *self.agent_ids]
                raise ValueError(unknown_name("net_config", key, list(dict.fromkeys(known))))
            group = key if key in self.grouped_agents else self.get_group_id(key)
            before, other = special.setdefault(group, (key, value))
            if other != value:
                raise ValueError(
                    f"net_config: expected one configuration for group {group!r}, got different "
                    f"ones for {before!r} and {key!r}; agents of a group share a policy"
                )
        configs = {}
        for group in self.grouped_agents:
            own = special[group][1] if group in special else {}
            if not isinstance(own, NetConfig):
                own = NetConfig.from_dict(_merged(common, own))
            configs[group] = own
        return configs

    # --- groups -----------------------------------------------------------------------------

    @property
    def groups(self) -> Sequence[AgentGroup]:
        """The groups of agents that share a policy."""
        return list(self.trainees.values())

    @property
    def group_names(self) -> list[str]:
        """Names of the groups."""
        return list(self.trainees)

    @property
    def shared_agent_ids(self) -> list[str]:
        """Names of the groups."""
        return list(self.grouped_agents)

    @property
    def net_configs(self) -> dict[str, NetConfig]:
        """Network shapes by group."""
        return {name: group.net_config for name, group in self.trainees.items()}

    @property
    def config(self) -> PPOConfig:
        """Hyper-parameters, of the first group; mutations may give each group its own."""
        return self.groups[0].config

    @property
    def env_steps(self) -> int:
        """Environment steps collected so far, the clock of ``lr_schedule``."""
        return self.groups[0].env_steps

    def get_group_id(self, agent_id: str) -> str:
        """Return the name of an agent's group.

        Raises:
            ValueError: there is no such agent.

        """
        for name, agents in self.grouped_agents.items():
            if agent_id in agents:
                return name
        raise ValueError(unknown_name("IPPO", agent_id, self.agent_ids).replace("option", "agent"))

    def has_grouped_agents(self) -> bool:
        """Whether any agents share a policy."""
        return len(self.grouped_agents) < len(self.agent_ids)

    def rows_of(self, env: Any) -> GroupRows:
        """See a vector of PettingZoo environments as rows.

        Raises:
            TypeError: it is of another kind.
            ValueError: agents or spaces that are not this agent's.

        """
        if not isinstance(env, MultiAgentVectorEnv):
            raise TypeError(
                f"env: expected a vector of PettingZoo environments, got {type(env).__name__}; "
                f"build one with make_multi_agent_vect_envs(make_env, num_envs)"
            )
        if set(env.possible_agents) != set(self.agent_ids):
            raise ValueError(
                f"env: expected the agents {self.agent_ids}, got {env.possible_agents}; missing or "
                f"unknown: {sorted(set(env.possible_agents) ^ set(self.agent_ids))}"
            )
        for agent in self.agent_ids:
            for name, ours, theirs in (
                ("observation", self.observation_spaces[agent], env.observation_spaces[agent]),
                ("action", self.action_spaces[agent], env.action_spaces[agent]),
            ):
                if not same_space(ours, theirs, bounds=name == "action"):
                    raise ValueError(
                        f"env: expected agent {agent!r} to have the {name} space {ours}, got "
                        f"{theirs}; build the agent from this environment's spaces, or wrap the "
                        f"environment as in training"
                    )
        for name, agents in self.grouped_agents.items():
            self._check_alike(name, agents, env)
        return GroupRows(env, list(self.grouped_agents.values()), self.team_reward)

    def _check_alike(self, name: str, agents: Sequence[str], env: MultiAgentVectorEnv) -> None:
        """Check that a group is alike in the environment too, where its arrays lie together."""
        first = agents[0]
        for agent in agents[1:]:
            if env.table.place[agent][0] is not env.table.place[first][0]:
                raise ValueError(
                    f"env: expected equal spaces for group {name!r}, got observations "
                    f"{env.observation_spaces[first]} of agent {first!r} and "
                    f"{env.observation_spaces[agent]} of agent {agent!r}, or an action mask within "
                    f"the observations of one of them only; name other groups with groups="
                )

    # --- acting -----------------------------------------------------------------------------

    def get_initial_hidden_state(self, n: int = 1) -> dict[str, HiddenState]:
        """Return the memory of each agent, of n rows, at the start of its life."""
        if n < 1:
            raise ValueError(f"n: expected at least 1 row, got {n}")
        return {
            agent: group.policy.initial_state(n) for group in self.groups for agent in group.agents
        }

    def get_action(
        self,
        obs: Mapping[str, Any],
        hidden_state: Mapping[str, HiddenState] | None = None,
        action_mask: Mapping[str, Any] | None = None,
        infos: Mapping[str, Any] | None = None,
        *,
        deterministic: bool = False,
        reward: Mapping[str, Any] | None = None,
    ) -> MultiAgentActionOutput:
        """Choose actions for the agents that see something; no memory is kept between calls.

        Args:
            obs: by agent, [n, *shape], or one observation [*shape] with states of one row; with
                {"observation": ..., "action_mask": ...} for it where the environment gives that.
                Absent agents are left out.
            hidden_state: by agent, from ``get_initial_hidden_state`` or the last call;
                feed-forward agents need none.
            action_mask: allowed actions by agent, bool [n, choices]; else taken from infos, else
                from obs.
            infos: the environment's, by agent: "env_defined_actions" (None or an action; for n
                rows a list of them) are returned as they are; "action_mask"; and from a vector of
                environments "exists" and "start", which freeze and zero the rows of the memory.
            deterministic: the most likely actions instead of samples.
            reward: the last rewards by agent, for agents built with previous_reward only.

        Returns:
            the five of ``MultiAgentActionOutput``, by agent of ``obs``; hidden states of all
            agents of ``hidden_state``.

        Raises:
            TypeError: not numbers, or no HiddenState.
            ValueError: an unknown agent, wrong shapes, numbers that are not finite, a missing
                state or reward; the message names the agents.

        """
        for name, given in (
            ("obs", obs),
            ("hidden_state", hidden_state),
            ("action_mask", action_mask),
            ("reward", reward),
        ):
            for agent in given or ():
                if agent not in self.agent_ids:
                    raise ValueError(f"{name}: expected agents of {self.agent_ids}, got {agent!r}")
        out = MultiAgentActionOutput({}, {}, {}, {}, dict(hidden_state or {}))
        for group in self.groups:
            present = [agent for agent in group.agents if obs.get(agent) is not None]
            if present:
                asked = [
                    Asked(group, a, obs, hidden_state, action_mask, infos, reward) for a in present
                ]
                act(group, asked, deterministic, out)
        return out

    # --- learning ---------------------------------------------------------------------------

    def learn(self) -> dict[str, Diagnostics]:
        """Train each group on the rollout that ``collect_rollouts_recurrent`` has filled it with.

        Returns:
            losses and what else there is to know, by group; a group nobody of which acted has
            ``updates`` 0.

        Raises:
            RuntimeError: nothing has been collected since the last call.
            FloatingPointError: a gradient was not finite.

        """
        return {name: group.learn() for name, group in self.trainees.items()}

    # --- testing ----------------------------------------------------------------------------

    def evaluate(
        self,
        env: Any,
        episodes: int,
        *,
        max_steps: int | None = None,
        deterministic: bool = True,
        seed: int | None = None,
    ) -> dict[str, Array]:
        """Run episodes without learning.

        Args:
            env: a PettingZoo environment or a vector of E; left open, and its next collection
                starts afresh.
            episodes: at least this many; rounded up to a multiple of E.
            max_steps: stop each episode here; None plays to its end.
            deterministic: take the most likely actions.
            seed: of the first reset; None leaves the environment's randomness as it is.

        Returns:
            undiscounted returns by agent, [episodes].

        """
        if not isinstance(env, MultiAgentVectorEnv):
            single = env
            env = SyncMultiAgentVectorEnv([lambda: single])
        by_group = evaluation.evaluate(
            self, env, episodes, max_steps=max_steps, deterministic=deterministic, seed=seed
        )
        returns = {
            agent: values
            for group, array in zip(self.groups, by_group, strict=True)
            for agent, values in zip(group.agents, array.T, strict=True)
        }
        return {agent: returns[agent] for agent in self.agent_ids}

    def test(
        self,
        env: Any,
        max_steps: int | None = None,
        loop: int = 3,
        sum_scores: bool = True,
        **options: Any,
    ) -> float | dict[str, float]:
        """Return the mean return of ``loop`` deterministic episodes, and append it to ``fitness``.

        Args:
            env: a PettingZoo environment, or a vector of E, each of which plays ``loop`` episodes.
            max_steps: of each episode; None plays to its end.
            loop: episodes of each environment, at least 1.
            sum_scores: of all agents together; False returns the means by agent, and appends
                their sum all the same.
            options: ``deterministic`` and ``seed``, as ``evaluate`` takes them.

        """
        if loop < 1:
            raise ValueError(f"loop: expected at least 1 episode, got {loop}")
        episodes = loop * int(getattr(env, "num_envs", 1))
        returns = self.evaluate(env, episodes, max_steps=max_steps, **options)
        means = {agent: float(values.mean()) for agent, values in returns.items()}
        self.fitness.append(sum(means.values()))
        return self.fitness[-1] if sum_scores else means

    # --- saving -----------------------------------------------------------------------------

    def _to_data(self) -> dict[str, Any]:
        return {
            "agent_ids": self.agent_ids,
            "agent_id_input": self.agent_id_input,
            "team_reward": self.team_reward,
            "seed": self.seed,
            "groups": {name: group.to_data() for name, group in self.trainees.items()},
            **self._histories(),
        }

    def own_networks(self) -> dict[str, Any]:
        return {
            f"{part}_network": {
                name: module
                for name, group in self.trainees.items()
                if (module := getattr(group.networks, part)) is not None
            }
            for part in Networks._fields
        }

    @classmethod
    def _from_data(
        cls,
        data: dict[str, Any],
        device: torch.device | str,
        actor_network: OwnNetworks = None,
        critic_network: OwnNetworks = None,
    ) -> Self:
        networks = _by_group(list(data["groups"]), actor_network, critic_network)
        groups = {
            name: AgentGroup.from_data(d, device, networks[name])
            for name, d in data["groups"].items()
        }
        agent = cls(
            {a: group.observation_space for group in groups.values() for a in group.agents},
            {a: group.action_space for group in groups.values() for a in group.agents},
            data["agent_ids"],
            {name: group.net_config for name, group in groups.items()},
            groups={name: group.agents for name, group in groups.items()},
            agent_id_input=data["agent_id_input"],
            team_reward=data["team_reward"],
            device=device,
            seed=data["seed"],
            actor_network=actor_network,
            critic_network=critic_network,
        )
        agent.trainees = groups
        agent._restore_histories(data)
        return agent


def _by_group(
    groups: Sequence[str], actor: OwnNetworks, critic: OwnNetworks
) -> dict[str, Networks]:
    """Deal the user's own modules out; ValueError for one of a group that there is not."""
    given = []
    for what, modules in (("actor_network", actor), ("critic_network", critic)):
        each = modules if isinstance(modules, Mapping) else dict.fromkeys(groups, modules)
        for name in each:
            if name not in groups:
                raise ValueError(unknown_name(what, name, list(groups)))
        given.append(each)
    return {name: Networks(*(each.get(name) for each in given)) for name in groups}


def _merged(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the common parts of a network configuration with a group's own put over them."""
    merged = {**common, **own}
    for part in common.keys() & own.keys():
        if isinstance(common[part], Mapping) and isinstance(own[part], Mapping):
            merged[part] = {**common[part], **own[part]}
    return merged


def _group_seed(seed: int | None, index: int) -> int | None:
    """Return group ``index``'s own seed; the first group's is the agent's, as in PPO."""
    if seed is None or index == 0:
        return seed
    return derived_seed(seed, index)
