"""Versions of what numbers depend on, for what is kept beside results."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("recurrent_rl", "torch", "numpy", "gymnasium", "pettingzoo")


def versions() -> dict[str, str]:
    """Return the versions of Python and of ``PACKAGES``, by name."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def how_it_was_run() -> dict[str, Any]:
    """Return the command that runs this process, and versions, for ``config.json``."""
    return {"command": sys.argv, "versions": versions()}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # its source is on the path
        return "not installed"
