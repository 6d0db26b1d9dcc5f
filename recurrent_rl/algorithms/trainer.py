"""What trains one group of agents, as agents, populations and mutations see it.

An algorithm is a trainer of its own on this one, which owns its optimisers and what was recorded.
"""

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import nn

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.algorithms.configs import AlgorithmConfig
from recurrent_rl.algorithms.schedules import told
from recurrent_rl.algorithms.settings import HasSettings
from recurrent_rl.distributed import ALONE, World
from recurrent_rl.networks.acting_policy import CustomNetworks, Policy
from recurrent_rl.networks.configs import NetConfig


class Trainer(HasSettings, ABC):
    """Trains one group, whatever the algorithm.

    Attributes:
        policy_type: the class of its policy.
        group: the policy and the agents that share it.
        config: hyper-parameters; ``reconfigure`` changes them.
        env_steps: environment steps collected so far, the clock of schedules; on all ranks.
        world: whose ranks train it together.

    """

    world: World = ALONE
    policy_type: ClassVar[type[Policy]]
    group: AgentGroup
    config: AlgorithmConfig
    env_steps: int

    def __init__(self, group: AgentGroup, config: Any) -> None:
        """Train ``group``, whose policy was built with the same ``config``, of ``config_type``."""
        self.group, self.config, self.env_steps = group, config, 0

    @property
    def buffer(self) -> Any:
        """What was recorded last, which the group has too; None before anything was."""
        return self.group.buffer

    @property
    def policy(self) -> Policy:
        """The group's."""
        return self.group.policy

    @property
    def net_config(self) -> NetConfig:
        """The group's network shapes."""
        return self.group.net_config

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of the agents in the group."""
        return self.group.agents

    def describe(self, title: str) -> str:
        """Title and size, what is seen and done, the networks, and what is not as by default."""
        lines = [self.group.describe(title)]
        if changes := self.config.changes():
            text = ", ".join(f"{name}={told(value)}" for name, value in changes.items())
            lines += textwrap.wrap(
                text,
                width=100,
                initial_indent="  settings  ",
                subsequent_indent=" " * 12,
                break_long_words=False,
            )
        return "\n".join(lines)

    # --- hyper-parameters ---------------------------------------------------------------------

    def reconfigure(self, **changes: Any) -> None:
        """Change hyper-parameters, from the next collection on.

        Args:
            changes: those of ``config.CHANGEABLE``; the others are built in.

        Raises:
            TypeError: a value of the wrong type.
            ValueError: an unknown name, one that is built in, or a value out of range.

        """
        config = self.config.replace(**changes)
        for name in changes:
            if name not in config.CHANGEABLE:
                raise ValueError(
                    f"reconfigure: expected hyper-parameters that act from one rollout to the "
                    f"next, out of {', '.join(config.CHANGEABLE)}, got {name!r}, which is built "
                    f"into the agent; build another agent with {name}={changes[name]!r}"
                )
        self.config = config
        self._reconfigured(changes)

    @abstractmethod
    def _reconfigured(self, changes: Mapping[str, Any]) -> None:
        """Pass on what has changed in ``config`` to whoever has a copy of it."""

    # --- mutations ----------------------------------------------------------------------------

    @abstractmethod
    def noisy_modules(self) -> list[nn.Module]:
        """Return what a mutation of weights adds noise to: all that chooses actions."""

    # --- saving -------------------------------------------------------------------------------

    @abstractmethod
    def to_data(self) -> dict[str, Any]:
        """Return all that training goes on from, the group included, for ``from_data``."""

    @classmethod
    def from_data(
        cls, data: Mapping[str, Any], device: torch.device | str, custom_networks: CustomNetworks
    ) -> Self:
        """Rebuild what ``to_data`` described, sharing no memory with it.

        Args:
            data: from ``to_data``.
            device: of the policy.
            custom_networks: modules like those that it was built with.

        """
        config = cls.config_type.from_dict(data["config"])
        group = AgentGroup.from_data(data, config, device, custom_networks, cls.policy_type)
        trainer = cls(group, config)
        trainer.env_steps = data["env_steps"]
        return trainer
