"""Ctrl-C: the first one asks for the end, the second one interrupts."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Note the first Ctrl-C, for training to end in order; the second one interrupts."""
    noted, before = threading.Event(), signal.getsignal(signal.SIGINT)
    # Signals go to the main thread; and whoever runs it in the background may have them ignored.
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield noted.is_set
        return

    def note(number: int, frame: Any) -> None:
        noted.set()
        signal.signal(signal.SIGINT, before)
        tqdm.write("Ending with this rollout, and saving; press Ctrl-C again to end at once.")

    signal.signal(signal.SIGINT, note)
    try:
        yield noted.is_set
    finally:
        signal.signal(signal.SIGINT, before)
