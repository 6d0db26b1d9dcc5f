"""Logged runs, read back: ``metrics.csv`` and ``config.json``.

Letters: n rows of a log.
"""

import csv
import difflib
import glob
import json
import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recurrent_rl.metrics import CONFIG, METRICS
from recurrent_rl.spaces.array import Array
from recurrent_rl.validation import checked_path, shown

FilePath = str | os.PathLike[str]
Where = FilePath | Iterable[FilePath]


@dataclass(frozen=True)
class LoggedRun:
    """What one run has logged.

    Attributes:
        path: its folder.
        config: what ``config.json`` says was run; empty where there is none.
        values: by tag the environment steps, int64 [n], and the numbers, [n], of the rows that have
            one; NaN, which stands for "unknown", is left out.

    """

    path: Path
    config: Mapping[str, Any]
    values: Mapping[str, tuple[Array, Array]]

    @property
    def tags(self) -> list[str]:
        """What was logged, in the order of its columns."""
        return list(self.values)

    @property
    def environment(self) -> str:
        """The environment's name; "" where the run does not say."""
        return str(self.config.get("environment", ""))

    def curve(self, tag: str) -> tuple[Array, Array]:
        """Return environment steps, int64 [n], and numbers, [n], of a tag.

        Raises:
            ValueError: no such tag, or no number of it; says what there is.

        """
        if tag not in self.values:
            near = difflib.get_close_matches(tag, self.tags, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ";"
            raise ValueError(
                f"tag: expected one that {self.path} has, got {tag!r}{hint} there are "
                f"{', '.join(self.tags)}"
            )
        steps, numbers = self.values[tag]
        if not np.isfinite(numbers).all():
            at = int(steps[~np.isfinite(numbers)][0])
            raise ValueError(
                f"tag: expected finite numbers of {tag} in {self.path}, got infinity at step {at}"
            )
        return steps, numbers


def read_run(path: FilePath) -> LoggedRun:
    """Read what ``train`` or a population has logged.

    Args:
        path: the folder that was its ``log_dir``, or the ``metrics.csv`` in it.

    Returns:
        the run. A last row that is torn, as the run was killed while it wrote it, is left out with
        a warning.

    Raises:
        FileNotFoundError: no log there.
        ValueError: it is empty, or no such log; names file and line.

    """
    file = checked_path("path", path)
    file = file / METRICS if file.is_dir() else file
    if not file.is_file():
        raise FileNotFoundError(
            f"path: expected a folder with {METRICS}, got {path}, which has none; give the "
            f"log_dir of a run"
        )
    values = _columns(file)
    return LoggedRun(file.parent, _config(file.with_name(CONFIG)), values)


def read_runs(where: Where) -> list[LoggedRun]:
    """Read several runs, in the order of their names (seed 10 comes after seed 9).

    Args:
        where: the folder of a run; a folder with runs anywhere in it; a pattern such as
            "runs/ppo-*"; or several of these.

    Raises:
        FileNotFoundError: there are none.
        ValueError: as ``read_run``; or a run that is named twice.

    """
    if isinstance(where, str | os.PathLike):
        return [read_run(folder) for folder in _folders(where)]
    folders = [folder for each in where for folder in _folders(each)]
    places = [folder.resolve() for folder in folders]
    twice = [str(f) for f, place in zip(folders, places, strict=True) if places.count(place) > 1]
    if twice:
        raise ValueError(f"where: expected each run once, got {twice[0]} again; leave one out")
    if not folders:
        raise FileNotFoundError("where: expected the folders of runs, got none")
    return [read_run(folder) for folder in folders]


# --- files -------------------------------------------------------------------------------------


def _columns(file: Path) -> dict[str, tuple[Array, Array]]:
    """Read a table of numbers by its columns."""
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected a table as text, got other bytes: {error}") from None
    whole, _, torn = text.rpartition("\n")
    if torn:
        warnings.warn(
            f"{file}: the last row is torn, as if the run had been killed while it wrote it; it "
            f"is left out: {shown(torn)}",
            UserWarning,
            stacklevel=4,
        )
    lines = list(csv.reader(whole.splitlines()))
    if not lines or lines[0][:1] != ["step"]:
        got = "an empty file" if not text else f"the first line {shown(text.splitlines()[0])}"
        raise ValueError(
            f"{file}: expected a table that begins with the column 'step', as MetricsLogger "
            f"writes, got {got}"
        )
    if len(lines) == 1:
        raise ValueError(
            f"{file}: expected at least one row, got the names of columns only; the run ended, or "
            f"was killed, before it logged anything"
        )
    names = lines[0]
    rows = [_numbers(file, number, names, cells) for number, cells in enumerate(lines[1:], 2)]
    table = np.array(rows)  # [n, columns]
    steps = table[:, 0]
    if np.isnan(steps).any() or (np.diff(steps) < 0).any():
        raise ValueError(
            f"{file}: expected environment steps that grow from row to row, got some that do not; "
            f"are these several runs in one file?"
        )
    found = {}
    for name, column in zip(names[1:], table[:, 1:].T, strict=True):
        there = ~np.isnan(column)
        if there.any():
            found[name] = (steps[there].astype(np.int64), column[there])
    return found


def _numbers(file: Path, line: int, names: list[str], cells: list[str]) -> list[float]:
    """Return the numbers of a row; NaN where it has none."""
    if len(cells) != len(names):
        raise ValueError(
            f"{file}, line {line}: expected {len(names)} cells, as in the first line, got "
            f"{len(cells)}"
        )
    try:
        return [float(cell) if cell else math.nan for cell in cells]
    except ValueError as error:
        raise ValueError(f"{file}, line {line}: expected numbers, got {error}") from None


def _config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file}: expected JSON, as train() writes, got {error}; mend it or remove it"
        ) from None
    if not isinstance(config, dict):
        raise ValueError(f"{file}: expected names and values, got {shown(config)}")
    return config


def run_folders(path: Path) -> list[Path]:
    """Return the folders with logs that a path or a pattern leads to; none if there are none.

    Args:
        path: of a run, of its ``metrics.csv``, of a folder with runs anywhere in it, or a pattern.

    """
    starts = [path]
    if not path.exists() and glob.has_magic(str(path)):
        starts = [Path(each) for each in glob.glob(str(path), recursive=True)]
    files: list[Path] = []
    for start in starts:
        if start.is_dir():
            files += [start / METRICS] if (start / METRICS).is_file() else start.rglob(METRICS)
        elif start.is_file():
            files.append(start)
    return [file.parent for file in sorted(set(files), key=_natural)]


def _folders(where: FilePath) -> list[Path]:
    """Return the folders with logs that a path or a pattern leads to, one at least."""
    if folders := run_folders(checked_path("where", where)):
        return folders
    raise FileNotFoundError(
        f"where: expected runs, folders with {METRICS}, at {where}, got none; give the log_dir of "
        f"a run, or a folder above some"
    )


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    """Return what paths are sorted by: numbers in them by size."""
    parts = re.split(r"(\d+)", str(path))
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
