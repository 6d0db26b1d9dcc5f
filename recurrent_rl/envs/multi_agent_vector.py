"""Vectors of PettingZoo environments, in this process or in worker processes.

Letters: E environments, A agents of a block.
"""

import ctypes
import functools
import itertools
import multiprocessing as mp
import os
import time
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import CloudpickleWrapper

from recurrent_rl.envs.agent_table import (
    AgentBlock,
    AgentSpaces,
    AgentTable,
    check_alike,
    describe,
    state_space_of,
)
from recurrent_rl.envs.distinct import check_distinct, is_marked, mark_example
from recurrent_rl.envs.env_rows import EnvRows, environment_rows
from recurrent_rl.envs.final_infos import Numbers
from recurrent_rl.envs.makers import check_maker, check_options
from recurrent_rl.envs.names import env_name
from recurrent_rl.envs.worker_process import (
    Parent,
    Worker,
    WorkerDiedError,
    WorkerFailedError,
    WorkerTimeoutError,
    end_workers,
)
from recurrent_rl.randomness import PrivateGenerators, seed_this_process
from recurrent_rl.spaces.array import Array
from recurrent_rl.validation import Range, checked
from recurrent_rl.wrappers.tuple_to_parallel import (
    TupleToParallelWrapper,
    has_agent_tuples,
    make_tuple_env,
)

MakeEnv = Callable[[], Any]
Seeds = int | Sequence[int | None] | None
ByAgent = dict[str, Array]
FinalInfos = dict[int, Mapping[str, Numbers]]


