"""Tests of `recurrent_rl.metrics`: the same numbers in a table and in TensorBoard's files."""

import csv
import errno
import math
import os
import stat
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recurrent_rl import MetricsLogger
from recurrent_rl.metrics import CsvTable


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


def test_numbers_of_other_kinds(tmp_path: Path) -> None:
    values = {
        "int": 10**30,
        "bool": True,
        "numpy": np.float32(0.5),
        "array": np.array([2]),
        "tensor": torch.tensor([[0.25]]),
        "nan": math.nan,
    }
    with MetricsLogger(tmp_path) as logger:
        logger.log(np.int64(3), values)  # type: ignore[arg-type]
    row = {"step": "3", "int": str(10**30), "bool": "1", "numpy": "0.5", "array": "2"}
    assert table(tmp_path) == [{**row, "tensor": "0.25", "nan": "nan"}]
    assert events(tmp_path)["tensor"] == [(3, 0.25)]


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"a": "best"}, TypeError, r"values\['a'\]: expected a number, .*, got 'best' \(str\)"),
        ({"a": "3"}, TypeError, r"got '3' \(str\); log numbers"),
        ({"a": None}, TypeError, "got None"),
        ({"a": [1.0]}, TypeError, "got .* .list."),
        ({"a": 1j}, TypeError, "got 1j"),
        ({"a": np.zeros(2)}, TypeError, "got array"),
        ({"a": np.array("text")}, TypeError, "got array"),
        ({"a": torch.zeros(2)}, TypeError, "got tensor"),
        ({"a": 10**400}, ValueError, r"at most 1\.8e308, got 1000"),
        ({1: 1.0}, TypeError, "names that are text, got 1"),
        ({"step": 1.0}, ValueError, "names other than 'step'"),
        ([("a", 1.0)], TypeError, "expected names and numbers, got"),
    ],
)
def test_what_is_no_number_is_refused_before_anything_is_written(
    values: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with MetricsLogger(tmp_path) as logger:
        logger.log(1, {"good": 1.0})
        with pytest.raises(error, match=message):
            logger.log(2, {"good": 2.0, **values} if isinstance(values, dict) else values)
        with pytest.raises(TypeError, match="step: expected int, got 'now'"):
            logger.log("now", {"good": 2.0})  # type: ignore[arg-type]
    assert table(tmp_path) == [{"step": "1", "good": "1.0"}]
    assert events(tmp_path) == {"good": [(1, 1.0)]}


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


# --- going on -----------------------------------------------------------------------------------


def logged(directory: Path, steps: range, value: float = 0.0, **options: Any) -> None:
    """A run that logs at some steps."""
    with MetricsLogger(directory, **options) as logger:
        for step in steps:
            logger.log(step, {"a": step + value})


@pytest.mark.parametrize("resume_at", [-1, 0, 2, 3, 9])
def test_resuming_keeps_what_was_before_and_drops_what_was_behind(
    resume_at: int, tmp_path: Path
) -> None:
    logged(tmp_path, range(5))
    kept = min(resume_at, 4)
    with MetricsLogger(tmp_path, tensorboard=False, resume_at=resume_at):
        assert [row["step"] for row in table(tmp_path)] == [str(s) for s in range(kept + 1)]
    logged(tmp_path, range(kept + 1, kept + 4), 0.5, tensorboard=False, resume_at=resume_at)
    expected = [(s, float(s)) for s in range(kept + 1)]
    expected += [(s, s + 0.5) for s in range(kept + 1, kept + 4)]
    assert [(int(r["step"]), float(r["a"])) for r in table(tmp_path)] == expected


def test_resuming_drops_events_too(tmp_path: Path) -> None:
    logged(tmp_path, range(5))
    # TensorBoard reads in the order of names, which is that of time only from second to second.
    (before,) = tmp_path.glob("events*")
    before.rename(tmp_path / "events.out.tfevents.0000000001.before")
    logged(tmp_path, range(3, 6), 0.5, resume_at=2)
    assert events(tmp_path) == {"a": [(0, 0), (1, 1), (2, 2), (3, 3.5), (4, 4.5), (5, 5.5)]}


def test_beginning_anew_keeps_nothing(tmp_path: Path) -> None:
    logged(tmp_path, range(5), tensorboard=False)
    logged(tmp_path, range(1), 7, tensorboard=False)
    assert table(tmp_path) == [{"step": "0", "a": "7"}]


@pytest.mark.parametrize("before", [None, "", "step,a\r\n"])
def test_resuming_without_anything_to_keep(before: str | None, tmp_path: Path) -> None:
    if before is not None:
        (tmp_path / "metrics.csv").write_text(before, newline="")
    logged(tmp_path, range(2), tensorboard=False, resume_at=5)
    assert table(tmp_path) == [{"step": "0", "a": "0.0"}, {"step": "1", "a": "1.0"}]


def test_resuming_with_columns_that_are_missing_and_new(tmp_path: Path) -> None:
    with MetricsLogger(tmp_path, tensorboard=False) as logger:
        logger.log(1, {"a,b": 1.0})
        logger.log(2, {"c": 2.0})
    with MetricsLogger(tmp_path, tensorboard=False, resume_at=2) as logger:
        logger.log(3, {"d": 3.0})
        logger.log(4, {"c": 4.0})
    rows = table(tmp_path)
    assert list(rows[0]) == ["step", "a,b", "c", "d"]
    assert [list(row.values()) for row in rows] == [
        ["1", "1.0", "", ""],
        ["2", "", "2.0", ""],
        ["3", "", "", "3.0"],
        ["4", "", "4.0", ""],
    ]


@pytest.mark.parametrize("length", range(1, 14))
def test_half_written_row_is_dropped(length: int, tmp_path: Path) -> None:
    """Wherever a writer was killed: in the first number, or within the last."""
    whole, row = "step,a,b\r\n10,1.25,2.25\r\n", "20,3.75,4.75\r\n"
    path = tmp_path / "metrics.csv"
    path.write_text(whole + row[:length], newline="")
    with MetricsLogger(tmp_path, tensorboard=False, resume_at=100) as logger:
        logger.log(30, {"a": 5.0, "b": 6.0})
    numbers = [{name: float(x) for name, x in row.items()} for row in table(tmp_path)]
    after = {"step": 30.0, "a": 5.0, "b": 6.0}
    assert numbers in (
        [{"step": 10.0, "a": 1.25, "b": 2.25}, after],
        [{"step": 10.0, "a": 1.25, "b": 2.25}, {"step": 20.0, "a": 3.75, "b": 4.75}, after],
    )


def test_table_of_any_key(tmp_path: Path) -> None:
    path = tmp_path / "births.csv"
    for keep in (None, 7):
        births = CsvTable(path, "index", keep)
        births.append({"index": 7 if keep is None else 9, "mutation": "lr 0.1 -> 0.2, and more"})
        births.close()
        births.close()
    with path.open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"index": "7", "mutation": "lr 0.1 -> 0.2, and more"},
            {"index": "9", "mutation": "lr 0.1 -> 0.2, and more"},
        ]


