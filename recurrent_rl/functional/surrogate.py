"""PPO's losses and their derivatives at once, on the CPU.

The same numbers as ``functional.losses`` and autograd give. On some hundred steps an operation of
NumPy takes a fraction of one of PyTorch, which spends most of it on finding out what to do.

Letters: M active steps of a minibatch.
"""

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Surrogate(NamedTuple):
    """Sums over M steps, and the derivatives of the first two, [M] each.

    Attributes:
        policy_loss: see ``losses.policy_loss``.
        value_loss: see ``losses.value_loss``.
        approx_kl: see ``losses.approximate_kl``.
        clipped: steps whose ratio left the clipping range.
        of_log_prob: derivative of policy_loss by each log-probability: ``-r A``, or 0 where the
            ratio is clipped.
        of_value: derivative of value_loss by each value: ``V - R``, or 0 where it is clipped.

    """

    policy_loss: float
    value_loss: float
    approx_kl: float
    clipped: int
    of_log_prob: Array
    of_value: Array


def surrogate(
    log_prob: Array,
    old_log_prob: Array,
    advantage: Array,
    clip_coef: float,
    value: Array,
    returns: Array,
    old_value: Array,
    clip_vf_coef: float | None = None,
) -> Surrogate:
    """Compare what a policy makes of M steps with what was collected.

    Args:
        log_prob: of the actions, [M].
        old_log_prob: at collection, [M].
        advantage: A, [M].
        clip_coef: epsilon, > 0.
        value: V, [M].
        returns: R, [M].
        old_value: at collection, [M].
        clip_vf_coef: see ``losses.value_loss``.

    """
    log_ratio = log_prob - old_log_prob
    ratio = np.exp(log_ratio)
    gain = ratio * advantage
    bound = np.abs(advantage)
    bound *= clip_coef
    bound += advantage
    policy_loss = -float(np.minimum(gain, bound).sum())
    gain *= gain <= bound
    of_log_prob = np.negative(gain, out=gain)
    ratio -= 1
    clipped = int(np.count_nonzero(np.abs(ratio) > clip_coef))
    ratio -= log_ratio
    of_value, value_loss = _value(value, returns, old_value, clip_vf_coef)
    return Surrogate(policy_loss, value_loss, float(ratio.sum()), clipped, of_log_prob, of_value)


def _value(
    value: Array, returns: Array, old_value: Array, clip_vf_coef: float | None
) -> tuple[Array, float]:
    error = value - returns
    terms = np.square(error)
    if clip_vf_coef is not None:
        change = value - old_value
        near = np.clip(change, -clip_vf_coef, clip_vf_coef)
        near += old_value
        near -= returns
        clipped = np.square(near, out=near)
        error *= (np.abs(change) <= clip_vf_coef) | (terms >= clipped)
        terms = np.maximum(terms, clipped)
    return error, 0.5 * float(terms.sum())
