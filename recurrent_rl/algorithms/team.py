"""Who is in a team of agents, and who shares a policy: resolved once, from what users give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from torch import nn

from recurrent_rl.algorithms.configs import check_net_config, sorted_options
from recurrent_rl.envs.agent_table import NAMES_HINT
from recurrent_rl.envs.group_rows import GroupRows
from recurrent_rl.envs.joint_view import JoinedView, JointView, StateView, joined_space
from recurrent_rl.envs.multi_agent_vector import MultiAgentVectorEnv
from recurrent_rl.networks.acting_policy import CustomNetworks
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.plain import plain
from recurrent_rl.randomness import derived_seed
from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.masks import without_mask
from recurrent_rl.spaces.serialization import same_space
from recurrent_rl.validation import shown, unknown_name

Spaces = Mapping[str, gym.Space[Any]] | Sequence[gym.Space[Any]]
CustomByGroup = nn.Module | Mapping[str, nn.Module] | None
TeamReward = Literal["sum", "mean"] | None


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


def checked_ids(agent_ids: Sequence[str]) -> list[str]:
    """Return agents' names in Python's own types.

    Raises:
        TypeError: no list, or names that are not text.
        ValueError: none, or one of them twice.

    """
    if not _is_list(agent_ids):
        raise TypeError(f"agent_ids: expected a list of names, got {shown(agent_ids)}")
    ids: list[str] = plain(_names(agent_ids), "agent_ids")
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"agent_ids: expected different names, got {ids}")
    return ids


def checked_groups(
    groups: Mapping[str, Sequence[str]] | None,
) -> dict[str, Sequence[str]] | None:
    """Return groups in Python's own types, with the names that NumPy may have given.

    Raises:
        TypeError: no dictionary of lists.

    """
    if groups is None:
        return None
    if not isinstance(groups, Mapping):
        raise TypeError(
            f"groups: expected names and lists of agents, as a dictionary, got {shown(groups)}"
        )
    for agents in groups.values():
        if isinstance(agents, str) or not _is_list(agents):
            raise TypeError(f"groups: expected lists of agents, got {shown(agents)}")
    return {
        plain(name, "a name in groups"): plain(list(members), f"groups[{name!r}]")
        for name, members in groups.items()
    }


@dataclass(frozen=True)
class Team:
    """Agents, what they see and do, and who shares a policy.

    Attributes:
        agent_ids: all agents.
        observation_spaces: by agent, without the action masks that may come with observations.
        action_spaces: by agent.
        grouped_agents: names of the groups and their members.
        team_reward: what every agent is trained on instead of its own reward.
        central: critics see a view of the whole environment.
        state_space: of that view, if it is the environment's ``state()``; None: it is what all
            agents see.

    """

    agent_ids: list[str]
    observation_spaces: dict[str, gym.Space[Any]]
    action_spaces: dict[str, gym.Space[Any]]
    grouped_agents: dict[str, list[str]]
    team_reward: TeamReward = None
    central: bool = False
    state_space: gym.Space[Any] | None = None

    @classmethod
    def resolve(
        cls,
        observation_spaces: Spaces,
        action_spaces: Spaces,
        agent_ids: Sequence[str] | None,
        groups: Mapping[str, Sequence[str]] | None,
        team_reward: TeamReward,
    ) -> "Team":
        """Return the team that the arguments of ``IPPO`` describe.

        Raises:
            TypeError: no spaces by agent, or names that are not text.
            ValueError: they do not fit together.

        """
        _check_spaces("observation_spaces", observation_spaces)
        _check_spaces("action_spaces", action_spaces)
        if agent_ids is None:
            if not isinstance(observation_spaces, Mapping):
                raise ValueError(
                    "agent_ids: expected the names of the agents, as observation_spaces is a list, "
                    "got None; pass env.possible_agents"
                )
            agent_ids = list(observation_spaces)
        ids, groups = checked_ids(agent_ids), checked_groups(groups)
        if team_reward is not None and str(plain(team_reward, "team_reward")) not in (
            "sum",
            "mean",
        ):
            raise ValueError(f"team_reward: expected 'sum', 'mean' or None, got {team_reward!r}")
        actions = _by_agent("action_spaces", action_spaces, ids)
        observations = {
            agent: without_mask(space, actions[agent])[0]
            for agent, space in _by_agent("observation_spaces", observation_spaces, ids).items()
        }
        team = cls(ids, observations, actions, group_agents(ids, groups), plain(team_reward))
        for name, agents in team.grouped_agents.items():
            team._check_group(name, agents)
        return team

    def _check_group(self, name: str, agents: Sequence[str]) -> None:
        first = agents[0]
        for what, spaces in (
            ("observation", self.observation_spaces),
            ("action", self.action_spaces),
        ):
            for agent in agents[1:]:
                if spaces[agent] != spaces[first]:
                    raise ValueError(
                        f"group {name!r}: expected equal {what} spaces, got {spaces[first]} of "
                        f"agent {first!r} and {spaces[agent]} of agent {agent!r}; agents that "
                        f"share a policy need equal spaces: name other groups with groups="
                    )

    @property
    def view_space(self) -> gym.Space[Any] | None:
        """Of what central critics see; None without any."""
        if not self.central or self.state_space is not None:
            return self.state_space
        return joined_space(self.observation_spaces, self.agent_ids)

    @property
    def is_grouped(self) -> bool:
        """Whether any agents share a policy."""
        return len(self.grouped_agents) < len(self.agent_ids)

    @property
    def is_by_name(self) -> bool:
        """Whether agents are grouped by their names, so that names nobody knew have a group too."""
        return self.grouped_agents == group_agents(self.agent_ids)

    def group_of(self, agent_id: str) -> str:
        """Return the name of an agent's group; where names say it, of an unknown agent's too.

        Raises:
            ValueError: there is no such agent, and no such group.

        """
        for name, agents in self.grouped_agents.items():
            if agent_id in agents:
                return name
        if self.is_by_name and isinstance(agent_id, str):
            (name,) = group_agents([agent_id])
            if name in self.grouped_agents:
                return name
        raise self._unknown(agent_id)

    def _unknown(self, agent_id: str) -> ValueError:
        message = unknown_name("The team", agent_id, self.agent_ids)
        return ValueError(message.replace("option", "agent"))

    def knows(self, agent_ids: Sequence[str]) -> bool:
        """Whether each of some agents has a group here."""
        if not self.is_by_name:
            return set(agent_ids) <= set(self.agent_ids)
        return group_agents(agent_ids).keys() <= self.grouped_agents.keys()

    def with_agents(self, agent_ids: Sequence[str]) -> "Team":
        """Return a team of other agents of this one's groups; empty groups are left out.

        Critics see nothing central any more: they were built for the agents that there were.

        Raises:
            TypeError: no list, or names that are not text.
            ValueError: an agent whose group nobody knows.

        """
        grouped: dict[str, list[str]] = {name: [] for name in self.grouped_agents}
        ids = checked_ids(agent_ids)
        for agent in ids:
            grouped[self.group_of(agent)].append(agent)
        like = {a: self.grouped_agents[name][0] for name, agents in grouped.items() for a in agents}
        return replace(
            self,
            agent_ids=ids,
            observation_spaces={agent: self.observation_spaces[like[agent]] for agent in ids},
            action_spaces={agent: self.action_spaces[like[agent]] for agent in ids},
            grouped_agents={name: agents for name, agents in grouped.items() if agents},
            central=self.central and ids == self.agent_ids,
        )

    def others(self, players: Sequence[str]) -> list[Array]:
        """Return by group who is none of the players, bool [A]; ValueError for unknown ones."""
        for agent in players:
            if agent not in self.agent_ids:
                raise self._unknown(agent)
        return [
            np.array([agent not in players for agent in agents])
            for agents in self.grouped_agents.values()
        ]

    def group_seed(self, seed: int | None, index: int) -> int | None:
        """Return group ``index``'s own seed; the first group's is the agent's, as in PPO."""
        if seed is None or index == 0:
            return seed
        return derived_seed(seed, index)

    def options(
        self,
        net_config: Mapping[str, Any] | NetConfig | None,
        hyperparameters: Mapping[str, Any],
    ) -> dict[str, tuple[NetConfig, dict[str, Any]]]:
        """Return each group's network shapes and hyper-parameters.

        Raises:
            ValueError: unknown names, or different shapes for agents of one group.

        """
        if isinstance(net_config, NetConfig):
            options = sorted_options(net_config, hyperparameters)
            return dict.fromkeys(self.grouped_agents, options)
        check_net_config(net_config)
        parts = NetConfig().to_dict().keys()
        taken = sorted(parts & {*self.grouped_agents, *self.agent_ids})
        if taken:
            raise ValueError(
                f"groups: expected names that net_config does not use itself, got {taken}; choose "
                f"another name with groups="
            )
        common = {k: v for k, v in (net_config or {}).items() if k in parts}
        special: dict[str, tuple[str, Any]] = {}
        for key, value in (net_config or {}).items():
            if key in parts:
                continue
            if key not in self.grouped_agents and key not in self.agent_ids:
                known = [*parts, *self.grouped_agents, *self.agent_ids]
                raise ValueError(unknown_name("net_config", key, list(dict.fromkeys(known))))
            group = key if key in self.grouped_agents else self.group_of(key)
            before, other = special.setdefault(group, (key, value))
            if other != value:
                raise ValueError(
                    f"net_config: expected one configuration for group {group!r}, got different "
                    f"ones for {before!r} and {key!r}; agents of a group share a policy"
                )
        found = {}
        for group in self.grouped_agents:
            own = special[group][1] if group in special else {}
            check_net_config(own)
            if not isinstance(own, NetConfig):
                own = _merged(common, own)
            found[group] = sorted_options(own, hyperparameters)
        return found

    def rows_of(self, env: Any, *, judged: bool = False) -> GroupRows:
        """See a vector of PettingZoo environments as rows.

        Args:
            env: the vector.
            judged: central critics see it, too, if there are any.

        Raises:
            TypeError: it is of another kind.
            ValueError: agents or spaces that are not this team's.

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
            for name, expected, got in (
                ("observation", self.observation_spaces[agent], env.observation_spaces[agent]),
                ("action", self.action_spaces[agent], env.action_spaces[agent]),
            ):
                if not same_space(expected, got, bounds=name == "action"):
                    raise ValueError(
                        f"env: expected agent {agent!r} to have the {name} space {expected}, got "
                        f"{got}; build the agent from this environment's spaces, or wrap the "
                        f"environment as in training"
                    )
        for name, agents in self.grouped_agents.items():
            _check_alike(name, agents, env)
        view = self._view_of(env) if judged else None
        return GroupRows(env, list(self.grouped_agents.values()), self.team_reward, view)

    def _view_of(self, env: MultiAgentVectorEnv) -> JointView | None:
        """Return what central critics see of a vector; ValueError: it has another state."""
        if not self.central:
            return None
        if self.state_space is None:
            return JoinedView(env, self.agent_ids)
        if env.state_space is None or not same_space(self.state_space, env.state_space):
            raise ValueError(
                f"env: expected environments with the state_space {self.state_space}, got "
                f"{env.state_space}; build the agent from this environment's state_space, or leave "
                f"it out: then critics see what all agents see"
            )
        return StateView(env)


def _check_spaces(name: str, spaces: Any) -> None:
    """Raise TypeError if there is not a space for each agent."""
    single = name[:-1]
    if callable(spaces):
        hint = f"write {{a: env.{single}(a) for a in env.possible_agents}}"
    elif isinstance(spaces, str) or not isinstance(spaces, Mapping | Sequence):
        hint = f"where all have the same one, write dict.fromkeys(env.possible_agents, {single})"
    else:
        each = spaces.items() if isinstance(spaces, Mapping) else enumerate(spaces)
        for agent, space in each:
            if not isinstance(space, gym.Space):
                raise TypeError(
                    f"{name}[{agent!r}]: expected a Gymnasium space, got {space!r}; write "
                    f"env.{single}({agent!r})"
                )
        return
    raise TypeError(
        f"{name}: expected a space for each agent, as a dictionary by agent or in the order of "
        f"agent_ids, got {spaces!r}; {hint}"
    )


def _names(agent_ids: Any) -> list[str]:
    """Return the agents' names; TypeError if there are others than text."""
    names = [agent_ids] if isinstance(agent_ids, str) else list(agent_ids)
    for name in names:
        if isinstance(agent_ids, str) or not isinstance(name, str):
            hint = "pass a list of names" if isinstance(agent_ids, str) else NAMES_HINT
            raise TypeError(
                f"agent_ids: expected names, each of them text, got {name!r} of type "
                f"{type(name).__name__}; {hint}"
            )
    return names


