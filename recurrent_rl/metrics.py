"""TensorBoard and CSV logs behind one ``log(step, values)``."""

import csv
import io
import itertools
import math
import numbers
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from recurrent_rl import distributed
from recurrent_rl.files import Draft, explained, open_locked, unlock, write_json
from recurrent_rl.validation import checked, shown

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS, CONFIG = "metrics.csv", "config.json"  # names of files in a run's folder


class CsvTable:
    """A CSV file that grows by rows, and by columns when a row brings new ones.

    It is locked: two writers would lose each other's rows. Rows are on the disk only, not in
    memory.
    """

    def __init__(self, path: Path, key: str, keep_until: float | None = None) -> None:
        """Begin the file.

        Args:
            path: of the file; its directory must exist.
            key: the first column.
            keep_until: keep the rows there whose ``key`` is at most this; None begins anew.

        Raises:
            BlockingIOError: somebody else is writing it.
            OSError: it cannot be written.

        """
        self.path = path
        self._file = open_locked(path)
        self.columns = [key]
        try:
            kept: Iterator[Mapping[str, Any]] = iter(())
            if keep_until is not None:
                table = self._stored()
                self.columns = list(table.fieldnames or [key])
                kept = (row for row in table if float(row[key]) <= keep_until)
            self._rewrite(kept)
        except BaseException:
            self.close()
            raise

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a row; it is on disk when this returns.

        Raises:
            OSError: it could not be written; the file is as before.

        """
        new = [name for name in row if name not in self.columns]
        if new:
            before = self.columns
            self.columns = [*before, *new]
            try:
                self._rewrite(itertools.chain(self._stored(), [row]))
            except BaseException:
                self.columns = before
                raise
            return
        content = _as_line(self.columns, row)
        end = self._file.seek(0, os.SEEK_END)
        try:
            written = self._file.write(
                content
            )  # without a buffer: all, or as much as there is room
            if written != len(content):
                self._file.write(content[written:])  # which says why
        except OSError:
            self._file.truncate(end)
            raise

    def _stored(self) -> "csv.DictReader[str]":
        """Return the rows in the file, one after the other."""
        self._file.seek(0)
        lines = io.TextIOWrapper(io.BufferedReader(_Unclosed(self._file)), "utf-8", newline="")
        # A writer that was killed may have left a line behind that does not end.
        return csv.DictReader(line for line in lines if line.endswith("\n"))

    def _rewrite(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write all anew, and go on with that; a kill leaves the old file or the new one."""
        with explained(self.path, "a table"):
            draft = Draft(self.path)
            try:
                draft.file.write(
                    _as_line(self.columns, dict(zip(*[self.columns] * 2, strict=True)))
                )
                draft.file.writelines(_as_line(self.columns, row) for row in rows)
                draft.put_in_place()
            except BaseException:
                draft.discard()
                raise
        self._file.close()
        self._file = draft.unbuffered()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if not self._file.closed:
            unlock(self._file)
            self._file.close()


class _Unclosed(io.RawIOBase):
    """A file that its reader leaves open."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


def _as_line(columns: Sequence[str], row: Mapping[str, Any]) -> bytes:
    line = io.StringIO()
    csv.DictWriter(line, columns).writerow(row)
    return line.getvalue().encode()


def loggable(values: Mapping[str, Any]) -> dict[str, float]:
    """Return what is to be logged as numbers of Python's own, which all logs write alike.

    Args:
        values: by name: numbers, truth values (as 0 and 1), arrays and tensors of one of them.

    Raises:
        TypeError: something else.
        ValueError: a value by the name "step", or one beyond floating point.

    """
    if not isinstance(values, Mapping):
        raise TypeError(f"values: expected names and numbers, got {shown(values)}")
    for name in values:
        if not isinstance(name, str):
            raise TypeError(f"values: expected names that are text, got {shown(name)}")
        if name == "step":
            raise ValueError(
                "values: expected names other than 'step', which is the environment step's own, "
                "got it; call it otherwise"
            )
    return {name: _number(name, value) for name, value in values.items()}


def _number(name: str, value: Any) -> float:
    single = hasattr(value, "item") and math.prod(getattr(value, "shape", (0,))) == 1
    number = value.item() if single else value
    if not isinstance(number, numbers.Real):
        raise TypeError(
            f"values[{name!r}]: expected a number, which is all that metrics.csv and TensorBoard "
            f"show, got {shown(value)} ({type(value).__name__}); log numbers, and leave out what "
            f"has none at this step"
        )
    try:
        exact = float(number)
    except OverflowError:
        raise ValueError(
            f"values[{name!r}]: expected a number of at most 1.8e308, got {shown(value)}"
        ) from None
    return int(number) if isinstance(number, numbers.Integral) else exact


def _event_writer(directory: Path, purge: int) -> "SummaryWriter":
    # Imported here: whoever logs nothing need not wait for it, nor processes that only play.
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(directory), purge_step=purge)


class MetricsLogger:
    """Write the same numbers to TensorBoard event files and to ``metrics.csv``.

    Use as a context manager, or call ``close``. Of several ranks (``recurrent_rl.distributed``)
    rank 0 writes; the others' loggers do nothing.

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
            BlockingIOError: another logger writes into the same directory.
            OSError: they cannot be created.

        """
        self.directory = Path(directory)
        self.path = self.directory / METRICS
        self._table: CsvTable | None = None
        self._writer: SummaryWriter | None = None
        if not distributed.current().is_first:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        self._table = CsvTable(self.path, "step", resume_at)
        if tensorboard:
            # What an earlier run has left in the same directory is not shown.
            purge = 0 if resume_at is None else resume_at + 1
            try:
                self._writer = _event_writer(self.directory, purge)
            except BaseException:
                self._table.close()
                raise

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record values at an environment step; a name that is new widens the table.

        Args:
            step: environment steps so far.
            values: names ("train/return") and numbers, arrays and tensors of one number included.

        Raises:
            TypeError: something else than numbers; nothing is written.
            ValueError: a value by the name "step", or one beyond floating point; likewise.
            OSError: they could not be written, as the disk is full, for example.

        """
        step, values = checked("step", step, int), loggable(values)
        if self._table is not None:
            self._table.append({"step": step, **values})
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Say in ``config.json``, beside the logs, what was run.

        Args:
            config: names and values; those that JSON has no form for are written as text.

        Raises:
            OSError: it could not be written.

        """
        if self._table is not None:
            write_json(self.directory / CONFIG, config, "the configuration", str)

    def close(self) -> None:
        """Flush and close; safe to call twice."""
        try:
            if self._table is not None:
                self._table.close()
        finally:
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
