"""Gymnasium environments in a vector of our own making: in this process, or in workers.

They differ from Gymnasium's vectors in what happens when something goes wrong, and in keeping an
episode's last observation when the environment writes the next one over it.
"""

import contextlib
import copy
import multiprocessing as mp
import os
import pickle
import queue
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.async_vector_env import _async_worker

from recurrent_rl.envs.names import env_name
from recurrent_rl.envs.parking import Waiting
from recurrent_rl.envs.vector_outputs import PARTS, info, of_old_interface, parts
from recurrent_rl.envs.watchdog import die_with
from recurrent_rl.envs.worker_process import format_traceback
from recurrent_rl.randomness import base_seed, derived_seed, seed_this_process, seeded_globals

MakeEnv = Callable[[], gym.Env[Any, Any]]
CLOSING = 5.0  # seconds for environments to close in


class InProcessVectorEnv(SyncVectorEnv):
    """All environments in this process, one after the other."""

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Reset; with a seed, what environments draw from global generators follows from it too."""
        if seed is None:
            return super().reset(options=options)
        seeds = [seed] if isinstance(seed, int | np.integer) else seed
        with seeded_globals(*(int(s) for s in seeds if s is not None)):
            return super().reset(seed=seed, options=options)

    def _add_info(self, vector_infos: Any, env_info: dict[str, Any], env_num: int) -> Any:
        env_info = info(env_info)
        if "final_obs" in env_info:  # the reset that follows may write over it
            env_info = {**env_info, "final_obs": copy.deepcopy(env_info["final_obs"])}
            _make_room(vector_infos, env_info)
        return super()._add_info(vector_infos, env_info, env_num)


class WorkerVectorEnv(AsyncVectorEnv):
    """Each environment in a process of its own, which ends when this process does.

    An environment that fails, dies, or takes too long is named, and all are closed then.

    Attributes:
        options: keyword arguments, beside the environments, that would build another like it.

    """

    def __init__(
        self,
        env_fns: Sequence[MakeEnv],
        *,
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
        timeout: float | None = None,
    ) -> None:
        """Build one environment here, for its spaces, and each in its worker.

        Args:
            env_fns: build an environment each.
            autoreset_mode: when environments reset themselves.
            timeout: seconds that a step or reset may take; None for no limit.

        Raises:
            RuntimeError: a worker died; with its exit code.

        """
        self.options = {"autoreset_mode": autoreset_mode, "timeout": timeout}
        self._timeout, self._owner, seed = timeout, os.getpid(), base_seed()
        makers = [_Maker(make, i, self._owner, seed) for i, make in enumerate(env_fns)]
        self._labels = makers[0].labels
        try:
            super().__init__(makers, autoreset_mode=autoreset_mode, worker=_work)
        except (EOFError, ConnectionError):
            if getattr(self, "closed", False):
                raise
            self._raise_what_was_told()
            raise self._died("building") from None
        self.env_fns = list(env_fns)

    # --- waiting for the workers ------------------------------------------------------------

    def step_async(self, actions: Any) -> None:
        self._supervised("step", super().step_async, actions)

    def reset_async(self, seed: Any = None, options: dict[str, Any] | None = None) -> None:
        self._supervised("reset", super().reset_async, seed, options)

    def call_async(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        self._supervised(name, super().call_async, name, *args, **kwargs)

    def step_wait(self, timeout: float | None = None) -> Any:
        return self._supervised("step", super().step_wait, self._limit(timeout))

    def reset_wait(self, timeout: float | None = None) -> Any:
        return self._supervised("reset", super().reset_wait, self._limit(timeout))

    def call_wait(self, timeout: float | None = None) -> Any:
        return self._supervised("call", super().call_wait, self._limit(timeout))

    def _limit(self, timeout: float | None) -> float | None:
        return self._timeout if timeout is None else timeout

    def _supervised(self, command: str, do: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return do(*args, **kwargs)
        except mp.TimeoutError:
            late = [i for i, pipe in enumerate(self.parent_pipes) if not pipe.poll()]
            self.close(timeout=1)
            raise TimeoutError(
                f"{self._names(late)}: expected an answer to {command} within {args[0]} seconds, "
                f"got none (all environments are closed now); see whether it hangs, or give "
                f"make_vect_envs a longer timeout"
            ) from None
        except (EOFError, ConnectionError):
            if self.closed:  # an environment's own error
                raise
            self._raise_what_was_told()
            raise self._died(command) from None

    @property
    def label(self) -> str:
        """What the environments are called."""
        return self._labels[0]

    def _names(self, indices: Sequence[int]) -> str:
        which = ", ".join(map(str, indices)) or "?"
        return f"environment {which} ({self.label})"

    def _died(self, command: str) -> RuntimeError:
        """Close all, and return an error that says which worker died of what."""
        ended = wait([process.sentinel for process in self.processes], CLOSING)
        for process in self.processes:
            if process.sentinel in ended:
                process.join(1)  # its pipes close a moment before it has ended
        codes = {i: process.exitcode for i, process in enumerate(self.processes)}
        dead = {i: code for i, code in codes.items() if code is not None}
        self.close(timeout=1)
        return RuntimeError(
            f"{self._names(list(dead))}: its worker process died with exit code "
            f"{', '.join(map(str, dead.values())) or '?'} in {command} (all environments are "
            f"closed now); -9 is often a lack of memory, -11 a fault in compiled code"
        )

    def _raise_what_was_told(self) -> None:
        """Raise the error of a worker that has told it, and was gone before it was asked again."""
        wait([process.sentinel for process in self.processes], 1)
        if any(process.exitcode == 0 for process in self.processes):
            with contextlib.suppress(queue.Empty):
                self._raise(*self.error_queue.get(timeout=1))

    def _raise_if_errors(self, successes: Any) -> None:
        failed = [i for i, success in enumerate(successes) if not success]
        if not failed:
            return
        try:
            told = self.error_queue.get(timeout=CLOSING)
        except queue.Empty:
            told = failed[0], None, RuntimeError("an error that no process can send"), ""
        self._raise(*told)

    def _raise(self, index: int, _: Any, error: Exception, trace: str) -> None:
        state = {"default": "building"}.get(str(self._state.value), str(self._state.value))
        self.close(timeout=1)
        self.closed = True
        error.add_note(
            f"in {state} of {self._names([index])}; all environments are closed now\n{trace}"
        )
        raise error

    def _add_info(self, vector_infos: Any, env_info: dict[str, Any], env_num: int) -> Any:
        if "final_obs" in env_info:
            _make_room(vector_infos, env_info)
        return super()._add_info(vector_infos, env_info, env_num)

    # --- episodes that wait -----------------------------------------------------------------

    def wait_after_episodes(self, waits: bool) -> None:
        """Let environments wait for a reset after their episodes, or go on by themselves."""
        self.call("wait_after_episodes", waits)

    def release(self) -> None:
        """Let the next reset be one."""
        self.call("release")

    # --- the end ----------------------------------------------------------------------------

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """End the workers: ask them to leave, and after a while make them.

        Args:
            timeout: seconds for the environments to close in; None for 5.
            terminate: do not wait.

        """
        if os.getpid() != self._owner:  # a copy of the vector in a forked process
            return
        seconds = 0.0 if terminate else CLOSING if timeout is None else timeout
        deadline = time.monotonic() + seconds
        pipes = [pipe for pipe in self.parent_pipes if pipe is not None and not pipe.closed]
        for pipe in pipes:
            with contextlib.suppress(OSError):
                pipe.send(("close", None))
        for pipe in pipes:
            with contextlib.suppress(EOFError, OSError):
                while pipe.poll(max(deadline - time.monotonic(), 0)):
                    pipe.recv_bytes()  # until its end
            pipe.close()
        for process in self.processes:
            process.join(max(deadline - time.monotonic(), 0))
            for end in (process.terminate, process.kill):
                if process.is_alive():
                    end()
                    process.join(1)
            process.join()


def _make_room(vector_infos: dict[str, Any], env_info: dict[str, Any]) -> None:
    """Let the arrays of final infos hold what another environment is about to put there.

    Gymnasium chooses their types by who comes first: 0.5 becomes 0 beside somebody's integer, and
    True beside somebody's bool.
    """
    arrays, final = vector_infos.get("final_info"), env_info.get("final_info")
    if not isinstance(arrays, dict) or not isinstance(final, dict):
        return
    for name, value in final.items():
        array = arrays.get(name)
        if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype == object:
            continue
        is_number = isinstance(value, bool | int | float | np.generic)
        kind = np.asarray(value).dtype if is_number else np.dtype(object)
        both = np.result_type(array, kind) if kind.kind in "biuf" else np.dtype(object)
        if both != array.dtype:
            arrays[name] = array.astype(both)


class _Member(Waiting):
    """An environment in its worker."""

    def __init__(self, env: Any, index: int) -> None:
        super().__init__(env, waits=False)
        self._index = index

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        seed = options.get("seed")
        if seed is not None:
            seed_this_process(int(seed))
        try:
            observation, about = parts("reset", super().reset(**options), PARTS["reset"])
            return observation, info(about)
        except Exception as error:
            said = of_old_interface("reset", error)
            raise _portable(error if said is None else said) from None

    def step(self, action: Any) -> tuple[Any, ...]:
        try:
            returned = parts("step", super().step(action), PARTS["step"])
        except Exception as error:
            raise _portable(error) from None
        if returned[2] or returned[3]:  # the reset that follows may write over it
            return (copy.deepcopy(returned[0]), *returned[1:])
        return returned


def _portable(error: Exception) -> Exception:
    """Return an exception that can cross processes, with the traceback it has."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does
        return RuntimeError(format_traceback(error))
    return error


class _Maker:
    """Builds an environment; in a worker also prepares the process for it."""

    def __init__(self, make: MakeEnv, index: int, parent: int, seed: int) -> None:
        self.make, self.index, self.parent, self.seed = make, index, parent, seed
        self.labels: list[str] = []  # names of what was built here

    def __call__(self) -> Any:
        if os.getpid() == self.parent:  # Gymnasium wants to see one
            env = self.make()
            self.labels.append(env_name(env))
            return env
        die_with(self.parent)
        seed_this_process(derived_seed(self.seed, self.index))
        return _Member(self.make(), self.index)


def _work(
    index: int, make: Any, pipe: Any, parent_pipe: Any, shared: Any, errors: Any, *rest: Any
) -> None:
    """Run Gymnasium's worker; an environment that cannot be built is its error too."""
    try:
        _async_worker(index, make, pipe, parent_pipe, shared, errors, *rest)
    except Exception as error:
        portable = _portable(error)
        errors.put((index, type(portable), portable, format_traceback(error)))
        pipe.send((None, False))
