"""Individuals train in this process, one after the other, or in several processes at once.

Either way an individual goes in as checkpoint data and comes out as such, so what is sent over a
pipe and what is not cannot differ in their results.
"""

import contextlib
import io
import multiprocessing as mp
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, cast

import torch
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.vector.utils import CloudpickleWrapper

from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.envs.agent_table import formatted
from recurrent_rl.envs.gymnasium_vector import autoreset_mode
from recurrent_rl.envs.multi_agent_vector import AsyncMultiAgentVectorEnv, SyncMultiAgentVectorEnv
from recurrent_rl.evolution.member import Plan, Progress, Report, train_individual


@dataclass(frozen=True)
class Job:
    """One individual's generation.

    Attributes:
        place: in the population.
        kind: ``PPO`` or ``IPPO``.
        data: the individual's.
        device: of its policies.
        plan: the generation's.
        networks: the user's own modules in it.

    """

    place: int
    kind: type[Agent]
    data: dict[str, Any]
    device: str
    plan: Plan
    networks: dict[str, Any]


# Place in the population, the individual, and its report.
Done = tuple[int, Agent, Report]


class Pool(Protocol):
    """Whoever does the jobs."""

    def run(self, jobs: Sequence[Job], progress: Progress) -> Iterator[Done]:
        """Do the jobs, and give out each as it is done."""

    def close(self) -> None:
        """Leave nothing running."""


class SerialPool:
    """All in this process, one after the other, on the environment given."""

    def __init__(self, env: Any, threads: int) -> None:
        """Args: the vector environment, torch's threads."""
        self.env, self.threads = env, threads

    def run(self, jobs: Sequence[Job], progress: Progress) -> Iterator[Done]:
        """Do the jobs in order."""
        for job in jobs:
            before = torch.get_num_threads()
            torch.set_num_threads(self.threads)
            try:
                agent = job.kind.from_checkpoint(job.data, job.device, **job.networks)
                report = train_individual(agent, self.env, job.plan, progress)
            finally:
                torch.set_num_threads(before)
            yield job.place, agent, report

    def close(self) -> None:
        """Leave the environment to its owner."""


class ProcessPool:
    """Processes that each have an environment of their own and take the next job when free."""

    def __init__(self, build: Callable[[], Any], num_envs: int, count: int, threads: int) -> None:
        """Start them.

        Args:
            build: gives a worker its vector environment.
            num_envs: how many environments that must have.
            count: processes.
            threads: torch's, in each.

        """
        # Not "fork": it would copy torch's and others' locks in whatever state they are.
        context = mp.get_context("spawn")
        self._connections: list[Connection] = []
        self._processes: list[Any] = []
        try:
            for i in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=_work,
                    args=(theirs, CloudpickleWrapper(build), num_envs, threads, os.getpid()),
                    name=f"population worker {i}",
                )
                process.start()
                theirs.close()  # or its end of file would never come
                self._connections.append(ours)
                self._processes.append(process)
        except BaseException:
            self.close()
            raise

    def run(self, jobs: Sequence[Job], progress: Progress) -> Iterator[Done]:
        """Do the jobs; they come back in order of finishing."""
        waiting = list(reversed(jobs))
        busy: dict[Connection, Job] = {}
        free = list(self._connections)
        while waiting or busy:
            while waiting and free:
                connection, job = free.pop(0), waiting.pop()
                with contextlib.suppress(ConnectionError):  # reading from it says why
                    networks = CloudpickleWrapper(job.networks)  # type: ignore[arg-type]
                    connection.send((job.kind, packed(job.data), job.device, job.plan, networks))
                busy[connection] = job
            for connection in cast(list[Connection], wait(list(busy))):
                what, *content = self._receive(connection)
                if what == "progress":
                    progress(*content)
                    continue
                job = busy.pop(connection)
                free.append(connection)
                data, report = content
                agent = job.kind.from_checkpoint(unpacked(data), job.device, **job.networks)
                yield job.place, agent, report

    def _receive(self, connection: Connection) -> tuple[Any, ...]:
        try:
            message: tuple[Any, ...] = connection.recv()
        except (EOFError, ConnectionError):
            process = self._processes[self._connections.index(connection)]
            process.join(5)
            raise RuntimeError(
                f"workers: {process.name} died with exit code {process.exitcode}; what it printed "
                f"stands above. A script that uses workers must do so under "
                f"if __name__ == '__main__':, as each worker imports it"
            ) from None
        if message[0] == "failed":
            raise RuntimeError(f"workers: an individual failed in its worker:\n{message[1]}")
        return message

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join(1)  # one that waits for a job leaves by itself
            if process.is_alive():
                process.terminate()
                process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


class _ParentGoneError(Exception):
    """The parent wants no more. Not a ConnectionError, which environments may raise too."""


def _told(connection: Connection, *message: Any) -> None:
    try:
        connection.send(message)
    except ConnectionError:
        raise _ParentGoneError from None


def _next_job(connection: Connection, parent: int) -> Any:
    try:
        while not connection.poll(1):
            if os.getppid() != parent:
                raise _ParentGoneError
        return connection.recv()
    except (EOFError, ConnectionError):
        raise _ParentGoneError from None


def _work(
    connection: Connection, build: Callable[[], Any], num_envs: int, threads: int, parent: int
) -> None:
    """Train individuals in a worker process, until the parent wants no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # closes the environment on its way
    torch.set_num_threads(threads)
    env = None
    try:
        env = build()
        if env.num_envs != num_envs:
            raise ValueError(
                f"make_env: expected {num_envs} environments in the vector, as in env, got "
                f"{env.num_envs}"
            )
        while True:
            kind, data, device, plan, networks = _next_job(connection, parent)
            agent = kind.from_checkpoint(unpacked(data), device, **networks.fn)
            report = train_individual(
                agent, env, plan, lambda *news: _told(connection, "progress", *news)
            )
            _told(connection, "done", packed(agent.to_checkpoint()), report)
    except _ParentGoneError:
        return
    except Exception as error:
        with contextlib.suppress(_ParentGoneError):
            _told(connection, "failed", formatted(error))
    finally:
        if env is not None:
            env.close()


def packed(data: dict[str, Any]) -> bytes:
    """Checkpoint data as bytes: views of one tensor go once, which pickle does not know how to."""
    buffer = io.BytesIO()
    torch.save(data, buffer)
    return buffer.getvalue()


def unpacked(data: bytes) -> dict[str, Any]:
    """Return what was ``packed``, on the CPU."""
    content: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return content


def builder_of(env: Any) -> Callable[[], Any]:
    """Return a function that builds another vector environment like this one.

    Of the options of Gymnasium's ``AsyncVectorEnv`` only the autoreset mode is known; the others
    take their defaults.

    Raises:
        ValueError: nobody knows how; the message says what to do.

    """
    kind = type(env)
    if kind in (SyncVectorEnv, AsyncVectorEnv):
        makers, mode = list(env.env_fns), autoreset_mode(env)
        return lambda: kind(makers, autoreset_mode=mode)
    if kind is SyncMultiAgentVectorEnv:
        makers = list(env.env_fns)
        return lambda: kind(makers)
    if kind is AsyncMultiAgentVectorEnv:
        makers, options = list(env.env_fns), dict(env.options)
        return lambda: kind(makers, **options)
    raise ValueError(
        f"workers: expected an environment that can be built again, from make_vect_envs or "
        f"make_multi_agent_vect_envs, got {kind.__name__}; pass make_env, a function that builds it"
    )
