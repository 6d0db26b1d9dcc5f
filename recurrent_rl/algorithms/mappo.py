"""PPO for several agents, whose critics see everything; actors act on what they see themselves."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack

import gymnasium as gym
import torch

from recurrent_rl.algorithms.configs import MAPPOConfig, PPOOptions
from recurrent_rl.algorithms.on_policy import OnPolicyTrainer
from recurrent_rl.algorithms.on_policy_team import OnPolicyTeam
from recurrent_rl.algorithms.team import CustomByGroup, Spaces, Team, TeamReward, custom_by_group
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.spaces.serialization import space_from_dict, space_to_dict
from recurrent_rl.validation import shown


class MAPPOTrainer(OnPolicyTrainer):
    """Trains one group by a critic that sees everything."""

    config_type = MAPPOConfig


class MAPPO(OnPolicyTeam):
    """PPO for agents that remember, with critics that see the whole environment.

    As in ``IPPO`` each group of alike agents has an actor and a critic of its own. The critic reads
    the environment's ``state()``, or what all agents see joined together, and has a memory for each
    agent, which begins, rests and ends with the agent's own by one and the same rule: values
    are of one agent, whose reward, whose life and (if it is shown) whose last action they are
    about. Acting needs nothing central: ``get_action`` and testing run the actor alone. Then values
    are NaN, and the critic's part of the hidden state stays as it is.

    Source: Yu et al. 2022, "The Surprising Effectiveness of PPO in Cooperative, Multi-Agent Games".

    >>> from mpe2 import simple_spread_v3
    >>> from recurrent_rl import MAPPO, collect_rollouts_recurrent, make_multi_agent_vect_envs
    >>> env = make_multi_agent_vect_envs(
    ...     simple_spread_v3.parallel_env, 4, should_async_vector=False
    ... )
    >>> agent = MAPPO(
    ...     env.observation_spaces,
    ...     env.action_spaces,
    ...     env.agents,
    ...     state_space=env.state_space,
    ...     learn_step=32,
    ...     seed=0,
    ... )
    >>> stats = collect_rollouts_recurrent(agent, env)
    >>> agent.learn()["agent"].updates
    8
    """

    config_type = MAPPOConfig
    trainer_type = MAPPOTrainer
    _fixed = (*OnPolicyTeam._fixed, "state_space")

    def __init__(
        self,
        observation_spaces: Spaces,
        action_spaces: Spaces,
        agent_ids: Sequence[str] | None = None,
        net_config: Mapping[str, Any] | NetConfig | None = None,
        *,
        state_space: gym.Space[Any] | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        agent_id_input: bool | Literal["critic"] = False,
        team_reward: TeamReward = None,
        device: torch.device | str = "cpu",
        seed: int | None = None,
        actor_network: CustomByGroup = None,
        critic_network: CustomByGroup = None,
        **hyperparameters: Unpack[PPOOptions],
    ) -> None:
        """Build an untrained agent.

        Args:
            observation_spaces: by agent, or a list in the order of ``agent_ids``: Box, Discrete,
                MultiDiscrete, MultiBinary, or Dict or Tuple of these; an "action_mask" within a
                Dict is split off.
            action_spaces: likewise: Discrete, MultiDiscrete, MultiBinary or Box.
            agent_ids: the environment's ``possible_agents``; needed unless the spaces are
                dictionaries.
            net_config: as for ``IPPO``; actor and critic have encoders of the same shape.
            state_space: of the environment's ``state()``, of any kind that observations may have;
                None: critics read the observations of all agents, and who is there.
            groups: names and members; None groups by what stands before the final "_".
            agent_id_input: show each policy which agent of its group it is, one-hot; "critic":
                only the critic, so that actors of a group stay exchangeable.
            team_reward: train every agent on the sum or the mean of all living agents' rewards;
                None, on its own.
            device: of the policies; rollouts are stored on the CPU.
            seed: of weights, actions, shuffling, and of the environments at each fresh start of
                collection. None takes fresh entropy and leaves environments' seeds alone.
            actor_network: by group, a module of your own in place of the actor's encoder that
                ``net_config`` describes, see ``SequenceNetwork``; or one for all.
            critic_network: likewise, for the critic; it reads the view.
            hyperparameters: the fields of ``MAPPOConfig``, for all groups.

        Raises:
            TypeError: a space or a value of the wrong kind.
            ValueError: an unknown name, a value out of range, agents of a group with different
                spaces, share_encoders=True; the message has what is known.

        """
        if state_space is not None and not isinstance(state_space, gym.Space):
            hint = "; write state_space=env.state_space" if callable(state_space) else ""
            raise TypeError(
                f"state_space: expected a Gymnasium space or None, got {shown(state_space)}{hint}"
            )
        team = Team.resolve(observation_spaces, action_spaces, agent_ids, groups, team_reward)
        team = dataclasses.replace(team, central=True, state_space=state_space)
        own = custom_by_group(list(team.grouped_agents), actor_network, critic_network)
        self._build(team, net_config, hyperparameters, own, agent_id_input, device, seed)

    @classmethod
    def option_names(cls) -> list[str]:
        return [*super().option_names(), "state_space"]

    @property
    def state_space(self) -> gym.Space[Any] | None:
        """Of the states that critics read; None: they read what all agents see."""
        return self.team.state_space

    def to_checkpoint(self) -> dict[str, Any]:
        state = self.state_space
        described = None if state is None else space_to_dict(state)
        own = {"state_space": described, "central": self.team.central}
        return {**super().to_checkpoint(), **own}

    def _rebuilt_team(self, team: Team, data: Mapping[str, Any]) -> Team:
        described = data["state_space"]
        state = None if described is None else space_from_dict(described)
        return dataclasses.replace(team, central=data["central"], state_space=state)
