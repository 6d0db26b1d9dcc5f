"""A pool that trains individuals in several processes of this machine."""

import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, cast

import torch

from recurrent_rl.buffers.replay import SequenceReplayBuffer
from recurrent_rl.envs.worker_process import (
    Parent,
    Worker,
    WorkerDiedError,
    WorkerFailedError,
    end_workers,
)
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


class ProcessPool(Pool):
    """Does jobs in processes, each with a vector environment of its own."""

    def __init__(self, build: bytes, num_envs: int, count: int, threads: int) -> None:
        """Start the processes.

        Args:
            build: the function that builds a worker's vector environment, from ``portable``.
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
                    build,
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
        replay = packed_memory(memory) if jobs else None
        told: list[Worker] = []  # who has the replay
        while waiting or busy:
            while waiting and free:
                worker, job = free.pop(0), waiting.pop()
                if worker not in told:
                    worker.send(("memory", replay))
                    told.append(worker)
                worker.send(("job", packed_job(job)))
                busy[worker.connection] = worker, job
            for connection in cast(list[Connection], wait(list(busy))):
                worker, job = busy[connection]
                what, *content = _receive(worker)
                if what == "progress":
                    progress(*content)
                    continue
                del busy[connection]
                free.append(worker)
                yield unpacked_result(job, *content)

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


def _work(parent: Parent, build: bytes, num_envs: int, threads: int) -> None:
    """Train individuals in a worker process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the environment is closed
    torch.set_num_threads(threads)
    env = built(build, num_envs)
    parent.exit_stack.callback(env.close)
    memory: SequenceReplayBuffer | None = None
    while True:
        what, content = parent.receive()
        if what == "memory":
            memory = unpacked_memory(content)
            continue
        done = do_packed(
            content, env, lambda *progress: parent.send(("progress", *progress)), memory
        )
        parent.send(("done", done))
