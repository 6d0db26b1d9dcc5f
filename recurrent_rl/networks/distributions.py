"""Distributions over actions: from a network's outputs to samples, log-probabilities, entropies.

They work on plain tensors, without ``torch.distributions`` objects: building those costs five times
the arithmetic at the sizes that acting needs. Sampling takes its randomness as an argument, so a
whole rollout's noise is drawn at once and a run is reproducible. Actions are stored ones, see
``spaces.actions``, which also turns them into the environment's form.

Shapes: ``...`` any leading axes, P the network's outputs, A a Box action's numbers, B a MultiBinary
action's bits, K a MultiDiscrete action's components (n_max the most choices that one of them has),
Z what the actor's last layer reads. Box actions whose deviation depends on the state are in
``state_dependent``; ``choose_distribution`` says which distribution a space gets.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recurrent_rl.functional.gaussian import expected_log_cosh


class ActionDistribution(nn.Module):
    """What every distribution offers.

    Attributes:
        outputs: P, how many numbers the network gives.
        latents: Z, how many numbers that the actor's last layer reads stand behind the outputs.
        hold: steps for which a drawn noise may be held.

    """

    outputs: int
    latents: int = 0
    hold: int = 1

    def dist_params(self, outputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Turn network outputs [..., P + Z] into the distribution's parameters, [..., *].

        ``mask`` is bool [..., mask_size], True = allowed.
        """
        raise NotImplementedError

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw the randomness for ``shape`` = (rows,) or (steps, rows) actions, on the CPU."""
        raise NotImplementedError

    def sample(self, dist_params: Tensor, noise: Tensor) -> Tensor:
        """Return actions, given ``noise``."""
        raise NotImplementedError

    def mode(self, dist_params: Tensor) -> Tensor:
        """Return the most likely actions."""
        raise NotImplementedError

    def log_prob(self, dist_params: Tensor, action: Tensor) -> Tensor:
        """Log-probability (density) of stored actions, [...]."""
        raise NotImplementedError

    def entropy(self, dist_params: Tensor) -> Tensor:
        """Entropy, [...]."""
        raise NotImplementedError


def gumbel(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw noise for which argmax(log p + noise) is a sample of p (Gumbel 1954)."""
    exponential = torch.empty(shape).exponential_(generator=generator)
    # Never infinite: infinite noise would outweigh a mask.
    return -exponential.clamp_min_(torch.finfo(exponential.dtype).tiny).log_()


