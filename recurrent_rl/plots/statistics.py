"""What to say of few runs, as rliable defines it.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".

Letters: R runs of each task, M tasks, B resamples.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from recurrent_rl.spaces.array import Array
from recurrent_rl.validation import COUNT, SEED, Range, checked, shown

CUT = 0.25  # of the scores, at each end
INSIDE = Range(1e-9, 1 - 1e-9)


class Interval(NamedTuple):
    """An estimate, and where it may well lie.

    Attributes:
        estimate: of the scores that there are.
        low: lower end of the confidence interval.
        high: upper end.

    """

    estimate: float | Array
    low: float | Array
    high: float | Array


def interquartile_mean(scores: Any) -> Array:
    """Return the mean of the middle half of all runs' scores.

    A quarter of the R * M scores, rounded down, is left out at each end, so that with fewer than
    four it is their mean (as ``scipy.stats.trim_mean`` has it). It is less biased than the median
    and less moved by one lucky run than the mean.

    >>> float(interquartile_mean([0.0, 1.0, 2.0, 90.0]))
    1.5

    Args:
        scores: [R] of one task, [R, M], or [R, M, ...], whose further axes (time) are kept.

    Returns:
        a number, or an array [...].

    Raises:
        ValueError: none, of another shape, or not finite.

    """
    array = checked_scores(scores)
    pooled = np.sort(array.reshape(-1, *array.shape[2:]), axis=0)  # [R, M, ...] -> [R * M, ...]
    cut = int(CUT * len(pooled))
    middle: Array = pooled[cut : len(pooled) - cut].mean(0)
    return middle


def mean_score(scores: Any) -> Array:
    """Return the mean over runs and tasks, [...]; ``scores`` as ``interquartile_mean`` takes."""
    mean: Array = checked_scores(scores).mean((0, 1))
    return mean


def median_score(scores: Any) -> Array:
    """Return the median over tasks of each one's mean over runs, [...]."""
    median: Array = np.median(checked_scores(scores).mean(0), axis=0)
    return median


def optimality_gap(scores: Any, target: float = 1.0) -> Array:
    """Return by how much runs fall short of a target on average; those above count as on it."""
    gap: Array = target - np.minimum(checked_scores(scores), target).mean((0, 1))
    return gap


def performance_profile(scores: Any, thresholds: Sequence[float] | Array) -> Array:
    """Return the share of runs whose score is above each threshold: the run-score distribution.

    F(tau) = mean over tasks m and runs r of [score(r, m) > tau].

    >>> performance_profile([1.0, 2.0, 3.0], [0.0, 2.0, 3.0]).round(2).tolist()
    [1.0, 0.33, 0.0]

    Args:
        scores: [R] of one task, or [R, M].
        thresholds: tau, [X].

    Returns:
        shares in [0, 1], [X].

    """
    above = checked_scores(scores)[..., None] > np.asarray(thresholds)  # [R, M, X]
    share: Array = above.mean((0, 1))
    return share


def probability_of_improvement(scores: Any, others: Any) -> float:
    """Return the chance that a run of the first beats one of the others, on a task drawn by lot.

    The mean over tasks of P(x > y) + P(x = y) / 2, over all pairs of runs: Mann and Whitney's U
    divided by the number of pairs.

    >>> probability_of_improvement([3.0, 1.0], [2.0, 1.0])
    0.625

    Args:
        scores: [R] of one task, or [R, M].
        others: likewise, of the same tasks; R may differ.

    Raises:
        ValueError: other tasks, none, or not finite.

    """
    x, y = checked_scores(scores), checked_scores(others, "others")
    if x.ndim != 2 or x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"others: expected scores [R, M] of the same tasks as scores, {list(x.shape)}, got "
            f"{list(y.shape)}; leave out tasks that only one of them was run on"
        )
    pairs = x[:, None] - y[None]  # [R, R', M]
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean((0, 1)).mean())


def stratified_bootstrap(
    scores: Any,
    statistic: Callable[[Array], Array] = interquartile_mean,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return a statistic with its percentile bootstrap interval.

    Runs are drawn again, with replacement, for each task by itself, so that every resample has R
    runs of each of the M tasks. Of one task it is ``scipy.stats.bootstrap(method="percentile")``.

    Args:
        scores: [R] of one task, [R, M], or [R, M, ...], whose further axes (time) are drawn
            together.
        statistic: of scores [R, M, ...].
        confidence: share of the resamples that the interval holds, in (0, 1).
        resamples: B.
        seed: of the draws.

    Returns:
        estimate and interval, each as ``statistic`` returns it.

    Raises:
        ValueError: fewer than two runs, of which there is nothing to draw; or scores that are not
            finite.

    """
    array = checked_scores(scores)
    confidence = checked("confidence", confidence, Annotated[float, INSIDE])
    resamples = checked("resamples", resamples, Annotated[int, COUNT])
    seed = checked("seed", seed, Annotated[int, SEED])
    runs, tasks = array.shape[:2]
    if runs < 2:
        raise ValueError(
            "scores: expected at least 2 runs, whose spread an interval is made from, got 1; train "
            "with more seeds"
        )
    random = np.random.default_rng(seed)
    task = np.arange(tasks)
    drawn = [
        statistic(array[random.integers(runs, size=(runs, tasks)), task])  # [R, M, ...]
        for _ in range(resamples)
    ]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(np.stack(drawn), [tail, 100 - tail], axis=0)
    return Interval(*(_plain(x) for x in (statistic(array), low, high)))


def _plain(value: Any) -> float | Array:
    array: Array = np.asarray(value)
    return float(array) if array.ndim == 0 else array


def checked_scores(scores: Any, name: str = "scores") -> Array:
    """Return scores as an array [R, M, ...]; [R] becomes [R, 1].

    Raises:
        ValueError: none, not numbers, or not finite.

    """
    try:
        array = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name}: expected numbers, [R] runs or [R, M] runs and tasks, as many runs of each "
            f"task, got {shown(scores)}"
        ) from None
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(
            f"{name}: expected at least one run, [R] or [R, M], got shape {list(array.shape)}"
        )
    if not np.isfinite(array).all():
        raise ValueError(
            f"{name}: expected finite numbers, got NaN or infinity; leave such runs out only if "
            f"you say so beside the result"
        )
    return array
