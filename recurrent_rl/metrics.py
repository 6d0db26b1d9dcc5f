"""TensorBoard and CSV logs behind one ``log(step, values)``."""

import csv
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch.utils.tensorboard import SummaryWriter


class MetricsLogger:
    """Write the same numbers to TensorBoard event files and to ``metrics.csv``.

    Use as a context manager, or call ``close``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, MetricsLogger(folder) as logger:
    ...     logger.log(1024, {"train/return": -1200.0})
    """

    def __init__(self, directory: str | Path, *, tensorboard: bool = True) -> None:
        """Create the directory, and ``metrics.csv`` anew; raise OSError if that fails."""
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.path = self.directory / "metrics.csv"
        self._rows: list[dict[str, Any]] = []
        self._columns = ["step"]
        self._file = self.path.open("w", newline="")
        self._writer = SummaryWriter(str(self.directory)) if tensorboard else None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record values at an environment step; a name that is new widens the table.

        Args:
            step: environment steps so far.
            values: names ("train/return") and numbers.

        """
        row = {"step": step, **values}
        self._rows.append(row)
        new = [name for name in values if name not in self._columns]
        if new or len(self._rows) == 1:
            self._columns += new
            self._rewrite()
        else:
            csv.DictWriter(self._file, self._columns).writerow(row)
        self._file.flush()
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def _rewrite(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        table = csv.DictWriter(self._file, self._columns)
        table.writeheader()
        table.writerows(self._rows)

    def close(self) -> None:
        """Flush and close; safe to call twice."""
        self._file.close()
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
