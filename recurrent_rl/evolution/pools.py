"""Which pool trains a population: what arguments of a training function ask for."""

import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal

from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from recurrent_rl.envs.envpool_vector import EnvPoolVectorEnv
from recurrent_rl.envs.gymnasium_vector import autoreset_mode
from recurrent_rl.envs.gymnasium_workers import InProcessVectorEnv, WorkerVectorEnv
from recurrent_rl.envs.multi_agent_async import AsyncMultiAgentVectorEnv
from recurrent_rl.envs.multi_agent_sync import SyncMultiAgentVectorEnv
from recurrent_rl.evolution.pool import Pool, SerialPool, portable
from recurrent_rl.evolution.process_pool import ProcessPool
from recurrent_rl.evolution.ray_pool import RayPool, import_ray
from recurrent_rl.validation import COUNT, THREADS, checked, shown


def pool_opener(
    env: Any,
    make_env: Callable[[], Any] | None,
    workers: int | Literal["ray"],
    threads: int,
    jobs: int,
) -> Callable[[], Pool]:
    """Return a function that opens the pool which arguments of a training function ask for.

    Args:
        env: the vector environment of a pool with one worker.
        make_env: builds each worker's vector environment; None builds it like ``env``.
        workers: number of processes, or "ray" for as many as Ray has CPUs for.
        threads: torch's threads, for each individual.
        jobs: how many there are at most, so how many workers are of use.

    Raises:
        ImportError: "ray", which is not installed.
        TypeError: no function, or one that cannot be sent to another process.
        ValueError: a number out of range, or an environment that nobody knows how to build again.

    """
    if isinstance(workers, str) and workers != "ray":
        raise ValueError(f"workers: expected a number or 'ray', got {shown(workers)}")
    count = 0 if workers == "ray" else checked("workers", workers, Annotated[int, COUNT])
    threads = checked("threads", threads, Annotated[int, THREADS])
    if make_env is not None and not callable(make_env):
        raise TypeError(
            f"make_env: expected a function that builds a vector environment, got {shown(make_env)}"
        )
    build = builder_of(env) if count != 1 and make_env is None else make_env
    if build is not None and workers == "ray":
        import_ray()
        return functools.partial(RayPool, portable("make_env", build), env.num_envs, threads)
    count = min(count, jobs)
    if build is not None and count > 1:
        build_there = portable("make_env", build)
        return functools.partial(ProcessPool, build_there, env.num_envs, count, threads)
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
    if kind is EnvPoolVectorEnv:
        return functools.partial(EnvPoolVectorEnv, env.env_name, env.num_envs, **env.options)
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
