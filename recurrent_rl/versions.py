"""Versions of what numbers depend on, for what is kept beside results."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("recurrent_rl", "torch", "numpy", "gymnasium", "pettingzoo")


def versions() -> dict[str, str]:
    """Return the versions of Python and of ``PACKAGES``, by name."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # its source is on the path
        return "not installed"
