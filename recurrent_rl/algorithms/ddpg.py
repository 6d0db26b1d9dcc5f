"""DDPG for one agent."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

import gymnasium as gym

from recurrent_rl.algorithms.actor_critic_agent import ActorCriticAgent, ActorCriticTrainer
from recurrent_rl.algorithms.dpg_update import DPGLearner
from recurrent_rl.algorithms.off_policy_configs import DDPGConfig, DDPGOptions
from recurrent_rl.algorithms.off_policy_single import OffPolicySingleAgent, SingleKeywords
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.networks.off_policy import DeterministicActor


class DDPGTrainer(ActorCriticTrainer):
    """What is a DDPG or MADDPG group's own."""

    config_type = DDPGConfig
    policy_type = DeterministicActor


class DDPGKeywords(DDPGOptions, SingleKeywords, total=False):
    """What ``DDPG`` takes by name."""


class DDPG(ActorCriticAgent, OffPolicySingleAgent):
    """Deep deterministic policy gradient: an actor of one choice, and noise to explore by.

    Source: Lillicrap et al. 2016, "Continuous control with deep reinforcement learning"; with
    memory Heess et al. 2015, "Memory-based control with recurrent neural networks". Choices and
    bits, too, through a straight-through relaxation.

    Hyper-parameters are the fields of ``DDPGConfig``.

    >>> from recurrent_rl import DDPG, collect_rollouts_recurrent, make_vect_envs
    >>> env = make_vect_envs("Pendulum-v1", 4, should_async_vector=False)
    >>> agent = DDPG(
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

    config_type = DDPGConfig
    trainer_type = DDPGTrainer
    learner_type = DPGLearner

    if TYPE_CHECKING:  # the same constructor, with the names and types of what it takes here

        def __init__(
            self,
            observation_space: gym.Space[Any],
            action_space: gym.Space[Any],
            net_config: NetConfig | Mapping[str, Any] | None = None,
            **keywords: Unpack[DDPGKeywords],
        ) -> None:
            """Build an untrained agent; see ``OffPolicySingleAgent``."""
