"""Returns and advantages as pure functions.

Letters: T steps, N rows (environment, agent). Time comes first.
"""

import torch
from torch import Tensor


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
    gamma: float | Tensor,
    gae_lambda: float,
    unknown: Tensor | None = None,
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
        gamma: discount factor, in [0, 1]; of what follows each step, if they differ, [T, N].
        gae_lambda: in [0, 1].
        unknown: active steps of which nobody knows yet what they lead to, bool [T, N], or None.
            Earlier steps expect their values, as they do of what follows the last step.

    Returns:
        advantage: [T, N]; 0 where inactive or unknown.
        returns: advantage + value, [T, N]; 0 where inactive.

    """
    zero = torch.zeros((), dtype=value.dtype, device=value.device)
    cut = torch.where(truncated, bootstrap, zero).where(~terminated, zero)  # next value at an end
    cont = gamma * (~(terminated | truncated)).to(value.dtype)

    carried = value
    if not bool(active.all()):
        # `where`, not a product: what stands in inactive rows may be anything, NaN included.
        carried = reverse_scan(
            torch.where(active, value, reward + gamma * cut),
            torch.where(active, zero, cont),
            last_value,
        )
    following = torch.cat((carried[1:], last_value[None]))
    delta = reward + gamma * cut + cont * following - value
    if unknown is not None:
        delta = delta.where(~unknown, zero)
    advantage = reverse_scan(
        torch.where(active, delta, zero),
        torch.where(active, gae_lambda * cont, cont),
        torch.zeros_like(last_value),
    ).where(active, zero)
    return advantage, (advantage + value).where(active, zero)
