"""Which hyper-parameters a search may change, and within which bounds."""

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch

from recurrent_rl.algorithms.configs import PPOConfig
from recurrent_rl.validation import unknown_name

# Those that act from one rollout to the next. The others are built into a policy.
MUTABLE = (
    "learn_step",
    "batch_size",
    "update_epochs",
    "lr",
    "gamma",
    "gae_lambda",
    "clip_coef",
    "clip_vf_coef",
    "ent_coef",
    "vf_coef",
    "max_grad_norm",
    "target_kl",
    "reward_scale",
)


@dataclass(frozen=True)
class RLParameter:
    """The range of one hyper-parameter, and how far a mutation moves it.

    >>> RLParameter(min=1e-4, max=1e-2).between(0.5)
    0.001

    Attributes:
        min: its least value.
        max: its greatest.
        shrink_factor: a shrinking mutation multiplies by this, in (0, 1), within the bounds.
        grow_factor: a growing mutation multiplies by this, > 1, within the bounds.
        dtype: float or int.

    """

    min: float
    max: float
    shrink_factor: float = 0.8
    grow_factor: float = 1.2
    dtype: type[float] | type[int] = float

    def __post_init__(self) -> None:
        """Check that all fits together."""
        for name in ("min", "max", "shrink_factor", "grow_factor"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise TypeError(f"RLParameter.{name}: expected a number, got {value!r}")
            # Python's own numbers: checkpoints hold no others.
            plain = int(value) if isinstance(value, numbers.Integral) else float(value)
            object.__setattr__(self, name, plain)
        if self.dtype not in (float, int):
            raise ValueError(f"RLParameter.dtype: expected float or int, got {self.dtype!r}")
        if not (math.isfinite(self.min) and math.isfinite(self.max) and 0 <= self.min < self.max):
            raise ValueError(
                f"RLParameter: expected finite 0 <= min < max, got min={self.min}, max={self.max}"
            )
        if self.dtype is int and (self.min % 1 or self.max % 1):
            raise ValueError(
                f"RLParameter: expected whole numbers, as dtype is int, got min={self.min}, "
                f"max={self.max}"
            )
        if not 0 < self.shrink_factor < 1 < self.grow_factor < math.inf:
            raise ValueError(
                f"RLParameter: expected 0 < shrink_factor < 1 < grow_factor, got "
                f"{self.shrink_factor} and {self.grow_factor}"
            )

    def between(self, share: float) -> float | int:
        """Return the value at a share of the range in [0, 1]: of its logarithm, if min > 0."""
        if self.min > 0:
            return self._fit(self.min * (self.max / self.min) ** share)
        return self._fit(self.min + share * (self.max - self.min))

    def mutated(self, value: float, generator: torch.Generator) -> float | int:
        """Return a value grown or shrunk, with equal chance; from a bound, the way that is open.

        Args:
            value: present one; one outside of the bounds returns to the nearer.
            generator: on the CPU.

        """
        grow = bool(torch.rand((), generator=generator) < 0.5)
        if not self.min <= value <= self.max:
            return self._fit(value)
        if value in (self.min, self.max):
            grow = value == self.min
        factor = self.grow_factor if grow else self.shrink_factor
        # Zero has no multiples: a hundredth of the range is the first step up.
        moved = value * factor or 0.01 * self.max
        if self.dtype is int and round(moved) == value:
            moved = value + (1 if grow else -1)
        return self._fit(moved)

    def _fit(self, value: float) -> float | int:
        # Rounded first: 12 digits hide what powers and logarithms do to the last ones.
        fitted = min(max(float(f"{value:.12g}"), self.min), self.max)
        return round(fitted) if self.dtype is int else float(fitted)


class HyperparameterConfig:
    """The hyper-parameters that mutations may change, by name.

    >>> config = HyperparameterConfig(lr=RLParameter(min=1e-4, max=1e-2))
    >>> list(config.parameters)
    ['lr']

    Attributes:
        parameters: their ranges.

    """

    def __init__(self, **parameters: RLParameter) -> None:
        """Raise ValueError for names that cannot be mutated and for ranges that are not allowed."""
        for name, parameter in parameters.items():
            if name not in MUTABLE:
                raise ValueError(unknown_name("HyperparameterConfig", name, list(MUTABLE)))
            if not isinstance(parameter, RLParameter):
                raise TypeError(f"{name}: expected an RLParameter, got {parameter!r}")
            for bound in (0.0, 1.0):
                # A refusal names the field and its range.
                PPOConfig.from_dict({name: parameter.between(bound)})
        self.parameters: dict[str, RLParameter] = dict(parameters)

    def __eq__(self, other: object) -> bool:
        """Whether the ranges are equal."""
        return isinstance(other, HyperparameterConfig) and self.parameters == other.parameters

    __hash__ = None  # type: ignore[assignment]  # like the dictionary that it is

    def __repr__(self) -> str:
        """The ranges, as one would write them."""
        inner = ", ".join(f"{name}={value!r}" for name, value in self.parameters.items())
        return f"HyperparameterConfig({inner})"

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain values, as ``from_dict`` takes them."""
        return {
            name: {**vars(parameter), "dtype": parameter.dtype.__name__}
            for name, parameter in self.parameters.items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Mapping[str, Any]]) -> Self:
        """Rebuild what ``to_dict`` described."""
        kinds: dict[str, type[float] | type[int]] = {"float": float, "int": int}
        return cls(
            **{name: RLParameter(**{**d, "dtype": kinds[d["dtype"]]}) for name, d in data.items()}
        )
