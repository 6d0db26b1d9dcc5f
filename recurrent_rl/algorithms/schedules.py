"""Schedules: what hyper-parameters are multiplied with while training goes on.

Progress is the share of ``total_steps`` that is over, in [0, 1].
"""

import math
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from recurrent_rl.validation import NON_NEGATIVE, checked, shown

Function = Callable[[float], float]
Shape = Literal["constant", "linear", "cosine"]
Schedule = Shape | float | Function

SHAPES: Mapping[str, Function] = {
    "constant": lambda _: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
}
POINTS = tuple(i / 10 for i in range(11))  # of progress, where functions are tried out


def factor_at(schedule: Schedule, progress: float, where: str = "schedule") -> float:
    """Return what a schedule gives at some progress.

    >>> [round(factor_at(each, 0.25), 4) for each in ("linear", "cosine", 0.5, lambda p: p)]
    [0.75, 0.8536, 0.875, 0.25]

    Args:
        schedule: the name of a shape, a number in [0, 1], or a function.
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


def told(schedule: object) -> str:
    """Return how messages name a schedule: a function by its own name and its module."""
    if not callable(schedule):
        return repr(schedule)
    if isinstance(schedule, types.FunctionType):
        line = schedule.__code__.co_firstlineno
        return f"the function {schedule.__qualname__} of {schedule.__module__} (line {line})"
    return f"the function {shown(schedule)}"
