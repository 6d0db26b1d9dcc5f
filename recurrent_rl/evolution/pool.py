"""What pools have in common: jobs, results, and how both cross from one process to another.

In whatever pool, an individual goes in as checkpoint data and comes out rebuilt from such data, so
the results do not depend on the pool.
"""

import io
import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from gymnasium.vector.utils import CloudpickleWrapper

from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.buffers.replay import SequenceReplayBuffer
from recurrent_rl.buffers.sharing import News
from recurrent_rl.evolution.member import Plan, Progress, Report, train_individual
from recurrent_rl.validation import shown


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

    def agent(self, data: dict[str, Any] | None = None) -> Agent:
        """Rebuild the individual, as it was or as later checkpoint data have it."""
        data = self.data if data is None else data
        return self.kind.from_checkpoint(data, self.device, **self.parts)


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


class Pool(ABC):
    """Does jobs."""

    @abstractmethod
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

    @abstractmethod
    def close(self) -> None:
        """End what the pool has started."""


class SerialPool(Pool):
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
                agent = job.agent()
                done = train_individual(agent, self.env, job.plan, progress, memory)
            finally:
                torch.set_num_threads(before)
            yield Result(job.place, agent, *done)

    def close(self) -> None:
        """Do nothing: the environment stays open for its owner."""


# --- to another process and back ----------------------------------------------------------------


def portable(where: str, value: Any) -> bytes:
    """Return a value as bytes for ``unported``, functions of a script or a notebook included.

    Raises:
        TypeError: it cannot be pickled; the message begins with ``where``.

    """
    try:
        return pickle.dumps(CloudpickleWrapper(value))
    except Exception as error:  # whatever a class does when it is pickled
        raise TypeError(
            f"{where}: expected something that can be sent to another process, got {shown(value)}, "
            f"which cannot be pickled ({error}); let the function build what it needs, rather than "
            f"hold it, or train with workers=1"
        ) from error


def unported(data: bytes) -> Any:
    """Return the value that ``portable`` has made bytes of."""
    return pickle.loads(data).fn


def packed(data: dict[str, Any]) -> bytes:
    """Return checkpoint data as bytes, in which tensors that share memory are stored once."""
    buffer = io.BytesIO()
    torch.save(data, buffer)  # pickle would store each view of a tensor by itself
    return buffer.getvalue()


def unpacked(data: bytes) -> dict[str, Any]:
    """Return checkpoint data from ``packed``, on the CPU."""
    content: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return content


def packed_memory(memory: SequenceReplayBuffer | None) -> bytes | None:
    """Return a shared replay as bytes; None without one."""
    return None if memory is None else packed(memory.to_data())


def unpacked_memory(data: bytes | None) -> SequenceReplayBuffer | None:
    """Return the replay that ``packed_memory`` has made bytes of."""
    return None if data is None else SequenceReplayBuffer.from_data(unpacked(data))


def packed_job(job: Job, device: str | None = None) -> bytes:
    """Return a job as bytes for ``do_packed``.

    Args:
        job: what to do.
        device: where another process is to train; None: where the job says.

    Raises:
        TypeError: a part of it cannot be pickled.

    """
    where = job.device if device is None else device
    functions = portable("fitness and custom parts", (job.plan, job.parts))
    return pickle.dumps((job.place, job.kind, packed(job.data), where, functions))


def do_packed(
    data: bytes, env: Any, progress: Progress, memory: SequenceReplayBuffer | None
) -> bytes:
    """Do a job that has come from another process; what has become of it, as bytes.

    Args:
        data: from ``packed_job``.
        env: the vector environment.
        progress: called now and then.
        memory: the replay that individuals share, or None.

    """
    place, kind, checkpoint, device, functions = pickle.loads(data)
    plan, parts = unported(functions)
    job = Job(place, kind, unpacked(checkpoint), device, plan, parts)
    agent = job.agent()
    report, news = train_individual(agent, env, plan, progress, memory)
    added = None if news is None else packed(news.to_data())
    return pickle.dumps((packed(agent.to_checkpoint()), report, added))


def unpacked_result(job: Job, data: bytes) -> Result:
    """Return what ``do_packed`` has made of a job."""
    checkpoint, report, added = pickle.loads(data)
    news = None if added is None else News.from_data(unpacked(added))
    return Result(job.place, job.agent(unpacked(checkpoint)), report, news)


def built(build: bytes, num_envs: int) -> Any:
    """Return a vector environment, built where individuals are trained.

    Args:
        build: the function that builds it, from ``portable``.
        num_envs: how many environments there must be in it.

    Raises:
        ValueError: there are others.

    """
    env = unported(build)()
    count = getattr(env, "num_envs", None)
    if count != num_envs:
        env.close()
        raise ValueError(
            f"make_env: expected {num_envs} environments in the vector, as in env, got "
            f"{count} of {type(env).__name__}"
        )
    return env
