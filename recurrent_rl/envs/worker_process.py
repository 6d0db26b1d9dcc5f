"""Worker processes: how they start, talk to their parent, notice its end, and are ended.

A worker is a function that runs in a process of its own, with a
pipe to the parent process.
"""

import contextlib
import multiprocessing as mp
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from recurrent_rl.envs.watchdog import die_with, start_without_ctrl_c

PLEA = 5.0  # seconds that a process has for leaving after SIGTERM


class ParentGoneError(Exception):
    """The parent process has ended or has closed its end of the pipe.

    Not a ``ConnectionError``, which an environment may raise for reasons of its own.
    """


class WorkerFailedError(Exception):
    """A worker ended with an exception; its argument is the traceback as text."""


class WorkerDiedError(Exception):
    """A worker process ended without a message; its argument is the exit code."""


class WorkerTimeoutError(Exception):
    """A worker has not answered in time; it may do so yet."""


@dataclass(frozen=True)
class _Failure:
    """The last message of a worker that fails."""

    traceback: str


class Line:
    """One end of a pipe, which can wait for a message awake.

    A process that sleeps until a message comes is woken some 0.1 ms later, or more in a virtual
    machine: as long as a cheap environment's step takes. While it stays awake it takes a core.
    """

    def __init__(self, connection: Connection, patience: float) -> None:
        """Args: the end; how long to stay awake before going to sleep [s]."""
        self._connection, self._patience = connection, patience
        self._poll: Any = None
        if patience > 0 and hasattr(select, "poll"):  # which Windows lacks
            self._poll = select.poll()
            self._poll.register(connection.fileno(), select.POLLIN)

    def has_message(self, seconds: float | None) -> bool:
        """Wait for one, or for the end of the other process; whether it has come.

        Args:
            seconds: how long at most, beside the time spent awake; None waits for ever.

        """
        if self._poll is not None:
            end = time.perf_counter() + self._patience
            while not self._poll.poll(0):
                if time.perf_counter() > end:
                    break
                os.sched_yield()
            else:
                return True
        return self._connection.poll(seconds)


class Parent:
    """The parent process, as its worker sees it.

    Attributes:
        exit_stack: what the worker closes when it ends, in whatever way.

    """

    def __init__(self, connection: Connection, pid: int, patience: float = 0.0) -> None:
        """Args: the worker's end of the pipe, the parent's process number, see ``Line``."""
        self._connection, self._pid = connection, pid
        self._line = Line(connection, patience)
        self.exit_stack = contextlib.ExitStack()

    def send(self, message: Any) -> None:
        """Send a message.

        Raises:
            ParentGoneError: nobody is there to receive it.

        """
        try:
            self._connection.send(message)
        except ConnectionError:
            raise ParentGoneError from None

    def receive(self) -> Any:
        """Wait for a message.

        Raises:
            ParentGoneError: none will come.

        """
        try:
            while not self._line.has_message(1):
                # Forked workers hold copies of each other's pipes, so the pipe of a killed parent
                # may stay open.
                if os.getppid() != self._pid:
                    raise ParentGoneError
            return self._connection.recv()
        except (EOFError, ConnectionError):
            raise ParentGoneError from None


class Worker:
    """A worker process, as its parent sees it.

    Attributes:
        connection: the parent's end of the pipe.
        process: the process.

    """

    connection: Connection
    process: BaseProcess

    def __init__(
        self,
        start_method: str | None,
        work: Callable[..., None],
        *args: Any,
        name: str,
        daemon: bool = False,
        patience: float = 0.0,
    ) -> None:
        """Start the process.

        Args:
            start_method: "fork", "spawn" or "forkserver"; None takes Python's default.
            work: the function to run; called with the ``Parent`` and the other arguments.
            args: the other arguments.
            name: of the process.
            daemon: the process is terminated when the parent exits.
            patience: how long either side stays awake for a message [s], see ``Line``.

        """
        context = mp.get_context(start_method)
        # The parent of a process that a fork server starts is the server.
        has_server = context.get_start_method() == "forkserver"
        pids = (None if has_server else os.getpid(), os.getpid())
        parent_end, child_end = context.Pipe()
        self.connection = parent_end
        self._line = Line(parent_end, patience)
        self.process = context.Process(  # type: ignore[attr-defined]
            target=_run,
            args=(work, child_end, parent_end, pids, patience, args),
            name=name,
            daemon=daemon,
        )
        start_without_ctrl_c(self.process)
        # With a copy open here, receiving from a dead worker would wait for ever.
        child_end.close()

    def send(self, message: Any) -> None:
        """Send a message; if the worker is dead, ``receive`` will say so and why."""
        with contextlib.suppress(ConnectionError):
            self.connection.send(message)

    def receive(self, seconds: float | None = None) -> Any:
        """Wait for a message.

        Args:
            seconds: how long at most; None waits for ever.

        Raises:
            WorkerFailedError: the worker raised an exception.
            WorkerDiedError: the process has ended.
            WorkerTimeoutError: no message has come in time.

        """
        try:
            if not self._line.has_message(seconds):
                raise WorkerTimeoutError
            message = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join(5)
            raise WorkerDiedError(self.process.exitcode) from None
        if isinstance(message, _Failure):
            raise WorkerFailedError(message.traceback)
        return message


def end_workers(workers: Iterable[Worker], seconds: float, *, terminate: bool = False) -> None:
    """Wait for workers that have been told to leave, and end those that do not.

    Args:
        workers: told to leave by a message, or by closing their connections.
        seconds: how long to wait for each before it is killed.
        terminate: send SIGTERM first, and wait another ``PLEA`` seconds before killing.

    """
    workers = list(workers)
    for worker in workers:
        process = worker.process
        process.join(seconds)
        if terminate and process.is_alive():
            process.terminate()
            process.join(PLEA)
        if process.is_alive():
            process.kill()
            process.join()
    for worker in workers:
        worker.connection.close()


def format_traceback(error: BaseException) -> str:
    """Return an exception with its traceback, as text that can cross processes."""
    return "".join(traceback.format_exception(error))


def _run(
    work: Callable[..., None],
    connection: Connection,
    parent_end: Connection,
    pids: tuple[int | None, int],
    patience: float,
    args: tuple[Any, ...],
) -> None:
    """Run a worker's function in its process; an exception is its last message.

    Args:
        work: the function.
        connection: the worker's end of the pipe.
        parent_end: the parent's.
        pids: the numbers of the process whose child this one is (None: of a fork server), and of
            the one that it works for.
        patience: see ``Line``.
        args: the function's.

    """
    parent_pid, owner = pids
    die_with(owner)
    parent_end.close()  # a copy, which would hide that the parent has closed its own
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    parent = Parent(connection, os.getppid() if parent_pid is None else parent_pid, patience)
    with parent.exit_stack:
        try:
            work(parent, *args)
        except ParentGoneError:
            return
        except Exception as error:
            # Before the exit stack closes anything, which may take long or fail.
            with contextlib.suppress(ParentGoneError):
                parent.send(_Failure(format_traceback(error)))
