"""A vector of PettingZoo environments from a function that builds one."""

import functools
from collections.abc import Callable
from typing import Annotated, Any

from recurrent_rl.envs.makers import check_maker, check_options
from recurrent_rl.envs.multi_agent_async import AsyncMultiAgentVectorEnv
from recurrent_rl.envs.multi_agent_members import MakeEnv
from recurrent_rl.envs.multi_agent_sync import SyncMultiAgentVectorEnv
from recurrent_rl.envs.multi_agent_vector import MultiAgentVectorEnv
from recurrent_rl.validation import ENVIRONMENTS, checked
from recurrent_rl.wrappers.tuple_to_parallel import make_tuple_env


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
    num_envs = checked("num_envs", num_envs, Annotated[int, ENVIRONMENTS])
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
