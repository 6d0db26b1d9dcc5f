"""Off-policy training of one group: how it explores, and what it asks of a replay.

What is learned, of all groups together, is a ``Learner``'s business.

Letters: E environments, A agents in the group, N = E * A rows.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor

from recurrent_rl.acting.exploration import (
    EpsilonExplorer,
    OffPolicyExplorer,
    OrnsteinUhlenbeck,
    epsilon_of_each,
    rows_of,
)
from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.algorithms.learner import Learner
from recurrent_rl.algorithms.off_policy_configs import DDPGConfig, DQNConfig, OffPolicyConfig
from recurrent_rl.algorithms.trainer import Trainer
from recurrent_rl.buffers.ring import ReplayLayout
from recurrent_rl.buffers.steps import StepShapes
from recurrent_rl.networks.acting_policy import CustomNetworks, Policy
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.networks.exploring import EpsilonGreedy, NoisyBox
from recurrent_rl.spaces.array import Array


@dataclass(frozen=True)
class OffPolicyDiagnostics:
    """What happened to one group in one call of ``learn``: means over its updates.

    Attributes:
        updates: gradient steps that were taken.
        values: losses and what else the algorithm notes, by name.

    """

    updates: int
    values: dict[str, float]

    def __getattr__(self, name: str) -> float:
        """Return one of the values; NaN if it was not noted in this call.

        Raises:
            AttributeError: no name that could be one.

        """
        if name.startswith("_") or name == "values":
            raise AttributeError(name)
        return self.values.get(name, math.nan)

    def to_dict(self) -> dict[str, float]:
        """Names and values, as a logger takes them."""
        return {**self.values, "updates": float(self.updates)}


class OffPolicyTrainer(Trainer):
    """What is one group's own in off-policy training.

    Attributes, beside those of ``Trainer``:
        name: of the group; "" where there is but one.
        learner: of all groups of the agent.
        explorer: how its rows explore; None before the first collection.
        drifting: how those do that ``get_action`` is asked about, if their noise drifts; it begins
            at zero where an agent is loaded.

    """

    config_type: ClassVar[type[OffPolicyConfig]]
    config: OffPolicyConfig
    learner: Learner
    explorer: OffPolicyExplorer | None
    drifting: OrnsteinUhlenbeck | None
    name: str = ""

    def __init__(self, group: AgentGroup, config: OffPolicyConfig) -> None:
        """Train ``group``, whose policy was built with the same ``config``."""
        super().__init__(group, config)
        group.reward_scale = config.reward_scale
        self.explorer = None
        self._explorer_state: Mapping[str, Any] | None = None
        self.drifting = None
        group.drift = self._drift_of if self._drifts() else None
        self._set_noise()

    # --- exploration ------------------------------------------------------------------------

    def _set_noise(self) -> None:
        """Tell the policy's distribution how much to explore when asked by ``get_action``."""
        distribution, config = self.policy.distribution, self.config
        if isinstance(distribution, NoisyBox):
            distribution.deviation = cast("DDPGConfig", config).expl_noise
        elif isinstance(distribution, EpsilonGreedy):
            distribution.epsilon = self._epsilon()

    def _epsilon(self) -> float:
        """Return the share of random actions at present."""
        config = cast("DQNConfig", self.config)
        if config.epsilon_per_env:
            return config.epsilon_end
        done = min(self.env_steps / config.epsilon_steps, 1.0)
        return config.epsilon_start + done * (config.epsilon_end - config.epsilon_start)

    def _epsilons(self, rows: int) -> Tensor | float:
        """Return the share of each of N rows, or one for all, at present."""
        config = cast("DQNConfig", self.config)
        if config.epsilon_per_env:
            return epsilon_of_each(config.epsilon_start, rows)
        return self._epsilon()

    def explorer_of(self, rows: int) -> OffPolicyExplorer:
        """Return what N rows explore by: the last one, if it was for as many."""
        if self.explorer is not None:
            self.explorer.restart()
        if self.explorer is None or self.explorer.rows != rows:
            self.explorer = self._new_explorer(rows)
            if self._explorer_state is not None:
                self.explorer.load_state_dict(self._explorer_state)
                self._explorer_state = None
        self.explorer.distribution = self.policy.distribution
        return self.explorer

    def _new_explorer(self, rows: int) -> OffPolicyExplorer:
        config, group = self.config, self.group
        if isinstance(config, DQNConfig):
            return EpsilonExplorer(group, rows, functools.partial(self._epsilons, rows))
        if isinstance(config, DDPGConfig) and self._drifts():
            return OrnsteinUhlenbeck(group, rows, self._drift)
        return OffPolicyExplorer(group, rows)

    def _drifts(self) -> bool:
        config = self.config
        is_box = isinstance(self.policy.distribution, NoisyBox)
        return isinstance(config, DDPGConfig) and config.o_u_noise and is_box

    def _drift_of(self, rows: int, agent: Array | None, start: Array | None) -> Tensor:
        """Return the noise of rows that ``get_action`` is asked about; see ``AgentGroup.drift``."""
        size = self.group.size
        envs = int(rows_of(agent, rows, size).max()) // size + 1
        if self.drifting is None or self.drifting.rows != envs * size:
            self.drifting = OrnsteinUhlenbeck(self.group, envs * size, self._drift)
        return self.drifting.of_rows(agent, rows, start)

    def _drift(self) -> tuple[float, float, float, float]:
        config = cast("DDPGConfig", self.config)
        return config.expl_noise, config.mean_noise, config.theta, config.dt

    # --- the replay -------------------------------------------------------------------------

    def shapes(self, masked: bool) -> StepShapes:
        """Return what one step of one row takes; ``masked``: action masks as well."""
        policy = self.policy
        return StepShapes(
            policy.codec.shape,
            policy.actions.shape,
            policy.codec.dtype,
            policy.actions.dtype,
            policy.state_shapes[: policy.memory],
            policy.extra.width,
            policy.actions.mask_size if masked else 0,
            (str(self.group.observation_space), str(self.group.action_space)),
        )

    @property
    def layout(self) -> ReplayLayout:
        """How its sequences lie in a replay."""
        config = self.config
        if not config.recurrent:
            return ReplayLayout()
        length = config.max_seq_len
        return ReplayLayout(length, length - config.overlap, config.burn_in)

    # --- what all trainers do ---------------------------------------------------------------

    def _reconfigured(self, changes: Mapping[str, Any]) -> None:
        self.group.reward_scale = self.config.reward_scale
        self._set_noise()
        self.learner.reconfigure(self.name, self.config)

    def end_rollout(self, steps: int) -> None:
        """Note that so many environment steps have been collected."""
        self.env_steps += steps
        self._set_noise()

    def to_data(self) -> dict[str, Any]:
        explorer = self._explorer_state if self.explorer is None else self.explorer.state_dict()
        return {
            **self.group.to_data(),
            "config": self.config.to_dict(),
            "env_steps": self.env_steps,
            "explorer": explorer or None,
        }

    @classmethod
    def from_data(
        cls, data: Mapping[str, Any], device: torch.device | str, custom_networks: CustomNetworks
    ) -> Self:
        trainer = super().from_data(data, device, custom_networks)
        trainer._explorer_state = data["explorer"]
        trainer._set_noise()
        return trainer

    # --- mutations --------------------------------------------------------------------------

    def replace_policy(self, net_config: NetConfig, policy: Policy, learner: Learner) -> None:
        """Take another network for the same spaces; collection starts afresh.

        Args:
            net_config: its shapes.
            policy: from ``AgentGroup.build_policy``.
            learner: of all groups, around this network; from ``Learner.successor``.

        """
        self.group.net_config, self.group.policy = net_config, policy
        self.learner.become(learner)
        if policy.distribution.latents:  # noise that is held is of another width
            self.explorer, self._explorer_state = None, None
        self._set_noise()
