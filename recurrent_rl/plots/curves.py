"""Learning curves of groups of runs.

Letters: R runs (seeds), T steps of a common axis.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recurrent_rl.plots.groups import Groups, aligned, as_groups, usual_tag
from recurrent_rl.plots.runs import FilePath, LoggedRun
from recurrent_rl.plots.statistics import stratified_bootstrap
from recurrent_rl.plots.style import (
    caption,
    colour,
    count_steps,
    legend,
    line,
    new_figure,
    picture_path,
    plain_axes,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What users of these tags call them.
TAG_NAMES = {
    "eval/mean_reward": "return of test episodes",
    "eval/success_rate": "share of successful test episodes",
    "rollout/ep_rew_mean": "return of training episodes\n(mean of the last 100)",
    "rollout/ep_len_mean": "length of training episodes [steps]\n(mean of the last 100)",
    "rollout/success_rate": "share of successful episodes\n(of the last 100)",
    "fitness/best": "fitness of the generation's best",
    "fitness/mean": "mean fitness of the generation",
    "time/fps": "environment steps a second",
}


def plot_runs(
    runs: Groups,
    tag: str | None = None,
    *,
    path: FilePath | None = None,
    title: str | None = None,
    y_label: str | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    points: int = 200,
) -> "Figure":
    """Draw learning curves of groups of runs, one panel for each environment.

    A line is the interquartile mean over a group's runs, a band its bootstrap interval, point by
    point; each run is drawn thin. Lines end where the first run of the group does.

    Args:
        runs: folders of runs, as ``group_runs`` takes them: groups by name, or one folder above
            all, whose runs are grouped by what was set; or what it has returned.
        tag: what to draw; None: tests' returns if all runs have them, or else those of training,
            or a population's fitness.
        path: of the picture (png, pdf or svg); None writes none.
        title: above the picture; None: the environments' names.
        y_label: what the numbers are, with their unit; None: what the tag is known to be.
        confidence: of the band, in (0, 1).
        resamples: of the bootstrap.
        seed: of the bootstrap.
        points: of a line, where runs logged at different steps.

    Returns:
        a matplotlib ``Figure``, which needs no display.

    Raises:
        ImportError: matplotlib is not installed.
        FileNotFoundError: there are no runs, or no folder to write the picture in.
        ValueError: a log that is empty or broken, a tag that a run does not have (the message has
            those that it has), or a format that is not known.

    """
    place = picture_path(path)
    groups = as_groups(runs)
    every = [run for group in groups.values() for run in group]
    tag = usual_tag(every) if tag is None else tag
    tasks = list(dict.fromkeys(run.environment for run in every))
    figure = new_figure(max(6.4, 4.6 * len(tasks)), 4.0)
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    options = {"confidence": confidence, "resamples": resamples, "seed": seed}
    for task, axes in zip(tasks, panels, strict=True):
        plain_axes(axes)
        for i, (name, group) in enumerate(groups.items()):
            of_task = [run for run in group if run.environment == task]
            if of_task:
                _draw_curve(axes, i, name, of_task, tag, points, options)
        axes.set_xlabel("environment steps")
        count_steps(axes.xaxis)
        legend(axes)
        if task and (len(tasks) > 1 or title is None):
            axes.set_title(task, fontsize=10)
    panels[0].set_ylabel(y_label or TAG_NAMES.get(tag, tag))
    if title is not None:
        figure.suptitle(title, fontsize=11)
    caption(
        figure,
        f"lines: interquartile mean of the runs; bands: {confidence:.0%} bootstrap intervals; "
        f"thin: single runs",
    )
    save(figure, place)
    return figure


def _draw_curve(
    axes: "Axes",
    i: int,
    name: str,
    runs: Sequence[LoggedRun],
    tag: str,
    points: int,
    options: Mapping[str, Any],
) -> None:
    """Draw group number i."""
    steps, numbers = aligned(runs, tag, points)  # [T], [R, T]
    style: dict[str, Any] = {"color": colour(i), "linestyle": line(i)}
    seeds = f"{len(runs)} runs" if len(runs) > 1 else "1 run"
    label = f"{name} ({seeds})"
    if len(runs) > 1:
        _warn_of_short(name, runs, tag, float(steps[-1]))
        for run in runs:
            axes.plot(*run.curve(tag), linewidth=0.6, alpha=0.35, **style)
        whole = stratified_bootstrap(numbers[:, None], **options)  # [R, 1, T]
        axes.fill_between(steps, whole.low, whole.high, color=colour(i), alpha=0.18, linewidth=0)
        axes.plot(steps, whole.estimate, linewidth=2, label=label, **style)
    else:
        axes.plot(steps, numbers[0], linewidth=1.2, label=label, **style)
    if len(steps) == 1:  # a line of one point is none
        axes.plot(steps.repeat(len(runs)), numbers[:, 0], marker="o", **style)


def _warn_of_short(name: str, runs: Sequence[LoggedRun], tag: str, end: float) -> None:
    """Say where a group's line ends, if much before its longest run."""
    ends = {run.path: int(run.curve(tag)[0][-1]) for run in runs}
    shortest = min(ends, key=lambda path: ends[path])
    if end < 0.9 * max(ends.values()):
        warnings.warn(
            f"{name}: its line ends at step {end:,.0f}, as {shortest} does, while another run goes "
            f"on to {max(ends.values()):,}; leave the short run out, or train it to its end",
            UserWarning,
            stacklevel=4,
        )
