"""Pictures that compare the scores of groups of runs: intervals, and performance profiles.

Letters: R runs (seeds), M tasks (environments), X thresholds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recurrent_rl.plots.runs import FilePath
from recurrent_rl.plots.statistics import (
    checked_scores,
    interquartile_mean,
    mean_score,
    median_score,
    optimality_gap,
    performance_profile,
    stratified_bootstrap,
)
from recurrent_rl.plots.style import (
    caption,
    colour,
    legend,
    line,
    new_figure,
    picture_path,
    plain_axes,
    save,
)
from recurrent_rl.spaces.array import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATISTICS: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "iqm": ("interquartile mean", interquartile_mean),
    "mean": ("mean", mean_score),
    "median": ("median of the tasks' means", median_score),
    "optimality gap": ("optimality gap (less is better)", optimality_gap),
}
Scores = Mapping[str, Any]


def plot_scores(
    scores: Scores,
    *,
    path: FilePath | None = None,
    metrics: Sequence[str] = ("iqm", "mean"),
    reference: Mapping[str, tuple[float, float]] | None = None,
    title: str | None = None,
    x_label: str = "score",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> "Figure":
    """Draw each group's scores as an estimate (black) within its bootstrap interval (bar).

    >>> figure = plot_scores({"with": [9.0, 8.0, 9.5], "without": [2.0, 1.0, 4.0]}, resamples=100)

    Args:
        scores: by the group's name from ``final_scores``: arrays [R] by task; or arrays [R] of one
            task, or [R, M].
        path: of the picture (png, pdf or svg); None writes none.
        metrics: panels: "iqm", "mean", "median" (over tasks), "optimality gap" (to 1, or to the
            upper end of ``reference``).
        reference: by task the scores that count as 0 and as 1, a random policy's and a good one's
            for example; scores on several tasks mean little together without.
        title: above the picture.
        x_label: what the scores are, with their unit.
        confidence: of the bars, in (0, 1).
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        a matplotlib ``Figure``, which needs no display.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: an unknown metric, groups of different tasks, tasks of different numbers of
            runs, fewer than two runs, scores that are not finite, or an unknown format.

    """
    place = picture_path(path)
    unknown = [metric for metric in metrics if metric not in STATISTICS]
    if unknown or not len(metrics):
        raise ValueError(f"metrics: expected some of {', '.join(STATISTICS)}, got {list(metrics)}")
    arrays = _matrices(scores, reference)
    figure = new_figure(1.5 + 3.2 * len(metrics), 1.3 + 0.42 * len(arrays))
    panels = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
    for metric, axes in zip(metrics, panels, strict=True):
        plain_axes(axes)
        axes.grid(visible=False, axis="y")
        axes.use_sticky_edges = False  # bars do not begin at the frame
        name, statistic = STATISTICS[metric]
        for i, array in enumerate(arrays.values()):
            known = stratified_bootstrap(
                array, statistic, confidence=confidence, resamples=resamples, seed=seed
            )
            bar = {"height": 0.6, "color": colour(i), "alpha": 0.75}
            axes.barh(i, known.high - known.low, left=known.low, **bar)
            axes.plot([known.estimate] * 2, [i - 0.3, i + 0.3], color="black", linewidth=2)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("normalised score" if reference else x_label)
        axes.margins(x=0.08)
    panels[0].set_yticks(range(len(arrays)), list(map(_named, arrays, arrays.values())))
    panels[0].set_ylim(len(arrays) - 0.5, -0.5)  # the first on top
    if title is not None:
        figure.suptitle(title, fontsize=11)
    caption(figure, f"black: estimate; bars: {confidence:.0%} stratified bootstrap intervals")
    save(figure, place)
    return figure


def plot_profiles(
    scores: Scores,
    *,
    path: FilePath | None = None,
    thresholds: Sequence[float] | Array | None = None,
    reference: Mapping[str, tuple[float, float]] | None = None,
    title: str | None = None,
    x_label: str = "score",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> "Figure":
    """Draw performance profiles: which share of a group's runs scores more than a threshold.

    A group whose line is above another's everywhere is better whatever one asks for. Bands are
    stratified bootstrap intervals.

    Args:
        scores: as ``plot_scores`` takes them.
        path: of the picture (png, pdf or svg); None writes none.
        thresholds: [X], growing; None: 400 from below the least score to the greatest.
        reference: as in ``plot_scores``.
        title: above the picture.
        x_label: what the scores are, with their unit.
        confidence: of the bands, in (0, 1).
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        a matplotlib ``Figure``, which needs no display.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: as ``plot_scores``; or thresholds that do not grow.

    """
    place = picture_path(path)
    arrays = _matrices(scores, reference)
    above = _thresholds(thresholds, list(arrays.values()))
    figure = new_figure(6.4, 4.0)
    axes = figure.subplots()
    plain_axes(axes)
    for i, (name, array) in enumerate(arrays.items()):
        known = stratified_bootstrap(
            array,
            lambda drawn: performance_profile(drawn, above),
            confidence=confidence,
            resamples=resamples,
            seed=seed,
        )
        band: dict[str, Any] = {"color": colour(i), "alpha": 0.18, "linewidth": 0, "step": "post"}
        axes.fill_between(above, known.low, known.high, **band)
        style: dict[str, Any] = {"color": colour(i), "linestyle": line(i), "linewidth": 2}
        axes.step(above, known.estimate, where="post", label=_named(name, array), **style)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(
        "normalised score \N{GREEK SMALL LETTER TAU}"
        if reference
        else f"{x_label} \N{GREEK SMALL LETTER TAU}"
    )
    axes.set_ylabel("share of runs that score more")
    legend(axes)
    if title is not None:
        axes.set_title(title, fontsize=11)
    caption(figure, f"bands: {confidence:.0%} stratified bootstrap intervals")
    save(figure, place)
    return figure


def _matrices(
    scores: Scores, reference: Mapping[str, tuple[float, float]] | None
) -> dict[str, Array]:
    """Return scores [R, M] by group, normalised if there is a reference."""
    if not isinstance(scores, Mapping) or not scores:
        raise ValueError(
            "scores: expected arrays [R] or [R, M] by the group's name, or those by task, got "
            f"{type(scores).__name__} {scores if not isinstance(scores, Mapping) else ''}; read "
            f"runs with final_scores(group_runs(folder))"
        )
    if reference is not None and not all(isinstance(each, Mapping) for each in scores.values()):
        raise ValueError(
            "reference: expected scores by task, which it names, got arrays; give {group: {task: "
            "[...]}}, or normalise them yourself"
        )
    tasks = [list(each) for each in scores.values() if isinstance(each, Mapping)]
    if any(set(each) != set(tasks[0]) for each in tasks):
        raise ValueError(
            f"scores: expected the same tasks in all groups, got {tasks}; leave out those that "
            f"only some were run on"
        )
    arrays = {}
    for name, each in scores.items():
        columns = each
        if isinstance(each, Mapping):
            columns = [_normalised(task, each[task], reference) for task in tasks[0]]
            counts = [len(column) for column in columns]
            if len(set(counts)) > 1:
                raise ValueError(
                    f"scores[{name!r}]: expected as many runs of each task, got "
                    f"{dict(zip(tasks[0], counts, strict=True))}; train the missing seeds, or "
                    f"leave the others out everywhere"
                )
            columns = np.stack(columns, axis=1)  # [R, M]
        arrays[str(name)] = checked_scores(columns, f"scores[{name!r}]")
    return arrays


def _normalised(
    task: str, scores: Any, reference: Mapping[str, tuple[float, float]] | None
) -> Array:
    array = np.asarray(scores, dtype=np.float64)
    if reference is None:
        return array
    if task not in reference:
        raise ValueError(
            f"reference: expected the scores that count as 0 and 1 for {task!r} too, got those of "
            f"{', '.join(reference)}"
        )
    low, high = reference[task]
    if low == high:
        raise ValueError(f"reference[{task!r}]: expected two different scores, got {low} twice")
    return (array - low) / (high - low)


def _thresholds(given: Sequence[float] | Array | None, arrays: Sequence[Array]) -> Array:
    if given is None:
        low, high = min(x.min() for x in arrays), max(x.max() for x in arrays)
        below = 0.02 * (high - low or 1.0)
        return np.linspace(low - below, high + below, 400)
    above = np.asarray(given, dtype=np.float64)
    if above.ndim != 1 or len(above) < 2 or not (np.diff(above) > 0).all():
        raise ValueError(f"thresholds: expected two or more numbers that grow, got {given!r}")
    return above


def _named(name: str, scores: Array) -> str:
    """Return a group's name with how much is known of it."""
    runs, tasks = scores.shape[:2]
    return f"{name} ({runs} runs)" if tasks == 1 else f"{name} ({runs} runs of {tasks} tasks)"
