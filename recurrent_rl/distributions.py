"""Action heads: from a network's output to sampled actions, log-probabilities and entropies.

A head works on plain tensors, without ``torch.distributions`` objects: building those costs five
times the arithmetic at the sizes that acting needs. Sampling takes its randomness as an argument,
so a whole rollout's noise is drawn at once and a run is reproducible.

Shapes: ``...`` any leading axes, P the network's outputs, A a Box action's numbers, B a
MultiBinary action's bits, K a MultiDiscrete action's components (n_max the most choices that one of
them has), Z what the actor's last layer reads.
"""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from recurrent_rl.config import PPOConfig
from recurrent_rl.spaces import SUPPORTED_ACTIONS, choices


class ActionHead(nn.Module):
    """What every head offers.

    Attributes:
        outputs: P, how many numbers the network gives the head.
        latents: Z, how many of the numbers that the actor's last layer reads the head is given as
            well, behind the outputs; 0 for none.
        action_shape: of one stored action.
        action_dtype: of the store.
        features: width of an action as an input (``encode``).
        mask_size: width of an action mask; 0 where masks make no sense.

    """

    outputs: int
    latents: int = 0
    action_shape: tuple[int, ...]
    action_dtype: torch.dtype
    features: int
    mask_size: int = 0

    def parameters_of(self, output: Tensor, mask: Tensor | None = None) -> Tensor:
        """Turn network outputs [..., P + Z] into parameters, [..., *].

        ``mask`` is bool [..., mask_size], True = allowed.
        """
        raise NotImplementedError

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw the randomness for ``shape`` = (rows,) or (steps, rows) actions, on the CPU."""
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


def gumbel(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw noise for which argmax(log p + noise) is a sample of p (Gumbel 1954)."""
    exponential = torch.empty(shape).exponential_(generator=generator)
    # Never infinite: infinite noise would outweigh a mask.
    return -exponential.clamp_min_(torch.finfo(exponential.dtype).tiny).log_()


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
        return gumbel((*shape, self.outputs), generator)

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


class MultiCategoricalHead(ActionHead):
    """MultiDiscrete actions: a choice for each component, independent of the others'.

    Outputs, masks (optional) and encoded actions are flat, [..., sum(nvec)], component after
    component. Parameters are normalised log-probabilities [..., K, n_max], with (all but) no
    probability behind the choices of a component that has fewer than n_max. Stored actions [..., K]
    count from 0, whatever the space's start.
    """

    component: Tensor
    choice: Tensor
    place: Tensor
    padding: Tensor

    def __init__(self, space: spaces.MultiDiscrete) -> None:
        """One output for each choice of each component."""
        super().__init__()
        counts = torch.tensor(choices(space))
        self.outputs = self.features = self.mask_size = int(counts.sum())
        self.space, self.start = space, space.start.astype(np.int64)
        self.action_shape, self.action_dtype = (len(counts),), torch.int64
        self.padded = (len(counts), int(counts.max()))
        exists = torch.arange(self.padded[1]) < counts[:, None]  # [K, n_max]
        # Made from the space alone, so no part of a checkpoint. Of each flat choice: which
        # component's, which of its choices, and where it stands among the padded ones.
        component, choice = exists.nonzero().unbind(-1)
        place = component * self.padded[1] + choice
        for name, index in {"component": component, "choice": choice, "place": place}.items():
            self.register_buffer(name, index.contiguous(), persistent=False)
        self.register_buffer("padding", ~exists, persistent=False)

    def parameters_of(self, output: Tensor, mask: Tensor | None = None) -> Tensor:
        """Masked choices get (all but) no probability; a component without any is uniform."""
        # Finite floors, as in CategoricalHead, and even when all K components are summed up.
        floor = torch.finfo(output.dtype).min / (2 * len(self.padding))
        if mask is not None:
            output = output.masked_fill(~mask, floor)
        # Less than a masked choice while normalising, or a component without any allowed choice
        # would give the padding as much as its own. [..., sum(nvec)] -> [..., K, n_max]
        slots = output.new_full((*output.shape[:-1], self.padding.numel()), -torch.inf)
        flat = slots.index_copy(-1, self.place, output)
        log_p = F.log_softmax(flat.unflatten(-1, self.padded), dim=-1)
        return log_p.masked_fill(self.padding, floor)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return gumbel((*shape, *self.padded), generator)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        return (params + noise).argmax(dim=-1)

    def mode(self, params: Tensor) -> Tensor:
        return params.argmax(dim=-1)

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        return params.gather(-1, action.unsqueeze(-1)).squeeze(-1).sum(dim=-1)

    def entropy(self, params: Tensor) -> Tensor:
        return -(params.exp() * params).sum(dim=(-2, -1))

    def to_env(self, action: Tensor) -> np.ndarray[Any, Any]:
        array = action.numpy(force=True)
        array = array.reshape((*array.shape[:-1], *self.space.shape))
        return np.asarray(array + self.start).astype(self.space.dtype)

    def from_env(self, action: np.ndarray[Any, Any]) -> Tensor:
        leading = action.shape[: action.ndim - len(self.space.shape)]
        array = np.asarray(action.astype(np.int64) - self.start)
        return torch.from_numpy(array.reshape(*leading, *self.action_shape))

    def encode(self, action: Tensor) -> Tensor:
        """One-hot vectors, component after component, [..., sum(nvec)]."""
        one_hot = action.index_select(-1, self.component) == self.choice
        return one_hot.to(torch.get_default_dtype())


