"""How policies explore that learn off-policy: distributions around a greedy choice.

Shapes: ``...`` any leading axes, n choices, A a Box action's numbers.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from recurrent_rl.networks.distributions import ActionDistribution, gumbel
from recurrent_rl.spaces.actions import BoxCodec

EDGE = 1 - 1e-6  # of (-1, 1): what tanh gives of a finite number


class EpsilonGreedy(ActionDistribution):
    """Discrete actions: the best, or with probability epsilon any of those that are allowed.

    Parameters are the actions' values [..., n]; forbidden ones are lower than any value is.

    Attributes:
        epsilon: in [0, 1].

    """

    def __init__(self, choices: int, epsilon: float = 0.0) -> None:
        """Args: n, and epsilon at first."""
        super().__init__()
        self.outputs, self.epsilon = choices, epsilon

    def dist_params(self, outputs: Tensor, mask: Tensor | None = None) -> Tensor:
        return outputs if mask is None else forbid(outputs, mask)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Whether to explore (1 or 0), then noise for a uniform choice, [*shape, 1 + n]."""
        explores = (torch.rand(*shape, 1, generator=generator) < self.epsilon).to(torch.float32)
        return torch.cat((explores, gumbel((*shape, self.outputs), generator)), -1)

    def sample(self, dist_params: Tensor, noise: Tensor) -> Tensor:
        explores, drawn = noise[..., 0] > 0, noise[..., 1:]
        chance = drawn.masked_fill(~allowed(dist_params), -math.inf).argmax(-1)
        return torch.where(explores, chance, dist_params.argmax(-1))

    def mode(self, dist_params: Tensor) -> Tensor:
        return dist_params.argmax(-1)

    def _probabilities(self, dist_params: Tensor) -> Tensor:
        possible = allowed(dist_params).to(dist_params.dtype)
        greedy = F.one_hot(dist_params.argmax(-1), self.outputs).to(dist_params.dtype)
        chance = possible / possible.sum(-1, keepdim=True).clamp_min(1)
        probabilities: Tensor = self.epsilon * chance + (1 - self.epsilon) * greedy
        return probabilities

    def log_prob(self, dist_params: Tensor, action: Tensor) -> Tensor:
        """Log-probability; of what is never chosen that of the least number there is, finite."""
        chosen = self._probabilities(dist_params).gather(-1, action.unsqueeze(-1)).squeeze(-1)
        return chosen.clamp_min(torch.finfo(chosen.dtype).tiny).log()

    def entropy(self, dist_params: Tensor) -> Tensor:
        each: Tensor = torch.special.entr(self._probabilities(dist_params))
        return each.sum(-1)


def forbid(values: Tensor, mask: Tensor) -> Tensor:
    """Return values [..., n] with forbidden actions (False in ``mask``) below all that are allowed.

    A finite floor, so that no sum of it is NaN. Where nothing is allowed, as in the last state of a
    life, nothing is known of what might have been, and all values stay.
    """
    forbidden = ~mask & mask.any(-1, keepdim=True)
    return values.masked_fill(forbidden, torch.finfo(values.dtype).min / 2)


def allowed(values: Tensor) -> Tensor:
    """Return which of the values [..., n] ``forbid`` has left alone."""
    return values > torch.finfo(values.dtype).min / 4


class NoisyBox(ActionDistribution):
    """Box actions: a number each, and noise around it while exploring.

    Noise is added to what the environment's bounds see as (-1, 1), and the sum is clipped there;
    without bounds, to the number itself. Source: Lillicrap et al. 2016, "Continuous control with
    deep reinforcement learning", sec. 3. Parameters are the stored actions themselves, [..., A].

    Attributes:
        size: A.
        free: how many of these numbers bounds leave a choice; the others have no part in densities.
        squash: whether stored actions are squashed on their way to the environment.
        deviation: of independent normal noise, in half ranges of the space (without bounds, in the
            space's own units); >= 0.

    """

    def __init__(self, codec: BoxCodec, deviation: float = 0.0) -> None:
        """Args: how actions are stored, and the noise's deviation at first."""
        super().__init__()
        self.size = self.outputs = codec.features
        self.squash, self.deviation = codec.squash, deviation
        self._codec = [codec]  # in a list, so that it is no part of this module
        self.free = int((~codec.fixed).sum())

    def dist_params(self, outputs: Tensor, mask: Tensor | None = None) -> Tensor:
        return outputs

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return self.deviation * torch.randn(*shape, self.size, generator=generator)

    def sample(self, dist_params: Tensor, noise: Tensor) -> Tensor:
        if not self.squash:
            return dist_params + noise
        return (dist_params.tanh() + noise).clamp(-EDGE, EDGE).atanh()

    def mode(self, dist_params: Tensor) -> Tensor:
        return dist_params

    def log_prob(self, dist_params: Tensor, action: Tensor) -> Tensor:
        """Log-density of independent noise before it is clipped, of (-1, 1) as unit; 0 without."""
        if self.deviation == 0:
            return dist_params.new_zeros(dist_params.shape[:-1])
        mean, given = (x.tanh() if self.squash else x for x in (dist_params, action))
        z = (given - mean) / self.deviation
        if self.free < self.size:
            z = z.masked_fill(self._codec[0].fixed, 0)
        norm = self.free * (math.log(self.deviation) + 0.5 * math.log(2 * math.pi))
        log_prob: Tensor = -0.5 * z.square().sum(-1) - norm
        return log_prob

    def entropy(self, dist_params: Tensor) -> Tensor:
        """Entropy of independent noise [nats], likewise."""
        each = 0.0
        if self.deviation > 0:
            each = math.log(self.deviation) + 0.5 * math.log(2 * math.pi * math.e)
        return dist_params.new_full(dist_params.shape[:-1], self.free * each)
