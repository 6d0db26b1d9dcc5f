"""DDPG for one agent."""

from recurrent_rl.algorithms.actor_critic_agent import ActorCriticAgent, ActorCriticTrainer
from recurrent_rl.algorithms.actor_critic_update import DPGLearner
from recurrent_rl.algorithms.off_policy_configs import DDPGConfig
from recurrent_rl.algorithms.off_policy_single import OffPolicySingleAgent
from recurrent_rl.networks.off_policy import DeterministicActor


class DDPGTrainer(ActorCriticTrainer):
    """What is a DDPG or MADDPG group's own."""

    config_type = DDPGConfig
    policy_type = DeterministicActor


class DDPG(ActorCriticAgent, OffPolicySingleAgent):
    """Deep deterministic policy gradient: an actor of one choice, and noise to explore by.

    Source: Lillicrap et al. 2016, "Continuous control with deep reinforcement learning"; with
    memory Heess et al. 2015, "Memory-based control with recurrent neural networks". Choices and
    bits, too, through a straight-through relaxation.
    """

    config_type = DDPGConfig
    trainer_type = DDPGTrainer
    learner_type = DPGLearner