class Categorical(ActionDistribution):
    """Discrete actions, optionally masked. Parameters are normalised log-probabilities [..., n]."""

    def __init__(self, choices: int) -> None:
        """One output for each of n choices."""
        super().__init__()
        self.outputs = choices

    def dist_params(self, outputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Masked choices get (all but) no probability; a mask without any choice is uniform."""
        if mask is not None:
            # A finite floor: -inf would turn 0 * log 0 into NaN in the entropy's gradient.
            outputs = outputs.masked_fill(~mask, torch.finfo(outputs.dtype).min / 2)
        return F.log_softmax(outputs, dim=-1)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return gumbel((*shape, self.outputs), generator)

    def sample(self, dist_params: Tensor, noise: Tensor) -> Tensor:
        return (dist_params + noise).argmax(dim=-1)

    def mode(self, dist_params: Tensor) -> Tensor:
        return dist_params.argmax(dim=-1)

    def log_prob(self, dist_params: Tensor, action: Tensor) -> Tensor:
        return dist_params.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self, dist_params: Tensor) -> Tensor:
        return -(dist_params.exp() * dist_params).sum(dim=-1)


class MultiCategorical(ActionDistribution):
    """MultiDiscrete actions: a choice for each component, independent of the others'.

    Outputs and masks (optional) are flat, [..., sum(nvec)], component after component. Parameters
    are normalised log-probabilities [..., K, n_max], with (all but) no probability behind the
    choices of a component that has fewer than n_max.
    """

    place: Tensor
    padding: Tensor

    def __init__(self, choices: Sequence[int]) -> None:
        """One output for each choice of each component."""
        super().__init__()
        counts = torch.tensor(choices)
        self.outputs = int(counts.sum())
        self.padded = (len(counts), int(counts.max()))
        exists = torch.arange(self.padded[1]) < counts[:, None]  # [K, n_max]
        # Where each flat choice stands among the padded ones. Made from the space alone, so no part
        # of a checkpoint.
        place = exists.flatten().nonzero().squeeze(-1)
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("padding", ~exists, persistent=False)

    def dist_params(self, outputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Masked choices get (all but) no probability; a component without any is uniform."""
        # Finite floors, as in Categorical, and even when all K components are summed up.
        floor = torch.finfo(outputs.dtype).min / (2 * len(self.padding))
        if mask is not None:
            outputs = outputs.masked_fill(~mask, floor)
        # Less than a masked choice while normalising, or a component without any allowed choice
        # would give the padding as much as its own. [..., sum(nvec)] -> [..., K, n_max]
        slots = outputs.new_full((*outputs.shape[:-1], self.padding.numel()), -torch.inf)
        flat = slots.index_copy(-1, self.place, outputs)
        log_p = F.log_softmax(flat.unflatten(-1, self.padded), dim=-1)
        return log_p.masked_fill(self.padding, floor)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return gumbel((*shape, *self.padded), generator)

    def sample(self, dist_params: Tensor, noise: Tensor) -> Tensor:
        return (dist_params + noise).argmax(dim=-1)

    def mode(self, dist_params: Tensor) -> Tensor:
        return dist_params.argmax(dim=-1)

    def log_prob(self, dist_params: Tensor, action: Tensor) -> Tensor:
        return dist_params.gather(-1, action.unsqueeze(-1)).squeeze(-1).sum(dim=-1)

    def entropy(self, dist_params: Tensor) -> Tensor:
        return -(dist_params.exp() * dist_params).sum(dim=(-2, -1))


class Bernoulli(ActionDistribution):
    """MultiBinary actions of any shape: bits, each independent of the others.

    Parameters are the logits of ones, [..., B].
    """

    def __init__(self, bits: int) -> None:
        """One output for each of B bits."""
        super().__init__()
        self.outputs = bits

    def dist_params(self, outputs: Tensor, mask: Tensor | None = None) -> Tensor:
        return outputs

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Logistic noise, by its inverse distribution function: logit + noise > 0 is a sample."""
        uniform = torch.rand(*shape, self.outputs, generator=generator)
        # Never infinite: a uniform number of zero becomes the smallest that 1 can differ by.
        return uniform.logit_(torch.finfo(uniform.dtype).eps / 2)

    def sample(self, dist_params: Tensor, noise: Tensor) -> Tensor:
        return (dist_params + noise > 0).to(torch.int8)

    def mode(self, dist_params: Tensor) -> Tensor:
        return (dist_params > 0).to(torch.int8)

    def log_prob(self, dist_params: Tensor, action: Tensor) -> Tensor:
        # A zero of logit l has the probability of a one of logit -l.
        return F.logsigmoid((2 * action - 1) * dist_params).sum(dim=-1)

    def entropy(self, dist_params: Tensor) -> Tensor:
        # An even function of the logit; for positive ones nothing cancels.
        size = dist_params.abs()
        return (F.softplus(-size) + size * torch.sigmoid(-size)).sum(dim=-1)


def least_deviation(std_init: float) -> float:
    """Return the least deviation that a policy may come down to.

    A log-probability has the mean's error over the deviation. Means, of order 1 or of the initial
    deviation, differ by some 1e-6 of that between acting and learning, which add up in another
    order: below this, probability ratios would be off by more than a thousandth before the first
    update. A policy that deviates by 1/200 of a half range is as good as deterministic.
    """
    return min(std_init, 5e-3 * max(std_init, 1.0))


class _BoundedBelow(torch.autograd.Function):
    """max(x, bound), of which an x below the bound can come back: a clamp's gradient is zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x < bound)
        return x.clamp_min(bound)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (below,) = ctx.saved_tensors
        # Descent raises x where the gradient is negative.
        return grad.masked_fill(below & (grad > 0), 0), None


class DiagonalGaussian(ActionDistribution):
    """Box actions of any shape: a diagonal Gaussian, wherever its deviation comes from.

    Without squashing the log-probability is that of the action before it is clipped, as is
    customary. With squashing the environment gets ``mid + half_range * tanh(u)`` of a Gaussian u,
    and the log-probability is that of what it gets, exactly, with the change of variables (Haarnoja
    et al. 2018, "Soft Actor-Critic", appendix C).

    Attributes:
        size: A.
        half_range: [A]; None without squashing.
        free: which of the numbers count, int [<= A]; None: all.

    """

    half_range: Tensor | None
    free: Tensor | None

    def __init__(self, size: int, half_range: Tensor | None = None) -> None:
        """Args: A, and the half range [A] into which a tanh squashes; None: it does not."""
        super().__init__()
        self.size = self.outputs = size
        self.register_buffer("half_range", half_range, persistent=False)
        self.register_buffer("free", None, persistent=False)

    def leave_out(self, fixed: Tensor) -> None:
        """Count only numbers that bounds leave a choice: ``fixed``, bool [A], says which do not.

        The environment gets one value of the others whatever is sampled, so they have no part in a
        probability, an entropy or a gradient.
        """
        if bool(fixed.any()):
            self.free = (~fixed).nonzero().squeeze(-1)

    def _counted(self, *tensors: Tensor | None) -> list[Any]:
        """Return what there is of the numbers that count."""
        free = self.free
        if free is None:
            return list(tensors)
        return [None if x is None else x.index_select(-1, free) for x in tensors]

    def moments(self, dist_params: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [..., A] and logarithm of the deviation, [..., A] or one for all, [A]."""
        raise NotImplementedError

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randn(*shape, self.size, generator=generator)

    def sample(self, dist_params: Tensor, noise: Tensor) -> Tensor:
        mean, log_std = self.moments(dist_params)
        return torch.addcmul(mean, log_std.exp(), noise)

    def mode(self, dist_params: Tensor) -> Tensor:
        return self.moments(dist_params)[0]

    def log_prob(self, dist_params: Tensor, action: Tensor) -> Tensor:
        mean, log_std, action, half = self._counted(
            *self.moments(dist_params), action, self.half_range
        )
        z = (action - mean) * (-log_std).exp()
        norm = log_std.sum(dim=-1) + 0.5 * action.shape[-1] * math.log(2 * math.pi)
        log_prob: Tensor = -0.5 * torch.linalg.vecdot(z, z) - norm
        if half is not None:
            log_prob = log_prob - squashing(action, half)
        return log_prob

    def entropy(self, dist_params: Tensor) -> Tensor:
        """Entropy [nats] of what ``log_prob`` is the density of: with squashing, of tanh's output.

        With it a wide Gaussian piles up on both bounds, and the entropy falls again.
        """
        mean, log_std, half = self._counted(*self.moments(dist_params), self.half_range)
        each = log_std + 0.5 * math.log(2 * math.pi * math.e)
        if half is not None:
            # E log |d tanh(u) / du| = -2 E log cosh u.
            each = each + half.log() - 2 * expected_log_cosh(mean, log_std.exp())
        entropy: Tensor = each.sum(dim=-1).expand(dist_params.shape[:-1])
        return entropy


def squashing(action: Tensor, half_range: Tensor) -> Tensor:
    """Log of the slope of ``half_range * tanh(u)``, summed over the numbers of an action, [...].

    Args:
        action: u, [..., A].
        half_range: [A].

    """
    # log(1 - tanh(u)^2), written so that it does not underflow for large |u|.
    slope = 2 * (math.log(2) - action - F.softplus(-2 * action))
    total: Tensor = (slope + half_range.log()).sum(dim=-1)
    return total


class Gaussian(DiagonalGaussian):
    """Box actions whose deviation does not depend on the state. Parameters are the mean [..., A].

    Attributes:
        log_std: logarithm of the deviation, [A]; what is below ``least`` counts as ``least``.
        least: logarithm of ``least_deviation``.

    """

    def __init__(self, size: int, std_init: float, half_range: Tensor | None = None) -> None:
        """One output for each number of the action, all of which deviate by ``std_init``."""
        super().__init__(size, half_range)
        self.log_std = nn.Parameter(torch.full((self.size,), math.log(std_init)))
        self.least = math.log(least_deviation(std_init))

    def dist_params(self, outputs: Tensor, mask: Tensor | None = None) -> Tensor:
        return outputs

    def moments(self, dist_params: Tensor) -> tuple[Tensor, Tensor]:
        if not torch.is_grad_enabled():
            return dist_params, self.log_std.clamp_min(self.least)
        # Nearly always, and much faster on a CPU, where asking costs no synchronisation.
        if self.log_std.is_cpu and float(self.log_std.detach().min()) >= self.least:
            return dist_params, self.log_std
        bounded: Tensor = _BoundedBelow.apply(self.log_std, self.least)  # type: ignore[no-untyped-call]
        return dist_params, bounded
