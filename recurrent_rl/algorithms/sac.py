"""SAC for one agent."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

import gymnasium as gym

from recurrent_rl.algorithms.actor_critic_agent import ActorCriticAgent, ActorCriticTrainer
from recurrent_rl.algorithms.off_policy_configs import SACConfig, SACOptions
from recurrent_rl.algorithms.off_policy_single import OffPolicySingleAgent, SingleKeywords
from recurrent_rl.algorithms.sac_update import SACLearner
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.networks.off_policy import OffPolicyActor
from recurrent_rl.validation import checked


class SACTrainer(ActorCriticTrainer):
    """What is a SAC agent's own beside its critic."""

    config_type = SACConfig
    policy_type = OffPolicyActor


class SACKeywords(SACOptions, SingleKeywords, total=False):
    """What ``SAC`` takes by name."""


class SAC(ActorCriticAgent, OffPolicySingleAgent):
    """Soft actor-critic, for Box actions, and for Discrete ones by the exact expectation.

    Sources: Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications"; Christodoulou
    2019, "Soft Actor-Critic for Discrete Action Settings".

    Hyper-parameters are the fields of ``SACConfig``.

    >>> from recurrent_rl import SAC, collect_rollouts_recurrent, make_vect_envs
    >>> env = make_vect_envs("Pendulum-v1", 4, should_async_vector=False)
    >>> agent = SAC(
    ...     env.single_observation_space,
    ...     env.single_action_space,
    ...     learning_starts=64,
    ...     seed=0,
    ...     batch_size=64,
    ...     max_seq_len=8,
    ... )
    >>> stats = collect_rollouts_recurrent(agent, env, 20)
    >>> agent.learn().updates
    16
    """

    config_type = SACConfig
    trainer_type = SACTrainer
    learner_type = SACLearner
    learner: SACLearner

    if TYPE_CHECKING:  # the same constructor, with the names and types of what it takes here

        def __init__(
            self,
            observation_space: gym.Space[Any],
            action_space: gym.Space[Any],
            net_config: NetConfig | Mapping[str, Any] | None = None,
            **keywords: Unpack[SACKeywords],
        ) -> None:
            """Build an untrained agent; see ``OffPolicySingleAgent``."""

    @classmethod
    def _fitting(
        cls, action_space: gym.Space[Any], hyperparameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        if isinstance(action_space, gym.Space) and not isinstance(
            action_space, gym.spaces.Box | gym.spaces.Discrete
        ):
            relaxed = isinstance(action_space, gym.spaces.MultiDiscrete | gym.spaces.MultiBinary)
            hint = "; DDPG and TD3 learn it by a relaxation, PPO as it is" if relaxed else ""
            raise TypeError(
                f"action_space: expected Box or Discrete, which SAC can take expectations over, "
                f"got {action_space}{hint}"
            )
        options = super()._fitting(action_space, hyperparameters)
        has_sde = checked("use_sde", options.get("use_sde", False), bool)
        if has_sde or isinstance(action_space, gym.spaces.Discrete):
            options.setdefault("state_dependent_std", False)  # there is none, or another one
        return options

    def _of_choices(self) -> bool:
        return isinstance(self.action_space, gym.spaces.Discrete)
