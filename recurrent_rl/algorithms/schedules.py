"""Schedules: what hyper-parameters are multiplied with while training goes on.

Progress is the share of ``total_steps`` that is over, in [0, 1].
"""

import math
import sys
import types
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

from recurrent_rl.validation import COUNT, NON_NEGATIVE, UNIT, Config, checked, shown, unknown_name

Function = Callable[[float], float]
Shape = Literal["constant", "linear", "cosine"]
Schedule = Shape | float | Function

SHAPES: Mapping[str, Function] = {
    "constant": lambda _: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
}
POINTS = tuple(i / 10 for i in range(11))  # of progress, where functions are tried out
SAVED = {"function", "told", "values"}  # what files have of a function
_SAID = 'expected "constant", "linear", "cosine", a number in [0, 1], or a function of progress'


def factor_at(schedule: Schedule, progress: float, where: str = "schedule") -> float:
    """Return what a schedule gives at some progress.

    >>> [round(factor_at(each, 0.25), 4) for each in ("linear", "cosine", 0.5, lambda p: p)]
    [0.75, 0.8536, 0.875, 0.25]

    Args:
        schedule: one that ``ScheduleRule`` takes.
        progress: in [0, 1].
        where: what messages call it.

    Raises:
        TypeError: a function gave no number.
        ValueError: it gave one that is negative or not finite, or raised an error.

    """
    if isinstance(schedule, str):
        return SHAPES[schedule](progress)
    if not callable(schedule):
        return 1 - (1 - schedule) * progress
    expected = f"{where}: expected a finite number from 0 at progress {progress:g}"
    try:
        value = schedule(progress)
    except Exception as error:  # somebody else's function may raise anything
        raise ValueError(
            f"{expected}, got {type(error).__name__} from {told(schedule)}: {error}"
        ) from error
    try:
        factor: float = checked(where, value, Annotated[float, NON_NEGATIVE])
    except (TypeError, ValueError) as error:
        raise type(error)(f"{expected}, got {shown(value)} from {told(schedule)}") from None
    return factor


class ScheduleRule:
    """What fields take that are schedules; see ``validation.Rule``."""

    def __str__(self) -> str:
        """As the documentation's tables have it."""
        names = ", ".join(f'`"{name}"`' for name in SHAPES)
        return f"{names}, number in [0, 1], or a function"

    def checked(self, where: str, value: Any) -> Schedule:
        """Return a schedule; functions are tried out, and looked up if they were saved."""
        if isinstance(value, Mapping) and value.keys() == SAVED:
            value = _known_function(where, value)
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
        saved = {name: _as_data(name, function) for name, function in functions.items()}
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


# --- functions, which files do not have -----------------------------------------------------------


def told(schedule: object) -> str:
    """Return how messages name a schedule: a function by its own name and its module."""
    if not callable(schedule):
        return repr(schedule)
    if isinstance(schedule, types.FunctionType):
        line = schedule.__code__.co_firstlineno
        return f"the function {schedule.__qualname__} of {schedule.__module__} (line {line})"
    return f"the function {shown(schedule)}"


def _importable(function: Function) -> str | None:
    """Return "module:name" of a module's own function; None for anything else."""
    if not isinstance(function, types.FunctionType):
        return None
    module, name = function.__module__, function.__qualname__
    found = getattr(sys.modules.get(module), name, None)
    return f"{module}:{name}" if found is function else None


def _as_data(name: str, function: Function) -> dict[str, Any]:
    """Return a function in plain values: its name, and what it gives."""
    values = [factor_at(function, progress, name) for progress in POINTS]
    return {"function": _importable(function), "told": told(function), "values": values}


def _known_function(where: str, saved: Mapping[str, Any]) -> Function:
    """Return a function that was saved, out of the modules that are imported already.

    No module is imported for it: a file must not say which code is run.

    Raises:
        ValueError: there is no such function; the message says what it was.

    """
    module, _, name = (saved.get("function") or "").partition(":")
    found = getattr(sys.modules.get(module), name, None) if name else None
    if isinstance(found, types.FunctionType):
        _compare(where, found, saved)
        return found
    option = where.rpartition(".")[2]
    values = ", ".join(f"{value:.4g}" for value in saved["values"])
    remedy = f"import {module} first, or pass" if module not in ("", "__main__") else "pass"
    raise ValueError(
        f"{where}: expected {saved['told']} again, which files do not have; {remedy} it as "
        f"load(path, schedules={{{option!r}: ...}}). At progress 0, 0.1, ..., 1 it gave {values}"
    )


def _compare(where: str, function: Function, saved: Mapping[str, Any]) -> None:
    """Warn if a function gives something else than the one that was saved."""
    for progress, value in zip(POINTS, saved["values"], strict=True):
        now = factor_at(function, progress, where)
        if not math.isclose(now, value, rel_tol=1e-9, abs_tol=1e-12):
            warnings.warn(
                f"{where}: expected what the saved one gave, {value:g} at progress {progress:g}, "
                f"got {now:g} from {told(function)}; training goes on with the latter",
                stacklevel=2,
            )
            return


def with_functions(
    config: Mapping[str, Any], given: Mapping[str, Any] | None, group: str = ""
) -> dict[str, Any]:
    """Put functions into the data of a configuration, where it had some when it was saved.

    Args:
        config: from ``ScheduleConfig.to_dict``.
        given: functions by the names of schedules; or such mappings by group.
        group: whose configuration it is.

    """
    given = given or {}
    own = given.get(group, given)
    found = dict(config)
    for name, saved in config.items():
        if isinstance(saved, Mapping) and "function" in saved and name in own:
            _compare(name, own[name], saved)
            found[name] = own[name]
    return found


def check_given(
    given: Mapping[str, Function] | None, kind: type[ScheduleConfig], saved: list[Mapping[str, Any]]
) -> None:
    """Check functions that somebody passes for saved ones.

    Args:
        given: by the names of schedules.
        kind: which has these.
        saved: data of all configurations that were saved together.

    Raises:
        TypeError: no functions by name.
        ValueError: a name of no schedule, or of one that was no function.

    """
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(
            f"schedules: expected functions by name, such as {{'lr_schedule': function}}, got "
            f"{shown(given)}"
        )
    for name, function in (given or {}).items():
        if name not in kind.SCHEDULES:
            raise ValueError(unknown_name("schedules", name, list(kind.SCHEDULES)))
        if not callable(function):
            raise TypeError(f"schedules: expected functions, got {name}={shown(function)}")
        kinds = [config.get(name, "constant") for config in saved]
        if not any(isinstance(each, Mapping) for each in kinds):
            raise ValueError(
                f"schedules: expected none for {name}, which was saved as {kinds[0]!r}, got "
                f"{told(function)}; change it by reconfigure once the agent is loaded"
            )


def without_functions(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of a configuration that nobody learns by, with no function to be found."""
    is_function = {name for name, value in config.items() if isinstance(value, Mapping)}
    return {n: "constant" if n in is_function else value for n, value in config.items()}
