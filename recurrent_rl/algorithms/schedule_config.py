"""Schedules among hyper-parameters: what the fields take, and the horizon that they need."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, get_args

from recurrent_rl.algorithms.schedule_functions import SAVED, as_data, known_function
from recurrent_rl.algorithms.schedules import (
    POINTS,
    SHAPES,
    Function,
    Schedule,
    Shape,
    factor_at,
    told,
)
from recurrent_rl.validation import COUNT, UNIT, Config, checked, shown

_SAID = 'expected "constant", "linear", "cosine", a number in [0, 1], or a function of progress'


class ScheduleRule:
    """What fields take that are schedules; see ``validation.Rule``."""

    def __str__(self) -> str:
        """As the documentation's tables have it."""
        names = ", ".join(f'`"{name}"`' for name in SHAPES)
        return f"{names}, number in [0, 1], or a function"

    def checked(self, where: str, value: Any) -> Schedule:
        """Return a schedule; functions are tried out, and looked up if they were saved."""
        if isinstance(value, Mapping) and value.keys() == SAVED:
            value = known_function(where, value)
        if callable(value):
            for progress in POINTS:
                factor_at(value, progress, where)
            return value  # type: ignore[no-any-return]
        if isinstance(value, str):
            for name in get_args(Shape):
                if value == name:
                    return name  # type: ignore[no-any-return]
            raise ValueError(f"{where}: {_SAID}, got {shown(value)}")
        if value is None or isinstance(value, bool | Mapping):
            raise TypeError(f"{where}: {_SAID}, got {shown(value)}")
        number: float = checked(where, value, Annotated[float, UNIT])
        return number


SCHEDULE = ScheduleRule()


@dataclass(frozen=True)
class ScheduleConfig(Config):
    """What changes by itself while training goes on.

    Attributes:
        SCHEDULES: by the name of each schedule, the hyper-parameter that it multiplies.
        lr_schedule: what step sizes are multiplied with over total_steps: "linear" goes from 1 to
            0, "cosine" does so along half a period; a number goes from 1 to this number in a
            straight line; a function is given progress, from 0 to 1, and returns the factor, a
            finite number from 0.
        total_steps: environment steps (over all environments) of the whole training; the horizon
            of schedules. Behind it they stay as they are at its end, and learn says so once.

    """

    SCHEDULES: ClassVar[Mapping[str, str]] = {"lr_schedule": "lr"}

    lr_schedule: Annotated[Schedule, SCHEDULE] = "constant"
    total_steps: Annotated[int | None, COUNT] = None

    def __post_init__(self) -> None:
        """Check single fields, then that there is a horizon if anything asks for one."""
        for name, of in self.SCHEDULES.items():
            for number in (n for n in self.names() if n == of or n.startswith(f"{of}_")):
                if number != name and callable(value := getattr(self, number)):
                    raise TypeError(
                        f"{type(self).__name__}.{number}: expected the number to begin with, got "
                        f"{told(value)}; a function of progress, from 0 to 1, that returns a "
                        f"factor, belongs in {name}"
                    )
        super().__post_init__()
        for name, schedule in self.running().items():
            if self.total_steps is None:
                raise ValueError(
                    f"{type(self).__name__}.total_steps: expected the training's length in "
                    f"environment steps, as {name}={told(schedule)} needs it, got None"
                )

    def to_dict(self) -> dict[str, Any]:
        functions = self.functions()
        saved = {name: as_data(name, function) for name, function in functions.items()}
        return {**super().to_dict(), **saved}

    def running(self) -> dict[str, Schedule]:
        """Return the schedules that are not constant, by name."""
        all_of_them = {name: getattr(self, name) for name in self.SCHEDULES}
        return {name: value for name, value in all_of_them.items() if value != "constant"}

    def functions(self) -> dict[str, Function]:
        """Return those that are functions."""
        return {name: value for name, value in self.running().items() if callable(value)}

    def factor(self, name: str, env_steps: int) -> float:
        """Return what a schedule gives after so many environment steps.

        Raises:
            TypeError: a function gave no number.
            ValueError: it gave one that is negative or not finite, or raised an error.

        """
        if self.total_steps is None:
            return 1.0
        return factor_at(getattr(self, name), min(env_steps / self.total_steps, 1.0), name)

    @property
    def end_of_learning(self) -> int | None:
        """Environment steps at which step sizes have come to 0; None: never."""
        ends = self.total_steps is not None and self.factor("lr_schedule", self.total_steps) == 0
        return self.total_steps if ends else None

    def end(self, env_steps: int) -> str | None:
        """Return what is to be said if the horizon is behind; None: nothing."""
        running = self.running()
        if not running or self.total_steps is None or env_steps < self.total_steps:
            return None
        stays = []
        for name, schedule in running.items():
            factor = self.factor(name, env_steps)
            stays.append(f"{name}={told(schedule)} at a factor of {factor:g}")
            if name == "lr_schedule" and factor == 0:
                stays[-1] += " (nothing is learned)"
        return (
            f"learn: total_steps = {self.total_steps} are over, so that schedules stay as they "
            f"are: {', '.join(stays)}; to go on otherwise, call reconfigure(total_steps=...) or "
            f"reconfigure({next(iter(running))}='constant')"
        )
