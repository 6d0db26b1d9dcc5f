"""What an environment hides: which numbers, how they are called, and where they are read."""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from recurrent_rl.spaces.array import Array
from recurrent_rl.validation import shown
from recurrent_rl.wrappers.mask_velocity import MaskVelocityWrapper

# What the coordinates of well-known observations are, by environment id.
OBSERVATION_NAMES: Mapping[str, tuple[str, ...]] = {
    "CartPole-v1": (
        "position [m]",
        "velocity [m/s]",
        "angle [rad]",
        "angular velocity [rad/s]",
    ),
    "MountainCar-v0": ("position", "velocity [1/step]"),
    "MountainCarContinuous-v0": ("position", "velocity [1/step]"),
    "Pendulum-v1": ("cosine of the angle", "sine of the angle", "angular velocity [rad/s]"),
    "LunarLander-v3": (
        "horizontal position",
        "height",
        "horizontal velocity",
        "vertical velocity",
        "angle [rad]",
        "angular velocity",
        "left leg on the ground",
        "right leg on the ground",
    ),
}
Hidden = Callable[[Any], Any] | Mapping[str, Callable[[Any], Any]]


class HiddenQuantities:
    """What is hidden in an environment, read from it while an episode runs.

    Attributes:
        names: of the quantities, with their units, [Q]; known after the first reading.

    """

    def __init__(self, env: Any, hidden: Hidden | None) -> None:
        """See what is to be read.

        Args:
            env: one environment.
            hidden: functions of it by what they read; a function that returns a number or an
                array [Q]; None: what a ``MaskVelocityWrapper`` in it masks.

        Raises:
            TypeError: no functions.
            ValueError: None without such a wrapper.

        """
        self._env, self._read = env, hidden
        self.names: tuple[str, ...] = ()
        if hidden is None:
            mask = masking(env)
            if mask is None:
                raise ValueError(
                    f"hidden: expected a function of the environment, as nothing in {env} is "
                    f"masked by a MaskVelocityWrapper, got None; say what the agent cannot see, "
                    f"for example hidden={{'speed': lambda env: env.unwrapped.speed}}"
                )
            known = observation_names(mask)
            self.names = tuple(known[i] for i in mask.indices)
            self._read = lambda env: mask.hidden_values
        elif isinstance(hidden, Mapping):
            self.names = tuple(map(str, hidden))
        functions = list(hidden.values()) if isinstance(hidden, Mapping) else [self._read]
        if not functions or not all(callable(function) for function in functions):
            raise TypeError(
                f"hidden: expected a function of the environment, or such by name, got "
                f"{shown(hidden)}"
            )

    def read(self) -> Array:
        """Return the quantities as they are now, float64 [Q].

        Raises:
            ValueError: not finite numbers, or not as many as before.

        """
        read = self._read
        if isinstance(read, Mapping):
            found = [self._number(name, function(self._env)) for name, function in read.items()]
            return np.array(found)
        assert read is not None
        try:
            values = np.asarray(read(self._env), dtype=np.float64).reshape(-1)
        except (TypeError, ValueError):
            values = np.array([np.nan])
        if not len(values) or not np.isfinite(values).all():
            raise ValueError("hidden: expected finite numbers of the environment, got others")
        if not self.names:
            single = len(values) == 1
            self.names = tuple(
                "hidden quantity" if single else f"hidden[{i}]" for i in range(len(values))
            )
        if len(values) != len(self.names):
            raise ValueError(
                f"hidden: expected {len(self.names)} numbers, as at first, got {len(values)}"
            )
        return values

    @staticmethod
    def _number(name: str, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = np.nan
        if not np.isfinite(number):
            raise ValueError(f"hidden[{name!r}]: expected a finite number, got {shown(value)}")
        return number


def masking(env: Any) -> MaskVelocityWrapper[Any] | None:
    """Return the outermost wrapper in ``env`` that masks velocities; None: there is none."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, MaskVelocityWrapper):
            return env
        env = env.env
    return None


def observation_names(env: Any) -> list[str]:
    """Return what the coordinates of an environment's flat observation are called, [D]."""
    space = getattr(env, "observation_space", None)
    count = space.shape[0] if isinstance(space, gym.spaces.Box) and len(space.shape) == 1 else 0
    spec = getattr(getattr(env, "unwrapped", env), "spec", None)
    name = getattr(spec, "id", "").replace("Continuous-v3", "-v3")
    known = OBSERVATION_NAMES.get(name, ())
    return list(known) if len(known) == count else [f"observation[{i}]" for i in range(count)]
