"""Vectors of PettingZoo environments, in this process or in others.

Letters: E environments, A agents of a block.
"""

import contextlib
import ctypes
import itertools
import multiprocessing as mp
import os
import signal
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import CloudpickleWrapper

from recurrent_rl.envs.agent_table import (
    AgentBlock,
    AgentSpaces,
    AgentTable,
    EnvRows,
    check_alike,
    describe,
    formatted,
    play,
)
from recurrent_rl.spaces.array import Array

MakeEnv = Callable[[], Any]
Seeds = int | Sequence[int | None] | None
ByAgent = dict[str, Array]


class MultiAgentVectorEnv(ABC):
    """E PettingZoo environments with the same agents, stepped together.

    An episode that ends is followed by the next at once; its last observations are in the infos.
    Observations, rewards and flags are dictionaries by agent of arrays [E, ...] (of observations in
    Dict and Tuple spaces, the dictionaries and tuples of these), infos are dictionaries by agent of

    * ``exists``: the observation is real, bool [E]; zeros stand where it is not;
    * ``start``: an agent's life begins with it, so a policy's memory must be zeroed, bool [E];
    * ``env_defined_actions``: a list of E entries, None or the action that will be taken;
    * ``action_mask``: allowed actions, bool [E, n], if the environment gives any;
    * ``final_obs``: the last observation where truncated, [E, ...]; elsewhere meaningless; there
      if any of the truncated was shown one.

    Attributes:
        num_envs: E.
        possible_agents: all there may ever be.
        table: the arrays themselves, which ``reset_rows`` and ``step_rows`` read and write.

    """

    num_envs: int
    table: AgentTable

    def __init__(self, agents: Sequence[AgentSpaces]) -> None:
        """Take over what ``describe`` found."""
        self._spaces = {spaces.agent: spaces for spaces in agents}
        self.possible_agents = list(self._spaces)
        self.closed = False

    @abstractmethod
    def reset_rows(self, seeds: Sequence[int | None], options: Any = None) -> None:
        """Start all episodes afresh, for those who read the table."""

    @abstractmethod
    def step_rows(self) -> None:
        """Take the table's actions."""

    @abstractmethod
    def close(self) -> None:
        """Close the environments; safe to call twice."""

    @property
    def agents(self) -> list[str]:
        """All agents: who is there at the moment, the infos say."""
        return self.possible_agents

    def single_observation_space(self, agent: str) -> gym.Space[Any]:
        """Return an agent's observation space, without the action mask that may come with it."""
        return self._spaces[agent].observation

    def single_action_space(self, agent: str) -> gym.Space[Any]:
        """Return an agent's action space."""
        return self._spaces[agent].action

    @property
    def observation_spaces(self) -> dict[str, gym.Space[Any]]:
        """By agent."""
        return {agent: spaces.observation for agent, spaces in self._spaces.items()}

    @property
    def action_spaces(self) -> dict[str, gym.Space[Any]]:
        """By agent."""
        return {agent: spaces.action for agent, spaces in self._spaces.items()}

    def reset(
        self, seed: Seeds = None, options: Any = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Start all episodes afresh.

        Args:
            seed: environment e gets seed + e, or seed[e] of a list.
            options: for every environment.

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
            actions: [E, *shape] by agent; those of absent agents mean nothing, those of agents
                whose action the environment defines are replaced.

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
        return infos

    def __enter__(self) -> "MultiAgentVectorEnv":
        """Return the vector itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()


def masks_of(block: AgentBlock) -> Array:
    """Allowed actions, [E, A, n]; everything in the environments that give no masks."""
    if block.masked.all():
        return block.mask
    return block.mask | ~block.masked[:, None, None]


class SyncMultiAgentVectorEnv(MultiAgentVectorEnv):
    """All environments in this process, one after the other."""

    def __init__(self, env_fns: Iterable[MakeEnv]) -> None:
        """Build the environments.

        Args:
            env_fns: E functions, each of which builds a PettingZoo environment.

        Raises:
            TypeError: something else than an environment, or a space that is not supported.
            ValueError: no functions, or environments that are not alike.

        """
        self.env_fns = makers = _checked(env_fns)
        self.envs: list[Any] = []
        for e, make in enumerate(makers):
            self.envs.append(_built(make, e))
            if e == 0:
                super().__init__(describe(self.envs[0]))
            else:
                check_alike(list(self._spaces.values()), self.envs[e], e)
        self.num_envs = len(self.envs)
        self.table = AgentTable(list(self._spaces.values()), self.num_envs)
        self._rows = [play(env, self.table, e) for e, env in enumerate(self.envs)]

    def reset_rows(self, seeds: Sequence[int | None], options: Any = None) -> None:
        self._check_open()
        _obey(self._rows, ("reset", seeds, options))

    def step_rows(self) -> None:
        self._check_open()
        _obey(self._rows, ("step",))

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            for env in self.envs:
                env.close()


class AsyncMultiAgentVectorEnv(MultiAgentVectorEnv):
    """Environments in worker processes, several in each, over shared memory.

    Ends with its workers: they leave when this process does, however it does, and an error in one
    of them closes all.
    """

    def __init__(
        self,
        env_fns: Iterable[MakeEnv],
        *,
        num_workers: int | None = None,
        context: str | None = None,
        use_main_process: bool = False,
    ) -> None:
        """Build one environment here, for its spaces, and all of them in the workers.

        Args:
            env_fns: E functions, each of which builds a PettingZoo environment.
            num_workers: processes, in [1, E]; None takes one for each CPU core.
            context: how to start them: "fork", "spawn" or "forkserver"; None takes Python's
                default. "spawn" needs the guard ``if __name__ == "__main__":`` in scripts.
            use_main_process: step the first environments here, beside the workers, instead of
                waiting for them. Fewer processes to wake: with one worker less than there are cores
                it is the fastest where environments cost little.

        Raises:
            TypeError: something else than an environment, or a space that is not supported.
            ValueError: no functions, or environments that are not alike.
            RuntimeError: an environment could not be built; with the worker's traceback.

        """
        self.env_fns = makers = _checked(env_fns)
        self.options = {"num_workers": num_workers, "context": context}
        self.options["use_main_process"] = use_main_process
        self.num_envs = len(makers)
        here = int(use_main_process)
        most = self.num_envs - here
        if num_workers is None:
            num_workers = max(min(self.num_envs, os.cpu_count() or 1) - here, 1)
        if not 1 <= num_workers <= most:
            raise ValueError(
                f"num_workers: expected a number in [1, {most}], as there are {self.num_envs} "
                f"environments{', one of them here' if here else ''}, got {num_workers}"
            )
        example = _built(makers[0], 0)
        super().__init__(describe(example))
        if not here:
            example.close()
        spaces = list(self._spaces.values())
        start = mp.get_context(context)
        size = _Arena()
        AgentTable(spaces, self.num_envs, size.take)
        memory = start.RawArray(ctypes.c_byte, size.used)
        self.table = AgentTable(spaces, self.num_envs, _Arena(memory).take)
        # Which environment a worker is at: tells whose fault it is when the process dies.
        self._current = start.RawArray(ctypes.c_int, num_workers)
        count = num_workers + here
        bounds = [self.num_envs * i // count for i in range(count + 1)]
        self._parts = list(itertools.pairwise(bounds))
        self._connections: list[Connection] = []
        self._processes: list[Any] = []
        self._finalizer = weakref.finalize(
            self, _shut_down, self._connections, self._processes, os.getpid()
        )
        own = range(*self._parts.pop(0)) if here else range(0)
        for i, (first, last) in enumerate(self._parts):
            ours, theirs = start.Pipe()
            process = start.Process(  # type: ignore[attr-defined]
                target=_work,
                name=f"environments {first} to {last - 1}",
                args=(
                    theirs,
                    ours,
                    [CloudpickleWrapper(make) for make in makers[first:last]],
                    range(first, last),
                    spaces,
                    self.num_envs,
                    memory,
                    (self._current, i),
                ),
                daemon=True,
            )
            process.start()
            theirs.close()  # or its end of file would never come
            self._connections.append(ours)
            self._processes.append(process)
        # After the workers were started: a fork would take these along.
        self._envs: list[Any] = []
        self._rows: list[EnvRows] = []
        try:
            for e in own:
                self._envs.append(example if e == 0 else _built(makers[e], e))
                check_alike(spaces, self._envs[e], e)
                self._rows.append(play(self._envs[e], self.table, e))
            self._wait("building")
        except BaseException:
            self.close()
            raise

    def _wait(self, doing: str) -> None:
        """Wait until all workers are done with a command, or raise what went wrong in one."""
        failure: tuple[int, str] | None = None
        for i, connection in enumerate(self._connections):
            try:
                message = connection.recv()
            except (EOFError, ConnectionError):
                message = ""
            if message is not None and failure is None:
                failure = (i, message)
        if failure is not None:
            self._fail(*failure, doing)

    def _fail(self, worker: int, message: str, doing: str) -> NoReturn:
        environment = self._current[worker]
        if not message:
            process = self._processes[worker]
            process.join(1)
            message = f"its worker process died with exit code {process.exitcode}"
        self.close()
        raise RuntimeError(
            f"environment {environment} failed in {doing} (all environments are closed now):\n"
            f"{message}"
        )

    def _send(self, command: Callable[[int, int], Any], doing: str) -> None:
        self._check_open()
        try:
            for connection, (first, last) in zip(self._connections, self._parts, strict=True):
                # If the worker is dead, reading from it says so, and why.
                with contextlib.suppress(ConnectionError):
                    connection.send(command(first, last))
            _obey(self._rows, command(0, len(self._rows)))
            self._wait(doing)
        except BaseException:
            # After Ctrl-C, say, answers that are still to come would be taken for later ones.
            self.close()
            raise

    def reset_rows(self, seeds: Sequence[int | None], options: Any = None) -> None:
        self._send(lambda first, last: ("reset", seeds[first:last], options), "reset")

    def step_rows(self) -> None:
        self._send(lambda first, last: ("step",), "step")

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            for env in self._envs:
                env.close()
        self._finalizer()


def _shut_down(connections: list[Connection], processes: list[Any], owner: int) -> None:
    """Ask the workers to close their environments and leave; insist after a while."""
    if os.getpid() != owner:  # a forked child's copy of the vector, which owns no worker
        return
    for connection in connections:
        with contextlib.suppress(OSError):  # it has left already
            connection.send(("close",))
    for process in processes:
        process.join(5)
        if process.is_alive():
            process.kill()
            process.join()
    for connection in connections:
        connection.close()


def _work(
    connection: Connection,
    parents_end: Connection,
    makers: Sequence[MakeEnv],
    numbers: range,
    agents: Sequence[AgentSpaces],
    num_envs: int,
    memory: Any,
    current: tuple[Any, int],
) -> None:
    """Live a worker's life: build some environments, and do what comes through the pipe."""
    parent = os.getppid()
    parents_end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    envs: list[Any] = []

    def at(environment: int) -> None:
        current[0][current[1]] = environment

    try:
        table = AgentTable(agents, num_envs, _Arena(memory).take)
        rows = []
        for e, make in zip(numbers, makers, strict=True):
            at(e)
            envs.append(make())
            check_alike(agents, envs[-1], e)
            rows.append(play(envs[-1], table, e))
        connection.send(None)
        while True:
            while not connection.poll(1):
                # Workers hold each other's pipes open: a killed parent may close none of them.
                if os.getppid() != parent:
                    return
            command = connection.recv()
            if command[0] == "close":
                return
            _obey(rows, command, at)
            connection.send(None)
    except (EOFError, ConnectionError):
        return  # the parent is gone
    except Exception as error:
        connection.send(formatted(error))
    finally:
        for env in envs:
            env.close()


def _obey(
    rows: Sequence[EnvRows], command: tuple[Any, ...], at: Callable[[int], object] = int
) -> None:
    """Reset or step some environments; tell ``at`` whose turn it is."""
    for k, row in enumerate(rows):
        at(row.index)
        try:
            if command[0] == "reset":
                _, seeds, options = command
                row.reset(seeds[k], options)
            else:
                row.step()
        except Exception as error:
            error.add_note(f"in {command[0]} of environment {row.index}")
            raise


class _Arena:
    """Arrays one after the other in one piece of memory; without memory, counts how much."""

    def __init__(self, memory: Any = None) -> None:
        self.memory, self.used = memory, 0

    def take(self, shape: tuple[int, ...], dtype: Any) -> Array:
        kind = np.dtype(dtype)
        begin, count = self.used, int(np.prod(shape))
        self.used += -(-count * kind.itemsize // 64) * 64  # on cache lines of their own
        if self.memory is None:
            return np.zeros(shape, kind)
        return np.frombuffer(self.memory, kind, count, begin).reshape(shape)


def _built(make: MakeEnv, index: int) -> Any:
    try:
        return make()
    except Exception as error:
        error.add_note(f"in building of environment {index}")
        raise


def _checked(env_fns: Iterable[MakeEnv]) -> list[MakeEnv]:
    makers = list(env_fns)
    if not makers:
        raise ValueError("env_fns: expected at least one function that builds one, got none")
    for e, make in enumerate(makers):
        if not callable(make):
            raise TypeError(
                f"env_fns[{e}]: expected a function that builds an environment, got "
                f"{type(make).__name__}; write lambda: env"
            )
    return makers


def make_multi_agent_vect_envs(
    env: MakeEnv | Callable[..., Any],
    num_envs: int = 1,
    *,
    should_async_vector: bool = True,
    num_workers: int | None = None,
    context: str | None = None,
    use_main_process: bool = False,
    **env_kwargs: Any,
) -> MultiAgentVectorEnv:
    """Build a vector of PettingZoo environments from a function that builds one.

    >>> from mpe2 import simple_spread_v3
    >>> env = make_multi_agent_vect_envs(
    ...     simple_spread_v3.parallel_env, 2, should_async_vector=False, max_cycles=25
    ... )
    >>> observations, infos = env.reset(seed=0)
    >>> observations["agent_0"].shape
    (2, 18)

    Args:
        env: such as ``simple_spread_v3.parallel_env``; parallel or AEC.
        num_envs: E >= 1.
        should_async_vector: in worker processes; False runs all in this one, which is faster for
            cheap environments.
        num_workers: processes, see ``AsyncMultiAgentVectorEnv``.
        context: likewise.
        use_main_process: likewise.
        env_kwargs: given to ``env`` each time.

    Returns:
        the vector; the caller closes it.

    Raises:
        ValueError: num_envs < 1.

    """
    if num_envs < 1:
        raise ValueError(f"num_envs: expected at least 1, got {num_envs}")

    def build() -> Any:
        return env(**env_kwargs)

    makers = [build] * num_envs
    if should_async_vector:
        return AsyncMultiAgentVectorEnv(
            makers, num_workers=num_workers, context=context, use_main_process=use_main_process
        )
    return SyncMultiAgentVectorEnv(makers)
