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
# Bounds beyond this stand for none, as the greatest number of float32 or float64 often does.
LARGEST_BOUND = 1e18
READABLE = 1e6  # half ranges up to here are shown to networks in the space's own units


def has_bounds(space: spaces.Box) -> Array:
    """Which numbers of a Box have two bounds to speak of, bool [A]."""
    bounded = space.bounded_below & space.bounded_above
    if space.dtype.kind == "f":
        sizes = (np.abs(bound.astype(np.float64)) for bound in (space.low, space.high))
        bounded = bounded & (np.maximum(*sizes) <= LARGEST_BOUND)
    return np.asarray(bounded).flatten()


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

    def for_env(self, action: Tensor) -> Tensor:
        """Return stored actions [..., *shape] in the environment's form, [..., *env_shape].

        Whole numbers may be of another dtype than the environment's; unsigned ones of 64 bits are
        signed ones of the same bits, which turn into them when they are cast.
        """
        raise NotImplementedError

    def to_env(self, action: Tensor) -> Array:
        """Return stored actions [..., *shape] as the environment takes them, [..., *env_shape]."""
        return self.for_env(action).numpy(force=True).astype(self.env_dtype)

    def _in_shape(self, flat: Tensor) -> Tensor:
        """[..., A] -> [..., *env_shape]."""
        if len(self.env_shape) == 1:  # the usual case, without the microseconds of a reshape
            return flat
        return flat.reshape((*flat.shape[:-1], *self.env_shape))  # there may be no axis at all

    def from_env(self, action: Array) -> Tensor:
        """Return the stored form of actions that somebody else chose, on the CPU."""
        raise NotImplementedError

    def encode(self, action: Tensor) -> Tensor:
        """Return stored actions as network inputs, [..., features]."""
        raise NotImplementedError

    def check(self, action: Any) -> Array:
        """Return an outside action as an array of the space, or say what is wrong with it.

        Raises:
            ValueError: another shape, no numbers, a fraction of a choice, or an action that is not
                in the space, or not finite as float32.

        """
        given = np.asarray(action)
        if given.shape != self.env_shape:
            expected = f"shape {list(self.env_shape)}" if self.env_shape else "one value"
            raise ValueError(f"expected {expected} of {self.space}, got {action!r}")
        if given.dtype.kind not in "biuf":
            raise ValueError(f"expected numbers of {self.space}, got {action!r}")
        whole = self.env_dtype.kind in "iub"
        if whole and given.dtype.kind == "f" and not np.equal(given, np.floor(given)).all():
            raise ValueError(f"expected whole numbers of {self.space}, got {action!r}")
        with np.errstate(over="ignore", invalid="ignore"):
            array = given.astype(self.env_dtype, copy=False)
            stored = given.astype(np.float32)
        # What wraps around in a smaller dtype becomes another action, perhaps one of the space.
        kept = not whole or bool((array == given).all())
        is_array = self.env_shape or isinstance(self.space, spaces.Box)
        inside = self.space.contains(array if is_array else self.env_dtype.type(array))
        if not (kept and inside and np.isfinite(stored).all()):
            raise ValueError(f"expected an action in {self.space}, got {action!r}")
        return array


