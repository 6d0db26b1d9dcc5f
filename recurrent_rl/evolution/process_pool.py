"""Pools that train individuals: in this process one after the other, or in several processes.

Either way an individual goes in as checkpoint data and comes out rebuilt from such data, so the
results do not depend on the pool.
"""

import functools
import io
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Annotated, Any, NamedTuple, Protocol, cast

import torch
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.vector.utils import CloudpickleWrapper

from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.buffers.replay import SequenceReplayBuffer
from recurrent_rl.buffers.sharing import News
from recurrent_rl.envs.gymnasium_vector import autoreset_mode
from recurrent_rl.envs.gymnasium_workers import InProcessVectorEnv, WorkerVectorEnv
from recurrent_rl.envs.multi_agent_async import AsyncMultiAgentVectorEnv
from recurrent_rl.envs.multi_agent_sync import SyncMultiAgentVectorEnv
from recurrent_rl.envs.worker_process import (
    Parent,
    Worker,
    WorkerDiedError,
    WorkerFailedError,
    end_workers,
)
from recurrent_rl.evolution.member import Plan, Progress, Report, train_individual
from recurrent_rl.validation import COUNT, Range, checked, shown


@dataclass(frozen=True)
class Job:
    """One individual's part of a generation.

    Attributes:
        place: the individual's index in the population.
        kind: class of the agent.
        data: the agent's checkpoint data.
        device: of its policies.
        plan: how it is trained and tested.
        parts: its custom ones, as ``Agent.from_checkpoint`` takes them.

    """

    place: int
    kind: type[Agent]
    data: dict[str, Any]
    device: str
    plan: Plan
    parts: dict[str, Any]


class Result(NamedTuple):
    """What has become of a job.

    Attributes:
        place: the individual's index in the population.
        agent: the individual, trained.
        report: what training has given.
        news: what it has added to the shared replay; None without one.

    """

    place: int
    agent: Agent
    report: Report
    news: News | None


class Pool(Protocol):
    """Does jobs."""

    def run(
        self,
        jobs: Sequence[Job],
        progress: Progress,
        memory: SequenceReplayBuffer | None = None,
    ) -> Iterator[Result]:
        """Do the jobs, and yield the result of each as soon as there is one.

        Args:
            jobs: what to do.
            progress: called now and then.
            memory: the replay that individuals share, of which each gets a copy; None without one.

        """

    def close(self) -> None:
        """End what the pool has started."""


class SerialPool:
    """Does jobs in this process, one after the other, with one vector environment."""

    def __init__(self, env: Any, threads: int) -> None:
        """Args: the vector environment, torch's threads."""
        self.env, self.threads = env, threads

    def run(
        self,
        jobs: Sequence[Job],
        progress: Progress,
        memory: SequenceReplayBuffer | None = None,
    ) -> Iterator[Result]:
        """Do the jobs in order."""
        for job in jobs:
            before = torch.get_num_threads()
            torch.set_num_threads(self.threads)
            try:
                agent = job.kind.from_checkpoint(job.data, job.device, **job.parts)
                done = train_individual(agent, self.env, job.plan, progress, memory)
            finally:
                torch.set_num_threads(before)
            yield Result(job.place, agent, *done)

    def close(self) -> None:
        """Do nothing: the environment stays open for its owner."""


class ProcessPool:
    """Does jobs in processes, each with a vector environment of its own."""

    def __init__(self, build: Callable[[], Any], num_envs: int, count: int, threads: int) -> None:
        """Start the processes.

        Args:
            build: builds a worker's vector environment.
            num_envs: how many environments the vector must have.
            count: number of processes.
            threads: torch's threads in each.

        """
        self._workers: list[Worker] = []
        try:
            for i in range(count):
                worker = Worker(
                    # A fork would copy the locks of torch and others in whatever state they are.
                    "spawn",
                    _work,
                    CloudpickleWrapper(build),
                    num_envs,
                    threads,
                    name=f"population worker {i}",
                )
                self._workers.append(worker)
        except BaseException:
            self.close()
            raise

    def run(
        self,
        jobs: Sequence[Job],
        progress: Progress,
        memory: SequenceReplayBuffer | None = None,
    ) -> Iterator[Result]:
        """Do the jobs; the results come in order of finishing."""
        waiting = list(reversed(jobs))
        busy: dict[Connection, tuple[Worker, Job]] = {}
        free = list(self._workers)
        replay = None if memory is None or not jobs else packed(memory.to_data())
        told: list[Worker] = []  # who has the replay
        while waiting or busy:
            while waiting and free:
                worker, job = free.pop(0), waiting.pop()
                if worker not in told:
                    worker.send(("memory", replay))
                    told.append(worker)
                parts = CloudpickleWrapper(job.parts)  # type: ignore[arg-type]
                plan = CloudpickleWrapper(job.plan)  # type: ignore[arg-type]  # may hold a function
                worker.send(("job", job.kind, packed(job.data), job.device, plan, parts))
                busy[worker.connection] = worker, job
            for connection in cast(list[Connection], wait(list(busy))):
                worker, job = busy[connection]
                what, *content = _receive(worker)
                if what == "progress":
                    progress(*content)
                    continue
                del busy[connection]
                free.append(worker)
                data, report, added = content
                agent = job.kind.from_checkpoint(unpacked(data), job.device, **job.parts)
                news = None if added is None else News.from_data(unpacked(added))
                yield Result(job.place, agent, report, news)

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        for worker in self._workers:
            worker.connection.close()  # a worker that waits for a job leaves then
        end_workers(self._workers, seconds=1, terminate=True)


