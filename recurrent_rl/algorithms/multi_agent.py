"""Agents for PettingZoo environments: a group for each kind of alike agents."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
import torch

from recurrent_rl.acting.evaluate import play_episodes
from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.acting.multi_agent_acting import AgentRequest, MultiAgentActionOutput, act
from recurrent_rl.acting.spectator import Spectator
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.scoring import Fitness, Scoring
from recurrent_rl.algorithms.swapping import warn_of_swap_channels
from recurrent_rl.algorithms.team import Team, TeamReward, custom_by_group
from recurrent_rl.envs.final_infos import by_players
from recurrent_rl.envs.group_rows import GroupRows
from recurrent_rl.envs.multi_agent_sync import SyncMultiAgentVectorEnv
from recurrent_rl.envs.multi_agent_vector import MultiAgentVectorEnv
from recurrent_rl.export.export import export_all
from recurrent_rl.networks.acting_policy import CustomNetworks
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.recurrent.state import HiddenState
from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.layout import refuse_pair
from recurrent_rl.validation import SEED, checked


class MultiAgent(Agent):
    """Several agents in PettingZoo environments, whatever their algorithm.

    Attributes, beside those of ``Agent``:
        team: who is in it, and who shares a policy.
        agent_id_input: policies see which agent of the group they act for; "critic": only critics.

    """

    team: Team
    agent_id_input: bool | Literal["critic"]
    _fixed: ClassVar[tuple[str, ...]] = (
        "agent_ids",
        "grouped_agents",
        "observation_spaces",
        "action_spaces",
        "net_configs",
    )

    def __repr__(self) -> str:
        """Groups, spaces, networks and sizes at a glance."""
        trainers = self.trainers.items()
        lines = [t.describe(f"{name} x {t.group.size}") for name, t in trainers]
        text = "\n".join([f"{type(self).__name__} after {self.env_steps:,} steps", *lines])
        return text.replace("\n", "\n  ")

    def _build(
        self,
        team: Team,
        net_config: Mapping[str, Any] | NetConfig | None,
        hyperparameters: Mapping[str, Any],
        networks: Mapping[str, CustomNetworks],
        agent_id_input: bool | Literal["critic"],
        device: torch.device | str,
        seed: int | None,
    ) -> None:
        """Set up an untrained agent of a team from what constructors take."""
        seed = checked("seed", seed, Annotated[int | None, SEED])
        for_critic = isinstance(agent_id_input, str) and agent_id_input == "critic"
        if not (for_critic and team.central):
            agent_id_input = checked("agent_id_input", agent_id_input, bool)
        self.team, self.agent_id_input = team, agent_id_input
        trainers, kind = {}, self.trainer_type
        options_of = team.options(net_config, hyperparameters)
        for i, (name, (shapes, options)) in enumerate(options_of.items()):
            agents, config = team.grouped_agents[name], self.config_type.from_dict(options)
            group = AgentGroup(
                team.observation_spaces[agents[0]],
                team.action_spaces[agents[0]],
                shapes,
                config,
                device=device,
                seed=team.group_seed(seed, i),
                agents=agents,
                identify=self.agent_id_input,
                custom_networks=networks[name],
                kind=kind.policy_type,
                view_space=team.view_space,
            )
            trainers[name] = kind(group, config)
        self._set_up(trainers, device, seed)

    # --- parts ------------------------------------------------------------------------------

    @classmethod
    def option_names(cls) -> list[str]:
        return [*super().option_names(), "agent_ids", "agent_id_input", "groups", "team_reward"]

    @property
    def agent_ids(self) -> list[str]:
        """All agents."""
        return self.team.agent_ids

    @property
    def observation_spaces(self) -> dict[str, gym.Space[Any]]:
        """By agent, without the action masks that may come with observations."""
        return self.team.observation_spaces

    @property
    def action_spaces(self) -> dict[str, gym.Space[Any]]:
        """By agent."""
        return self.team.action_spaces

    @property
    def grouped_agents(self) -> dict[str, list[str]]:
        """Names of the groups and their members."""
        return self.team.grouped_agents

    @property
    def team_reward(self) -> TeamReward:
        """What all agents are trained on; None: each on its own reward."""
        return self.team.team_reward

    @property
    def shared_agent_ids(self) -> list[str]:
        """Names of the groups."""
        return list(self.trainers)

    @property
    def net_configs(self) -> dict[str, NetConfig]:
        """Network shapes by group."""
        return {name: trainer.net_config for name, trainer in self.trainers.items()}

    def get_group_id(self, agent_id: str) -> str:
        """Return the name of an agent's group; ValueError: there is no such agent."""
        return self.team.group_of(agent_id)

    def has_grouped_agents(self) -> bool:
        """Whether any agents share a policy."""
        return self.team.is_grouped

    def rows_of(self, env: Any) -> GroupRows:
        """See a vector of PettingZoo environments as rows; see ``Team.rows_of``."""
        return self.team.rows_of(env)

    # --- acting -----------------------------------------------------------------------------

    def get_initial_hidden_state(
        self, n: int = 1, agents: Collection[str] | None = None
    ) -> dict[str, HiddenState]:
        """Return the memory of each agent, of n rows, at the start of its life.

        Args:
            n: rows, at least 1.
            agents: names; None: all of ``agent_ids``. Where agents are grouped by their names there
                may be others of the same groups, here and in ``get_action``.

        Raises:
            ValueError: n < 1, or an agent whose group nobody knows.

        """
        if n < 1:
            raise ValueError(f"n: expected at least 1 row, got {n}")
        everybody = [agent for group in self.groups for agent in group.agents]
        names = everybody if agents is None else list(agents)
        group_of = {agent: self.get_group_id(agent) for agent in names}
        return {a: self.trainers[group_of[a]].group.policy.initial_state(n) for a in names}

    def get_action(
        self,
        obs: Mapping[str, Any],
        hidden_state: Mapping[str, HiddenState] | None = None,
        action_mask: Mapping[str, Any] | None = None,
        infos: Mapping[str, Any] | None = None,
        *,
        deterministic: bool | None = None,
        reward: Mapping[str, Any] | None = None,
        agents: Collection[str] | None = None,
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
            deterministic: the most likely actions instead of samples; None: samples, unless
                ``training`` is False.
            reward: the last rewards by agent, for agents built with previous_reward only.
            agents: those who are there, ``env.agents``. The others get no action, even if ``obs``
                has their last observation, as it does when they have died; their memory is
                zeroed, for the case that they come back. None: all of ``obs`` are.

        Returns:
            the five of ``MultiAgentActionOutput``, by agent of ``obs``; hidden states of all
            agents of ``hidden_state``.

        Raises:
            TypeError: not numbers, or no HiddenState.
            ValueError: an unknown agent, wrong shapes, numbers that are not finite, a missing
                state or reward; the message names the agents.

        """
        refuse_pair("obs", obs)
        if not isinstance(obs, Mapping):
            raise TypeError(
                f"obs: expected observations by agent, as in {{{self.agent_ids[0]!r}: ...}}, got "
                f"{type(obs).__name__}; the environment's observations are such a dictionary"
            )
        for name, given in (
            ("obs", obs),
            ("hidden_state", hidden_state),
            ("action_mask", action_mask),
            ("reward", reward),
            ("agents", agents),
        ):
            for agent in given or ():
                self._check_agent(name, agent)
        states = dict(hidden_state or {})
        if agents is not None:
            obs = {agent: seen for agent, seen in obs.items() if agent in agents}
            for agent in states.keys() - set(agents):
                if isinstance(states[agent], HiddenState):
                    states[agent] = states[agent].reset(np.ones(states[agent].rows, dtype=bool))
        deterministic = not self.training if deterministic is None else deterministic
        out, stored = MultiAgentActionOutput({}, {}, {}, {}, states), dict[str, Array]()
        asked = []
        for name, trainer in self.trainers.items():
            group = trainer.group
            present = [agent for agent in group.agents if obs.get(agent) is not None]
            present += [
                agent
                for agent, seen in obs.items()
                if seen is not None
                and agent not in self.agent_ids
                and self.get_group_id(agent) == name
            ]
            parts = (obs, hidden_state, action_mask, infos, reward)
            asked.append((group, [AgentRequest(group, agent, *parts) for agent in present]))
        for group, requests in asked:  # only now: no group draws if another's input is refused
            if requests:
                stored |= act(group, requests, deterministic, out)
        result: MultiAgentActionOutput = self._chosen(out, stored)
        return result

    def _check_agent(self, what: str, agent: str) -> None:
        """Raise ValueError if nobody knows which group an agent belongs to."""
        if agent not in self.agent_ids:
            try:
                self.get_group_id(agent)
            except ValueError:
                raise ValueError(
                    f"{what}: expected agents of {self.agent_ids}, got {agent!r}"
                ) from None

    def _chosen(self, out: MultiAgentActionOutput, stored: dict[str, Array]) -> Any:
        """Return what ``get_action`` does, given the actions as policies have them, too."""
        return out

    # --- testing ----------------------------------------------------------------------------

    def evaluate(
        self,
        env: Any,
        episodes: int,
        *,
        max_steps: int | None = None,
        deterministic: bool = True,
        seed: int | None = None,
        players: Sequence[str] | None = None,
        infos: dict[str, Array] | None = None,
        watch: Spectator | None = None,
    ) -> dict[str, Array]:
        """Run episodes without learning.

        Environments are reset once for each episode, and left at the end of the last one.

        Args:
            env: a PettingZoo environment or a vector of E; left open, and its next collection
                starts afresh. It may have other agents than IPPO or MAPPO was trained with, see
                ``for_agents``.
            episodes: at least this many; rounded up to a multiple of E.
            max_steps: stop each episode here; None plays to its end.
            deterministic: take the most likely actions.
            seed: of the first reset; None leaves the environment's randomness as it is.
            players: agents that play by their policies; the others act uniformly at random. None:
                all play.
            infos: a dictionary that is emptied and filled with the finite numbers of the last infos
                that agents got when they or the episode ended: arrays [episodes] by name, of the
                mean over agents that got it, and by "agent/name" of each one's; NaN where there is
                none, or the episode was stopped before.
            watch: sees the episodes as they are played, see ``Spectator``.

        Returns:
            undiscounted returns by agent, [episodes].

        """
        if not isinstance(env, MultiAgentVectorEnv):
            single = env
            env = SyncMultiAgentVectorEnv([lambda: single])
        playing = self._for_env(env)
        by_group = play_episodes(
            playing,
            env,
            episodes,
            max_steps=max_steps,
            deterministic=deterministic,
            seed=seed,
            strangers=None if players is None else playing.team.others(players),
            infos=infos,
            watch=watch,
        )
        returns = {
            agent: values
            for group, array in zip(playing.groups, by_group, strict=True)
            for agent, values in zip(group.agents, array.T, strict=True)
        }
        return {agent: returns[agent] for agent in playing.agent_ids}

    def _for_env(self, env: MultiAgentVectorEnv) -> "MultiAgent":
        """Return who plays in an environment, which may have other agents of the same groups."""
        return self

    def test(
        self,
        env: Any,
        max_steps: int | None = None,
        loop: int = 3,
        sum_scores: bool = True,
        *,
        fitness: Fitness = None,
        opponents: Literal["random"] | None = None,
        swap_channels: bool = False,
        **options: Any,
    ) -> float | dict[str, float]:
        """Return the mean return of ``loop`` deterministic episodes, and append it to ``fitness``.

        Args:
            env: a PettingZoo environment, or a vector of E, each of which plays ``loop`` episodes.
            max_steps: of each episode; None plays to its end.
            loop: episodes of each environment, at least 1.
            sum_scores: of all agents together; False returns the means by agent, and appends
                the fitness all the same.
            fitness: names of the agents whose returns are summed; None sums all; or a function of
                the returns, a dictionary of arrays [episodes] by agent, or of ``(returns, infos)``,
                infos as ``evaluate`` fills them; or the name of a number in these, such as
                "is_success" or "agent_0/is_success", whose mean it is (episodes without it do not
                count).
            opponents: "random" tests against agents that act uniformly at random: all but those
                named in fitness; or else each agent plays its seat in turn, against random ones.
            swap_channels: has no effect, as images are recognised; True warns of that.
            options: ``deterministic``, ``seed`` and ``infos``, as ``evaluate`` takes them. Against
                random opponents infos have each agent's numbers from its own match.

        """
        warn_of_swap_channels(swap_channels)
        if loop < 1:
            raise ValueError(f"loop: expected at least 1 episode, got {loop}")
        episodes = loop * int(getattr(env, "num_envs", 1))
        scoring = Scoring(fitness, opponents)
        scoring.check(self.agent_ids)
        filled = options.pop("infos", None)
        returns: dict[str, Array] = {}
        matches: list[tuple[list[str], dict[str, Array]]] = []
        for side in scoring.sides(self.agent_ids):
            if opponents is not None:
                options["players"] = side
            own: dict[str, Array] = {}
            played = self.evaluate(env, episodes, max_steps=max_steps, infos=own, **options)
            counted = side if opponents is not None else list(played)
            returns |= {agent: played[agent] for agent in counted}
            matches.append((counted, own))
        infos = by_players(matches, episodes)
        if filled is not None:
            filled.clear()
            filled.update(infos)
        self.fitness.append(scoring.value(returns, infos, whole=max_steps is None))
        means = {agent: float(values.mean()) for agent, values in returns.items()}
        return self.fitness[-1] if sum_scores else means

    # --- saving -----------------------------------------------------------------------------

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: Literal["onnx", "pt2"] | None = None,
        action_mask: bool = True,
    ) -> dict[str, Path]:
        """Write each group's policy into a file that is run without this package.

        See ``PPO.export`` for what is in it. The agents of a group are rows of its policy, each
        with a hidden state of its own; a policy that is shown which of them it acts for takes their
        indices, as ``agent``, in the order that the file has them in.

        Args:
            path: of a folder for the files, which is created; its directory must exist.
            format: "pt2" for torch alone; None, like "onnx", for any ONNX runtime.
            action_mask: what is run takes a mask, of Discrete and MultiDiscrete actions; False
                leaves it out, for environments in which everything is always allowed.

        Returns:
            paths of the files by group.

        Raises:
            ExportError: a policy cannot be exported; the message says why. Nothing is written.
            ImportError: ONNX needs packages that are missing (the extra ``export``).
            FileNotFoundError: the directory does not exist.
            ValueError: no such format, or the path of a file.

        """
        groups = {name: trainer.group for name, trainer in self.trainers.items()}
        return export_all(groups, self._about(), path, format, action_mask)

    def to_checkpoint(self) -> dict[str, Any]:
        return {
            **super().to_checkpoint(),
            "agent_ids": self.agent_ids,
            "agent_id_input": self.agent_id_input,
            "team_reward": self.team_reward,
        }

    def custom_networks(self) -> dict[str, Any]:
        return {
            f"{part}_network": {
                name: module
                for name, trainer in self.trainers.items()
                if (module := getattr(trainer.group.custom_networks, part)) is not None
            }
            for part in CustomNetworks._fields
        }

    def _rebuild(
        self, data: dict[str, Any], device: torch.device | str, networks: dict[str, Any]
    ) -> None:
        members = {name: list(group["agents"]) for name, group in data["groups"].items()}
        actor, critic = networks.get("actor_network"), networks.get("critic_network")
        custom = custom_by_group(list(members), actor, critic)
        trainers = {
            name: self.trainer_type.from_data(group, device, custom[name])
            for name, group in data["groups"].items()
        }
        team = Team.resolve(
            {a: t.group.observation_space for t in trainers.values() for a in t.agents},
            {a: t.group.action_space for t in trainers.values() for a in t.agents},
            data["agent_ids"],
            members,
            data["team_reward"],
        )
        self.team = self._rebuilt_team(team, data)
        self.agent_id_input = data["agent_id_input"]
        self._set_up(trainers, device, data["seed"])

    def _rebuilt_team(self, team: Team, data: Mapping[str, Any]) -> Team:
        """Return a team that was saved, with what only this algorithm's teams have."""
        return team
