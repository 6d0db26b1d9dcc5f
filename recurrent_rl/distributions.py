"""Action heads: from a network's output to sampled actions, log-probabilities and entropies.

A head works on plain tensors, without ``torch.distributions`` objects: building those costs five
times the arithmetic at the sizes that acting needs. Sampling takes its randomness as an argument,
so a whole rollout's noise is drawn at once and a run is reproducible.

Shapes: ``...`` any leading axes, P the network's outputs, A the action's components.
"""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from recurrent_rl.spaces import SUPPORTED_ACTIONS


class ActionHead(nn.Module):
    """What every head offers.

    Attributes:
        outputs: P, how many numbers the network gives the head.
        action_shape: of one stored action.
        action_dtype: of the store.
        features: width of an action as an input (``encode``).
        mask_size: width of an action mask; 0 where masks make no sense.

    """

    outputs: int
    action_shape: tuple[int, ...]
    action_dtype: torch.dtype
    features: int
    mask_size: int = 0

    def parameters_of(self, output: Tensor, mask: Tensor | None = None) -> Tensor:
        """Turn network outputs [..., P] (and a bool mask, True = allowed) into parameters."""
        raise NotImplementedError

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw the randomness for ``shape`` actions, on the CPU."""
        raise NotImplementedError

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Actions distributed by ``params``, given ``noise``."""
        raise NotImplementedError

    def mode(self, params: Tensor) -> Tensor:
        """Return the most likely actions."""
        raise NotImplementedError

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        """Log-probability (density) of stored actions, [...]."""
        raise NotImplementedError

    def entropy(self, params: Tensor) -> Tensor:
        """Entropy, [...]."""
        raise NotImplementedError

    def to_env(self, action: Tensor) -> np.ndarray[Any, Any]:
        """Stored actions as the environment takes them."""
        raise NotImplementedError

    def from_env(self, action: np.ndarray[Any, Any]) -> Tensor:
        """Return the stored form of actions that somebody else chose, on the CPU."""
        raise NotImplementedError

    def encode(self, action: Tensor) -> Tensor:
        """Stored actions as network inputs, [..., features]."""
        raise NotImplementedError


