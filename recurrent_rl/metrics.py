"""TensorBoard and CSV logs behind one ``log(step, values)``."""

import csv
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from torch.utils.tensorboard import SummaryWriter


class CsvTable:
    """A CSV file that grows by rows, and by columns when a row brings new ones."""

    def __init__(self, path: Path, key: str, keep_until: float | None = None) -> None:
        """Begin the file.

        Args:
            path: of the file; its directory must exist.
            key: the first column.
            keep_until: keep the rows there whose ``key`` is at most this; None begins anew.

        """
        self.path = path
        self.columns = [key]
        self.rows: list[dict[str, Any]] = []
        if keep_until is not None and path.exists():
            with path.open(newline="") as file:
                # A writer that was killed may have left a line behind that does not end.
                table = csv.DictReader(line for line in file if line.endswith("\n"))
                self.columns = list(table.fieldnames or [key])
                self.rows = [row for row in table if float(row[key]) <= keep_until]
        self._file = self._written()

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a row; it is on disk when this returns."""
        self.rows.append(dict(row))
        new = [name for name in row if name not in self.columns]
        if new:
            self.columns += new
            self._file.close()
            self._file = self._written()
        else:
            csv.DictWriter(self._file, self.columns).writerow(row)
            self._file.flush()

    def _written(self) -> TextIO:
        """Write all anew, and open the file to go on; a kill leaves the old one or the new one."""
        draft = self.path.with_name(f".{self.path.name}.tmp")
        with draft.open("w", newline="") as file:
            table = csv.DictWriter(file, self.columns)
            table.writeheader()
            table.writerows(self.rows)
        draft.replace(self.path)
        return self.path.open("a", newline="")

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._file.close()


class MetricsLogger:
    """Write the same numbers to TensorBoard event files and to ``metrics.csv``.

    Use as a context manager, or call ``close``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, MetricsLogger(folder) as logger:
    ...     logger.log(1024, {"train/return": -1200.0})
    """

    def __init__(
        self, directory: str | Path, *, tensorboard: bool = True, resume_at: int | None = None
    ) -> None:
        """Create the directory and begin the logs.

        Args:
            directory: where ``metrics.csv`` and the event files go.
            tensorboard: write event files as well.
            resume_at: go on after this step, and drop what was logged behind it; None begins
                ``metrics.csv`` anew.

        Raises:
            OSError: they cannot be created.

        """
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.path = self.directory / "metrics.csv"
        self._table = CsvTable(self.path, "step", resume_at)
        self._writer: SummaryWriter | None = None
        if tensorboard:
            # What an earlier run has left in the same directory is not shown.
            purge = 0 if resume_at is None else resume_at + 1
            self._writer = SummaryWriter(str(self.directory), purge_step=purge)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record values at an environment step; a name that is new widens the table.

        Args:
            step: environment steps so far.
            values: names ("train/return") and numbers.

        """
        self._table.append({"step": step, **values})
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close; safe to call twice."""
        self._table.close()
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> Self:
        """Return the logger itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()
