"""What users are told in one line, and the commands they are shown."""

import os
import shlex
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import gymnasium as gym


class UsageError(Exception):
    """A user's mistake; the message says what was expected, what came, and what to do."""


def program() -> str:
    """Return how this program was called, for commands that are shown."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    as_module = spec is not None and spec.name == "recurrent_rl.__main__"
    return "python -m recurrent_rl" if as_module else "recurrent_rl"


def command(*words: object) -> str:
    """Return a command of this program's as one would type it."""
    return f"{program()} {shlex.join(map(str, words))}"


@contextmanager
def told_in_one_line(where: str = "") -> Iterator[None]:
    """Turn what the package refuses into a user's mistake, which is shown without a traceback.

    So are files that cannot be read or written. Where code of the user's own, an environment for
    example, has raised the error, the message says in which line.

    Args:
        where: stands in front of the message.

    """
    try:
        yield
    except BrokenPipeError:  # of whoever reads what is printed
        raise
    except (ValueError, TypeError, ImportError, OSError, gym.error.Error) as error:
        text = str(error) or type(error).__name__
        text += _users_line(error)
        raise UsageError(f"{where}: {text}" if where else text) from error


def _users_line(error: Exception) -> str:
    """Say which line of the user's own code has led to an error, if one has."""
    installed = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    others = tuple(os.path.join(folder, "") for folder in (*installed, package))
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [each for each in frames if not each.filename.startswith((*others, "<"))]
    return f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
