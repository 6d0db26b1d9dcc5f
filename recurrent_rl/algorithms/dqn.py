"""DQN for one agent; with memory it is R2D2."""

from torch import nn

from recurrent_rl.algorithms.dqn_update import DQNLearner
from recurrent_rl.algorithms.off_policy import OffPolicyTrainer
from recurrent_rl.algorithms.off_policy_configs import DQNConfig
from recurrent_rl.algorithms.off_policy_single import OffPolicySingleAgent
from recurrent_rl.networks.off_policy import QNetwork


class DQNTrainer(OffPolicyTrainer):
    """What is a DQN agent's own beside its learner."""

    config_type = DQNConfig
    policy_type = QNetwork

    def noisy_modules(self) -> list[nn.Module]:
        policy = self.policy
        assert isinstance(policy, QNetwork)
        return [policy.trunk, policy.q_head]


class DQN(OffPolicySingleAgent):
    """Deep Q-learning for Discrete actions, double by default.

    Sources: Mnih et al. 2015, "Human-level control through deep reinforcement learning"; with
    memory Kapturowski et al. 2019, "Recurrent Experience Replay in Distributed Reinforcement
    Learning".

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

    def _make_learner(self) -> DQNLearner:
        trainer = self.trainers[""]
        policy, config = trainer.policy, trainer.config
        assert isinstance(policy, QNetwork)
        assert isinstance(config, DQNConfig)
        return DQNLearner("", policy, config)
