"""TD3 for one agent."""

from recurrent_rl.algorithms.actor_critic_agent import ActorCriticAgent
from recurrent_rl.algorithms.actor_critic_update import DPGLearner
from recurrent_rl.algorithms.ddpg import DDPGTrainer
from recurrent_rl.algorithms.off_policy_configs import TD3Config
from recurrent_rl.algorithms.off_policy_single import OffPolicySingleAgent


class TD3Trainer(DDPGTrainer):
    """What is a TD3 or MATD3 group's own."""

    config_type = TD3Config


class TD3(ActorCriticAgent, OffPolicySingleAgent):
    """DDPG with the lesser of two critics, a noisy target and a delayed actor.

    Source: Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods";
    with memory Ni et al. 2022, "Recurrent Model-Free RL Can Be a Strong Baseline for Many POMDPs".
    """

    config_type = TD3Config
    trainer_type = TD3Trainer
    learner_type = DPGLearner