def _receive(worker: Worker) -> tuple[Any, ...]:
    try:
        message: tuple[Any, ...] = worker.receive()
    except WorkerFailedError as error:
        raise RuntimeError(f"workers: an individual failed in its worker:\n{error}") from None
    except WorkerDiedError as error:
        raise RuntimeError(
            f"workers: {worker.process.name} died with exit code {error}; what it printed stands "
            f"above. A script that uses workers must do so under if __name__ == '__main__':, as "
            f"each worker imports it"
        ) from None
    return message


def _work(parent: Parent, build: Callable[[], Any], num_envs: int, threads: int) -> None:
    """Train individuals in a worker process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the environment is closed
    torch.set_num_threads(threads)
    env = build()
    parent.exit_stack.callback(env.close)
    count = getattr(env, "num_envs", None)
    if count != num_envs:
        raise ValueError(
            f"make_env: expected {num_envs} environments in the vector, as in env, got "
            f"{count} of {type(env).__name__}"
        )
    memory: SequenceReplayBuffer | None = None
    while True:
        what, *content = parent.receive()
        if what == "memory":
            replay = content[0]
            memory = None if replay is None else SequenceReplayBuffer.from_data(unpacked(replay))
            continue
        kind, data, device, plan, parts = content
        agent = kind.from_checkpoint(unpacked(data), device, **parts.fn)
        report, news = train_individual(
            agent, env, plan.fn, lambda *progress: parent.send(("progress", *progress)), memory
        )
        added = None if news is None else packed(news.to_data())
        parent.send(("done", packed(agent.to_checkpoint()), report, added))


def packed(data: dict[str, Any]) -> bytes:
    """Return checkpoint data as bytes, in which tensors that share memory are stored once."""
    buffer = io.BytesIO()
    torch.save(data, buffer)  # pickle would store each view of a tensor by itself
    return buffer.getvalue()


def unpacked(data: bytes) -> dict[str, Any]:
    """Return checkpoint data from ``packed``, on the CPU."""
    content: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return content


def pool_opener(
    env: Any, make_env: Callable[[], Any] | None, workers: int, threads: int, jobs: int
) -> Callable[[], Pool]:
    """Return a function that opens the pool which arguments of a training function ask for.

    Args:
        env: the vector environment of a pool with one worker.
        make_env: builds each worker's vector environment; None builds it like ``env``.
        workers: number of processes.
        threads: torch's threads, for each individual.
        jobs: how many there are at most, so how many workers are of use.

    Raises:
        ValueError: a number out of range, or an environment that nobody knows how to build again.

    """
    workers = checked("workers", workers, Annotated[int, COUNT])
    threads = checked("threads", threads, Annotated[int, Range(1, 1024)])
    if make_env is not None and not callable(make_env):
        raise TypeError(
            f"make_env: expected a function that builds a vector environment, got {shown(make_env)}"
        )
    build = builder_of(env) if workers > 1 and make_env is None else make_env
    count = min(workers, jobs)
    if count > 1 and build is not None:
        return functools.partial(ProcessPool, build, env.num_envs, count, threads)
    return functools.partial(SerialPool, env, threads)


def builder_of(env: Any) -> Callable[[], Any]:
    """Return a function that builds another vector environment like this one.

    Of the options of Gymnasium's ``AsyncVectorEnv`` only the autoreset mode is known; the others
    take their defaults.

    Raises:
        ValueError: an environment of another class; the message says what to do.

    """
    kind = type(env)
    if kind in (SyncVectorEnv, AsyncVectorEnv):
        makers, mode = list(env.env_fns), autoreset_mode(env)
        return lambda: kind(makers, autoreset_mode=mode)
    if kind is InProcessVectorEnv:
        makers, mode = list(env.env_fns), autoreset_mode(env)
        return lambda: InProcessVectorEnv(makers, autoreset_mode=mode)
    if kind is WorkerVectorEnv:
        makers, options = list(env.env_fns), dict(env.options)
        return lambda: WorkerVectorEnv(makers, **options)
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
