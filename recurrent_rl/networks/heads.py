"""Heads: from a trunk's features to a distribution over actions, or to a value.

Letters: ``...`` any leading axes, H width of the features.
"""

import torch
from torch import Tensor, nn

from recurrent_rl.distributed import ALONE, World
from recurrent_rl.networks.configs import HeadConfig
from recurrent_rl.networks.distributions import ActionDistribution
from recurrent_rl.networks.layers import mlp
from recurrent_rl.networks.normalization import ReturnUnits


def head_layers(inputs: int, config: HeadConfig, outputs: int) -> nn.Sequential:
    """Return a head's layers, from H = ``inputs`` to ``outputs`` numbers."""
    return mlp(
        inputs,
        config.hidden_size,
        config.activation,
        outputs,
        config.residual_layers,
        config.layer_norm,
    )


class ActionHead(nn.Module):
    """From features to a distribution over actions.

    Attributes:
        layers: from features to what the distribution is made of.
        distribution: over stored actions.

    """

    def __init__(self, inputs: int, config: HeadConfig, distribution: ActionDistribution) -> None:
        """Args: H, shape of the layers, the distribution that they are to describe."""
        super().__init__()
        self.layers = head_layers(inputs, config, distribution.outputs)
        self.distribution = distribution

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the distribution's parameters, [..., *].

        Args:
            features: [..., H].
            mask: allowed actions, bool [..., mask_size], or None.

        """
        layers, distribution = self.layers, self.distribution
        if not distribution.latents:
            return distribution.dist_params(layers(features), mask)
        latents = layers[:-1](features)
        outputs = torch.cat((layers[-1](latents), latents), -1)
        return distribution.dist_params(outputs, mask)


class ValueHead(nn.Module):
    """From features to one number.

    Attributes:
        layers: from features to it, in its units.
        units: of what the layers give; None: those of rewards.

    """

    def __init__(self, inputs: int, config: HeadConfig, *, standardised: bool = False) -> None:
        """Args: H, shape of the layers, whether these give values in units of returns."""
        super().__init__()
        self.layers = head_layers(inputs, config, 1)
        self.units = ReturnUnits() if standardised else None

    def forward(self, features: Tensor) -> Tensor:
        """[..., H] -> [...]."""
        return self.from_outputs(self.layers(features))

    def from_outputs(self, outputs: Tensor) -> Tensor:
        """Return values [...] from what the layers give, [..., 1]."""
        value = outputs.squeeze(-1)
        if self.units is None:
            return value
        return value * self.units.deviation + self.units.mean

    @torch.no_grad()
    def follow(self, returns: Tensor, world: World = ALONE) -> None:
        """Let the units follow a rollout's returns [M]; values stay as they are, up to rounding.

        Args:
            returns: of this rank.
            world: whose ranks have more.

        """
        units, last = self.units, self.layers[-1]
        assert isinstance(last, nn.Linear)
        if units is None or not last.weight.requires_grad or not last.bias.requires_grad:
            return
        mean, deviation = units.mean, units.deviation
        units.update(returns, world)
        last.weight.mul_(deviation / units.deviation)
        last.bias.mul_(deviation).add_(mean - units.mean).div_(units.deviation)
