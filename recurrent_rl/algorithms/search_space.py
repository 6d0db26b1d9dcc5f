"""Which hyper-parameters a search may change, and within which bounds."""

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from recurrent_rl.algorithms.configs import AlgorithmConfig, PPOConfig
from recurrent_rl.algorithms.off_policy_configs import DDPGConfig, DQNConfig, SACConfig, TD3Config
from recurrent_rl.validation import checked, shown, unknown_name

# Of all algorithms: what a search may change is known before it is known of which.
CONFIGS: tuple[type[AlgorithmConfig], ...] = (
    PPOConfig,
    DQNConfig,
    DDPGConfig,
    TD3Config,
    SACConfig,
)


@dataclass(frozen=True)
class RLParameter:
    """The range of one hyper-parameter, and how far a mutation moves it.

    The factors are each other's reciprocals unless both are given, so that mutations that select
    nothing do not drift: growing and shrinking undo each other, and the expected logarithm stays.
    A pair such as 0.8 and 1.2 does drift, by a factor of 0.98 in each mutation.

    >>> RLParameter(min=1e-4, max=1e-2).between(0.5)
    0.001
    >>> RLParameter(min=1e-4, max=1e-2, shrink_factor=0.5).grow_factor
    2.0

    Attributes:
        min: its least value.
        max: its greatest.
        shrink_factor: a shrinking mutation multiplies by this, in (0, 1), within the bounds. None:
            1 / grow_factor, or 0.8.
        grow_factor: a growing mutation multiplies by this, > 1, within the bounds. None:
            1 / shrink_factor, or 1.25.
        dtype: float or int.

    """

    min: float
    max: float
    shrink_factor: float = None  # type: ignore[assignment]  # until it follows from the other
    grow_factor: float = None  # type: ignore[assignment]
    dtype: type[float] | type[int] = float

    def __post_init__(self) -> None:
        """Check that all fits together."""
        if self.shrink_factor is None:
            grow = 1.25 if self.grow_factor is None else self._plain("grow_factor")
            object.__setattr__(self, "shrink_factor", 1 / grow if grow > 1 else 0.8)
        if self.grow_factor is None:
            shrink = self._plain("shrink_factor")
            # Of a shrinking factor that makes no sense, the check below speaks.
            object.__setattr__(self, "grow_factor", 1 / shrink if 0 < shrink < 1 else 1.25)
        for name in ("min", "max", "shrink_factor", "grow_factor"):
            object.__setattr__(self, name, self._plain(name))
        if self.dtype is not float and self.dtype is not int:
            raise ValueError(
                f"RLParameter.dtype: expected float or int, got {shown(self.dtype)}; it is a type, "
                f"without quotes"
            )
        if not 0 <= self.min < self.max:
            raise ValueError(
                f"RLParameter: expected 0 <= min < max, got min={self.min}, max={self.max}"
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

    def _plain(self, name: str) -> float:
        """Return a number as Python's own: checkpoints hold no others."""
        value = getattr(self, name)
        number: float = checked(f"RLParameter.{name}", value, float)
        return int(value) if isinstance(value, numbers.Integral) else number

    def between(self, share: float) -> float | int:
        """Return the value at a share of the range in [0, 1]: of its logarithm, if min > 0."""
        if self.min > 0:
            return self._fit(self.min * (self.max / self.min) ** share)
        return self._fit(self.min + share * (self.max - self.min))

    def mutated(self, value: float, generator: torch.Generator) -> float | int:
        """Return a value grown or shrunk; from a bound, the way that is open.

        Either has an equal chance, except for integers, of which the nearest are taken: there the
        chances make up for the rounding, so that the expected logarithm is that of the factors.

        Args:
            value: present one; one outside of the bounds returns to the nearer.
            generator: on the CPU.

        """
        grow = float(torch.rand((), generator=generator)) < self._growing(value)
        if not self.min <= value <= self.max:
            return self._fit(value)
        if value in (self.min, self.max):
            grow = value == self.min
        return self._fit(self._moved(value, grow))

    def _moved(self, value: float, grow: bool) -> float:
        """Return a value grown or shrunk, whatever the bounds."""
        # Zero has no multiples: a hundredth of the range is the first step up.
        moved = value * (self.grow_factor if grow else self.shrink_factor) or 0.01 * self.max
        if self.dtype is int:
            moved = round(moved)
            if moved == value:
                moved += 1 if grow else -1
        return moved

    def _growing(self, value: float) -> float:
        """Return the probability of growth."""
        less, more = self._moved(value, False), self._moved(value, True)
        if self.dtype is float or not 0 < less < value < more:
            return 0.5
        expected = value * math.sqrt(self.shrink_factor * self.grow_factor)
        share = math.log(expected / less) / math.log(more / less)
        return min(max(share, 0.1), 0.9)  # either way stays possible, also with odd factors

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
            owners = [config for config in CONFIGS if name in config.MUTABLE]
            if not owners:
                known = dict.fromkeys(known for config in CONFIGS for known in config.MUTABLE)
                raise ValueError(unknown_name("HyperparameterConfig", name, list(known)))
            if not isinstance(parameter, RLParameter):
                raise TypeError(f"{name}: expected an RLParameter, got {shown(parameter)}")
            _check_range(name, parameter, owners)
        self.parameters: dict[str, RLParameter] = dict(parameters)

    def check(self, algorithm: str, config_type: type[AlgorithmConfig]) -> None:
        """Check that an algorithm has all of these hyper-parameters, and allows their ranges.

        Args:
            algorithm: its name, for messages.
            config_type: its hyper-parameters.

        Raises:
            TypeError: a parameter of another type.
            ValueError: it has no such parameter to be mutated, or another range for it.

        """
        for name, parameter in self.parameters.items():
            if name not in config_type.MUTABLE:
                known = list(config_type.MUTABLE)
                raise ValueError(unknown_name(f"hp_config of {algorithm}", name, known))
            _check_range(name, parameter, [config_type])

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


def _check_range(
    name: str, parameter: RLParameter, owners: Sequence[type[AlgorithmConfig]]
) -> None:
    """Raise what the first of some algorithms says against a range, unless any allows it."""
    refusals: list[TypeError | ValueError] = []
    for owner in owners:
        try:
            for bound in (0.0, 1.0):
                # A refusal names the field and its range.
                owner.from_dict({name: parameter.between(bound)})
        except (TypeError, ValueError) as error:
            refusals.append(error)
        else:
            return
    raise refusals[0]
