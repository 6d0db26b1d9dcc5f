"""Saving and loading: atomically, and without running code.

A file holds tensors and plain values only, and a checksum over them.
"""

import io
import os
from typing import Any

import torch

from recurrent_rl import archive
from recurrent_rl.files import replacing
from recurrent_rl.plain import digest, plain

FORMAT = "recurrent_rl checkpoint"
VERSION = 2

# Values that a file may have for each byte that describes its structure: some are written once and
# used again, but nowhere as often as this.
_REUSE = 16


class CheckpointError(ValueError):
    """A file that cannot be loaded; the message says why. Nothing has been changed."""


def save(data: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint so that ``path`` holds the old file or the whole new one, never a part.

    What was written is read back before it replaces anything. A symbolic link is written through,
    and a file that is replaced keeps its mode.

    Args:
        data: tensors and values, nested in dictionaries, lists and tuples; those of NumPy and
            subclasses of Python's own are written as Python's own.
        path: its directory must exist.

    Raises:
        TypeError: data of other kinds.
        FileNotFoundError: the directory does not exist.
        PermissionError: the directory cannot be written.
        OSError: it could not be written, as the disk is full, for example; the message says what
            is at ``path`` now.
        CheckpointError: what was written cannot be read.

    """
    given = {key: value for key, value in data.items() if key != "checksum"}
    whole = plain({"format": FORMAT, "version": VERSION, **given}, "checkpoint")
    whole["checksum"] = digest(whole)
    content = io.BytesIO()  # torch would turn errors of the disk into others
    torch.save(whole, content)
    with replacing(path, f"a checkpoint of {len(content.getbuffer()):,} bytes") as file:
        file.write(content.getbuffer())
        file.flush()
        try:
            record = archive.read(file)
            intact = record.content["checksum"] == whole["checksum"]
            _checked(record, path)
        except Exception as error:
            raise CheckpointError(
                f"{path}: expected to read what was just written, got {error}; what was there "
                f"before is untouched"
            ) from error
        if not intact:
            raise CheckpointError(f"{path}: what was just written reads back differently")


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint.

    Args:
        path: written by ``save``.
        device: where tensors go.

    Returns:
        the data.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: truncated, damaged, not a checkpoint, or of a newer version.

    """
    with open(path, "rb") as file:
        try:
            record = archive.read(file, device)
        except Exception as error:  # parsers fail in many ways on foreign data
            raise _foreign(path, error) from error
    return _checked(record, path)


def _checked(record: archive.Record, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a checkpoint's data, if it is one and its checksum is right."""
    data = record.content
    if type(data) is not dict or data.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected a {FORMAT}, got another torch file")
    version = data.get("version")
    if type(version) is not int or version > VERSION:
        raise CheckpointError(
            f"{path}: expected version {VERSION} or less, got {version}; update recurrent_rl"
        )
    expected = data.pop("checksum", None)  # the first files had none
    try:
        found = digest(data, _REUSE * record.size)
    except Exception as error:
        raise _foreign(path, error) from error
    if expected not in (None, found):
        raise CheckpointError(f"{path}: expected the checksum {expected}, got {found}; damaged")
    return data


def _foreign(path: str | os.PathLike[str], error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: expected a whole {FORMAT}, got a truncated or foreign file "
        f"({str(error).partition(chr(10))[0] or type(error).__name__})"
    )
