"""The numbers in the infos that episodes end with: successes, wins, whatever else is counted.

Kept are plain numbers, NumPy's, and arrays and tensors without dimensions, if they are finite. Not
kept are arrays, texts and dictionaries, what has a meaning of its own (``OTHERS``), and names that
begin with ``_``, as those of Gymnasium's masks do.

Letters: E environments.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import torch

from recurrent_rl.spaces.array import Array

Numbers = Mapping[str, float]
Entry = tuple[int, str, Numbers]
"""(number of an episode, an agent's name or "" where there is but one, its numbers)"""

SUCCESS = "is_success"  # the name that Gymnasium-Robotics and Stable-Baselines3 have for it
OTHERS = {
    "action_mask",
    "env_defined_actions",
    "final_info",
    "final_obs",
    "final_observation",
    "terminal_observation",
    "TimeLimit.truncated",
}


def numbers_of(info: Any) -> dict[str, float]:
    """Return the numbers of one environment's, or one agent's, info; of anything else none."""
    if not isinstance(info, Mapping):
        return {}
    return {
        str(name): number
        for name, value in info.items()
        if _is_kept(name) and (number := _number(value)) is not None
    }


def numbers_of_rows(info: Any, rows: Array, num_envs: int) -> dict[int, Numbers]:
    """Return the numbers of some environments in what a Gymnasium vector says of all.

    Args:
        info: arrays [E] by name, each beside a mask, bool [E], under its name behind ``_``, or
            without one; or infos of E environments.
        rows: which environments, [n].
        num_envs: E.

    Returns:
        by environment; those without any are left out.

    """
    found: dict[int, dict[str, float]] = {int(row): {} for row in rows}
    if not isinstance(info, Mapping):
        if _has_rows(info, num_envs):
            found = {row: numbers_of(info[row]) for row in found}
        return {row: numbers for row, numbers in found.items() if numbers}
    for name, values in info.items():
        if not _is_kept(name) or not _has_rows(values, num_envs):
            continue
        given: Any = info.get(f"_{name}")
        has_mask = _has_rows(given, num_envs)
        for row, numbers in found.items():
            if has_mask and not given[row]:
                continue
            if (number := _number(values[row])) is not None:
                numbers[str(name)] = number
    return {row: numbers for row, numbers in found.items() if numbers}


def by_name(entries: Iterable[Entry], episodes: int) -> dict[str, list[float]]:
    """Put together what several episodes ended with.

    Args:
        entries: in any order; episodes that said nothing may be missing.
        episodes: how many there are.

    Returns:
        by name [episodes], NaN where an episode's info had no such number. Of agents with names,
        each one's are under ``agent/name``, and the means over those who gave it under ``name``.

    """
    own: dict[str, list[float]] = {}
    given: dict[str, dict[int, list[float]]] = {}  # by name and episode, of all agents
    for episode, agent, numbers in entries:
        for name, number in numbers.items():
            if agent:
                given.setdefault(name, {}).setdefault(episode, []).append(number)
            full = f"{agent}/{name}" if agent else name
            own.setdefault(full, [math.nan] * episodes)[episode] = number
    means = {
        name: [mean_of_known(values.get(episode, ())) for episode in range(episodes)]
        for name, values in given.items()
    }
    return means | own


def by_players(
    matches: Iterable[tuple[Sequence[str], Mapping[str, Array]]], episodes: int
) -> dict[str, Array]:
    """Put together matches in which different agents play.

    Args:
        matches: whose numbers count, and what ``by_name`` gave, [episodes].
        episodes: of each match.

    Returns:
        as ``by_name``, with each agent's numbers from its own match.

    """
    entries = [
        (episode, agent, {name.removeprefix(f"{agent}/"): float(number)})
        for players, infos in matches
        for agent in players
        for name, numbers in infos.items()
        if name.startswith(f"{agent}/")
        for episode, number in enumerate(numbers)
        if not math.isnan(number)
    ]
    return {name: np.array(numbers) for name, numbers in by_name(entries, episodes).items()}


def mean_of_known(numbers: Iterable[float]) -> float:
    """Return the mean of those that are not NaN; NaN if there are none."""
    known = [number for number in numbers if not math.isnan(number)]
    if not known:
        return math.nan
    if min(known) == max(known):  # exactly that, whatever rounding says
        return float(known[0])
    with np.errstate(over="ignore"):
        return float(np.mean(known))


def _is_kept(name: Any) -> TypeGuard[str]:
    # What cannot be printed would break log files.
    return (
        isinstance(name, str)
        and name[:1] not in ("", "_")
        and (name not in OTHERS and name.isprintable())
    )


def _number(value: Any) -> float | None:
    """Return a finite number as Python's own; None for anything else."""
    if isinstance(value, np.ndarray | torch.Tensor):
        if value.ndim:
            return None
        value = value.item()
    if isinstance(value, np.generic):
        if value.dtype.kind not in "biuf":
            return None
    elif not isinstance(value, bool | int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond all floats
        return None
    return number if math.isfinite(number) else None


def _has_rows(values: Any, num_envs: int) -> bool:
    """Whether there is something for each environment."""
    if isinstance(values, np.ndarray | torch.Tensor):
        return values.ndim == 1 and len(values) == num_envs
    return isinstance(values, list | tuple) and len(values) == num_envs
