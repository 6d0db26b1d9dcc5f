"""Independent PPO for several agents, one policy for each group of alike agents."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import torch

from recurrent_rl.algorithms.configs import PPOOptions
from recurrent_rl.algorithms.on_policy_team import OnPolicyTeam
from recurrent_rl.algorithms.team import CustomByGroup, Spaces, Team, TeamReward, custom_by_group
from recurrent_rl.networks.configs import NetConfig


class IPPO(OnPolicyTeam):
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
    """

    def __init__(
        self,
        observation_spaces: Spaces,
        action_spaces: Spaces,
        agent_ids: Sequence[str] | None = None,
        net_config: Mapping[str, Any] | NetConfig | None = None,
        *,
        groups: Mapping[str, Sequence[str]] | None = None,
        agent_id_input: bool = False,
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
        team = Team.resolve(observation_spaces, action_spaces, agent_ids, groups, team_reward)
        own = custom_by_group(list(team.grouped_agents), actor_network, critic_network)
        self._build(team, net_config, hyperparameters, own, agent_id_input, device, seed)