class MultiAgentVectorEnv(ABC):
    """E PettingZoo environments with the same agents, stepped together.

    An episode that ends is followed by the next at once; its last observations are in the infos.
    Observations, rewards and flags are dictionaries by agent of arrays [E, ...] (of observations in
    Dict and Tuple spaces, the dictionaries and tuples of these), infos are dictionaries by agent of

    * ``exists``: the observation is real, bool [E]; where it is not, it is zeros;
    * ``start``: the agent has just become alive, so a policy's memory must be zeroed, bool [E];
    * ``env_defined_actions``: a list of E entries, None or the action that will be taken;
    * ``action_mask``: allowed actions, bool [E, n], if the environment gives any;
    * ``final_obs``: the last observations of truncated agents, [E, ...], if there are any; it means
      nothing in the other environments;
    * ``final_info``: the numbers that episodes which ended had in the agent's last info, by name
      [E], NaN in the other environments, if there are any; see ``envs.final_infos``.

    Attributes:
        num_envs: E.
        possible_agents: names of all agents that there may ever be.
        state_space: of the environments' ``state()``; None where they have none.
        table: the arrays that ``reset_rows`` and ``step_rows`` read and write.
        final_infos: the numbers of the infos with which the last step ended episodes, by
            environment and agent; of those who gave any.
        closed: whether the environments have been closed.

    """

    num_envs: int
    table: AgentTable
    final_infos: FinalInfos

    def __init__(self, example: Any) -> None:
        """Arg ``example``: one of the environments, or one like them."""
        agents = describe(example)
        self.state_space = state_space_of(example)
        self._spaces = {spaces.agent: spaces for spaces in agents}
        self.possible_agents = list(self._spaces)
        self.final_infos = {}
        self.closed = self._has_warned = self._reads_state = False

    @abstractmethod
    def reset_rows(self, seeds: Sequence[int | None], options: Any = None) -> None:
        """Start all episodes afresh; what the agents see is in the table."""

    @abstractmethod
    def step_rows(self) -> None:
        """Take the actions in the table; what they led to is in the table."""

    @abstractmethod
    def wait_after_episodes(self, waits: bool) -> None:
        """Let nothing follow upon episodes that end until the next reset; False: the next one."""

    def read_state(self) -> None:
        """Have the environments' states in the table from now on; they cost time.

        Raises:
            ValueError: they have none.

        """
        if self.state_space is None:
            raise ValueError(
                "state: expected environments with a state() and a state_space of a supported "
                "kind, got none; without state_space critics see what all agents see"
            )
        if not self._reads_state:
            self._reads_state = True
            self._read_state()

    @abstractmethod
    def _read_state(self) -> None:
        """Have every environment write its state, at once and after each reset and step."""

    def state(self) -> Any:
        """Return the environments' states, [E, ...]; ValueError: they have none."""
        self.read_state()
        assert self.table.state_layout is not None
        return self.table.state_layout.unpack(self.table.state.copy())

    @abstractmethod
    def close(self) -> None:
        """Close the environments; safe to call twice."""

    @property
    def agents(self) -> list[str]:
        """All agents; the infos say which of them exist at the moment."""
        return self.possible_agents

    def single_observation_space(self, agent: str) -> gym.Space[Any]:
        """Return an agent's observation space, without the action mask that may come with it."""
        return self._spaces[agent].observation

    def single_action_space(self, agent: str) -> gym.Space[Any]:
        """Return an agent's action space."""
        return self._spaces[agent].action

    @property
    def observation_spaces(self) -> dict[str, gym.Space[Any]]:
        """Observation spaces by agent, without action masks."""
        return {agent: spaces.observation for agent, spaces in self._spaces.items()}

    @property
    def action_spaces(self) -> dict[str, gym.Space[Any]]:
        """Action spaces by agent."""
        return {agent: spaces.action for agent, spaces in self._spaces.items()}

    def reset(
        self, seed: Seeds = None, options: Any = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Start all episodes afresh.

        Args:
            seed: environment e gets seed + e, or seed[e] of a list.
            options: given to every environment's ``reset``.

        Returns:
            observations, infos; see the class.

        """
        self.reset_rows(self.seeds(seed), options)
        return self._observations(), self._infos()

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, Any], ByAgent, ByAgent, ByAgent, dict[str, dict[str, Any]]]:
        """Take a step in every environment.

        Args:
            actions: [E, *shape] by agent. Those of agents that do not exist mean nothing, and
                those of agents whose action the environment defines are replaced.

        Returns:
            observations, rewards, terminations, truncations, infos; see the class.

        Raises:
            ValueError: an agent without actions, or actions of the wrong shape.

        """
        for agent, (block, i) in self.table.place.items():
            expected = (self.num_envs, *block.action.shape[2:])
            action = np.asarray(actions[agent]) if agent in actions else None
            if action is None or action.shape != expected:
                got = "none" if action is None else f"shape {list(action.shape)}"
                raise ValueError(
                    f"actions[{agent!r}]: expected shape [E, ...] = {list(expected)}, got {got}"
                )
            block.action[:, i] = action
        self.step_rows()
        rewards, terminations, truncations = (
            self._by_agent(name) for name in ("reward", "terminated", "truncated")
        )
        return self._observations(), rewards, terminations, truncations, self._infos()

    def seeds(self, seed: Seeds) -> list[int | None]:
        """Return each environment's own seed, [E]."""
        if seed is None or isinstance(seed, int | np.integer):
            return [None if seed is None else int(seed) + e for e in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"seed: expected {self.num_envs} seeds, got {len(seed)}")
        # Gymnasium refuses NumPy's integers.
        return [None if s is None else int(s) for s in seed]

    def _warn_of_unearned(self) -> None:
        """Say once that somebody was paid who was not there."""
        if self._has_warned or not self.table.unearned.any():
            return
        self._has_warned = True
        e = int(self.table.unearned.nonzero()[0][0])
        agent = list(self.table.place)[self.table.unearned[e] - 1]
        warnings.warn(
            f"environment {e} rewards agent {agent!r}, which was not there when the step began: it "
            f"had ended, or had not come yet. Such rewards count nowhere: not in returns, not in "
            f"learning, not in team rewards. If they are to count, let the environment keep the "
            f"agent alive until they are given, or train on team_reward and give them to those who "
            f"are there",
            stacklevel=3,
        )

    def _check_open(self) -> None:
        if self.closed:
            raise RuntimeError("env: expected open environments, got closed ones; build them anew")

    def _by_agent(self, name: str) -> ByAgent:
        return {
            agent: getattr(block, name)[:, i].copy()
            for agent, (block, i) in self.table.place.items()
        }

    def _observations(self) -> dict[str, Any]:
        return {
            agent: block.layout.unpack(block.observation[:, i].copy())
            for agent, (block, i) in self.table.place.items()
        }

    def _infos(self) -> dict[str, dict[str, Any]]:
        infos: dict[str, dict[str, Any]] = {}
        for agent, (block, i) in self.table.place.items():
            infos[agent] = info = {
                "exists": block.exists[:, i].copy(),
                "start": block.start[:, i].copy(),
                "env_defined_actions": [
                    action.copy() if forced else None
                    for forced, action in zip(
                        block.forced[:, i], block.forced_action[:, i], strict=True
                    )
                ],
            }
            if block.masked.any():
                info["action_mask"] = masks_of(block)[:, i].copy()
            if block.shown[:, i].any():
                info["final_obs"] = block.layout.unpack(block.final[:, i].copy())
        for e, by_agent in self.final_infos.items():
            for agent, numbers in by_agent.items():
                final = infos[agent].setdefault("final_info", {})
                for name, number in numbers.items():
                    final.setdefault(name, np.full(self.num_envs, np.nan))[e] = number
        return infos

    def __enter__(self) -> "MultiAgentVectorEnv":
        """Return the vector itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()


def masks_of(block: AgentBlock) -> Array:
    """Return the allowed actions, [E, A, n]; all in the environments that give no masks."""
    if block.masked.all():
        return block.mask
    return block.mask | ~block.masked[:, None, None]


class SyncMultiAgentVectorEnv(MultiAgentVectorEnv):
    """All environments in this process, one after the other."""

    def __init__(self, env_fns: Iterable[MakeEnv]) -> None:
        """Build the environments.

        Args:
            env_fns: E functions, each of which builds a PettingZoo environment, or a Gymnasium
                environment with Tuples of agents.

        Raises:
            TypeError: something else than an environment, or a space that is not supported.
            ValueError: no functions, environments that are not alike, or one object for several.

        """
        self.env_fns = makers = _check_makers(env_fns)
        self.envs: list[Any] = []
        for e, make in enumerate(makers):
            self.envs.append(_build_env(make, e))
            if e == 0:
                super().__init__(self.envs[0])
            else:
                check_alike(list(self._spaces.values()), self.envs[e], e)
        check_distinct(self.envs)
        self.num_envs = len(self.envs)
        spaces = list(self._spaces.values())
        self.table = AgentTable(spaces, self.num_envs, state_space=self.state_space)
        self._rows = [environment_rows(env, self.table, e) for e, env in enumerate(self.envs)]

    def reset_rows(self, seeds: Sequence[int | None], options: Any = None) -> None:
        self._check_open()
        self.final_infos = {}
        _execute(("reset", seeds, options), self._rows)

    def step_rows(self) -> None:
        self._check_open()
        _execute(("step",), self._rows)
        self.final_infos = _final_infos(self._rows)
        self._warn_of_unearned()

    def wait_after_episodes(self, waits: bool) -> None:
        self._check_open()
        _execute(("wait", waits), self._rows)

    def _read_state(self) -> None:
        self._check_open()
        _execute(("state",), self._rows)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            for env in self.envs:
                env.close()


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
        self.env_fns = makers = _check_makers(env_fns)
        self.num_envs = len(makers)
        self.options: dict[str, Any] = {
            "num_workers": num_workers,
            "context": context,
            "use_main_process": use_main_process,
            "timeout": timeout,
        }
        num_workers = _worker_count(self.num_envs, num_workers, use_main_process)
        example = _build_env(makers[0], 0)
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
        total = _Allocator()
        AgentTable(spaces, self.num_envs, total.allocate, self.state_space)
        start = mp.get_context(context)
        memory = start.RawArray(ctypes.c_byte, total.used)
        allocate = _Allocator(memory).allocate
        self.table = AgentTable(spaces, self.num_envs, allocate, self.state_space)
        # The environment that each worker is at: when a process dies, the one that ended it.
        self._current = start.RawArray(ctypes.c_int, len(self._parts))
        for i, part in enumerate(self._parts):
            worker = Worker(
                context,
                _work,
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
            )
            self._workers.append(worker)

    def _build_own(self, example: Any) -> None:
        """Build the environments that are stepped here; ``example`` is the first."""
        for e in self._own_part:
            self._envs.append(example if e == 0 else _build_env(self.env_fns[e], e))
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
            return _final_infos(self._rows) | self._wait(own[0], self._timeout)
        except BaseException:
            # After Ctrl-C, answers may still come that would be taken for those to later commands.
            self.close()
            raise

    def _execute_here(self, command: tuple[Any, ...]) -> None:
        """Do a command in the environments of this process, whose draws are their own too."""
        if self._rows:
            work = functools.partial(_execute, command, self._rows, own_generators=True)
            seeds = command[1] if command[0] == "reset" else ()
            self._generators.run(work, next((s for s in reversed(seeds) if s is not None), None))

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
        num_workers = max(min(num_envs, os.cpu_count() or 1) - own, 1)
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


def _work(
    parent: Parent,
    makers: Sequence[MakeEnv],
    part: range,
    agents: Sequence[AgentSpaces],
    state_space: gym.Space[Any] | None,
    num_envs: int,
    memory: Any,
    current: tuple[Any, int],
    mark: str,
) -> None:
    """Build some environments in a worker process, and do the parent's commands.

    Args:
        parent: sends commands; is sent None when the worker is built and after each command, or
            after a step the ``final_infos`` of these environments, if there are any.
        makers: build this worker's environments.
        part: the indices of these environments.
        agents: of the first environment; the others must have the same.
        state_space: likewise.
        num_envs: E, the environments of all workers.
        memory: the table's, shared.
        current: where to note the environment that the worker is at: an array and an index.
        mark: what the first environment was marked with.

    """
    seed_this_process(None)
    array, index = current

    def note(environment: int) -> None:
        array[index] = environment

    table = AgentTable(agents, num_envs, _Allocator(memory).allocate, state_space)
    rows: list[EnvRows] = []
    for e, make in zip(part, makers, strict=True):
        note(e)
        env = _built(make)
        parent.exit_stack.callback(env.close)
        check_alike(agents, env, e)
        rows.append(environment_rows(env, table, e))
        if e and is_marked(env, mark):  # a fork's copy of environment 0
            check_distinct([env, env])
        check_distinct([row.env for row in rows])
    parent.send(None)
    while (command := parent.receive())[0] != "close":
        _execute(command, rows, note, own_generators=True)
        parent.send((command[0] == "step" and _final_infos(rows)) or None)


def _execute(
    command: tuple[Any, ...],
    rows: Sequence[EnvRows],
    note: Callable[[int], None] | None = None,
    *,
    own_generators: bool = False,
) -> None:
    """Reset or step some environments, one after the other.

    Args:
        command: ("reset", the environments' seeds, options), ("step",), ("wait", whether to) or
            ("state",).
        rows: the environments.
        note: called with the index of each environment before its turn.
        own_generators: the global generators are the environments' own: seed them too.

    """
    for k, row in enumerate(rows):
        if note is not None:
            note(row.index)
        try:
            if command[0] == "reset":
                _, seeds, options = command
                if own_generators and seeds[k] is not None:
                    seed_this_process(seeds[k])
                row.reset(seeds[k], options)
            elif command[0] == "wait":
                row.wait(command[1])
            elif command[0] == "state":
                row.read_state()
            else:
                row.step()
        except Exception as error:
            at = f", step {row.time} of its episode" if command[0] == "step" else ""
            error.add_note(f"in {command[0]} of environment {row.index}{at}")
            raise


def _final_infos(rows: Sequence[EnvRows]) -> FinalInfos:
    """Return with what infos episodes have just ended."""
    return {row.index: row.final_infos for row in rows if row.final_infos}


class _Allocator:
    """Allocates arrays one after the other in one piece of memory.

    Attributes:
        memory: the piece of memory; None only counts how much is needed.
        used: bytes so far.

    """

    def __init__(self, memory: Any = None) -> None:
        self.memory, self.used = memory, 0

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> Array:
        kind = np.dtype(dtype)
        begin, count = self.used, int(np.prod(shape))
        self.used += -(-count * kind.itemsize // 64) * 64  # on cache lines of their own
        if self.memory is None:
            return np.zeros(shape, kind)
        return np.frombuffer(self.memory, kind, count, begin).reshape(shape)


def _build_env(make: MakeEnv, index: int) -> Any:
    try:
        return _built(make)
    except Exception as error:
        error.add_note(f"in building of environment {index}")
        raise


def _built(make: MakeEnv) -> Any:
    """Return an environment, those of Gymnasium with Tuples of agents as PettingZoo's."""
    env = make()
    return TupleToParallelWrapper(env) if has_agent_tuples(env) else env


def _check_makers(env_fns: Iterable[MakeEnv]) -> list[MakeEnv]:
    makers = list(env_fns)
    if not makers:
        raise ValueError("env_fns: expected at least one function that builds one, got none")
    for e, make in enumerate(makers):
        check_maker(f"env_fns[{e}]", make)
    return makers


def make_multi_agent_vect_envs(
    env: MakeEnv | Callable[..., Any] | str,
    num_envs: int = 1,
    *,
    should_async_vector: bool = True,
    num_workers: int | None = None,
    context: str | None = None,
    use_main_process: bool = False,
    timeout: float | None = None,
    **env_kwargs: Any,
) -> MultiAgentVectorEnv:
    """Build a vector of environments with several agents, from a function that builds one.

    Environments are PettingZoo's, or Gymnasium's with ``Tuple`` spaces for observations and
    actions, whose entries belong to agent_0, agent_1 and so on; see ``TupleToParallelWrapper``.

    >>> from mpe2 import simple_spread_v3
    >>> env = make_multi_agent_vect_envs(
    ...     simple_spread_v3.parallel_env, 2, should_async_vector=False, max_cycles=25
    ... )
    >>> observations, infos = env.reset(seed=0)
    >>> observations["agent_0"].shape
    (2, 18)

    Args:
        env: such as ``simple_spread_v3.parallel_env``; parallel, AEC, or Gymnasium's with Tuples.
            The id of one of the latter may be given, such as "Foraging-8x8-2p-2f-v3" or
            "rware-tiny-2ag-v2"; see ``make_tuple_env``, also for their time limits.
        num_envs: E >= 1.
        should_async_vector: in worker processes; False runs all in this one, which is faster for
            cheap environments.
        num_workers: processes, see ``AsyncMultiAgentVectorEnv``.
        context: likewise.
        use_main_process: likewise.
        timeout: likewise; in workers only.
        env_kwargs: given to ``env`` each time; with an id, to ``gymnasium.make``.

    Returns:
        the vector; the caller closes it.

    Raises:
        TypeError: ``env`` is no function that builds one, or the id of an environment without
            Tuples of agents; or another library's name for one of these arguments.
        ImportError: the package that has the id is not installed.
        ValueError: num_envs < 1, one object for several environments, or a limit to what nobody
            can interrupt.

    """
    num_envs = checked("num_envs", num_envs, Annotated[int, Range(1, 10**6)])
    should_async_vector = checked("should_async_vector", should_async_vector, bool)
    if timeout is not None and not should_async_vector:
        raise ValueError(
            f"timeout: expected None with should_async_vector=False, as nothing can interrupt the "
            f"environments of this process, got {timeout!r}; leave one of them out"
        )
    check_options("make_multi_agent_vect_envs", env_kwargs, ("num_envs",))
    make = functools.partial(make_tuple_env, env) if isinstance(env, str) else env
    check_maker("env", make)

    def build() -> Any:
        return make(**env_kwargs)

    makers = [build] * num_envs
    if should_async_vector:
        return AsyncMultiAgentVectorEnv(
            makers,
            num_workers=num_workers,
            context=context,
            use_main_process=use_main_process,
            timeout=timeout,
        )
    return SyncMultiAgentVectorEnv(makers)