class DiscreteCodec(ActionCodec):
    """Discrete actions; stored ones count from 0, whatever the space's start."""

    def __init__(self, space: spaces.Discrete) -> None:
        """One feature for each choice."""
        start = int(space.start)
        super().__init__(space, (), torch.int64, int(space.n), space.dtype, start)
        self.start = start

    def check(self, action: Any) -> Array:
        """Return an outside action as an array; it may also come as an array of one value."""
        return super().check(action[0] if np.shape(action) == (1,) else action)

    def for_env(self, action: Tensor) -> Tensor:
        return action + self.start if self.start else action

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
        begin: each component's first choice, [*env_shape].

    """

    component: Tensor
    choice: Tensor
    begin: Tensor

    def __init__(self, space: spaces.MultiDiscrete) -> None:
        """One feature for each choice of each component."""
        counts = torch.tensor(choices(space))
        super().__init__(
            space, (len(counts),), torch.int64, int(counts.sum()), space.dtype, space.start
        )
        self.start = space.start.astype(np.int64)
        self.register_buffer("begin", torch.from_numpy(self.start), persistent=False)
        exists = torch.arange(int(counts.max())) < counts[:, None]  # [K, n_max]
        component, choice = exists.nonzero().unbind(-1)
        # Made from the space alone, so no part of a checkpoint.
        for name, tensor in (("component", component), ("choice", choice)):
            own = tensor.clone(memory_format=torch.contiguous_format)  # not a view of both
            self.register_buffer(name, own, persistent=False)

    def for_env(self, action: Tensor) -> Tensor:
        return self._in_shape(action) + self.begin

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

    def for_env(self, action: Tensor) -> Tensor:
        return self._in_shape(action)

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
        fixed: the bounds leave one value, or float32 cannot tell them apart; bool [A].
        unit: of what networks are shown, [A].
        env_low: least values in the environment's dtype, [*env_shape]; None if that is float32.
        env_high: greatest values, likewise.

    """

    low: Tensor
    high: Tensor
    half_range: Tensor
    fixed: Tensor
    unit: Tensor
    env_low: Tensor | None
    env_high: Tensor | None

    def __init__(self, space: spaces.Box, squash: bool | None = None) -> None:
        """Raise ValueError when asked to squash into bounds that do not exist; None: if they do."""
        size = math.prod(space.shape)
        super().__init__(space, (size,), torch.float32, size, space.dtype)
        bounded = has_bounds(space)
        self.squash = bool(bounded.all()) if squash is None else squash
        if self.squash and not bounded.all():
            raise ValueError(
                f"squash_output: expected an action space with finite bounds, got {space}; give it "
                f"bounds, of at most {LARGEST_BOUND:g} (gymnasium.wrappers.RescaleAction), or "
                f"leave squash_output=False"
            )
        low, high = (
            torch.as_tensor(bound, dtype=torch.float32).flatten()
            for bound in (space.low, space.high)
        )
        half_range = 0.5 * (high - low)
        # A network is shown numbers of a size that it can read; those of usual spaces as they are.
        unit = torch.where(torch.from_numpy(bounded) & (half_range > READABLE), half_range, 1.0)
        self._has_unit = bool((unit != 1).any())
        self._register(low=low, high=high, half_range=half_range, unit=unit)
        self._register(fixed=half_range == 0, env_low=None, env_high=None)
        if space.dtype.kind == "f" and space.dtype != np.float32:
            bounds = (torch.from_numpy(bound.copy()) for bound in (space.low, space.high))
            self._register(**dict(zip(("env_low", "env_high"), bounds, strict=True)))

    def _register(self, **tensors: Tensor | None) -> None:
        """Keep what follows from the space, and is no part of a checkpoint."""
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)

    def bounded(self, action: Tensor) -> Tensor:
        """Return stored actions within the space's bounds, [..., A]."""
        if self.squash:
            action = self.low + self.half_range * (1 + action.tanh())
        return torch.clamp(action, self.low, self.high)

    def for_env(self, action: Tensor) -> Tensor:
        bounded = self._in_shape(self.bounded(action))
        if self.env_low is None:
            return bounded
        # Bounds again: float32(0.1), say, lies above a float64 bound of 0.1.
        return torch.clamp(bounded.to(self.env_low.dtype), self.env_low, self.env_high)

    def from_env(self, action: Array) -> Tensor:
        array = action.reshape(*action.shape[: action.ndim - len(self.env_shape)], self.features)
        stored = torch.as_tensor(array, dtype=torch.float32)
        if self.squash:
            low, high, fixed = self.low.cpu(), self.high.cpu(), self.fixed.cpu()
            part = 2 * (stored - low) / torch.where(fixed, 1.0, high - low) - 1
            # At the bounds themselves u would be infinite.
            stored = part.clamp(-1 + 1e-6, 1 - 1e-6).atanh().masked_fill(fixed, 0)
        return stored

    def encode(self, action: Tensor) -> Tensor:
        """Return numbers within the bounds, [..., A]; where these are very wide, in half ranges."""
        bounded = self.bounded(action)
        return bounded / self.unit if self._has_unit else bounded


