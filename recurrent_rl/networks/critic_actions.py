"""Actions as critics see them: those that were taken, and those that a policy would take.

A critic that judges a policy passes a gradient back through its action. Choices have none, so what
stands for them is the choice itself, with the gradient of a softened one.

Letters: ``...`` any leading axes, F width of an action as an input, K a MultiDiscrete action's
components, n_max the most choices that one of them has.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from recurrent_rl.spaces.actions import (
    ActionCodec,
    BoxCodec,
    DiscreteCodec,
    MultiBinaryCodec,
    MultiDiscreteCodec,
)


class CriticActions:
    """How actions of one space are shown to critics.

    Sources: Jang et al. 2017, "Categorical Reparameterization with Gumbel-Softmax", sec. 2.2
    (straight-through); Lowe et al. 2017, "Multi-Agent Actor-Critic for Mixed
    Cooperative-Competitive Environments", sec. 4.1.

    Attributes:
        features: F.
        temperature: of softened choices, > 0.

    """

    def __init__(self, codec: ActionCodec, temperature: float = 1.0) -> None:
        """Args: how actions are stored, and the temperature."""
        self._codec, self.temperature = codec, temperature
        self.features = codec.features

    def taken(self, action: Tensor) -> Tensor:
        """Return stored actions [..., *shape] as inputs [..., F]."""
        if isinstance(self._codec, BoxCodec):
            return self._box(action)
        return self._codec.encode(action)

    def _box(self, action: Tensor) -> Tensor:
        # Not what the environment gets: whole numbers of it have no gradient, and a critic learns
        # best from numbers in (-1, 1).
        codec = self._codec
        assert isinstance(codec, BoxCodec)
        return action.tanh() if codec.squash else action / codec.unit

    def proposed(self, dist_params: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return what a policy would do, as inputs [..., F] with a gradient.

        Args:
            dist_params: of its distribution: a Box action itself, log-probabilities of choices
                [..., n] or [..., K, n_max], logits of bits.
            noise: from its distribution, for choices and bits; None takes the most likely.

        """
        codec = self._codec
        if isinstance(codec, BoxCodec):
            return self._box(dist_params)
        shifted = dist_params if noise is None else dist_params + noise
        if isinstance(codec, MultiBinaryCodec):
            soft, hard = torch.sigmoid(shifted / self.temperature), (shifted > 0).to(shifted.dtype)
            return _straight_through(hard, soft)
        assert isinstance(codec, DiscreteCodec | MultiDiscreteCodec)
        soft = torch.softmax(shifted / self.temperature, dim=-1)
        hard = F.one_hot(shifted.argmax(-1), shifted.shape[-1]).to(soft.dtype)
        chosen = _straight_through(hard, soft)
        if isinstance(codec, MultiDiscreteCodec):  # [..., K, n_max] -> [..., sum(nvec)]
            return chosen[..., codec.component, codec.choice]
        return chosen


def _straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """Return ``hard`` with the gradient of ``soft``."""
    return hard + (soft - soft.detach())
