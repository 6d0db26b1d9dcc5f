"""What users are told in one line, and the commands they are shown."""

import shlex
import sys
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

    Args:
        where: stands in front of the message.

    """
    try:
        yield
    except (ValueError, TypeError, ImportError, FileNotFoundError, gym.error.Error) as error:
        text = str(error) or type(error).__name__
        raise UsageError(f"{where}: {text}" if where else text) from error
