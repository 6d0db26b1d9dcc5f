"""The actor-critic: one trunk or two, an action head, and a value head.

Letters: N rows, S sequences, L longest sequence, K layers, H width of the features, F width of the
extra inputs (previous action, previous reward, identity), M steps that matter.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from recurrent_rl.networks.acting_policy import Acted, Central, CustomNetworks, Policy
from recurrent_rl.networks.choose_distribution import make_distribution
from recurrent_rl.networks.configs import NetConfig, PolicyConfig, ValuePolicyConfig
from recurrent_rl.networks.distributions import ActionDistribution
from recurrent_rl.networks.heads import ActionHead, ValueHead
from recurrent_rl.networks.trunk import Trunk
from recurrent_rl.recurrent.state import HiddenState


class ActorCritic(Policy):
    """A policy and its value function, with memory.

    Attributes, beside those of ``Policy``:
        action_head: from the first trunk's features to a distribution over actions.
        value_head: from the last trunk's features to V.

    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        net: NetConfig,
        config: PolicyConfig,
        identities: int = 0,
        networks: CustomNetworks = CustomNetworks(),  # noqa: B008 - immutable
        central: Central = Central(),  # noqa: B008 - immutable
    ) -> None:
        """Build an untrained policy; see ``Policy``."""
        super().__init__(
            observation_space, action_space, net, config, identities, networks, central
        )
        first, last = self._ends
        heads = net.head_config
        latents = heads.hidden_size[-1] if heads.hidden_size else first.outputs
        distribution = make_distribution(self.actions, config, latents)
        self.action_head = ActionHead(first.outputs, heads, distribution)
        standardised = isinstance(config, ValuePolicyConfig) and config.value_norm
        self.value_head = ValueHead(last.outputs, heads, standardised=standardised)
        # A nearly uniform first policy.
        layers = [(self.action_head.layers, 0.01), (self.value_head.layers, 1.0)]
        self._initialise(layers, config.ortho_init, net.encoder_config.forget_bias)
        self._note_parts()

    @property
    def distribution(self) -> ActionDistribution:
        return self.action_head.distribution

    def trained_parameters(self) -> list[nn.Parameter]:
        parts = (
            self.action_head.distribution,
            self.trunks,
            self.action_head.layers,
            self.value_head,
        )
        return [parameter for part in parts for parameter in part.parameters()]

    def dist_params(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        params: Tensor = self.action_head(features, mask)
        return params

    def heads(self) -> list[tuple[str, int, str, nn.Module]]:
        first, last = self._ends
        return [
            ("actor", first.outputs, str(self.actions.space), self.action_head),
            ("critic", last.outputs, "value", self.value_head),
        ]

    def chosen_value(self, acted: Acted) -> Tensor:
        if acted.critic_features is None:
            return acted.dist_params.new_full((acted.state.rows,), torch.nan)
        return self.value_of(acted.critic_features)

    def value_of(self, critic_features: Tensor) -> Tensor:
        """[..., H] -> [...]."""
        value: Tensor = self.value_head(critic_features)
        return value

    def value(self, seen: Tensor, extra: Tensor | None, state: HiddenState) -> Tensor:
        """V of what the critic reads, given the state before it, which stays as it is; [N].

        Args:
            seen: observations, or a central critic's views, [N, *shape].
            extra: [N, F] or None.
            state: of N rows.

        """
        trunk = self._ends[1]
        features, _ = trunk.step(trunk.inputs(seen), extra, state.tensors)
        return self.value_of(features)

    def unroll(
        self,
        observation: Tensor,
        extra: Tensor | None,
        state: Sequence[Tensor],
        active_index: Tensor | None,
        mask: Tensor | None = None,
        view: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run over whole sequences; give distributions and values.

        Args:
            observation: [L, S, *shape].
            extra: [L, S, F] or None.
            state: before the first step, [K, S, H] each.
            active_index: flat positions (l * S + s) of the M steps that matter, or None for all:
                the heads run on those only, so nothing else can touch a loss or a gradient.
            mask: of those steps, bool [M, mask_size], or None.
            view: what a central critic reads, [L, S, *shape]; None without one.

        Returns:
            dist_params: [M, ...].
            value: [M].

        """
        features = self.unroll_trunks(observation, extra, state, active_index, view)
        return self.action_head(features[0], mask), self.value_of(features[-1])

    def unroll_trunks(
        self,
        observation: Tensor,
        extra: Tensor | None,
        state: Sequence[Tensor],
        active_index: Tensor | None,
        view: Tensor | None = None,
    ) -> list[Tensor]:
        """Run over whole sequences; give what the heads read, [M, H] of each trunk.

        Args are those of ``unroll``.
        """
        features = []
        for trunk, x, shown in self.trunk_inputs(observation, extra, view):
            y = trunk(x, shown, state)[0].flatten(0, 1)  # [L, S, H] -> [L * S, H]
            features.append(y if active_index is None else y.index_select(0, active_index))
        return features

    def trunk_inputs(
        self, observation: Tensor, extra: Tensor | None, view: Tensor | None = None
    ) -> list[tuple[Trunk, Any, Tensor | None]]:
        """Return each trunk with what it reads and with those extra inputs that it is shown.

        Args:
            observation: stored form, [..., *shape].
            extra: [..., F] or None.
            view: what a central critic reads, [..., *shape], of any other leading axes.

        """
        trunks = self._inputs(observation, self._ends, view)
        return [(trunk, x, self._extra_of(trunk, extra)) for trunk, x in trunks]
