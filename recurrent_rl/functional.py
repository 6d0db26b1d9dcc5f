"""The mathematics of recurrent PPO as pure functions of tensors.

Letters: T steps, N rows (environment, agent), M active steps of a minibatch. Time comes first.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def reverse_scan(offset: Tensor, factor: Tensor, init: Tensor) -> Tensor:
    """Solve ``y[t] = offset[t] + factor[t] * y[t + 1]`` backwards from ``y[T] = init``.

    Args:
        offset: [T, N].
        factor: [T, N].
        init: [N].

    Returns:
        y[0..T-1], [T, N].

    """
    y, out = init, []
    # unbind + one fused multiply-add a step: 2 us a step on a CPU, whatever N is.
    for b, c in zip(reversed(offset.unbind()), reversed(factor.unbind()), strict=True):
        y = torch.addcmul(b, c, y)
        out.append(y)
    return torch.stack(out[::-1])


def gae(
    reward: Tensor,
    value: Tensor,
    last_value: Tensor,
    bootstrap: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    active: Tensor,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation, exact at time limits and over steps without a decision.

    With ``next[t]`` the value that follows step t (0 if terminated, ``bootstrap[t]`` if truncated,
    else carried back from t+1) and ``cont[t] = not (terminated or truncated)``::

        active:    delta[t] = r[t] + gamma next[t] - V[t]
                   A[t] = delta[t] + gamma lambda cont[t] A[t+1];      t carries (V[t], A[t])
        inactive:  t carries (r[t] + gamma next[t], gamma cont[t] A[t+1])

    so a reward earned while others act reaches the last decision before it, and lambda counts
    decisions rather than steps.

    Source: Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage
    Estimation", eq. 16; time limits as in Pardo et al. 2018, "Time Limits in Reinforcement
    Learning", sec. 3.

    Args:
        reward: [T, N].
        value: V of what the policy saw at each step, [T, N]; unused where inactive.
        last_value: V of the observation after the last step, [N].
        bootstrap: V of the final observation of a truncated episode, with the hidden state after
            the step, [T, N]; unused elsewhere.
        terminated: the transition ended in a terminal state, bool [T, N]; wins over truncated.
        truncated: the transition was cut by a limit, bool [T, N].
        active: the policy chose this step's action, bool [T, N].
        gamma: discount factor, in [0, 1].
        gae_lambda: in [0, 1].

    Returns:
        advantage: [T, N]; 0 where inactive.
        returns: advantage + value, [T, N]; 0 where inactive.

    """
    zero = torch.zeros((), dtype=value.dtype, device=value.device)
    cut = torch.where(truncated, bootstrap, zero).where(~terminated, zero)  # next value at an end
    cont = gamma * (~(terminated | truncated)).to(value.dtype)

    # `where`, not a product: what stands in inactive rows may be anything, NaN included.
    carried = reverse_scan(
        torch.where(active, value, reward + gamma * cut),
        torch.where(active, zero, cont),
        last_value,
    )
    following = torch.cat((carried[1:], last_value[None]))
    delta = reward + gamma * cut + cont * following - value
    advantage = reverse_scan(
        torch.where(active, delta, zero),
        torch.where(active, gae_lambda * cont, cont),
        torch.zeros_like(last_value),
    ).where(active, zero)
    return advantage, (advantage + value).where(active, zero)


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


def masked_mean_std(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (population) standard deviation of the chosen elements; (0, 0) if there are none.

    Args:
        x: any shape; elements outside the mask may be anything.
        mask: bool, x's shape.

    Returns:
        two scalars.

    """
    chosen = x[mask]
    if chosen.numel() == 0:
        return x.new_zeros(()), x.new_zeros(())
    # Relative to one of them: equal elements then deviate by 0, not by the rounding of their mean,
    # which `normalize` would blow up to 1.
    origin = chosen[0]
    chosen = chosen - origin
    return origin + chosen.mean(), chosen.std(unbiased=False)


def normalize(x: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """Shift and scale the chosen elements to zero mean and unit deviation; 0 elsewhere.

    A single chosen element, or several equal ones, become 0.

    Args:
        x: any shape.
        mask: bool, x's shape.
        eps: keeps the quotient finite.

    Returns:
        x's shape.

    """
    mean, std = masked_mean_std(x, mask)
    return torch.where(mask, (x - mean) / (std + eps), x.new_zeros(()))


def explained_variance(prediction: Tensor, target: Tensor) -> float:
    """1 - Var[target - prediction] / Var[target]; NaN if the target does not vary, or is empty.

    Args:
        prediction: [M].
        target: [M].

    Returns:
        at most 1 (perfect); 0 for a constant prediction.

    """
    if target.numel() == 0:
        return float("nan")
    variance = (target - target[0]).var(unbiased=False)  # of equal targets: 0, without rounding
    if variance == 0:
        return float("nan")
    return float(1 - (target - prediction).var(unbiased=False) / variance)
