"""A pool that trains individuals as tasks of Ray, on this machine or on many.

Which machines is Ray's affair: an instance that the script has initialised is used as it is; or
else ``ray.init()`` looks for the one that RAY_ADDRESS names, then for one on this machine, and
starts one otherwise.

Source: Moritz et al. 2018, "Ray: A Distributed Framework for Emerging AI Applications".
"""

import contextlib
import functools
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from recurrent_rl.buffers.replay import SequenceReplayBuffer
from recurrent_rl.evolution.member import Progress
from recurrent_rl.evolution.pool import (
    Job,
    Pool,
    Result,
    built,
    do_packed,
    packed_job,
    packed_memory,
    unpacked_memory,
    unpacked_result,
)
from recurrent_rl.extras import extra_package

ATTEMPTS = 3  # at training an individual whose processes die
POLL = 0.5  # seconds between two looks at what workers have told


def import_ray() -> Any:
    """Import Ray.

    Raises:
        ImportError: it is not installed; says what to install.

    """
    return extra_package("ray", "ray", "workers='ray'")


@dataclass
class _Attempt:
    """A job that Ray is doing.

    Attributes:
        job: what is to be done.
        number: which attempt at it this is, from 1.
        told: environment steps that were reported as progress.

    """

    job: Job
    number: int = 1
    told: int = 0


class RayPool(Pool):
    """Does jobs as tasks, each with a vector environment of its own, as many as there are CPUs for.

    A task takes as many CPUs as torch has threads, and one GPU if its policies are on one. If its
    process or its machine dies, the individual is trained again, from where its generation began.
    """

    def __init__(self, build: bytes, num_envs: int, threads: int) -> None:
        """Connect to Ray.

        Args:
            build: the function that builds a task's vector environment, from ``portable``.
            num_envs: how many environments the vector must have.
            threads: torch's threads in each task.

        """
        self._ray = ray = import_ray()
        self._build, self._num_envs, self._threads = build, num_envs, threads
        self._running: dict[Any, _Attempt] = {}  # by reference to what will be the result
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            ray.init()
        # Beside this process, whose end is the run's: not on a machine that may die before.
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self._board = _Board({"num_cpus": 0, "scheduling_strategy": here})

    def run(
        self,
        jobs: Sequence[Job],
        progress: Progress,
        memory: SequenceReplayBuffer | None = None,
    ) -> Iterator[Result]:
        """Do the jobs; the results come in order of finishing."""
        replay = self._ray.put(packed_memory(memory))
        for job in jobs:
            self._start(_Attempt(job), replay)
        while self._running:
            done, _ = self._ray.wait(list(self._running), timeout=POLL)
            self._tell(progress)
            for reference in done:
                attempt = self._running.pop(reference)
                content = self._result(reference, attempt, progress)
                if content is None:
                    self._start(_Attempt(attempt.job, attempt.number + 1), replay)
                else:
                    yield unpacked_result(attempt.job, content)

    def close(self) -> None:
        """End the tasks; and Ray, unless somebody else has initialised it."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        if self._is_ours:
            self._ray.shutdown()
        else:
            self._board.close()

    def _start(self, attempt: _Attempt, replay: Any) -> None:
        # "cuda:1" is the second GPU of this process; a task sees none but the one it gets.
        device = attempt.job.device.partition(":")[0]
        gpus = int(device == "cuda")
        self._warn_of_lack({"CPU": self._threads, "GPU": gpus})
        # Ray would try again by itself, and say nothing of it.
        task = self._ray.remote(num_cpus=self._threads, num_gpus=gpus, max_retries=0)(_train)
        job = packed_job(attempt.job, device)
        board = (self._board, attempt.job.place)
        vector = (self._build, self._num_envs)
        self._running[task.remote(job, vector, self._threads, replay, board)] = attempt

    def _warn_of_lack(self, needs: dict[str, int]) -> None:
        """Warn if no machine has what a task needs, as it waits for one that has."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(all(m.get(k, 0) >= n for k, n in needs.items()) for m in machines):
            warnings.warn(
                f"workers='ray': individuals wait until a machine with {needs} joins Ray, as none "
                f"has them; fewer threads take fewer CPUs",
                stacklevel=2,
            )

    def _tell(self, progress: Progress) -> None:
        """Pass on what tasks have told since the last time."""
        attempts = {attempt.job.place: attempt for attempt in self._running.values()}
        for place, steps, score in self._board.taken():
            if place in attempts:
                attempts[place].told += steps
            progress(steps, score)

    def _result(self, reference: Any, attempt: _Attempt, progress: Progress) -> bytes | None:
        """Return a task's result; None if it must be done again.

        Raises:
            RuntimeError: the individual has failed, or has died too often.

        """
        errors = self._ray.exceptions
        place, number = attempt.job.place, attempt.number
        try:
            content: bytes = self._ray.get(reference)
            return content
        except errors.RayTaskError as error:
            raise RuntimeError(f"workers: an individual failed in its worker:\n{error}") from None
        except (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.LocalRayletDiedError,
            errors.ObjectLostError,  # the result, with the machine that it was on
            errors.OutOfMemoryError,
        ) as error:
            said = f"workers: individual {place} of the population died with its process"
            if number >= ATTEMPTS:
                raise RuntimeError(
                    f"{said}, {number} times; see what it printed, and Ray's logs: {error}"
                ) from None
            warnings.warn(
                f"{said}, or its machine; it is trained again, in attempt {number + 1} of "
                f"{ATTEMPTS}: {error}",
                stacklevel=2,
            )
            progress(-attempt.told, math.nan)
            return None


class _Board:
    """Where tasks write how far they are: Ray's queue.

    Its process imports Ray alone. That of an actor of ours would import this package, and torch.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        """Start the queue's process, with these options of an actor."""
        from ray.util.queue import Queue

        self._lines = Queue(actor_options=options)

    def tell(self, place: int, steps: int, score: float) -> None:
        """Write a line: the individual's place, steps since its last line, mean return.

        Waits until it is there, so that all has been told when a task's result is.
        """
        self._lines.put((place, steps, score))

    def taken(self) -> list[tuple[int, int, float]]:
        """Return the lines, and wipe the board."""
        lines: list[tuple[int, int, float]] = self._lines.get_nowait_batch(self._lines.qsize())
        return lines

    def close(self) -> None:
        """End the queue's process."""
        self._lines.shutdown(force=True)


def _train(
    job: bytes, vector: tuple[bytes, int], threads: int, replay: bytes | None, board: Any
) -> bytes:
    """Train an individual in a task.

    Args:
        job: from ``packed_job``.
        vector: the arguments of ``built``.
        threads: torch's.
        replay: from ``packed_memory``.
        board: where to tell how far it is, and as whom.

    """
    lines, place = board
    torch.set_num_threads(threads)
    tell = functools.partial(lines.tell, place)
    with contextlib.closing(built(*vector)) as env:
        return do_packed(job, env, tell, unpacked_memory(replay))
