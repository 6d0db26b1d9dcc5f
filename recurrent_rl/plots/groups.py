"""Logged runs that belong together, as seeds of one setting do.

Letters: R runs, T steps of a common axis.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from recurrent_rl.plots.runs import LoggedRun, Where, read_runs
from recurrent_rl.spaces.array import Array
from recurrent_rl.validation import COUNT, checked

# Which number is drawn where nobody says: the first of these that all runs have.
USUAL_TAGS = ("eval/mean_reward", "rollout/ep_rew_mean", "fitness/best", "train/return")
Groups = Where | Mapping[str, Where] | Mapping[str, Sequence[LoggedRun]]


def group_runs(where: Where | Mapping[str, Where]) -> dict[str, list[LoggedRun]]:
    """Read runs, and put those together that differ in nothing but their seed.

    Args:
        where: as ``read_runs`` takes it; then groups are named by what tells their configurations
            apart, and runs without a configuration by their parent folder. Or a dictionary of such
            by the group's name, which says itself what belongs together.

    Returns:
        runs by the group's name, in the order of the runs.

    Raises:
        FileNotFoundError: there are none.
        ValueError: as ``read_run``.

    """
    if isinstance(where, Mapping):
        if not where:
            raise ValueError("where: expected at least one group of runs, got none")
        return {str(name): read_runs(each) for name, each in where.items()}
    runs = read_runs(where)
    known = [run for run in runs if run.config]
    labels = dict(
        zip(map(id, known), _labels([_settings(run.config) for run in known]), strict=True)
    )
    groups: dict[str, list[LoggedRun]] = {}
    for run in runs:
        name = labels.get(id(run), "") or run.path.resolve().parent.name
        groups.setdefault(name, []).append(run)
    return groups


def as_groups(runs: Groups) -> dict[str, list[LoggedRun]]:
    """Return runs by group, read where they are given as folders.

    Args:
        runs: as ``group_runs`` takes them, or what it has returned.

    Raises:
        FileNotFoundError: there are none.
        ValueError: as ``group_runs``.

    """
    if not isinstance(runs, Mapping):
        return group_runs(runs)
    groups: dict[str, list[LoggedRun]] = {}
    for name, each in runs.items():
        given: list[Any] = [each] if isinstance(each, str | os.PathLike) else list(each)
        known = [run for run in given if isinstance(run, LoggedRun)]
        folders = [run for run in given if not isinstance(run, LoggedRun)]
        groups[str(name)] = known + (read_runs(folders) if folders or not known else [])
    return groups or group_runs({})


def usual_tag(runs: Iterable[LoggedRun]) -> str:
    """Return the tag to draw where nobody says.

    Raises:
        ValueError: the runs have none of the usual ones in common; says what they have.

    """
    every = list(runs)
    for tag in USUAL_TAGS:
        if all(tag in run.values for run in every):
            return tag
    common = [tag for tag in every[0].tags if all(tag in run.values for run in every)]
    raise ValueError(
        f"tag: expected runs with one of {', '.join(USUAL_TAGS)} in common, got none; give one of "
        f"{', '.join(common) or 'none that all of them have'}"
    )


def aligned(runs: Iterable[LoggedRun], tag: str, points: int = 200) -> tuple[Array, Array]:
    """Return the runs' curves over a common axis of environment steps.

    Runs that logged at the same steps keep theirs. Others are interpolated linearly, at equal
    distances, from the latest beginning to the earliest end: beyond it a mean would be one of those
    runs only that happened to go on.

    Args:
        runs: R of them.
        tag: what to read.
        points: T, where it has to be interpolated.

    Returns:
        environment steps, [T], and numbers, [R, T].

    Raises:
        ValueError: a run without the tag, or runs that have no steps in common.

    """
    points = checked("points", points, Annotated[int, COUNT])
    every = list(runs)
    curves = [run.curve(tag) for run in every]
    first = curves[0][0]
    if all(np.array_equal(steps, first) for steps, _ in curves):
        return first, np.stack([numbers for _, numbers in curves])
    begin, end = (choose(steps[i] for steps, _ in curves) for i, choose in ((0, max), (-1, min)))
    if begin > end:
        ends = [
            f"{run.path}: {s[0]:,} to {s[-1]:,}" for run, (s, _) in zip(every, curves, strict=True)
        ]
        raise ValueError(
            f"runs: expected environment steps of {tag} in common, got none ({'; '.join(ends)})"
        )
    axis = np.linspace(begin, end, points if end > begin else 1)
    return axis, np.stack([np.interp(axis, *curve) for curve in curves])


def final_scores(
    groups: Mapping[str, Iterable[LoggedRun]], tag: str | None = None, last: int = 1
) -> dict[str, dict[str, Array]]:
    """Return the score that each run ended with, for ``plot_scores`` and ``plot_profiles``.

    Args:
        groups: from ``group_runs``.
        tag: what a score is; None: "eval/mean_reward" if all have it, or else what they have, see
            ``usual_tag``.
        last: mean of so many numbers, the last that were logged.

    Returns:
        scores by group and by environment, [R] each.

    Raises:
        ValueError: a run without the tag, or with fewer numbers.

    """
    last = checked("last", last, Annotated[int, COUNT])
    by_name = {name: list(runs) for name, runs in groups.items()}
    tag = usual_tag(run for runs in by_name.values() for run in runs) if tag is None else tag
    scores: dict[str, dict[str, list[float]]] = {}
    for name, runs in by_name.items():
        for run in runs:
            numbers = run.curve(tag)[1]
            if len(numbers) < last:
                raise ValueError(
                    f"last: expected at most {len(numbers)}, the numbers of {tag} that {run.path} "
                    f"has, got {last}"
                )
            of_task = scores.setdefault(name, {}).setdefault(run.environment, [])
            of_task.append(float(numbers[-last:].mean()))
    return {
        name: {task: np.array(each) for task, each in tasks.items()}
        for name, tasks in scores.items()
    }


# --- what tells configurations apart -----------------------------------------------------------

# What may differ within a group, and what says nothing in a picture's key.
_NOT_SETTINGS = re.compile(r"(^|\.)(\w*seed|command|versions\..*|\w*_path|\w*_dir|device)$")


def _settings(config: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Return what was set, in text, by its dotted name."""
    found: dict[str, str] = {}
    for key, value in config.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            found |= _settings(value, f"{name}.")
        elif not _NOT_SETTINGS.search(name):
            found[name] = str(value)
    return found


def _labels(settings: list[dict[str, str]]) -> list[str]:
    """Return a name for each run, of as few settings as tell its group from all others.

    Environments are no part of it: a method's scores on several belong together.
    """
    places = ("environment", "settings.env_name")
    every = [{k: v for k, v in one.items() if k not in places} for one in settings]
    names = list(dict.fromkeys(name for one in every for name in one))
    names.sort(key=lambda name: name != "algorithm")  # first, and always said
    wanted = len({tuple(sorted(one.items())) for one in every})
    chosen: list[str] = []

    def told(keys: list[str]) -> int:
        return len({tuple(one.get(key) for key in keys) for one in every})

    for name in names:
        if name == "algorithm" or told([*chosen, name]) > told(chosen):
            chosen.append(name)
        if told(chosen) == wanted:
            break
    return [", ".join(_part(name, one[name]) for name in chosen if name in one) for one in every]


def _part(name: str, value: str) -> str:
    return value if name == "algorithm" else f"{name.rpartition('.')[2]}={value}"