class BernoulliHead(ActionHead):
    """MultiBinary actions of any shape: bits, each independent of the others.

    Parameters are the logits of ones, [..., B].
    """

    def __init__(self, space: spaces.MultiBinary) -> None:
        """One output for each bit."""
        super().__init__()
        self.outputs = self.features = math.prod(space.shape)
        self.action_shape, self.action_dtype = (self.outputs,), torch.int8
        self.space = space

    def parameters_of(self, output: Tensor, mask: Tensor | None = None) -> Tensor:
        return output

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Logistic noise, by its inverse distribution function: logit + noise > 0 is a sample."""
        uniform = torch.rand(*shape, self.outputs, generator=generator)
        # Never infinite: a uniform number of zero becomes the smallest that 1 can differ by.
        return uniform.logit_(torch.finfo(uniform.dtype).eps / 2)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        return (params + noise > 0).to(self.action_dtype)

    def mode(self, params: Tensor) -> Tensor:
        return (params > 0).to(self.action_dtype)

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        # A zero of logit l has the probability of a one of logit -l.
        return F.logsigmoid((2 * action - 1) * params).sum(dim=-1)

    def entropy(self, params: Tensor) -> Tensor:
        # An even function of the logit; for positive ones nothing cancels.
        size = params.abs()
        return (F.softplus(-size) + size * torch.sigmoid(-size)).sum(dim=-1)

    def to_env(self, action: Tensor) -> np.ndarray[Any, Any]:
        array = action.numpy(force=True).astype(self.space.dtype)
        return array.reshape((*array.shape[:-1], *self.space.shape))

    def from_env(self, action: np.ndarray[Any, Any]) -> Tensor:
        leading = action.shape[: action.ndim - len(self.space.shape)]
        return torch.from_numpy(action.astype(np.int8).reshape(*leading, self.outputs))

    def encode(self, action: Tensor) -> Tensor:
        return action.to(torch.get_default_dtype())


class BoxHead(ActionHead):
    """Box actions of any shape: a diagonal Gaussian, wherever its deviation comes from.

    Without squashing, actions are in the space's units and clipped to its bounds on their way to
    the environment; the log-probability is the unclipped one, as is customary. With squashing the
    environment gets ``mid + half_range * tanh(u)`` of a Gaussian u, and the log-probability is
    exact, with the change of variables (Haarnoja et al. 2018, "Soft Actor-Critic", appendix C).
    The store holds u: tanh cannot be inverted where it saturates.
    """

    low: Tensor
    high: Tensor

    def __init__(self, space: spaces.Box, squash: bool | None) -> None:
        """Raise ValueError when asked to squash into bounds that do not exist; None: if they do."""
        super().__init__()
        self.size = self.outputs = self.features = math.prod(space.shape)
        self.action_shape, self.action_dtype = (self.size,), torch.float32
        squash = space.is_bounded() if squash is None else squash
        self.space, self.squash = space, squash
        if squash and not space.is_bounded():
            raise ValueError(
                f"squash_output: expected an action space with finite bounds, got {space}; give "
                f"it bounds (gymnasium.wrappers.RescaleAction) or leave squash_output=False"
            )
        self.register_buffer("low", torch.as_tensor(space.low, dtype=torch.float32).flatten())
        self.register_buffer("high", torch.as_tensor(space.high, dtype=torch.float32).flatten())

    def moments(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [..., A] and logarithm of the deviation, [..., A] or one for all, [A]."""
        raise NotImplementedError

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randn(*shape, self.size, generator=generator)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        mean, log_std = self.moments(params)
        return torch.addcmul(mean, log_std.exp(), noise)

    def mode(self, params: Tensor) -> Tensor:
        return self.moments(params)[0]

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        mean, log_std = self.moments(params)
        z = (action - mean) * (-log_std).exp()
        norm = log_std.sum(dim=-1) + 0.5 * self.size * math.log(2 * math.pi)
        log_prob: Tensor = -0.5 * torch.linalg.vecdot(z, z) - norm
        if self.squash:
            # log(1 - tanh(u)^2), written so that it does not underflow for large |u|.
            slope = 2 * (math.log(2) - action - F.softplus(-2 * action))
            log_prob = log_prob - (slope + (0.5 * (self.high - self.low)).log()).sum(dim=-1)
        return log_prob

    def entropy(self, params: Tensor) -> Tensor:
        """Entropy of the Gaussian itself; squashing has no closed form, so it is left out."""
        each = self.moments(params)[1] + 0.5 * math.log(2 * math.pi * math.e)
        return each.sum(dim=-1).expand(params.shape[:-1])

    def bounded(self, action: Tensor) -> Tensor:
        """Stored actions within the space's bounds, [..., A]."""
        if self.squash:
            half = 0.5 * (self.high - self.low)
            action = self.low + half * (1 + action.tanh())
        return torch.clamp(action, self.low, self.high)

    def to_env(self, action: Tensor) -> np.ndarray[Any, Any]:
        array = self.bounded(action).numpy(force=True)
        array = array.reshape((*array.shape[:-1], *self.space.shape))
        if array.dtype != self.space.dtype:
            # Bounds again: float32(0.1), say, lies above a float64 bound of 0.1.
            array = array.astype(self.space.dtype).clip(self.space.low, self.space.high)
        return array

    def from_env(self, action: np.ndarray[Any, Any]) -> Tensor:
        array = action.reshape(*action.shape[: action.ndim - len(self.space.shape)], self.size)
        stored = torch.as_tensor(array, dtype=torch.float32)
        if self.squash:
            low, high = self.low.cpu(), self.high.cpu()
            # At the bounds themselves u would be infinite.
            stored = (2 * (stored - low) / (high - low) - 1).clamp(-1 + 1e-6, 1 - 1e-6).atanh()
        return stored

    def encode(self, action: Tensor) -> Tensor:
        return self.bounded(action)