class CategoricalHead(ActionHead):
    """Discrete actions, optionally masked. Parameters are normalised log-probabilities [..., n].

    Stored actions count from 0, whatever the space's start.
    """

    def __init__(self, space: spaces.Discrete) -> None:
        """One output for each choice."""
        super().__init__()
        self.outputs = self.features = self.mask_size = int(space.n)
        self.start = int(space.start)
        self.action_shape, self.action_dtype = (), torch.int64

    def parameters_of(self, output: Tensor, mask: Tensor | None = None) -> Tensor:
        """Masked choices get (all but) no probability; a mask without any choice is uniform."""
        if mask is not None:
            # A finite floor: -inf would turn 0 * log 0 into NaN in the entropy's gradient.
            output = output.masked_fill(~mask, torch.finfo(output.dtype).min / 2)
        return F.log_softmax(output, dim=-1)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Gumbel noise: argmax(log p + noise) is a sample of p (Gumbel 1954)."""
        exponential = torch.empty(*shape, self.outputs).exponential_(generator=generator)
        # Never infinite: infinite noise would outweigh a mask.
        return -exponential.clamp_min_(torch.finfo(exponential.dtype).tiny).log_()

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        return (params + noise).argmax(dim=-1)

    def mode(self, params: Tensor) -> Tensor:
        return params.argmax(dim=-1)

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        return params.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self, params: Tensor) -> Tensor:
        return -(params.exp() * params).sum(dim=-1)

    def to_env(self, action: Tensor) -> np.ndarray[Any, Any]:
        return action.numpy(force=True) + self.start

    def from_env(self, action: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(action.astype(np.int64) - self.start)

    def encode(self, action: Tensor) -> Tensor:
        return F.one_hot(action, self.outputs).to(torch.get_default_dtype())


class GaussianHead(ActionHead):
    """Box actions of any shape: a diagonal Gaussian whose deviation does not depend on the state.

    Without squashing, actions are in the space's units and clipped to its bounds on their way to
    the environment; the log-probability is the unclipped one, as is customary. With squashing the
    environment gets ``mid + half_range * tanh(u)`` of a Gaussian u, and the log-probability is
    exact, with the change of variables (Haarnoja et al. 2018, "Soft Actor-Critic", appendix C).
    The store holds u: tanh cannot be inverted where it saturates.
    """

    low: Tensor
    high: Tensor

    def __init__(self, space: spaces.Box, std_init: float, squash: bool | None) -> None:
        """Raise ValueError when asked to squash into bounds that do not exist; None: if they do."""
        super().__init__()
        size = math.prod(space.shape)
        self.outputs = self.features = size
        self.action_shape, self.action_dtype = (size,), torch.float32
        squash = space.is_bounded() if squash is None else squash
        self.space, self.squash = space, squash
        if squash and not space.is_bounded():
            raise ValueError(
                f"squash_output: expected an action space with finite bounds, got {space}; give "
                f"it bounds (gymnasium.wrappers.RescaleAction) or leave squash_output=False"
            )
        self.register_buffer("low", torch.as_tensor(space.low, dtype=torch.float32).flatten())
        self.register_buffer("high", torch.as_tensor(space.high, dtype=torch.float32).flatten())
        self.log_std = nn.Parameter(torch.full((size,), math.log(std_init)))

    def parameters_of(self, output: Tensor, mask: Tensor | None = None) -> Tensor:
        return output

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randn(*shape, self.outputs, generator=generator)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        return torch.addcmul(params, self.log_std.exp(), noise)

    def mode(self, params: Tensor) -> Tensor:
        return params

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        z = (action - params) * (-self.log_std).exp()
        norm = self.log_std.sum() + 0.5 * self.outputs * math.log(2 * math.pi)
        log_prob: Tensor = -0.5 * torch.linalg.vecdot(z, z) - norm
        if self.squash:
            # log(1 - tanh(u)^2), written so that it does not underflow for large |u|.
            slope = 2 * (math.log(2) - action - F.softplus(-2 * action))
            log_prob = log_prob - (slope + (0.5 * (self.high - self.low)).log()).sum(dim=-1)
        return log_prob

    def entropy(self, params: Tensor) -> Tensor:
        """Entropy of the Gaussian itself; squashing has no closed form, so it is left out."""
        each = self.log_std + 0.5 * math.log(2 * math.pi * math.e)
        return each.sum().expand(params.shape[:-1])

    def bounded(self, action: Tensor) -> Tensor:
        """Stored actions within the space's bounds, [..., A]."""
        if self.squash:
            half = 0.5 * (self.high - self.low)
            action = self.low + half * (1 + action.tanh())
        return torch.clamp(action, self.low, self.high)

    def to_env(self, action: Tensor) -> np.ndarray[Any, Any]:
        array = self.bounded(action).numpy(force=True)
        array = array.reshape(*array.shape[:-1], *self.space.shape)
        if array.dtype != self.space.dtype:
            # Bounds again: float32(0.1), say, lies above a float64 bound of 0.1.
            array = array.astype(self.space.dtype).clip(self.space.low, self.space.high)
        return array

    def from_env(self, action: np.ndarray[Any, Any]) -> Tensor:
        array = action.reshape(*action.shape[: action.ndim - len(self.space.shape)], self.outputs)
        stored = torch.as_tensor(array, dtype=torch.float32)
        if self.squash:
            low, high = self.low.cpu(), self.high.cpu()
            # At the bounds themselves u would be infinite.
            stored = (2 * (stored - low) / (high - low) - 1).clamp(-1 + 1e-6, 1 - 1e-6).atanh()
        return stored

    def encode(self, action: Tensor) -> Tensor:
        return self.bounded(action)


def make_head(space: gym.Space[Any], std_init: float, squash: bool | None) -> ActionHead:
    """Choose the head for an action space.

    Raises:
        TypeError: a space that is not supported; the message says which are.

    """
    if isinstance(space, spaces.Discrete):
        return CategoricalHead(space)
    if isinstance(space, spaces.Box):
        return GaussianHead(space, std_init, squash)
    raise TypeError(f"action_space: expected {SUPPORTED_ACTIONS}, got {space}")
