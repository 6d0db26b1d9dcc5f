"""Densities that policies have most often, with derivatives by hand, on the CPU.

What is not known here autograd finds out, in more time.

Letters: M steps, P the network's outputs, A a Box action's numbers.
"""

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.networks.distributions import (
    ActionDistribution,
    Categorical,
    Gaussian,
    squashing,
)
from recurrent_rl.spaces.array import Array


class Score(ABC):
    """Log-probabilities of stored actions, and the loss's gradients by way of them.

    Attributes:
        log_prob: [M].

    """

    log_prob: Array

    @abstractmethod
    def entropy(self) -> float:
        """Return the sum over steps [nats]."""

    @abstractmethod
    def gradients(self, of_log_prob: Array, of_entropy: float) -> tuple[Tensor, Tensor | None]:
        """Return the gradients by the network's outputs, [M, P], and by what ``own_input`` gave.

        Args:
            of_log_prob: by the log-probabilities, [M].
            of_entropy: by the entropy of each step, the same for all.

        """


def known(distribution: ActionDistribution, *, entropy: bool) -> bool:
    """Whether ``score`` knows the derivatives, those of the entropy too if the loss has one."""
    if type(distribution) is Gaussian:
        # The entropy of squashed actions depends on the mean as well.
        squashed = distribution.half_range is not None
        return distribution.free is None and not (entropy and squashed)
    return type(distribution) is Categorical


def own_input(distribution: ActionDistribution) -> Tensor | None:
    """Return what a known density depends on beside outputs: a Gaussian's log s, [A]; or None."""
    if isinstance(distribution, Gaussian):
        return distribution.moments(distribution.log_std)[1]
    return None


def score(
    distribution: ActionDistribution,
    outputs: Tensor,
    own: Tensor | None,
    mask: Tensor | None,
    action: Tensor,
) -> Score:
    """Return log-probabilities of stored actions under a known distribution.

    Args:
        distribution: see ``known``.
        outputs: the network's, [M, P].
        own: from ``own_input``.
        mask: allowed actions, bool [M, mask_size], or None.
        action: in stored form, [M, *shape].

    """
    if isinstance(distribution, Gaussian):
        assert own is not None
        return _GaussianScore(distribution, outputs, own, action)
    assert isinstance(distribution, Categorical)
    return _CategoricalScore(distribution, outputs, mask, action)


class _GaussianScore(Score):
    """With mean m, deviation s and ``z = (a - m) / s`` of each number of an action.

    ``d log p / d m = z / s``, ``d log p / d log s = z^2 - 1``, and ``d H / d log s = 1``. What a
    tanh adds to log p depends on the action alone.
    """

    def __init__(
        self, distribution: Gaussian, outputs: Tensor, own: Tensor, action: Tensor
    ) -> None:
        self.distribution, self.outputs = distribution, outputs
        log_std = own.detach().numpy()
        self.precision = np.exp(-log_std)
        self.z = action.numpy() - outputs.numpy()
        self.z *= self.precision
        self.log_prob = np.einsum("ma,ma->m", self.z, self.z)
        self.log_prob *= -0.5
        self.log_prob -= float(log_std.sum()) + 0.5 * len(log_std) * math.log(2 * math.pi)
        if distribution.half_range is not None:
            self.log_prob -= squashing(action, distribution.half_range).numpy()

    def entropy(self) -> float:
        return float(self.distribution.entropy(self.outputs).sum())

    def gradients(self, of_log_prob: Array, of_entropy: float) -> tuple[Tensor, Tensor | None]:
        of_mean = self.z * of_log_prob[:, None]  # times s
        of_log_std = np.einsum("ma,ma->a", of_mean, self.z)
        of_log_std += of_entropy * len(self.z) - float(of_log_prob.sum())
        of_mean *= self.precision
        return torch.from_numpy(of_mean), torch.from_numpy(of_log_std)


class _CategoricalScore(Score):
    """With the normalised log-probabilities log p of outputs x.

    ``d log p_a / d x_i = [i = a] - p_i`` and ``d H / d x_i = -p_i (log p_i + H)``. Outputs that are
    masked have no derivative.
    """

    def __init__(
        self, distribution: Categorical, outputs: Tensor, mask: Tensor | None, action: Tensor
    ) -> None:
        self.log_p = distribution.dist_params(outputs, mask).numpy()
        self.forbidden = None if mask is None else ~mask.numpy()
        self.chosen = (np.arange(len(action)), action.numpy())
        self.log_prob = self.log_p[self.chosen]
        self.p = np.exp(self.log_p)

    def entropy(self) -> float:
        return -float(np.einsum("mi,mi->", self.p, self.log_p))

    def gradients(self, of_log_prob: Array, of_entropy: float) -> tuple[Tensor, Tensor | None]:
        factor = -of_log_prob[:, None]
        if of_entropy:
            entropy = -np.einsum("mi,mi->m", self.p, self.log_p)
            factor = factor - of_entropy * (self.log_p + entropy[:, None])
        of_outputs = self.p * factor
        of_outputs[self.chosen] += of_log_prob
        if self.forbidden is not None:
            of_outputs[self.forbidden] = 0
        return torch.from_numpy(of_outputs), None
