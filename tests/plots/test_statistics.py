"""Tests of `recurrent_rl.plots.statistics`, by hand and against scipy."""

from typing import Any

import numpy as np
import pytest

from recurrent_rl import (
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)
from recurrent_rl.plots.statistics import mean_score, median_score, optimality_gap

# Three runs of two tasks.
SCORES = np.array([[0.0, 10.0], [1.0, 20.0], [5.0, 60.0]])
RANDOM = np.random.default_rng(0).normal(size=(5, 3))


class TestEstimates:
    def test_by_hand(self) -> None:
        # Of 0 1 5 10 20 60 one falls out at each end, 6 / 4 rounded down.
        assert interquartile_mean(SCORES) == pytest.approx((1 + 5 + 10 + 20) / 4)
        assert mean_score(SCORES) == pytest.approx((2 + 30) / 2)
        assert median_score(SCORES) == pytest.approx((2 + 30) / 2)  # of two tasks' means
        assert median_score(np.array([[1.0, 2.0, 9.0]])) == 2
        assert optimality_gap(SCORES, target=5.0) == pytest.approx(5 - (0 + 1 + 5 + 5 + 5 + 5) / 6)

    def test_fewer_than_four_are_averaged(self) -> None:
        assert interquartile_mean([0.0, 1.0, 8.0]) == pytest.approx(3)

    @pytest.mark.parametrize("runs", [1, 3, 4, 7, 8, 9])
    def test_as_rliable_which_uses_scipy(self, runs: int) -> None:
        import scipy.stats  # takes a second, in each process that collects tests

        scores = np.random.default_rng(runs).normal(size=(runs, 3))
        expected = scipy.stats.trim_mean(scores, 0.25, axis=None)
        assert interquartile_mean(scores) == pytest.approx(expected)

    def test_further_axes_are_kept(self) -> None:
        curves = np.stack([SCORES, 2 * SCORES, SCORES - 1], -1)  # [R, M, 3]
        one = float(interquartile_mean(SCORES))
        assert interquartile_mean(curves) == pytest.approx([one, 2 * one, one - 1])

    @pytest.mark.parametrize(
        ("scores", "message"),
        [
            ([], r"expected at least one run"),
            ([1.0, np.nan], r"expected finite numbers, got NaN"),
            ([[1.0, 2.0], [3.0]], r"as many runs of each task"),
            ("many", r"expected numbers"),
            (3.0, r"got shape \[\]"),
        ],
    )
    def test_nonsense_is_refused(self, scores: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            interquartile_mean(scores)


class TestBootstrap:
    def test_two_runs_by_hand(self) -> None:
        """Their resamples are 0, 5 and 10, with chances of 1/4, 1/2 and 1/4."""
        wide = stratified_bootstrap([0.0, 10.0])
        assert wide == (5, 0, 10)
        assert all(type(number) is float for number in wide)
        assert stratified_bootstrap([0.0, 10.0], confidence=0.4) == (5, 5, 5)

    def test_tasks_are_drawn_by_themselves(self) -> None:
        """Two tasks of equal runs: whichever are drawn, each task has its three."""
        assert stratified_bootstrap([[0.0, 10.0]] * 3) == (5, 5, 5)

    def test_runs_of_tasks_are_not_drawn_together(self) -> None:
        """The mean over tasks of 0, 1 | 0, 1 is 0 if all four draws are, once in 16 times."""
        both = np.array([[0.0, 0.0], [1.0, 1.0]])
        found = stratified_bootstrap(both, mean_score, confidence=1 - 2 / 8, resamples=4000)
        assert found == (0.5, 0.25, 0.75)  # together, it would be 0 once in 4 times

    def test_against_scipys(self) -> None:
        import scipy.stats  # takes a second, in each process that collects tests

        """Which draws from several samples by themselves, too."""
        theirs = scipy.stats.bootstrap(
            tuple(RANDOM.T),
            lambda *tasks, axis: scipy.stats.trim_mean(np.concatenate(tasks, axis), 0.25, axis),
            method="percentile",
            n_resamples=4000,
            rng=1,
        ).confidence_interval
        ours = stratified_bootstrap(RANDOM, resamples=4000)
        assert ours[1:] == pytest.approx(theirs, abs=0.03)

    def test_curves_point_by_point(self) -> None:
        curves = np.stack([RANDOM, RANDOM + 1], -1)  # [R, M, 2]
        low, high = (np.asarray(end) for end in stratified_bootstrap(curves, resamples=200)[1:])
        one = stratified_bootstrap(RANDOM, resamples=200)
        assert low == pytest.approx([one.low, one.low + 1])
        assert high == pytest.approx([one.high, one.high + 1])

    def test_one_run_has_no_spread(self) -> None:
        with pytest.raises(ValueError, match="expected at least 2 runs"):
            stratified_bootstrap([3.0])
        with pytest.raises(ValueError, match="confidence: expected a number in"):
            stratified_bootstrap([3.0, 4.0], confidence=1.0)


class TestComparisons:
    def test_profile_by_hand(self) -> None:
        assert performance_profile(SCORES, [-1, 0, 5, 20, 60]).tolist() == pytest.approx(
            [1, 5 / 6, 3 / 6, 1 / 6, 0]
        )

    def test_improvement_by_hand(self) -> None:
        # Task 0: all of 2 * 3 pairs but (1, 1) and (1, 5), (1, 1) being even; task 1: none.
        better = np.array([[1.0, 0.0], [9.0, 0.0]])
        assert probability_of_improvement(better, SCORES) == pytest.approx((4.5 / 6 + 0) / 2)
        assert probability_of_improvement(SCORES, SCORES) == 0.5

    def test_improvement_as_rliable_which_uses_scipy(self) -> None:
        import scipy.stats  # takes a second, in each process that collects tests

        other = RANDOM[:4] + 0.3
        expected = np.mean(
            [
                scipy.stats.mannwhitneyu(RANDOM[:, m], other[:, m], alternative="greater")[0] / 20
                for m in range(3)
            ]
        )
        assert probability_of_improvement(RANDOM, other) == pytest.approx(expected)

    def test_of_the_same_tasks_only(self) -> None:
        with pytest.raises(ValueError, match=r"others: expected scores .* of the same tasks"):
            probability_of_improvement(SCORES, [1.0, 2.0])
