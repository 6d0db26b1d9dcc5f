"""TD3 for one agent."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

import gymnasium as gym

from recurrent_rl.algorithms.actor_critic_agent import ActorCriticAgent
from recurrent_rl.algorithms.ddpg import DDPGTrainer
from recurrent_rl.algorithms.dpg_update import DPGLearner
from recurrent_rl.algorithms.off_policy_configs import TD3Config, TD3Options
from recurrent_rl.algorithms.off_policy_single import OffPolicySingleAgent, SingleKeywords
from recurrent_rl.networks.configs import NetConfig


class TD3Trainer(DDPGTrainer):
    """What is a TD3 or MATD3 group's own."""

    config_type = TD3Config


class TD3Keywords(TD3Options, SingleKeywords, total=False):
    """What ``TD3`` takes by name."""


class TD3(ActorCriticAgent, OffPolicySingleAgent):
    """DDPG with the lesser of two critics, a noisy target and a delayed actor.

    Source: Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods";
    with memory Ni et al. 2022, "Recurrent Model-Free RL Can Be a Strong Baseline for Many POMDPs".

    Hyper-parameters are the fields of ``TD3Config``.

    >>> from recurrent_rl import TD3, collect_rollouts_recurrent, make_vect_envs
    >>> env = make_vect_envs("Pendulum-v1", 4, should_async_vector=False)
    >>> agent = TD3(
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

    config_type = TD3Config
    trainer_type = TD3Trainer
    learner_type = DPGLearner

    if TYPE_CHECKING:  # the same constructor, with the names and types of what it takes here

        def __init__(
            self,
            observation_space: gym.Space[Any],
            action_space: gym.Space[Any],
            net_config: NetConfig | Mapping[str, Any] | None = None,
            **keywords: Unpack[TD3Keywords],
        ) -> None:
            """Build an untrained agent; see ``OffPolicySingleAgent``."""
