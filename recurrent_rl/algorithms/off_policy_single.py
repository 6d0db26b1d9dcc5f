"""What DQN, DDPG, TD3 and SAC have in common: one agent that learns from a replay."""

from collections.abc import Mapping
from typing import Any, ClassVar, TypedDict

import gymnasium as gym
import torch
from torch import nn

from recurrent_rl.algorithms.configs import sorted_options
from recurrent_rl.algorithms.off_policy import OffPolicyDiagnostics, OffPolicyTrainer
from recurrent_rl.algorithms.off_policy_agent import OffPolicyAgent
from recurrent_rl.algorithms.off_policy_configs import OffPolicyConfig
from recurrent_rl.algorithms.single_agent import SingleAgent
from recurrent_rl.buffers.replay import SequenceReplayBuffer, Windows
from recurrent_rl.networks.acting_policy import CustomNetworks
from recurrent_rl.networks.configs import NetConfig

# What these algorithms' networks are like, unless one says otherwise.
OFF_POLICY_NET: dict[str, dict[str, Any]] = {
    "encoder_config": {"activation": "ReLU"},
    "head_config": {"hidden_size": (128,), "activation": "ReLU"},
}


def off_policy_shapes(
    net_config: NetConfig | Mapping[str, Any] | None,
) -> NetConfig | Mapping[str, Any]:
    """Return network shapes with the defaults of off-policy algorithms where nothing was said."""
    if isinstance(net_config, NetConfig):
        return net_config
    if net_config is not None and not isinstance(net_config, Mapping):
        return net_config  # the check that follows says what is wrong
    merged = dict(net_config or {})
    for part, defaults in OFF_POLICY_NET.items():
        own = merged.get(part, {})
        if isinstance(own, Mapping):
            merged[part] = {**defaults, **own}
    return merged


class SingleKeywords(TypedDict, total=False):
    """What these agents take by name beside hyper-parameters."""

    device: torch.device | str
    seed: int | None
    actor_network: nn.Module | None
    critic_network: nn.Module | None


class OffPolicySingleAgent(OffPolicyAgent, SingleAgent):
    """One agent that learns from a replay."""

    config_type: ClassVar[type[OffPolicyConfig]]
    trainer_type: ClassVar[type[OffPolicyTrainer]]

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
        **hyperparameters: Any,
    ) -> None:
        """Build an untrained agent.

        Args:
            observation_space: of one environment: Box, Discrete, MultiDiscrete, MultiBinary, or
                Dict or Tuple of these; an "action_mask" within a Dict is split off.
            action_space: of one environment.
            net_config: ``{"encoder_config": {...}, "head_config": {...}}``, see ``NetConfig``; here
                activations are ReLU, and heads have a layer of 128, unless it says otherwise.
            device: of the networks; the replay is stored on the CPU.
            seed: of weights, actions, sampling, and of the environments at each fresh start of
                collection. None takes fresh entropy and leaves environments' seeds alone.
            actor_network: a module of your own in place of the encoder that ``net_config``
                describes, see ``SequenceNetwork``; it is copied.
            critic_network: likewise, for the critic alone.
            hyperparameters: the fields of the algorithm's configuration.

        Raises:
            TypeError: a space or a value of the wrong kind.
            ValueError: an unknown name or a value out of range; the message has what is known.

        """
        shapes = off_policy_shapes(net_config)
        fitting = self._fitting(action_space, hyperparameters)
        own = CustomNetworks(actor_network, critic_network)
        self._build(observation_space, action_space, shapes, fitting, own, device, seed)

    @classmethod
    def _fitting(
        cls, action_space: gym.Space[Any], hyperparameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return hyper-parameters with the algorithm's defaults for actions of this kind.

        Raises:
            TypeError: actions that the algorithm cannot learn.

        """
        return dict(hyperparameters)

    def networks_of(self, net_config: NetConfig | Mapping[str, Any] | None) -> dict[str, NetConfig]:
        return {"": sorted_options(off_policy_shapes(net_config), {})[0]}

    @property
    def trainer(self) -> OffPolicyTrainer:
        """What is the group's own."""
        return self.trainers[""]

    def learn(
        self, experiences: SequenceReplayBuffer | Windows | None = None
    ) -> OffPolicyDiagnostics:
        """Take the updates that are due for the steps collected since the last call.

        Args:
            experiences: a memory to sample from instead of the agent's own; or a sample, upon which
                one update is taken.

        Returns:
            losses and what else there is to know.

        Raises:
            RuntimeError: there is less in the memory than a batch, or everything is frozen.
            ValueError: it is of other spaces, agents or sequences.
            FloatingPointError: a gradient was not finite; the weights are those before it.

        """
        return self._learn(experiences)[""]
