"""Tests of `recurrent_rl.plots.curves`, `scores` and `style`: what a picture holds."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.logs import TAG, write_run, write_seeds

from recurrent_rl import group_runs, plot_profiles, plot_runs, plot_scores
from recurrent_rl.plots.style import COLOURS, colour, line

FAST: dict[str, Any] = {"resamples": 50}
BEGINNINGS = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


def legend(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


class TestCurves:
    def test_means_bands_and_single_runs(self, tmp_path: Path) -> None:
        write_seeds(tmp_path / "a", 4.0)
        write_seeds(tmp_path / "b", 8.0, 1)
        figure = plot_runs({"A": tmp_path / "a", "B": tmp_path / "b"}, **FAST)
        (axes,) = figure.axes
        assert legend(axes) == ["A (3 runs)", "B (1 run)"]
        *single, mean, alone = (np.asarray(each.get_ydata()) for each in axes.lines)
        assert [each.tolist() for each in single] == [[1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]]
        assert mean.tolist() == [2, 3, 4, 5]
        assert alone.tolist() == [2, 4, 6, 8]
        (band,) = axes.collections  # one run has no spread
        assert np.asarray(band.get_paths()[0].vertices)[:, 1].min() >= 1
        assert axes.get_xlabel() == "environment steps"
        assert axes.get_ylabel() == "return of test episodes"
        assert axes.get_title() == "Cart-v0"

    def test_a_panel_for_each_environment(self, tmp_path: Path) -> None:
        write_seeds(tmp_path / "a", 4.0)
        write_seeds(tmp_path / "b", 8.0, environment="Walk-v0")
        figure = plot_runs(tmp_path, "time/fps", title="Both", y_label="speed [1/s]", **FAST)
        assert [axes.get_title() for axes in figure.axes] == ["Cart-v0", "Walk-v0"]
        assert figure.axes[0].get_ylabel() == "speed [1/s]"
        assert legend(figure.axes[1]) == ["PPO (3 runs)"]
        groups = group_runs(tmp_path)
        assert len(plot_runs(groups, **FAST).axes) == 2  # what was read before
        mixed = {"PPO": [*groups["PPO"][:3], tmp_path / "b"]}
        assert len(plot_runs(mixed, **FAST).axes) == 2

    def test_a_run_of_one_test_is_a_point(self, tmp_path: Path) -> None:
        write_run(tmp_path / "a", [3.0])
        write_run(tmp_path / "b", [5.0])
        points = plot_runs(tmp_path, **FAST).axes[0].lines[-1]
        assert points.get_marker() == "o"
        assert np.asarray(points.get_ydata()).tolist() == [3.0, 5.0]

    def test_a_line_that_ends_early_is_said(self, tmp_path: Path) -> None:
        write_run(tmp_path / "a", [0.0, 10.0, 20.0], [0, 100, 500])
        write_run(tmp_path / "b", [5.0, 9.0], [0, 100])
        with pytest.warns(UserWarning, match=r"its line ends at step 100, as .*b does"):
            plot_runs({"x": tmp_path}, **FAST)

    @pytest.mark.parametrize("ending", sorted(BEGINNINGS))
    def test_formats(self, tmp_path: Path, ending: str) -> None:
        write_run(tmp_path / "a", [3.0, 4.0])
        path = tmp_path / f"curves.{ending}"
        plot_runs(tmp_path, path=path, **FAST)
        assert path.read_bytes().startswith(BEGINNINGS[ending])

    def test_where_it_cannot_go(self, tmp_path: Path) -> None:
        write_run(tmp_path / "a", [3.0, 4.0])
        with pytest.raises(ValueError, match=r"ends in one of \.png, \.pdf, \.svg, got curves"):
            plot_runs(tmp_path, path="curves")
        with pytest.raises(FileNotFoundError, match="create it first"):
            plot_runs(tmp_path, path=tmp_path / "none" / "curves.png", **FAST)
        with pytest.raises(ValueError, match=r"tag: expected one that .* has, got 'speed'"):
            plot_runs(tmp_path, "speed")


class TestScores:
    def test_estimates_within_bars(self) -> None:
        scores = {"A": [1.0, 2.0, 3.0], "B": [[4.0], [8.0]]}
        figure = plot_scores(scores, metrics=["iqm", "median"], x_label="return", **FAST)
        left, right = figure.axes
        assert [text.get_text() for text in left.get_yticklabels()] == ["A (3 runs)", "B (2 runs)"]
        assert [float(np.asarray(each.get_xdata())[0]) for each in left.lines] == [2, 6]
        widths = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in left.patches]  # type: ignore
        assert widths[1] == (4, 8)
        assert right.get_title() == "median of the tasks' means"
        assert left.get_xlabel() == "return"

    def test_normalised_by_task(self) -> None:
        scores = {"A": {"x": [0.0, 10.0], "y": [5.0, 5.0]}, "B": {"y": [5.0, 6.0], "x": [0.0, 0.0]}}
        figure = plot_scores(
            scores, metrics=["mean"], reference={"x": (0, 10), "y": (4, 6)}, **FAST
        )
        means = [float(np.asarray(each.get_xdata())[0]) for each in figure.axes[0].lines]
        assert means == pytest.approx([0.5, (0 + 0 + 0.5 + 1) / 4])
        assert figure.axes[0].get_xlabel() == "normalised score"

    @pytest.mark.parametrize(
        ("scores", "options", "message"),
        [
            ({}, {}, "scores: expected arrays"),
            ([1.0, 2.0], {}, r"read runs with final_scores"),
            ({"A": [1.0, 2.0]}, {"metrics": ["best"]}, "metrics: expected some of iqm"),
            ({"A": [1.0]}, {}, "expected at least 2 runs"),
            ({"A": {"x": [1.0, 2.0], "y": [1.0]}}, {}, r"as many runs of each task, got .*'y': 1"),
            ({"A": {"x": [1.0]}, "B": {"y": [1.0]}}, {}, "expected the same tasks"),
            ({"A": {"x": [1.0]}}, {"reference": {"y": (0, 1)}}, "count as 0 and 1 for 'x'"),
            ({"A": {"x": [1.0]}}, {"reference": {"x": (1, 1)}}, "two different scores"),
            ({"A": [1.0, 2.0]}, {"reference": {"x": (0, 1)}}, "expected scores by task"),
        ],
    )
    def test_nonsense_is_refused(self, scores: Any, options: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            plot_scores(scores, **options)


class TestProfiles:
    def test_shares_above_thresholds(self, tmp_path: Path) -> None:
        path = tmp_path / "profiles.png"
        scores = {"A": [1.0, 2.0, 3.0, 4.0], "B": [0.0, 0.0, 5.0, 5.0]}
        figure = plot_profiles(scores, thresholds=[0.0, 2.0, 4.5], path=path, **FAST)
        lines = [np.asarray(each.get_ydata()).tolist() for each in figure.axes[0].lines]
        assert lines == [[1, 0.5, 0], [0.5, 0.5, 0.5]]
        assert legend(figure.axes[0]) == ["A (4 runs)", "B (4 runs)"]
        assert path.stat().st_size > 1000
        whole = np.asarray(plot_profiles(scores, **FAST).axes[0].lines[0].get_ydata())
        assert (whole[0], whole[-1]) == (1, 0)

    def test_thresholds_grow(self) -> None:
        with pytest.raises(ValueError, match="thresholds: expected two or more numbers that grow"):
            plot_profiles({"A": [1.0, 2.0]}, thresholds=[2.0, 1.0])


class TestStyle:
    def test_many_groups_stay_apart(self) -> None:
        styles = [(colour(i), line(i)) for i in range(4 * len(COLOURS))]
        assert len(set(styles)) == len(styles)

    def test_only_who_draws_imports_what_draws(self, tmp_path: Path) -> None:
        """And no windows: pyplot, which opens them, is never imported."""
        write_run(tmp_path / "a", [3.0, 4.0])
        code = (
            "import sys, recurrent_rl\n"
            "print({'matplotlib', 'scipy', 'moviepy', 'PIL'} & set(sys.modules))\n"
            f"recurrent_rl.plot_runs({str(tmp_path)!r}, path={str(tmp_path / 'x.png')!r})\n"
            "print({'matplotlib.pyplot', 'scipy', 'moviepy'} & set(sys.modules))"
        )
        environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "MPLBACKEND")}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment
        )
        assert done.stdout.split() == ["set()", "set()"], done.stderr
        assert (tmp_path / "x.png").is_file()

    def test_without_the_extra(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_run(tmp_path / "a", [3.0, 4.0])
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(ImportError, match=r"matplotlib.*pip install 'recurrent_rl\[plots\]'"):
            plot_runs(tmp_path, TAG)
