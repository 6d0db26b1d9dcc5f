"""Packages that only some users need: imported where they are used, and named where they lack."""

import importlib
from typing import Any


def extra_package(module: str, extra: str, what: str) -> Any:
    """Import a module of a package that one of this package's extras brings.

    Args:
        module: as in ``import``.
        extra: as in ``pip install 'recurrent_rl[extra]'``.
        what: is asked for, in words, for the error.

    Raises:
        ImportError: it is not installed, or cannot be imported; says what to install.

    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{what}: expected the package {module.partition('.')[0]}, which is an extra: pip "
            f"install 'recurrent_rl[{extra}]' ({error})",
            name=module,
        ) from error
