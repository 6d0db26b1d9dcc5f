"""What a vector environment's ``reset`` and ``step`` returned, checked before NumPy broadcasts it.

Letters: E environments.
"""

from typing import Any

import numpy as np

from recurrent_rl.spaces.array import Array


def parts(name: str, returned: Any, expected: tuple[str, ...]) -> tuple[Any, ...]:
    """Return what ``reset`` or ``step`` returned, if it has as many parts as there should be.

    Raises:
        ValueError: it has others; says what they should be.

    """
    if isinstance(returned, tuple) and len(returned) == len(expected):
        return returned
    got = f"{len(returned)} values" if isinstance(returned, tuple | list) else repr(type(returned))
    raise ValueError(
        f"env.{name}: expected a tuple of {len(expected)}, {', '.join(expected)}, got {got}; {_OLD}"
    )


_OLD = (
    "is it the interface from before Gymnasium 0.26? Return those from it, or convert it with the "
    "package shimmy"
)
PARTS = {
    "reset": ("observation", "info"),
    "step": ("observation", "reward", "terminated", "truncated", "info"),
}


def of_old_interface(command: str, error: Exception) -> Exception | None:
    """Return what to raise instead where an environment was not what Gymnasium calls; or None.

    Args:
        command: "reset" or "step".
        error: what was raised. If whoever called the environment has raised it, rather than the
            environment's own code, it is about how it is called, or what it has returned.

    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    if not module.startswith(("gymnasium.", "recurrent_rl.envs.")):
        return None
    text = str(error)
    if isinstance(error, AttributeError) and text.endswith("no attribute 'items'"):
        return _no_info(text)
    if isinstance(error, ValueError) and "values to unpack" in text:
        expected = PARTS[command]
        return ValueError(
            f"env.{command}: expected a tuple of {len(expected)}, {', '.join(expected)}, got "
            f"something else ({text}); {_OLD}"
        )
    if isinstance(error, TypeError) and "reset() got an unexpected keyword" in text:
        return TypeError(
            f"env.reset: expected the arguments of reset(self, *, seed=None, options=None), got an "
            f"environment without some ({text}); {_OLD}"
        )
    return None


def info(value: Any) -> dict[str, Any]:
    """Return what an environment gave as info, if it is one.

    An observation of two numbers, alone, can be taken for an observation and its info.

    Raises:
        ValueError: something else.

    """
    if isinstance(value, dict):
        return value
    raise _no_info(repr(value))


def _no_info(got: str) -> ValueError:
    return ValueError(
        f"env: expected reset to return (observation, info), and info to be a dictionary there and "
        f"in step, got something else ({got}); {_OLD}"
    )


def rewards(value: Any, rows: int) -> Array:
    """Return rewards as numbers, [E].

    Raises:
        TypeError: no numbers.
        ValueError: of another shape.

    """
    array = as_array("reward", value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"reward: expected numbers, got {type(value).__name__} of {array.dtype}")
    if array.shape != (rows,):
        raise ValueError(
            f"reward: expected shape [E] = [{rows}], got {list(array.shape)}; each environment's "
            f"is one plain number"
        )
    return array


def flags(name: str, value: Any, rows: int) -> Array:
    """Return flags as bool [E]; whole numbers that are 0 or 1 will do.

    Raises:
        TypeError: something else.
        ValueError: of another shape, or other numbers.

    """
    array = as_array(name, value)
    if array.shape != (rows,):
        raise ValueError(
            f"{name}: expected shape [E] = [{rows}], got {list(array.shape)}; each is "
            f"one plain bool"
        )
    if array.dtype == np.bool_:
        return array
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected bools, got {type(value).__name__} of {array.dtype}")
    if not ((array == 0) | (array == 1)).all():
        raise ValueError(f"{name}: expected bools, or 0 and 1, got {array.tolist()}")
    ones: Array = array == 1
    return ones


def as_array(name: str, value: Any) -> Array:
    """Return NumPy's array of what was given; tensors on any device too.

    Raises:
        TypeError: nothing that has numbers.

    """
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach") and hasattr(value, "cpu"):  # torch's
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name}: expected an array of numbers, got {type(value).__name__}: {error}"
        ) from error
    if array.dtype == object:
        raise TypeError(f"{name}: expected an array of numbers, got {type(value).__name__}")
    return array


def observation_shape(stored: Array, expected: tuple[int, ...], what: str = "observation") -> None:
    """Check the shape of observations, [E, *shape].

    Raises:
        ValueError: another one.

    """
    if stored.shape != expected:
        raise ValueError(
            f"{what}: expected shape [E, ...] = {list(expected)}, as the observation space says, "
            f"got {list(stored.shape)}; return what the space describes"
        )
