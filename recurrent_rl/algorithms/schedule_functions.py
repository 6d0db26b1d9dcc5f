"""Schedules that are functions, which files do not have: what is saved of them, and found again."""

import math
import sys
import types
import warnings
from collections.abc import Collection, Mapping
from typing import Any

from recurrent_rl.algorithms.schedules import POINTS, Function, factor_at, told
from recurrent_rl.validation import shown, unknown_name

SAVED = {"function", "told", "values"}  # what files have of a function


def as_data(name: str, function: Function) -> dict[str, Any]:
    """Return a function in plain values: its name, and what it gives."""
    values = [factor_at(function, progress, name) for progress in POINTS]
    return {"function": _importable(function), "told": told(function), "values": values}


def known_function(where: str, saved: Mapping[str, Any]) -> Function:
    """Return a function that was saved, out of the modules that are imported already.

    No module is imported for it, and none of Python's own is looked into: a file must not say
    which code is run.

    Raises:
        ValueError: there is no such function; the message says what it was.

    """
    module, _, name = (saved.get("function") or "").partition(":")
    found: Function | None = getattr(sys.modules.get(module), name, None) if name else None
    if found is not None and _importable(found) == saved["function"]:
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
    given: Mapping[str, Function] | None, known: Collection[str], saved: list[Mapping[str, Any]]
) -> None:
    """Check functions that somebody passes for saved ones.

    Args:
        given: by the names of schedules.
        known: names of schedules.
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
        if name not in known:
            raise ValueError(unknown_name("schedules", name, list(known)))
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


def _importable(function: Function) -> str | None:
    """Return "module:name" of a module's own function; None for anything else.

    Python's modules have functions that do more than return a number (``os.makedirs``).
    """
    if not isinstance(function, types.FunctionType):
        return None
    module, name = function.__module__, function.__qualname__
    if module.partition(".")[0] in sys.stdlib_module_names:
        return None
    found = getattr(sys.modules.get(module), name, None)
    return f"{module}:{name}" if found is function else None
