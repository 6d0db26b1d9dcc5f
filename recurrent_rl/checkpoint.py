"""Saving and loading: atomically, and in torch's weights-only mode.

A file holds tensors and plain values only, so loading one runs no code of its author's.
"""

import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch

FORMAT = "recurrent_rl checkpoint"
VERSION = 2


class CheckpointError(ValueError):
    """A file that cannot be loaded; the message says why. Nothing has been changed."""


def save(data: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint so that ``path`` holds the old file or the whole new one, never a part.

    Args:
        data: tensors and plain values, nested in dictionaries, lists and tuples.
        path: its directory must exist.

    Raises:
        FileNotFoundError: the directory does not exist.
        PermissionError: the directory cannot be written.

    """
    target = Path(path)
    folder = target.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"save: expected the directory {folder} to exist; create it first")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=folder)
    except OSError as error:
        raise PermissionError(
            f"save: expected to write into {folder}, got {error.strerror}; choose another directory"
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save({"format": FORMAT, "version": VERSION, **data}, file)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; give this one the mode that open() would have.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint.

    Args:
        path: written by ``save``.
        device: where tensors go.

    Returns:
        the data.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: truncated, not a checkpoint, or of a newer version.

    """
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()  # torch itself does not look at the checksums
            if damaged is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
            file.seek(0)
            data = torch.load(file, map_location=device, weights_only=True)
        except Exception as error:  # parsers fail in many ways on foreign data
            raise CheckpointError(
                f"{path}: expected a whole {FORMAT}, got a truncated or foreign file "
                f"({str(error).partition(chr(10))[0] or type(error).__name__})"
            ) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected a {FORMAT}, got another torch file")
    version = data.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise CheckpointError(
            f"{path}: expected version {VERSION} or less, got {version}; update recurrent_rl"
        )
    return data
