"""Actions of any space: stored for learning, and turned into the environment's form and back.

An ``ActionCodec`` is to actions what ``ObservationCodec`` is to observations. What is stored is
what distributions work on: choices counted from 0, bits, and numbers before they are squashed or
clipped.

Letters: ``...`` any leading axes, N rows, A a Box action's numbers, B a MultiBinary action's bits,
K a MultiDiscrete action's components.
"""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.masks import choices

SUPPORTED_ACTIONS = "Discrete, MultiDiscrete, MultiBinary and Box"


class ActionCodec(nn.Module):
    """How actions of one space are stored, taken by environments, and shown to networks.

    Attributes:
        space: the Gymnasium space of one action.
        shape: of one stored action.
        dtype: of the store.
        features: width of an action as a network's input (``encode``).
        choices: of each component; () for actions that are no choices out of a few.
        env_shape: of one action as environments take it.
        env_dtype: likewise.
        blank: what stands where there is no action, in the environment's form.

    """

    def __init__(
        self,
        space: gym.Space[Any],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        features: int,
        env_dtype: Any,
        blank: Any = 0,
    ) -> None:
        """Take over what a subclass says of its space."""
        super().__init__()
        self.space, self.shape, self.dtype, self.features = space, shape, dtype, features
        self.env_shape: tuple[int, ...] = space.shape or ()
        self.env_dtype, self.blank = np.dtype(env_dtype), blank
        self.choices = choices(space)

    @property
    def mask_size(self) -> int:
        """Width of an action mask; 0 where masks make no sense."""
        return sum(self.choices)

    def to_env(self, action: Tensor) -> Array:
        """Return stored actions [..., *shape] as the environment takes them, [..., *env_shape]."""
        raise NotImplementedError

    def from_env(self, action: Array) -> Tensor:
        """Return the stored form of actions that somebody else chose, on the CPU."""
        raise NotImplementedError

    def encode(self, action: Tensor) -> Tensor:
        """Return stored actions as network inputs, [..., features]."""
        raise NotImplementedError

    def check(self, action: Any) -> Array:
        """Return an outside action as an array of the space, or say what is wrong with it.

        Raises:
            ValueError: another shape, a fraction of a choice, or an action that is not in the
                space.

        """
        array = np.asarray(action)
        if array.shape != self.env_shape:
            expected = f"shape {list(self.env_shape)}" if self.env_shape else "one value"
            raise ValueError(f"expected {expected} of {self.space}, got {action!r}")
        if self.env_dtype.kind in "iu" and array.dtype.kind == "f" and (array % 1 != 0).any():
            raise ValueError(f"expected whole numbers of {self.space}, got {action!r}")
        array = array.astype(self.env_dtype, copy=False)
        if not self.space.contains(array if self.env_shape else self.env_dtype.type(array)):
            raise ValueError(f"expected an action in {self.space}, got {action!r}")
        return array


class DiscreteCodec(ActionCodec):
    """Discrete actions; stored ones count from 0, whatever the space's start."""

    def __init__(self, space: spaces.Discrete) -> None:
        """One feature for each choice."""
        start = int(space.start)
        super().__init__(space, (), torch.int64, int(space.n), np.int64, start)
        self.start = start

    def check(self, action: Any) -> Array:
        """Return an outside action as an array; it may also come as an array of one value."""
        return super().check(action[0] if np.shape(action) == (1,) else action)

    def to_env(self, action: Tensor) -> Array:
        return action.numpy(force=True) + self.start

    def from_env(self, action: Array) -> Tensor:
        return torch.from_numpy(action.astype(np.int64) - self.start)

    def encode(self, action: Tensor) -> Tensor:
        """One-hot vectors, [..., n]."""
        return F.one_hot(action, self.features).to(torch.get_default_dtype())


class MultiDiscreteCodec(ActionCodec):
    """MultiDiscrete actions of any shape; stored ones [..., K] count from 0.

    Attributes:
        component: which component's each flat choice is, [sum(nvec)].
        choice: which of its choices, [sum(nvec)].

    """

    component: Tensor
    choice: Tensor

    def __init__(self, space: spaces.MultiDiscrete) -> None:
        """One feature for each choice of each component."""
        counts = torch.tensor(choices(space))
        super().__init__(
            space, (len(counts),), torch.int64, int(counts.sum()), space.dtype, space.start
        )
        self.start = space.start.astype(np.int64)
        exists = torch.arange(int(counts.max())) < counts[:, None]  # [K, n_max]
        component, choice = exists.nonzero().unbind(-1)
        # Made from the space alone, so no part of a checkpoint.
        self.register_buffer("component", component.contiguous(), persistent=False)
        self.register_buffer("choice", choice.contiguous(), persistent=False)

    def to_env(self, action: Tensor) -> Array:
        array = action.numpy(force=True)
        array = array.reshape((*array.shape[:-1], *self.env_shape))
        return np.asarray(array + self.start).astype(self.env_dtype)

    def from_env(self, action: Array) -> Tensor:
        leading = action.shape[: action.ndim - len(self.env_shape)]
        array = np.asarray(action.astype(np.int64) - self.start)
        return torch.from_numpy(array.reshape(*leading, *self.shape))

    def encode(self, action: Tensor) -> Tensor:
        """One-hot vectors, component after component, [..., sum(nvec)]."""
        one_hot = action.index_select(-1, self.component) == self.choice
        return one_hot.to(torch.get_default_dtype())


