"""Have a worker process end with its parent, also while an environment hangs, and not by Ctrl-C.

Imports nothing of the package.
"""

import os
import select
import signal
import threading
import time
from multiprocessing.process import BaseProcess

GRACE = 5.0  # seconds in which environments may be closed in an orderly way
INTERVAL = 0.5  # seconds between two looks where the system cannot wake us


def start_without_ctrl_c(process: BaseProcess) -> None:
    """Start a process that Ctrl-C does not reach, as its parent deals with that.

    A terminal sends it to all processes. One that ignores it by its own first line would end by it
    until then, while it still imports what it needs. What is blocked stays so in children; in this
    process a Ctrl-C meanwhile comes a moment later.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        process.start()
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def die_with(parent_pid: int, grace: float = GRACE) -> threading.Thread:
    """End this process soon after its parent has ended, however that came about.

    A thread waits for the parent's end; it sleeps until then. Code that hangs without releasing
    Python's interpreter lock, as few extension modules do, keeps it from acting.

    Args:
        parent_pid: process number of the parent; of the true one, where a fork server starts
            processes.
        grace: how long this process may then take to close what it has open [s].

    Returns:
        the thread.

    """
    try:
        descriptor = os.pidfd_open(parent_pid) if hasattr(os, "pidfd_open") else None
        gone = False
    except ProcessLookupError:
        descriptor, gone = None, True
    except OSError:  # an old kernel, or a sandbox that forbids it
        descriptor, gone = None, False
    thread = threading.Thread(
        target=_watch, args=(parent_pid, descriptor, gone, grace), name="watchdog", daemon=True
    )
    thread.start()
    return thread


def _watch(parent_pid: int, descriptor: int | None, gone: bool, grace: float) -> None:
    if descriptor is not None:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()
    else:
        # A process that has ended gives its children to another one; its number may come again.
        is_child = os.getppid() == parent_pid
        while not gone:
            time.sleep(INTERVAL)
            gone = os.getppid() != parent_pid if is_child else not _exists(parent_pid)
    time.sleep(grace)
    os._exit(1)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