class GaussianHead(BoxHead):
    """Box actions whose deviation does not depend on the state. Parameters are the mean [..., A].

    Attributes:
        log_std: logarithm of the deviation, [A].

    """

    def __init__(self, space: spaces.Box, std_init: float, squash: bool | None) -> None:
        """One output for each number of the action, all of which deviate by ``std_init``."""
        super().__init__(space, squash)
        self.log_std = nn.Parameter(torch.full((self.size,), math.log(std_init)))

    def parameters_of(self, output: Tensor, mask: Tensor | None = None) -> Tensor:
        return output

    def moments(self, params: Tensor) -> tuple[Tensor, Tensor]:
        return params, self.log_std


# How far the network can move the logarithm of a deviation from its initial value: down to
# 1 / 22,000 of it, where a policy is as good as deterministic, and up to 20 times as much.
LOG_STD_RANGE = (-10.0, 3.0)


class StateDependentGaussianHead(BoxHead):
    """Box actions whose deviation is an output of the network, as in Haarnoja et al. 2018.

    The first half of the outputs is the mean, the second the logarithm of the deviation over its
    initial value, clamped to ``LOG_STD_RANGE``. Parameters are the mean and the logarithm of the
    deviation, [..., 2 A].
    """

    def __init__(self, space: spaces.Box, std_init: float, squash: bool | None) -> None:
        """Two outputs for each number of the action, which deviates by ``std_init`` at zeros."""
        super().__init__(space, squash)
        self.outputs = 2 * self.size
        self.log_std_init = math.log(std_init)

    def parameters_of(self, output: Tensor, mask: Tensor | None = None) -> Tensor:
        mean, log_ratio = output.chunk(2, dim=-1)
        return torch.cat([mean, self.log_std_init + log_ratio.clamp(*LOG_STD_RANGE)], dim=-1)

    def moments(self, params: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = params.chunk(2, dim=-1)
        return mean, log_std


class SdeHead(BoxHead):
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
        space: spaces.Box,
        std_init: float,
        squash: bool | None,
        latents: int,
        sample_freq: int,
    ) -> None:
        """One output for each number of the action.

        Args:
            space: of one action.
            std_init: initial deviation of an action where the mean square of z is 1.
            squash: see ``BoxHead``.
            latents: Z.
            sample_freq: steps for which eps is held.

        """
        super().__init__(space, squash)
        self.latents, self.sample_freq = latents, sample_freq
        # Keeps the density finite where all of z is zero; it does not matter elsewhere.
        self.least_variance = 1e-6 * std_init**2
        log_std = math.log(std_init) - 0.5 * math.log(latents)
        self.log_std = nn.Parameter(torch.full((latents, self.size), log_std))

    def parameters_of(self, output: Tensor, mask: Tensor | None = None) -> Tensor:
        mean, z = output.split([self.size, self.latents], dim=-1)
        z = z.detach()
        variance = z.square() @ (2 * self.log_std).exp() + self.least_variance
        return torch.cat([mean, 0.5 * variance.log(), z], dim=-1)

    def moments(self, params: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std, _ = params.split([self.size, self.size, self.latents], dim=-1)
        return mean, log_std

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw eps, [*shape, Z, A]; over steps it is held for ``sample_freq`` of them at a time."""
        if len(shape) == 1:
            return torch.randn(*shape, self.latents, self.size, generator=generator)
        steps, rows = shape
        blocks = -(-steps // self.sample_freq)  # rounded up
        drawn = torch.randn(blocks, rows, self.latents, self.size, generator=generator)
        return drawn[torch.arange(steps) // self.sample_freq]

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        mean, _, z = params.split([self.size, self.size, self.latents], dim=-1)
        # [..., 1, Z] @ [..., Z, A] -> [..., A]
        action: Tensor = mean + (z.unsqueeze(-2) @ (self.log_std.exp() * noise)).squeeze(-2)
        return action


def make_head(space: gym.Space[Any], config: PPOConfig, latents: int) -> ActionHead:
    """Choose the head for an action space.

    Args:
        space: of one action.
        config: how Box actions deviate, and whether they are squashed.
        latents: Z, width of what the actor's last layer reads.

    Raises:
        TypeError: a space that is not supported; the message says which are.
        ValueError: options for Box actions with another space, or bounds needed that do not exist.

    """
    if isinstance(space, spaces.Box):
        std_init, squash = config.action_std_init, config.squash_output
        if config.use_sde:
            return SdeHead(space, std_init, squash, latents, config.sde_sample_freq)
        if config.state_dependent_std:
            return StateDependentGaussianHead(space, std_init, squash)
        return GaussianHead(space, std_init, squash)
    head: ActionHead
    if isinstance(space, spaces.Discrete):
        head = CategoricalHead(space)
    elif isinstance(space, spaces.MultiDiscrete):
        head = MultiCategoricalHead(space)
    elif isinstance(space, spaces.MultiBinary):
        head = BernoulliHead(space)
    else:
        raise TypeError(f"action_space: expected {SUPPORTED_ACTIONS}, got {space}")
    of_box = {"use_sde": config.use_sde, "state_dependent_std": config.state_dependent_std}
    for name, wanted in of_box.items():
        if wanted:
            raise ValueError(
                f"{name}: expected a Box action space, whose actions have a deviation, got "
                f"{space}; leave {name}=False"
            )
    return head
