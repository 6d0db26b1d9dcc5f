"""SAC for one agent."""

from typing import Any

import gymnasium as gym

from recurrent_rl.algorithms.actor_critic_agent import ActorCriticAgent, ActorCriticTrainer
from recurrent_rl.algorithms.actor_critic_update import SACLearner
from recurrent_rl.algorithms.off_policy_configs import SACConfig
from recurrent_rl.algorithms.off_policy_single import OffPolicySingleAgent
from recurrent_rl.networks.off_policy import OffPolicyActor


class SACTrainer(ActorCriticTrainer):
    """What is a SAC agent's own beside its critic."""

    config_type = SACConfig
    policy_type = OffPolicyActor


class SAC(ActorCriticAgent, OffPolicySingleAgent):
    """Soft actor-critic, for Box actions, and for Discrete ones by the exact expectation.

    Sources: Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications"; Christodoulou
    2019, "Soft Actor-Critic for Discrete Action Settings".
    """

    config_type = SACConfig
    trainer_type = SACTrainer
    learner_type = SACLearner
    learner: SACLearner

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *args: Any,
        **options: Any,
    ) -> None:
        """Build an untrained agent; see ``OffPolicySingleAgent``.

        Raises:
            TypeError: other actions than Box and Discrete ones.

        """
        if isinstance(action_space, gym.spaces.MultiDiscrete | gym.spaces.MultiBinary):
            raise TypeError(
                f"action_space: expected Box or Discrete, which SAC can take expectations over, "
                f"got {action_space}; DDPG and TD3 learn it by a relaxation, PPO as it is"
            )
        if isinstance(action_space, gym.spaces.Discrete):
            options.setdefault("state_dependent_std", False)
        super().__init__(observation_space, action_space, *args, **options)

    def _of_choices(self) -> bool:
        return isinstance(self.action_space, gym.spaces.Discrete)
