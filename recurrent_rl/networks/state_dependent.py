"""Distributions of Box actions whose deviation depends on the state.

Shapes: ``...`` any leading axes, A a Box action's numbers, Z what the actor's last layer reads.
"""

import math

import torch
from torch import Tensor, nn

from recurrent_rl.networks.distributions import DiagonalGaussian, least_deviation

# How far the network can raise the logarithm of a deviation above its initial value: to 20 times
# the deviation.
LOG_STD_RISE = 3.0


class StateDependentGaussian(DiagonalGaussian):
    """Box actions whose deviation is an output of the network, as in Haarnoja et al. 2018.

    The first half of the outputs is the mean, the second the logarithm of the deviation over its
    initial value, clamped between ``least_deviation`` and ``LOG_STD_RISE``. Parameters are the mean
    and the logarithm of the deviation, [..., 2 A].
    """

    def __init__(self, size: int, std_init: float, half_range: Tensor | None = None) -> None:
        """Two outputs for each number of the action, which deviates by ``std_init`` at zeros."""
        super().__init__(size, half_range)
        self.outputs = 2 * self.size
        self.log_std_init = math.log(std_init)
        self.log_ratios = (math.log(least_deviation(std_init) / std_init), LOG_STD_RISE)

    def dist_params(self, outputs: Tensor, mask: Tensor | None = None) -> Tensor:
        mean, log_ratio = outputs.chunk(2, dim=-1)
        return torch.cat([mean, self.log_std_init + log_ratio.clamp(*self.log_ratios)], dim=-1)

    def moments(self, dist_params: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = dist_params.chunk(2, dim=-1)
        return mean, log_std


class GeneralizedSDE(DiagonalGaussian):
    """Box actions by generalised state-dependent exploration.

    Source: Raffin et al. 2021, "Smooth Exploration for Robotic Reinforcement Learning".
    An action deviates from its mean by a linear function of the latents z that the actor's last
    layer reads, ``sum_d z_d sigma_da eps_da`` with a standard normal eps that is held for some
    steps: near states get near deviations, so exploration is smooth in time. Given the state alone
    the action is a Gaussian of variance ``sum_d z_d^2 sigma_da^2``, and that is the distribution
    whose log-probability and entropy these are. No gradient flows from the deviation into z.

    Parameters are the mean, the logarithm of the deviation, and z, [..., 2 A + Z].

    Attributes:
        log_std: logarithm of sigma, [Z, A].

    """

    def __init__(
        self,
        size: int,
        std_init: float,
        half_range: Tensor | None = None,
        *,
        latents: int,
        sample_freq: int,
        unit_latents: bool = False,
    ) -> None:
        """One output for each number of the action.

        Args:
            size: A.
            std_init: initial deviation of an action where the mean square of z is 1.
            half_range: see ``DiagonalGaussian``.
            latents: Z.
            sample_freq: steps for which eps is held.
            unit_latents: scale each z to a mean square of 1, so that all states deviate by
                ``std_init`` at first. A new network's z are far smaller, and deviations that never
                leave the share of one whole number would explore nothing.

        """
        super().__init__(size, half_range)
        self.latents, self.hold, self.unit_latents = latents, sample_freq, unit_latents
        # Keeps the density finite where all of z is zero, and its errors small where z is, see
        # ``least_deviation``; at most a hundredth of the variance at the start.
        self.least_variance = min(0.1 * std_init, 1e-3 * max(std_init, 1.0)) ** 2
        log_std = math.log(std_init) - 0.5 * math.log(latents)
        self.log_std = nn.Parameter(torch.full((latents, self.size), log_std))

    def dist_params(self, outputs: Tensor, mask: Tensor | None = None) -> Tensor:
        mean, z = outputs.split([self.size, self.latents], dim=-1)
        z = z.detach()
        if self.unit_latents:
            size = z.square().mean(dim=-1, keepdim=True).sqrt()
            z = torch.where(size > 0, z / size.clamp_min(torch.finfo(z.dtype).tiny), 1.0)
        variance = z.square() @ (2 * self.log_std).exp() + self.least_variance
        return torch.cat([mean, 0.5 * variance.log(), z], dim=-1)

    def moments(self, dist_params: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std, _ = dist_params.split([self.size, self.size, self.latents], dim=-1)
        return mean, log_std

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw eps, [*shape, Z, A]; over steps it is held for ``hold`` of them at a time."""
        if len(shape) == 1:
            return torch.randn(*shape, self.latents, self.size, generator=generator)
        steps, rows = shape
        blocks = -(-steps // self.hold)  # rounded up
        drawn = torch.randn(blocks, rows, self.latents, self.size, generator=generator)
        return drawn[torch.arange(steps) // self.hold]

    def sample(self, dist_params: Tensor, noise: Tensor) -> Tensor:
        mean, _, z = dist_params.split([self.size, self.size, self.latents], dim=-1)
        # [..., 1, Z] @ [..., Z, A] -> [..., A]
        action: Tensor = mean + (z.unsqueeze(-2) @ (self.log_std.exp() * noise)).squeeze(-2)
        return action