def _by_agent(name: str, spaces: Spaces, ids: Sequence[str]) -> dict[str, gym.Space[Any]]:
    if not isinstance(spaces, Mapping):
        if len(spaces) != len(ids):
            raise ValueError(f"{name}: expected one for each of {list(ids)}, got {len(spaces)}")
        spaces = dict(zip(ids, spaces, strict=True))
    if set(spaces) != set(ids):
        raise ValueError(
            f"{name}: expected the agents {list(ids)}, got {list(spaces)}; missing or unknown: "
            f"{sorted(set(spaces) ^ set(ids))}"
        )
    return {agent: spaces[agent] for agent in ids}


def _check_alike(name: str, agents: Sequence[str], env: MultiAgentVectorEnv) -> None:
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


def _merged(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the common parts of a network configuration with a group's own put over them."""
    merged = {**common, **own}
    for part in common.keys() & own.keys():
        if isinstance(common[part], Mapping) and isinstance(own[part], Mapping):
            merged[part] = {**common[part], **own[part]}
    return merged


def custom_by_group(
    groups: Sequence[str], actor: CustomByGroup, critic: CustomByGroup
) -> dict[str, CustomNetworks]:
    """Deal the user's own modules out; ValueError for one of a group that there is not."""
    given = []
    for what, modules in (("actor_network", actor), ("critic_network", critic)):
        each = modules if isinstance(modules, Mapping) else dict.fromkeys(groups, modules)
        for name in each:
            if name not in groups:
                raise ValueError(unknown_name(what, name, list(groups)))
        given.append(each)
    return {name: CustomNetworks(*(each.get(name) for each in given)) for name in groups}


def _is_list(value: Any) -> bool:
    """Whether it has elements in an order, NumPy's arrays of one axis included."""
    return isinstance(value, Sequence) or (isinstance(value, np.ndarray) and value.ndim == 1)