class IntegerBoxCodec(BoxCodec):
    """Box actions of whole numbers; every value of a bounded dimension has an equal share.

    Of a dimension with n values from ``low`` to ``high`` the one that is k steps up is played where
    k is the whole part of n times a share in [0, 1). With squashing the share is (1 + tanh(u)) / 2
    of a stored u, which cuts the range from low - 1/2 to high + 1/2 evenly, as rounding would.
    Without, it is the standard normal distribution function of u: clipping would heap half of all
    first actions on the bounds, or never reach them. A dimension without bounds is rounded.

    Attributes:
        half_range: half of the number of values, [A]: what squashed log-probabilities refer to.
        even: which dimensions have bounds, bool [A].
        count: values of each, [A].
        first: least value, by its 64 bits, int [A].
        span: steps from there to the greatest value, by their 64 bits, int [A].
        steps: the same, rounded to float64, [A].
        least: least number of dimensions without bounds, [A].
        most: their greatest number, [A].

    """

    even: Tensor
    count: Tensor
    first: Tensor
    span: Tensor
    steps: Tensor
    least: Tensor
    most: Tensor

    def __init__(self, space: spaces.Box, squash: bool | None = None) -> None:
        """See ``BoxCodec``."""
        super().__init__(space, squash)
        self._even = has_bounds(space)
        # Unsigned numbers of 64 bits wrap around, so differences and sums are right for all dtypes.
        self._first, last = (x.flatten().astype(np.uint64) for x in (space.low, space.high))
        self._span = last - self._first
        low, high = (x.flatten().astype(np.float64) for x in (space.low, space.high))
        count = torch.from_numpy(self._span.astype(np.float64) + 1).to(torch.float32)
        # torch cannot count with unsigned numbers; signed ones wrap around in the same way.
        signed = (torch.from_numpy(x.view(np.int64)) for x in (self._first, self._span))
        self._register(**dict(zip(("first", "span"), signed, strict=True)))
        self._register(steps=torch.from_numpy(self._span.astype(np.float64)))
        # The outmost float64 numbers that an int64 can hold.
        least, most = low.clip(-(2.0**63)), high.clip(max=2.0**63 - 1024)
        self._register(least=torch.from_numpy(least), most=torch.from_numpy(most))
        self._register(
            low=torch.from_numpy(low).to(torch.float32),
            high=torch.from_numpy(high).to(torch.float32),
            half_range=0.5 * count,
            fixed=torch.from_numpy(self._even & (self._span == 0)),
            even=torch.from_numpy(self._even),
            count=count,
        )

    def _level(self, action: Tensor) -> Tensor:
        """How many steps above ``low``, or without bounds which number; a whole one, [..., A]."""
        share = 0.5 * (1 + action.tanh()) if self.squash else torch.special.ndtr(action)
        level = torch.minimum((share * self.count).floor(), self.count - 1)
        return torch.where(self.even, level, torch.clamp(action.round(), self.low, self.high))

    def bounded(self, action: Tensor) -> Tensor:
        level = self._level(action)
        return torch.clamp(torch.where(self.even, self.low + level, level), self.low, self.high)

    def for_env(self, action: Tensor) -> Tensor:
        level = self._level(action).to(torch.float64)
        # A float of 2^64 is no integer of 64 bits, so the last step is not made from one.
        last = level >= self.steps
        steps = torch.where(self.even & ~last, level, 0)
        # From 2^63 on they have the bits of negative numbers.
        steps = torch.where(steps >= 2.0**63, steps - 2.0**64, steps).to(torch.int64)
        whole = self.first + torch.where(last, self.span, steps)
        if not self._even.all():
            number = torch.clamp(level, self.least, self.most).to(torch.int64)
            whole = torch.where(self.even, whole, number)
        return self._in_shape(whole)

    def from_env(self, action: Array) -> Tensor:
        array = action.reshape(*action.shape[: action.ndim - len(self.env_shape)], self.features)
        whole = array if array.dtype.kind in "iub" else array.round().astype(np.int64)
        steps = (whole.astype(np.uint64) - self._first).astype(np.float64)
        # The middle of the value's share. Towards 0 and 1 the stored number would be infinite.
        middle = ((steps + 0.5) / (self._span.astype(np.float64) + 1)).clip(1e-6, 1 - 1e-6)
        share = torch.from_numpy(middle)
        stored = (2 * share - 1).atanh() if self.squash else torch.special.ndtri(share)
        number = torch.from_numpy(whole.astype(np.float64))
        return torch.where(self.even.cpu(), stored, number).to(torch.float32)


def action_codec(space: gym.Space[Any], squash_output: bool | None = None) -> ActionCodec:
    """Return the codec for an action space.

    Args:
        space: of one action.
        squash_output: squash Box actions into their bounds; None: where all are finite.

    Raises:
        TypeError: a space that is not supported; the message says which are.
        ValueError: bounds needed that do not exist, or actions without any number.

    """
    if 0 in (space.shape or ()):
        raise ValueError(f"action_space: expected at least one number, got {space}")
    if isinstance(space, spaces.Box):
        kind = BoxCodec if space.dtype.kind == "f" else IntegerBoxCodec
        return kind(space, squash_output)
    if isinstance(space, spaces.Discrete):
        return DiscreteCodec(space)
    if isinstance(space, spaces.MultiDiscrete):
        return MultiDiscreteCodec(space)
    if isinstance(space, spaces.MultiBinary):
        return MultiBinaryCodec(space)
    raise TypeError(f"action_space: expected {SUPPORTED_ACTIONS}, got {space}")
