"""A bound on what networks are built, for descriptions that somebody else wrote."""

import contextlib
import threading
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook


@contextlib.contextmanager
def parameter_limit(most: int) -> Iterator[None]:
    """Refuse to build networks with more parameters in this block, before any is initialised.

    A file of some bytes can describe layers of gigabytes, which take minutes to initialise. What is
    to be loaded into them is in the file as well, so it says how large they can be.

    Args:
        most: numbers in all parameters together.

    Raises:
        ValueError: in the block, there would be more.

    """
    left, thread = most, threading.get_ident()

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        if parameter is None or threading.get_ident() != thread:
            return
        left -= parameter.numel()
        if left < 0:
            raise ValueError(
                f"net_config: expected networks of {most:,} numbers, as many as there are weights, "
                f"got larger ones; {type(module).__name__}.{name} has {parameter.numel():,}"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