class MultiBinaryCodec(ActionCodec):
    """MultiBinary actions of any shape; stored ones are flat, [..., B]."""

    def __init__(self, space: spaces.MultiBinary) -> None:
        """One feature for each bit."""
        size = math.prod(space.shape)
        super().__init__(space, (size,), torch.int8, size, np.int8)

    def to_env(self, action: Tensor) -> Array:
        array = action.numpy(force=True).astype(self.env_dtype)
        return array.reshape((*array.shape[:-1], *self.env_shape))

    def from_env(self, action: Array) -> Tensor:
        leading = action.shape[: action.ndim - len(self.env_shape)]
        return torch.from_numpy(action.astype(np.int8).reshape(*leading, self.features))

    def encode(self, action: Tensor) -> Tensor:
        return action.to(torch.get_default_dtype())


class BoxCodec(ActionCodec):
    """Box actions of any shape; stored ones are flat, [..., A], and know no bounds.

    Without squashing they are in the space's units and clipped to its bounds on their way to the
    environment. With squashing the environment gets ``mid + half_range * tanh(u)`` of a stored u:
    tanh cannot be inverted where it saturates.

    Attributes:
        squash: whether actions are squashed.
        low: least values, [A].
        high: greatest values, [A].
        half_range: half of what lies between, [A].

    """

    low: Tensor
    high: Tensor
    half_range: Tensor

    def __init__(self, space: spaces.Box, squash: bool | None = None) -> None:
        """Raise ValueError when asked to squash into bounds that do not exist; None: if they do."""
        size = math.prod(space.shape)
        super().__init__(space, (size,), torch.float32, size, space.dtype)
        self.squash = space.is_bounded() if squash is None else squash
        if self.squash and not space.is_bounded():
            raise ValueError(
                f"squash_output: expected an action space with finite bounds, got {space}; give "
                f"it bounds (gymnasium.wrappers.RescaleAction) or leave squash_output=False"
            )
        low, high = (
            torch.as_tensor(bound, dtype=torch.float32).flatten()
            for bound in (space.low, space.high)
        )
        bounds = {"low": low, "high": high, "half_range": 0.5 * (high - low)}
        for name, bound in bounds.items():
            self.register_buffer(name, bound, persistent=False)

    def bounded(self, action: Tensor) -> Tensor:
        """Return stored actions within the space's bounds, [..., A]."""
        if self.squash:
            action = self.low + self.half_range * (1 + action.tanh())
        return torch.clamp(action, self.low, self.high)

    def to_env(self, action: Tensor) -> Array:
        array = self.bounded(action).numpy(force=True)
        array = array.reshape((*array.shape[:-1], *self.env_shape))
        if array.dtype != self.env_dtype:
            # Bounds again: float32(0.1), say, lies above a float64 bound of 0.1.
            assert isinstance(self.space, spaces.Box)
            array = array.astype(self.env_dtype).clip(self.space.low, self.space.high)
        return array

    def from_env(self, action: Array) -> Tensor:
        array = action.reshape(*action.shape[: action.ndim - len(self.env_shape)], self.features)
        stored = torch.as_tensor(array, dtype=torch.float32)
        if self.squash:
            low, high = self.low.cpu(), self.high.cpu()
            # At the bounds themselves u would be infinite.
            stored = (2 * (stored - low) / (high - low) - 1).clamp(-1 + 1e-6, 1 - 1e-6).atanh()
        return stored

    def encode(self, action: Tensor) -> Tensor:
        """Return numbers within the bounds, [..., A]."""
        return self.bounded(action)


def action_codec(space: gym.Space[Any], squash_output: bool | None = None) -> ActionCodec:
    """Return the codec for an action space.

    Args:
        space: of one action.
        squash_output: squash Box actions into their bounds; None: where all are finite.

    Raises:
        TypeError: a space that is not supported; the message says which are.
        ValueError: bounds needed that do not exist.

    """
    if isinstance(space, spaces.Box):
        return BoxCodec(space, squash_output)
    if isinstance(space, spaces.Discrete):
        return DiscreteCodec(space)
    if isinstance(space, spaces.MultiDiscrete):
        return MultiDiscreteCodec(space)
    if isinstance(space, spaces.MultiBinary):
        return MultiBinaryCodec(space)
    raise TypeError(f"action_space: expected {SUPPORTED_ACTIONS}, got {space}")
