"""A vector of PettingZoo environments in worker processes, which share one table.

Letters: E environments.
"""

import ctypes
import functools
import itertools
import multiprocessing as mp
import os
import time
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

from gymnasium.vector.utils import CloudpickleWrapper

from recurrent_rl.envs.agent_table import AgentTable, check_alike
from recurrent_rl.envs.cores import available_cores
from recurrent_rl.envs.distinct import check_distinct, mark_example
from recurrent_rl.envs.env_rows import EnvRows
from recurrent_rl.envs.environment_rows import environment_rows
from recurrent_rl.envs.multi_agent_members import (
    MakeEnv,
    build_member,
    checked_makers,
    execute,
    final_infos_of,
)
from recurrent_rl.envs.multi_agent_vector import FinalInfos, MultiAgentVectorEnv
from recurrent_rl.envs.multi_agent_worker import Allocator, work
from recurrent_rl.envs.names import env_name
from recurrent_rl.envs.worker_process import (
    Worker,
    WorkerDiedError,
    WorkerFailedError,
    WorkerTimeoutError,
    end_workers,
)
from recurrent_rl.randomness import PrivateGenerators

# How long processes stay awake for the next command or answer [s]: acting takes less, in general.
PATIENCE = 1e-3


class AsyncMultiAgentVectorEnv(MultiAgentVectorEnv):
    """Environments in worker processes, several in each, with the table in shared memory.

    The workers end when this process does, in whatever way it ends. An error in one environment
    closes all.

    The global generators of Python, NumPy and torch are each worker's own: they begin from fresh
    entropy, and anew at each ``reset`` with a seed. That does not touch those of this process;
    environments that are stepped here have their own from the first such ``reset`` on, and draw
    from this process's before.
    """

    def __init__(
        self,
        env_fns: Iterable[MakeEnv],
        *,
        num_workers: int | None = None,
        context: str | None = None,
        use_main_process: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Build one environment here, for its spaces, and all of them in the workers.

        Args:
            env_fns: E functions, each of which builds a PettingZoo environment, or a Gymnasium
                environment with Tuples of agents.
            num_workers: processes, in [1, E]; None takes one for each CPU core.
            context: how to start them: "fork", "spawn" or "forkserver"; None takes Python's
                default. "spawn" needs the guard ``if __name__ == "__main__":`` in scripts.
            use_main_process: step the first environments here, beside the workers, instead of
                waiting for them. Fewer processes to wake: with one worker less than there are cores
                it is the fastest where environments cost little.
            timeout: how long a reset or a step of all environments may take [s]; then all are
                closed, by force where they hang, and a ``RuntimeError`` names the one that did.
                None: no limit. Not with ``use_main_process``, as nobody could interrupt this one.

        Raises:
            TypeError: something else than an environment, or a space that is not supported.
            ValueError: no functions, environments that are not alike, one object for several, or
                no time.
            RuntimeError: an environment could not be built; with the worker's traceback.

        """
        _check_timeout(timeout, use_main_process)
        self._timeout = timeout
        self.env_fns = makers = checked_makers(env_fns)
        self.num_envs = len(makers)
        self.options: dict[str, Any] = {
            "num_workers": num_workers,
            "context": context,
            "use_main_process": use_main_process,
            "timeout": timeout,
        }
        num_workers = _worker_count(self.num_envs, num_workers, use_main_process)
        example = build_member(makers[0], 0)
        super().__init__(example)
        self.label = env_name(example)
        self._mark = mark_example(example)
        if not use_main_process:
            example.close()
        parts = _split(self.num_envs, num_workers + int(use_main_process))
        self._own_part = parts.pop(0) if use_main_process else range(0)
        self._parts = parts
        self._envs: list[Any] = []
        self._rows: list[EnvRows] = []
        self._generators = PrivateGenerators()
        self._workers: list[Worker] = []
        self._finalizer = weakref.finalize(self, _close_workers, self._workers, os.getpid())
        try:
            self._start_workers(context)
            # After that, as a fork would copy these environments into the workers.
            self._build_own(example)
            self._wait("building")
        except BaseException:
            self.close()
            raise

    def _start_workers(self, context: str | None) -> None:
        """Allocate the table in shared memory and start a worker for each part."""
        spaces = list(self._spaces.values())
        total = Allocator()
        AgentTable(spaces, self.num_envs, total.allocate, self.state_space)
        start = mp.get_context(context)
        memory = start.RawArray(ctypes.c_byte, total.used)
        allocate = Allocator(memory).allocate
        self.table = AgentTable(spaces, self.num_envs, allocate, self.state_space)
        # The environment that each worker is at: when a process dies, the one that ended it.
        self._current = start.RawArray(ctypes.c_int, len(self._parts))
        # Nobody stays awake on a core that another of these processes needs.
        patience = PATIENCE if len(self._parts) < available_cores() else 0.0
        for i, part in enumerate(self._parts):
            worker = Worker(
                context,
                work,
                [CloudpickleWrapper(self.env_fns[e]) for e in part],
                part,
                spaces,
                self.state_space,
                self.num_envs,
                memory,
                (self._current, i),
                self._mark,
                name=f"environments {part.start} to {part.stop - 1}",
                daemon=True,
                patience=patience,
            )
            self._workers.append(worker)

    def _build_own(self, example: Any) -> None:
        """Build the environments that are stepped here; ``example`` is the first."""
        for e in self._own_part:
            self._envs.append(example if e == 0 else build_member(self.env_fns[e], e))
            check_alike(list(self._spaces.values()), self._envs[e], e)
            self._rows.append(environment_rows(self._envs[e], self.table, e))
        check_distinct(self._envs)

    def _wait(self, command: str, seconds: float | None = None) -> FinalInfos:
        """Wait until all workers have done a command; raise the first failure there was.

        Args:
            command: for the error's message.
            seconds: how long at most; None waits for ever.

        Returns:
            what a step has given; see ``final_infos``.

        """
        found: FinalInfos = {}
        failures: list[tuple[int, str]] = []
        end = None if seconds is None else time.monotonic() + seconds
        for i, worker in enumerate(self._workers):
            try:
                answer = worker.receive(None if end is None else max(end - time.monotonic(), 0))
                found |= answer or {}
            except WorkerTimeoutError:
                worker.process.kill()  # it would not hear that it should leave
                failures.append((i, f"{self.label} took longer than timeout={seconds} seconds"))
            except WorkerFailedError as error:
                failures.append((i, str(error)))
            except WorkerDiedError as error:
                failures.append((i, f"its worker process died with exit code {error}"))
        if failures:
            worker_index, message = failures[0]
            environment = self._current[worker_index]
            self.close()
            raise RuntimeError(
                f"environment {environment} failed in {command} (all environments are closed "
                f"now):\n{message}"
            )
        return found

    def _execute_in_all(
        self, own: tuple[Any, ...], commands: Iterable[tuple[Any, ...]]
    ) -> FinalInfos:
        """Do a command here and in the workers.

        Args:
            own: for the environments of this process.
            commands: one for each worker.

        Returns:
            what a step has given; see ``final_infos``.

        """
        self._check_open()
        try:
            for worker, command in zip(self._workers, commands, strict=True):
                worker.send(command)
            self._execute_here(own)
            return final_infos_of(self._rows) | self._wait(own[0], self._timeout)
        except BaseException:
            # After Ctrl-C, answers may still come that would be taken for those to later commands.
            self.close()
            raise

    def _execute_here(self, command: tuple[Any, ...]) -> None:
        """Do a command in the environments of this process, whose draws are their own too."""
        if self._rows:
            commanded = functools.partial(execute, command, self._rows, own_generators=True)
            seeds = command[1] if command[0] == "reset" else ()
            self._generators.run(
                commanded, next((s for s in reversed(seeds) if s is not None), None)
            )

    def reset_rows(self, seeds: Sequence[int | None], options: Any = None) -> None:
        self.final_infos = {}
        own, *others = (
            ("reset", seeds[part.start : part.stop], options)
            for part in (self._own_part, *self._parts)
        )
        self._execute_in_all(own, others)

    def step_rows(self) -> None:
        self.final_infos = self._execute_in_all(("step",), [("step",)] * len(self._parts))
        self._warn_of_unearned()

    def wait_after_episodes(self, waits: bool) -> None:
        self._execute_in_all(("wait", waits), [("wait", waits)] * len(self._parts))

    def _read_state(self) -> None:
        self._execute_in_all(("state",), [("state",)] * len(self._parts))

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            for env in self._envs:
                env.close()
        self._finalizer()


def _check_timeout(timeout: Any, use_main_process: bool) -> None:
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise ValueError(f"timeout: expected seconds > 0, or None for no limit, got {timeout!r}")
    if use_main_process:
        raise ValueError(
            f"timeout: expected None with use_main_process=True, as nothing could interrupt the "
            f"environments of this process, got {timeout}; leave one of them out"
        )


def _worker_count(num_envs: int, num_workers: int | None, use_main_process: bool) -> int:
    """Return the number of workers; None takes one process for each CPU core."""
    own = int(use_main_process)
    most = num_envs - own
    if num_workers is None:
        num_workers = max(min(num_envs, available_cores()) - own, 1)
    if not 1 <= num_workers <= most:
        raise ValueError(
            f"num_workers: expected a number in [1, {most}], as there are {num_envs} "
            f"environments{', one of them here' if own else ''}, got {num_workers}"
        )
    return num_workers


def _split(num_envs: int, count: int) -> list[range]:
    """Split the environments into parts of about the same size."""
    bounds = [num_envs * i // count for i in range(count + 1)]
    return [range(first, last) for first, last in itertools.pairwise(bounds)]


def _close_workers(workers: list[Worker], owner: int) -> None:
    """Have workers close their environments and leave; kill those that do not."""
    if os.getpid() != owner:  # a copy of the vector in a forked process
        return
    for worker in workers:
        worker.send(("close",))
    end_workers(workers, seconds=5)
