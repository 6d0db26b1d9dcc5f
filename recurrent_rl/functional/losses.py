"""Losses as pure functions, a term for each step.

Letters: M active steps of a minibatch.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def policy_loss(ratio: Tensor, advantage: Tensor, clip_coef: float) -> Tensor:
    """PPO's clipped surrogate, negated, a term for each step.

    ``min(r A, clip(r, 1 - eps, 1 + eps) A)``, written as ``min(r A, A + eps |A|)``, which is the
    same number and a third of the operations.

    Source: Schulman et al. 2017, "Proximal Policy Optimization Algorithms", eq. 7.

    Args:
        ratio: r = pi_new(a|s) / pi_old(a|s), [M].
        advantage: [M].
        clip_coef: epsilon, > 0.

    Returns:
        loss terms, [M]; average them for the loss.

    """
    bound = torch.add(advantage, advantage.abs(), alpha=clip_coef)
    return -torch.minimum(ratio * advantage, bound)


def value_loss(
    value: Tensor, returns: Tensor, old_value: Tensor, clip_vf_coef: float | None = None
) -> Tensor:
    """Half the squared error of the value, a term for each step; optionally clipped.

    Clipping keeps the value within ``clip_vf_coef`` of the one at collection, pessimistically
    (Engstrom et al. 2020, "Implementation Matters in Deep RL", sec. 3).

    Args:
        value: [M].
        returns: targets, [M].
        old_value: value at collection, [M].
        clip_vf_coef: > 0, in the value's units; None does not clip.

    Returns:
        loss terms, [M].

    """
    loss = F.mse_loss(value, returns, reduction="none")
    if clip_vf_coef is not None:
        near = old_value + (value - old_value).clamp(-clip_vf_coef, clip_vf_coef)
        loss = torch.maximum(loss, (near - returns).square())
    return 0.5 * loss


def approximate_kl(ratio: Tensor, log_ratio: Tensor) -> Tensor:
    """KL(old || new) from samples of old: terms (r - 1) - log r; low variance, never negative.

    Source: Schulman 2020, "Approximating KL Divergence", estimator k3.

    Args:
        ratio: r = pi_new(a|s) / pi_old(a|s), [M].
        log_ratio: its logarithm, [M].

    Returns:
        terms, [M] [nats]; average them for the divergence.

    """
    return ratio - 1 - log_ratio
