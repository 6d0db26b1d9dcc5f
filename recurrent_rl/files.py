"""Files that are replaced whole or not at all, by writers that do not disturb each other.

A new version is written beside the old one, into a draft with a name that nobody can foresee, and
takes its place at the end. Links are written through, and a file that is replaced keeps its mode.
A writer holds a lock on its draft; a draft without one was left behind by a writer that was killed,
and the next writer of the same file removes it.
"""

import contextlib
import datetime
import json
import os
import re
import secrets
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

if sys.platform != "win32":
    import fcntl

# Long names would make names of drafts that are too long for the file system.
_STEM = 40


def tried(save: Callable[[], object], then: str) -> bool:
    """Save; where the system refuses, as a full disk does, warn and say so: what there is stays.

    Args:
        save: does it.
        then: how things go on, for the warning.

    """
    try:
        save()
    except OSError as error:
        warnings.warn(f"{error}. {then}", RuntimeWarning, stacklevel=3)
        return False
    return True


class Draft:
    """A file that is to take the place of another.

    Attributes:
        target: the other, with links resolved; it need not exist.
        file: open for writing and reading.

    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Create the draft in the target's directory, with the mode that the target is to have.

        Args:
            path: what is to be replaced.

        Raises:
            FileNotFoundError: its directory does not exist.
            IsADirectoryError: it is a directory itself.
            OSError: something else stands there, or nothing can be written.

        """
        self.target = Path(os.path.realpath(path))
        before = _regular(self.target)
        check_directory(self.target.parent)
        prefix = f".{self.target.name[:_STEM]}."
        _remove_abandoned(self.target.parent, prefix)
        while True:
            self._path = self.target.with_name(f"{prefix}{secrets.token_hex(8)}.tmp")
            # A new file gets the mode that open() would give it, by the system itself: to ask for
            # the umask means to set it for a moment, for all threads.
            handle = _opened(self._path, os.O_CREAT | os.O_EXCL, 0o666 if before is None else 0o600)
            self.file = cast(BinaryIO, os.fdopen(handle, "w+b"))
            lock(self.file, wait=True)
            if os.fstat(handle).st_nlink or sys.platform == "win32":
                break
            self.file.close()  # somebody took it for abandoned before it was locked
        if before is not None:
            with _discarding(self):
                self._take_over(before)

    def _take_over(self, before: os.stat_result) -> None:
        handle = self.file.fileno()
        if sys.platform != "win32":
            mine = os.fstat(handle)
            if (mine.st_uid, mine.st_gid) != (before.st_uid, before.st_gid):
                # Only the superuser can; for others the file becomes their own, as it always did.
                with contextlib.suppress(PermissionError):
                    os.fchown(handle, before.st_uid, before.st_gid)
            os.fchmod(handle, stat.S_IMODE(before.st_mode))

    def put_in_place(self) -> None:
        """Replace the target; ``file`` stays open (not on Windows), and locked."""
        self.file.flush()
        os.fsync(self.file.fileno())
        if sys.platform == "win32":
            self.file.close()
        os.replace(self._path, self.target)

    def unbuffered(self) -> BinaryIO:
        """Return the file that is in place now, to read and append, as locked as before."""
        if self.file.closed:
            return open_locked(self.target)
        handle = os.dup(self.file.fileno())  # a lock belongs to both
        file = cast(BinaryIO, os.fdopen(handle, "r+b", 0))
        self.file.close()
        return file

    def discard(self) -> None:
        """Remove the draft; the target is as before."""
        # Before it is closed: what is still buffered may find no room, which closing would tell.
        self._path.unlink(missing_ok=True) if sys.platform != "win32" else None
        with contextlib.suppress(OSError):
            self.file.close()
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def _discarding(draft: Draft) -> Iterator[None]:
    try:
        yield
    except BaseException:
        draft.discard()
        raise


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], what: str) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` when the block has ended without an error.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with replacing(Path(folder.name) / "numbers.txt", "numbers") as file:
    ...     file.write(b"1 2 3")
    5
    >>> folder.cleanup()

    Args:
        path: a symbolic link is written through.
        what: is written, in words, for errors.

    Raises:
        OSError: of the kind that it was, with what was written where and what is there now.

    """
    with explained(path, what):
        draft = Draft(path)
        with _discarding(draft):
            yield draft.file
            draft.put_in_place()
        draft.file.close()


def write_json(
    path: Path, data: Mapping[str, Any], what: str, default: Callable[[Any], Any] | None = None
) -> None:
    """Write names and values as JSON that people read; see ``replacing``.

    Args:
        path: of the file.
        data: names and values.
        what: is written, in words, for errors.
        default: turns what JSON has no form for into something that it has; None refuses that.

    Raises:
        TypeError: JSON has no form for a value.
        OSError: it could not be written; what was there before is untouched.

    """
    text = json.dumps(data, indent=2, default=default)
    with replacing(path, what) as file:
        file.write(f"{text}\n".encode())


def check_directory(folder: Path, where: str = "") -> None:
    """Check that a directory is there, before work is done whose result goes into it.

    Args:
        folder: the directory.
        where: what messages begin with, the option that has its path for example.

    Raises:
        FileNotFoundError: it is not.

    """
    if not folder.is_dir():
        option = f"{where}: " if where else ""
        raise FileNotFoundError(
            f"{option}expected the directory {folder} to exist; create it first"
        )


def check_file(path: Path) -> None:
    """Check that a file can stand there, before work is done whose result goes into it.

    Raises:
        IsADirectoryError: it is a directory.
        FileExistsError: it is a device or a pipe.

    """
    _regular(path)


@contextlib.contextmanager
def explained(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Say in an OSError of the block what was written where, and what is there now."""
    try:
        yield
    except OSError as error:
        said = error.strerror or str(error)
        told = type(error)(f"save: {said}, while writing {what} to {path}; {_present(path)}")
        told.errno = error.errno
        raise told from error


def _present(path: str | os.PathLike[str]) -> str:
    """Say what is in a file that could not be replaced, and what to do."""
    advice = "make room there, or save it elsewhere"
    try:
        written = datetime.datetime.fromtimestamp(os.stat(path).st_mtime)
    except OSError:  # it does not exist, or cannot even be looked at
        return f"nothing was written; {advice}"
    return f"what was there before, of {written:%Y-%m-%d %H:%M:%S}, is untouched; {advice}"


def lock(file: BinaryIO, *, wait: bool = False) -> None:
    """Lock an open file until it is closed, or its process ends in whatever way.

    Does nothing on Windows and on file systems without locks.

    Raises:
        BlockingIOError: somebody else has locked it, and ``wait`` is False.

    """
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:  # some network file systems know no locks; to write is the greater good
            return


def unlock(file: BinaryIO) -> None:
    """Release a lock, also of processes that were forked meanwhile and share it."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # see ``lock``
            fcntl.flock(file, fcntl.LOCK_UN)


def open_locked(path: Path) -> BinaryIO:
    """Open a file to read and append, and create it if there is none; nobody else may write it.

    Raises:
        BlockingIOError: somebody else does; the message has the path.
        OSError: it cannot be opened.

    """
    while True:
        file = cast(BinaryIO, os.fdopen(_opened(path, os.O_CREAT | os.O_APPEND, 0o666), "a+b", 0))
        try:
            lock(file)
            if sys.platform == "win32" or os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:
            pass  # removed meanwhile
        except BlockingIOError as error:
            file.close()
            raise BlockingIOError(
                f"{path}: expected a file that nobody else is writing, got one that another logger "
                f"has open, in this process or in another; close that, or choose another directory"
            ) from error
        file.close()  # it has been replaced by whoever had it locked


def _opened(path: str | os.PathLike[str], flags: int, mode: int) -> int:
    flags |= os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    if flags & os.O_EXCL:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    return os.open(path, flags, mode)


def _regular(path: Path) -> os.stat_result | None:
    """Return a file's status, None if there is no file; raise if it is something else."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"expected the path of a file, got a directory, {path}")
    if not stat.S_ISREG(status.st_mode):
        raise FileExistsError(f"expected an ordinary file, got a device or a pipe, {path}")
    return status


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove the drafts of writers that are dead."""
    if sys.platform == "win32":
        return  # without locks nobody knows
    ours = re.compile(re.escape(prefix) + r"[0-9a-f]{16}\.tmp")
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if ours.fullmatch(entry.name)]
    for name in names:
        # Errors: a live writer has locked it, it is gone already, or it is another user's.
        with contextlib.suppress(OSError):
            handle = os.open(folder / name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(folder / name)
            finally:
                os.close(handle)