def test_table_keeps_rows_of_its_own(tmp_path: Path) -> None:
    births, row = CsvTable(tmp_path / "births.csv", "index"), {"index": 1}
    births.append(row)
    row["index"] = 5
    births.append({"index": 2, "new": 3})  # which writes all anew
    births.close()
    assert births.path.read_text().split() == ["index,new", "1,", "2,3"]


def test_table_without_a_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CsvTable(tmp_path / "none" / "births.csv", "index")


# --- files --------------------------------------------------------------------------------------


def test_two_loggers_in_one_directory(tmp_path: Path) -> None:
    logger = MetricsLogger(tmp_path, tensorboard=False)
    logger.log(1, {"a": 1.0})
    code = f"from recurrent_rl import MetricsLogger; MetricsLogger({str(tmp_path)!r})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "BlockingIOError" in other.stderr
    for resume_at in (None, 1):
        with pytest.raises(BlockingIOError, match=r"metrics\.csv: expected a file that nobody"):
            MetricsLogger(tmp_path, resume_at=resume_at)
    logger.log(2, {"b": 2.0})  # written anew, and still locked
    with pytest.raises(BlockingIOError):
        MetricsLogger(tmp_path, tensorboard=False)
    logger.close()
    assert [row["step"] for row in table(tmp_path)] == ["1", "2"]
    assert os.listdir(tmp_path) == ["metrics.csv"]
    MetricsLogger(tmp_path, tensorboard=False).close()


def test_foreseeable_names_are_not_written(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / ".metrics.csv.tmp").symlink_to(tmp_path / "victim")
    logged(folder, range(3), tensorboard=False)
    assert (tmp_path / "victim").read_text() == "precious"


def test_link_and_mode_are_kept(tmp_path: Path) -> None:
    real = tmp_path / "real.csv"
    real.write_text("")
    real.chmod(0o600)
    (tmp_path / "metrics.csv").symlink_to(real)
    with MetricsLogger(tmp_path, tensorboard=False) as logger:
        logger.log(1, {"a": 1.0})
        logger.log(2, {"b": 1.0})
    assert (tmp_path / "metrics.csv").is_symlink()
    assert len(real.read_text().splitlines()) == 3
    assert stat.S_IMODE(real.stat().st_mode) == 0o600


def test_rows_are_not_kept_in_memory(tmp_path: Path) -> None:
    births = CsvTable(tmp_path / "births.csv", "index")
    births.append({"index": 0, "a": 1})
    tracemalloc.start()
    try:
        for index in range(2000):
            births.append({"index": index, "a": "x" * 100})
        births.append({"index": 2000, "b": 1})  # which writes all anew
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
    births.close()
    assert len((tmp_path / "births.csv").read_text().splitlines()) == 2003


@pytest.mark.parametrize("room", [0, 4])
def test_no_room_for_a_row(room: int, tmp_path: Path, monkeypatch: Any) -> None:
    births = CsvTable(tmp_path / "births.csv", "index")
    births.append({"index": 1, "a": 1})
    file = births._file

    class Full:
        """A disk with so much room."""

        left = room

        def write(self, content: bytes) -> int:
            part = content[: self.left]
            self.left -= len(part)
            if not part:
                raise OSError(errno.ENOSPC, "No space left on device")
            return int(file.write(part))

        def __getattr__(self, name: str) -> Any:
            return getattr(file, name)

    with monkeypatch.context() as patch:
        patch.setattr(births, "_file", Full())
        with pytest.raises(OSError, match="No space left"):
            births.append({"index": 22222, "a": 2})
    births.append({"index": 3, "a": 3})
    births.close()
    assert births.path.read_text().split() == ["index,a", "1,1", "3,3"]
