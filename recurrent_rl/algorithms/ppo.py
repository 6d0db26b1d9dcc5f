"""PPO for one agent."""

from collections.abc import Mapping
from typing import Any, Unpack

import gymnasium as gym
import torch
from torch import nn

from recurrent_rl.algorithms.configs import PPOOptions
from recurrent_rl.algorithms.on_policy import OnPolicyTrainer, learn_all
from recurrent_rl.algorithms.on_policy_agent import OnPolicyAgent
from recurrent_rl.algorithms.ppo_update import Diagnostics
from recurrent_rl.algorithms.single_agent import SingleAgent
from recurrent_rl.buffers.rollout import SequenceRolloutBuffer
from recurrent_rl.networks.acting_policy import CustomNetworks
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.networks.policy import ActorCritic


class PPO(OnPolicyAgent, SingleAgent):
    """Proximal policy optimisation for policies that remember (and for those that do not).

    Source: Schulman et al. 2017, "Proximal Policy Optimization Algorithms".

    >>> from recurrent_rl import PPO, collect_rollouts_recurrent, make_vect_envs
    >>> env = make_vect_envs("CartPole-v1", 4, should_async_vector=False)
    >>> agent = PPO(env.single_observation_space, env.single_action_space, learn_step=32, seed=0)
    >>> stats = collect_rollouts_recurrent(agent, env)
    >>> agent.learn().updates
    4
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        net_config: NetConfig | Mapping[str, Any] | None = None,
        *,
        device: torch.device | str = "cpu",
        seed: int | None = None,
        actor_network: nn.Module | None = None,
        critic_network: nn.Module | None = None,
        **hyperparameters: Unpack[PPOOptions],
    ) -> None:
        """Build an untrained agent.

        Args:
            observation_space: of one environment: Box, Discrete, MultiDiscrete, MultiBinary, or
                Dict or Tuple of these; an "action_mask" within a Dict is split off.
            action_space: of one environment: Discrete, MultiDiscrete, MultiBinary or Box.
            net_config: ``{"encoder_config": {...}, "head_config": {...}}``, see ``NetConfig``.
            device: of the policy; rollouts are stored on the CPU.
            seed: of weights, actions, shuffling, and of the environments at each fresh start of
                collection. None takes fresh entropy and leaves environments' seeds alone.
            actor_network: a module of your own in place of the encoder that ``net_config``
                describes, see ``SequenceNetwork``; it is copied. The heads, which ``net_config``
                describes too, stand on it; the critic's as well, unless share_encoders=False.
            critic_network: likewise, for the critic alone.
            hyperparameters: the fields of ``PPOConfig``.

        Raises:
            TypeError: a space or a value of the wrong kind.
            ValueError: an unknown name or a value out of range; the message has what is known.

        """
        own = CustomNetworks(actor_network, critic_network)
        self._build(observation_space, action_space, net_config, hyperparameters, own, device, seed)

    @property
    def trainer(self) -> OnPolicyTrainer:
        """What trains the policy."""
        return self.trainers[""]

    @property
    def policy(self) -> ActorCritic:
        """The network."""
        return self.trainer.policy

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Adam over the policy."""
        return self.trainer.optimizer

    @property
    def buffer(self) -> SequenceRolloutBuffer | None:
        """The last rollout; None before the first."""
        return self.trainer.buffer

    def learn(self) -> Diagnostics:
        """Train on the rollout that ``collect_rollouts_recurrent`` has filled the buffer with.

        Returns:
            losses and what else there is to know.

        Raises:
            RuntimeError: nothing has been collected since the last call, everything is frozen, or
                the policy or the optimiser was changed beyond what learning can go on from.
            FloatingPointError: a gradient was not finite; the weights are those before it.

        """
        self.join_world()
        self.check_ranks()
        return learn_all(self.trainers)[""]
