"""Tests of `recurrent_rl.metrics`: the same numbers in a table and in TensorBoard's files."""

import csv
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recurrent_rl import MetricsLogger


def table(directory: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv by column."""
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def events(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by name, as TensorBoard shows them."""
    accumulator = EventAccumulator(str(directory))
    accumulator.Reload()
    return {
        name: [(event.step, event.value) for event in accumulator.Scalars(name)]
        for name in accumulator.Tags()["scalars"]
    }


def test_same_numbers_in_both(tmp_path: Path) -> None:
    with MetricsLogger(tmp_path) as logger:
        logger.log(1024, {"train/return": -1200.5, "loss": 0.25})
        logger.log(2048, {"train/return": -900.0, "loss": 0.125})
    assert table(tmp_path) == [
        {"step": "1024", "train/return": "-1200.5", "loss": "0.25"},
        {"step": "2048", "train/return": "-900.0", "loss": "0.125"},
    ]
    assert events(tmp_path) == {
        "train/return": [(1024, -1200.5), (2048, -900.0)],
        "loss": [(1024, 0.25), (2048, 0.125)],
    }


def test_columns_that_come_later_and_values_that_are_missing(tmp_path: Path) -> None:
    with MetricsLogger(tmp_path) as logger:
        logger.log(1, {"a": 1.0})
        logger.log(2, {"b": 2.0, "a": 1.5})
        logger.log(3, {"c": 3.0})
        logger.log(4, {})
        logger.log(5, {"a": 5.0})
    rows = table(tmp_path)
    assert list(rows[0]) == ["step", "a", "b", "c"]
    assert [list(row.values()) for row in rows] == [
        ["1", "1.0", "", ""],
        ["2", "1.5", "2.0", ""],
        ["3", "", "", "3.0"],
        ["4", "", "", ""],
        ["5", "5.0", "", ""],
    ]
    assert events(tmp_path) == {
        "a": [(1, 1.0), (2, 1.5), (5, 5.0)],
        "b": [(2, 2.0)],
        "c": [(3, 3.0)],
    }


def test_each_row_can_be_read_at_once(tmp_path: Path) -> None:
    # A run that is killed loses nothing, and one that goes on can be watched.
    logger = MetricsLogger(tmp_path)
    for step in range(3):
        logger.log(step, {"a": 1.0})
        assert [row["step"] for row in table(tmp_path)] == [str(s) for s in range(step + 1)]
    logger.close()


def test_names_with_commas_quotes_and_new_lines(tmp_path: Path) -> None:
    names = ["a,b", 'say "c"', "two\nlines"]
    with MetricsLogger(tmp_path, tensorboard=False) as logger:
        logger.log(1, dict.fromkeys(names, 1.0))
    assert list(table(tmp_path)[0]) == ["step", *names]


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    with MetricsLogger(tmp_path) as logger:
        logger.log(1, {"a": float("nan"), "b": float("inf")})
    [row] = table(tmp_path)
    assert (row["a"], row["b"]) == ("nan", "inf")
    assert events(tmp_path)["b"] == [(1, float("inf"))]


def test_directory_is_created(tmp_path: Path) -> None:
    directory = tmp_path / "some" / "where"
    with MetricsLogger(str(directory), tensorboard=False) as logger:
        logger.log(1, {"a": 1.0})
        assert logger.directory == directory
        assert logger.path == directory / "metrics.csv"
    assert [p.name for p in directory.iterdir()] == ["metrics.csv"]  # no event files


def test_directory_exists_already(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        with MetricsLogger(tmp_path) as logger:
            logger.log(1, {"a": value})
    assert table(tmp_path) == [{"step": "1", "a": "2.0"}]


@pytest.mark.parametrize("tensorboard", [True, False])
def test_close_twice(tensorboard: bool, tmp_path: Path) -> None:
    logger = MetricsLogger(tmp_path, tensorboard=tensorboard)
    logger.log(1, {"a": 1.0})
    logger.close()
    logger.close()
    with pytest.raises(ValueError, match="closed"):
        logger.log(2, {"a": 1.0})
    assert len(table(tmp_path)) == 1


def test_closed_by_an_error(tmp_path: Path) -> None:
    def fail(logger: MetricsLogger) -> None:
        with logger:
            logger.log(1, {"a": 1.0})
            raise KeyError("something else")

    logger = MetricsLogger(tmp_path)
    with pytest.raises(KeyError, match="something else"):
        fail(logger)
    with pytest.raises(ValueError, match="closed"):
        logger.log(2, {"a": 1.0})


def test_place_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        MetricsLogger(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        MetricsLogger(tmp_path / "file" / "x")
