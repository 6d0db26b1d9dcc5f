"""Tests of `recurrent_rl.plots.runs` and `groups`: logs are read back, or refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.logs import TAG, write_run, write_seeds

from recurrent_rl import MetricsLogger, final_scores, group_runs, read_run, read_runs
from recurrent_rl.plots.groups import aligned, usual_tag


class TestOneRun:
    def test_is_read_as_it_was_logged(self, tmp_path: Path) -> None:
        with MetricsLogger(tmp_path, tensorboard=False) as logger:
            logger.log(100, {"a": 1.5})
            logger.log(200, {"a": float("nan"), "b": 3.0})
            logger.log(300, {"a": 2.5, "b": -1e-3})
            logger.write_config({"algorithm": "PPO", "environment": "Cart-v0"})
        for path in (tmp_path, str(tmp_path), tmp_path / "metrics.csv"):
            run = read_run(path)
            assert run.tags == ["a", "b"]
            assert [each.tolist() for each in run.curve("a")] == [[100, 300], [1.5, 2.5]]
            assert [each.tolist() for each in run.curve("b")] == [[200, 300], [3.0, -1e-3]]
            assert run.environment == "Cart-v0"

    def test_a_torn_last_row_is_left_out_with_a_warning(self, tmp_path: Path) -> None:
        file = write_run(tmp_path, [1.0, 2.0, 3.0]) / "metrics.csv"
        content = file.read_bytes()
        file.write_bytes(content[:-9])  # within the last row
        with pytest.warns(UserWarning, match=r"metrics\.csv: the last row is torn"):
            run = read_run(tmp_path)
        assert run.curve(TAG)[1].tolist() == [1.0, 2.0]

    def test_a_missing_tag_names_those_that_there_are(self, tmp_path: Path) -> None:
        run = read_run(write_run(tmp_path, [1.0]))
        with pytest.raises(ValueError, match=r"did you mean 'eval/mean_reward'\? there are eval/"):
            run.curve("eval/mean_rewards")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "expected a table that begins with the column 'step'.*got an empty file"),
            ("Time,a\n1,2\n", "got the first line 'Time,a'"),
            ("step,a\n", "expected at least one row"),
            ("step,a\n1,2\n3\n4,5\n", "line 3: expected 2 cells.*got 1"),
            ("step,a\n1,high\n", "line 2: expected numbers"),
            ("step,a\n2,2\n1,2\n", "expected environment steps that grow"),
            ("step,a\n1,\xff\n", "expected a table as text"),
        ],
    )
    def test_broken_files_are_named(self, tmp_path: Path, content: str, message: str) -> None:
        (tmp_path / "metrics.csv").write_bytes(content.encode("latin-1"))
        with pytest.raises(ValueError, match=rf"metrics\.csv.*{message}"):
            read_run(tmp_path)

    def test_a_torn_only_row_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "metrics.csv").write_text("step,a\n1,")
        with pytest.warns(UserWarning, match="torn"), pytest.raises(ValueError, match="one row"):
            read_run(tmp_path)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"expected a folder with metrics\.csv"):
            read_run(tmp_path)
        write_run(tmp_path, [np.inf])
        with pytest.raises(ValueError, match="got infinity at step 100"):
            read_run(tmp_path).curve(TAG)
        (tmp_path / "config.json").write_text("{")
        with pytest.raises(ValueError, match=r"config\.json: expected JSON"):
            read_run(tmp_path)


class TestManyRuns:
    def test_folders_patterns_and_lists(self, tmp_path: Path) -> None:
        write_seeds(tmp_path / "ppo", 1.0, 11)
        write_seeds(tmp_path / "sac", 1.0, 2)
        names = [run.path.name for run in read_runs(tmp_path / "ppo")]
        assert names == [str(i) for i in range(11)]  # not 0 1 10 2
        assert len(read_runs(tmp_path)) == 13
        assert len(read_runs(str(tmp_path / "ppo" / "1*"))) == 2
        assert len(read_runs([tmp_path / "sac", tmp_path / "ppo" / "3"])) == 3
        with pytest.raises(ValueError, match="expected each run once"):
            read_runs([tmp_path / "ppo", tmp_path / "ppo" / "3"])
        with pytest.raises(FileNotFoundError, match="expected runs, folders with metrics"):
            read_runs(tmp_path / "td3")
        with pytest.raises(FileNotFoundError, match="got none"):
            read_runs([])

    def test_groups_are_what_differs_in_settings(self, tmp_path: Path) -> None:
        def settings(lr: float, recurrent: bool) -> dict[str, Any]:
            return {"hyperparameters": {"agent": {"lr": lr, "recurrent": recurrent}}}

        write_seeds(tmp_path / "a", 1.0, **settings(0.1, True), command=["a"], best_path="a.pt")
        write_seeds(tmp_path / "b", 2.0, **settings(0.1, False), command=["b"])
        write_seeds(tmp_path / "c", 3.0, environment="Walk-v0", **settings(0.1, False))
        write_run(tmp_path / "d" / "0", [1.0])
        groups = group_runs(tmp_path)
        assert {name: [run.path.parent.name for run in runs] for name, runs in groups.items()} == {
            "PPO, recurrent=True": ["a"] * 3,
            "PPO, recurrent=False": ["b"] * 3 + ["c"] * 3,
            "d": ["d"],
        }
        named = group_runs({"mine": tmp_path / "a", "yours": [tmp_path / "b" / "0"]})
        assert {name: len(runs) for name, runs in named.items()} == {"mine": 3, "yours": 1}

    def test_scores_by_environment(self, tmp_path: Path) -> None:
        write_seeds(tmp_path / "a", 4.0)
        write_seeds(tmp_path / "b", 8.0, 2, environment="Walk-v0")
        scores = final_scores(group_runs(tmp_path))
        assert scores["PPO"]["Cart-v0"].tolist() == [4.0, 5.0, 6.0]
        assert scores["PPO"]["Walk-v0"].tolist() == [8.0, 9.0]
        mean = final_scores(group_runs({"x": tmp_path / "a"}), last=2)
        assert mean["x"]["Cart-v0"].tolist() == [3.5, 4.5, 5.5]
        with pytest.raises(ValueError, match="last: expected at most 4"):
            final_scores(group_runs(tmp_path), last=5)

    def test_usual_tags(self, tmp_path: Path) -> None:
        one = read_run(write_run(tmp_path / "a", [1.0], tag="rollout/ep_rew_mean"))
        two = read_run(write_run(tmp_path / "b", [1.0], tag="odd"))
        assert usual_tag([one]) == "rollout/ep_rew_mean"
        with pytest.raises(ValueError, match="in common, got none; give one of time/fps"):
            usual_tag([one, two])


class TestAlignment:
    def test_equal_steps_stay(self, tmp_path: Path) -> None:
        runs = read_runs(write_seeds(tmp_path, 4.0, 2))
        steps, numbers = aligned(runs, TAG)
        assert steps.tolist() == [100, 200, 300, 400]
        assert numbers.tolist() == [[1, 2, 3, 4], [2, 3, 4, 5]]

    def test_others_are_interpolated_where_all_are(self, tmp_path: Path) -> None:
        write_run(tmp_path / "a", [0.0, 10.0], [0, 100])
        write_run(tmp_path / "b", [5.0, 9.0, 9.0], [20, 60, 300])
        steps, numbers = aligned(read_runs(tmp_path), TAG, points=3)
        assert steps.tolist() == [20, 60, 100]
        assert numbers == pytest.approx(np.array([[2, 6, 10], [5, 9, 9]]))

    def test_nothing_in_common(self, tmp_path: Path) -> None:
        write_run(tmp_path / "a", [0.0, 10.0], [0, 100])
        write_run(tmp_path / "b", [5.0, 9.0], [200, 300])
        with pytest.raises(ValueError, match=r"in common, got none .*a: 0 to 100; .*b: 200 to 300"):
            aligned(read_runs(tmp_path), TAG)
