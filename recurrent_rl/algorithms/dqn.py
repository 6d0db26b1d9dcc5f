"""DQN for one agent; with memory it is R2D2."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

import gymnasium as gym
from torch import nn

from recurrent_rl.algorithms.dqn_update import DQNLearner
from recurrent_rl.algorithms.off_policy import OffPolicyTrainer
from recurrent_rl.algorithms.off_policy_configs import DQNConfig, DQNOptions
from recurrent_rl.algorithms.off_policy_single import OffPolicySingleAgent, SingleKeywords
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.networks.off_policy import QNetwork


class DQNTrainer(OffPolicyTrainer):
    """What is a DQN agent's own beside its learner."""

    config_type = DQNConfig
    policy_type = QNetwork

    def noisy_modules(self) -> list[nn.Module]:
        policy = self.policy
        assert isinstance(policy, QNetwork)
        return [policy.trunk, policy.q_head]


class DQNKeywords(DQNOptions, SingleKeywords, total=False):
    """What ``DQN`` takes by name."""


class DQN(OffPolicySingleAgent):
    """Deep Q-learning for Discrete actions, double by default.

    Sources: Mnih et al. 2015, "Human-level control through deep reinforcement learning"; with
    memory Kapturowski et al. 2019, "Recurrent Experience Replay in Distributed Reinforcement
    Learning".

    Hyper-parameters are the fields of ``DQNConfig``.

    >>> from recurrent_rl import DQN, collect_rollouts_recurrent, make_vect_envs
    >>> env = make_vect_envs("CartPole-v1", 4, should_async_vector=False)
    >>> agent = DQN(
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

    config_type = DQNConfig
    trainer_type = DQNTrainer

    if TYPE_CHECKING:  # the same constructor, with the names and types of what it takes here

        def __init__(
            self,
            observation_space: gym.Space[Any],
            action_space: gym.Space[Any],
            net_config: NetConfig | Mapping[str, Any] | None = None,
            **keywords: Unpack[DQNKeywords],
        ) -> None:
            """Build an untrained agent; see ``OffPolicySingleAgent``."""

    def _make_learner(self) -> DQNLearner:
        trainer = self.trainers[""]
        policy, config = trainer.policy, trainer.config
        assert isinstance(policy, QNetwork)
        assert isinstance(config, DQNConfig)
        return DQNLearner("", policy, config)
