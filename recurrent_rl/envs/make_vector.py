"""Building vectors of environments for one agent.

Letters: E environments.
"""

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv

from recurrent_rl.envs.envpool_vector import EnvPoolVectorEnv
from recurrent_rl.envs.gymnasium_vector import one_for_all
from recurrent_rl.envs.gymnasium_workers import InProcessVectorEnv, WorkerVectorEnv
from recurrent_rl.envs.makers import check_maker, check_options, described, is_maker, remedy
from recurrent_rl.validation import ENVIRONMENTS, checked, meant

if TYPE_CHECKING:

    class TypedVectorEnv(VectorEnv[Any, Any, Any]):
        """Gymnasium's, with types for what it leaves open; strict checkers would complain."""

        single_observation_space: gym.Space[Any]
        single_action_space: gym.Space[Any]
else:
    TypedVectorEnv = VectorEnv


def make_vect_envs(
    env_name: str | None = None,
    num_envs: int = 1,
    *,
    make_env: Callable[[], gym.Env[Any, Any]] | None = None,
    should_async_vector: bool = True,
    timeout: float | None = None,
    backend: Literal["gymnasium", "envpool"] = "gymnasium",
    **env_kwargs: Any,
) -> TypedVectorEnv:
    """Build a vector environment with autoreset mode SAME_STEP; of EnvPool's, NEXT_STEP.

    Args:
        env_name: a registered Gymnasium id; or else
        make_env: a function that builds one environment.
        num_envs: E >= 1.
        should_async_vector: each environment in a process of its own, which pays for slow
            environments only; False runs all in this process.
        timeout: seconds that a step or reset of the environments in processes may take before it
            is an error; None for no limit.
        backend: "envpool" takes EnvPool's environments (extra: envpool), which threads step in
            compiled code: many at a time, of those that it has. Wrappers of single environments do
            not go around them; ``MaskVelocityVectorWrapper`` does.
        env_kwargs: for ``gymnasium.make``, or EnvPool's ``make_gymnasium``; only with env_name.

    Returns:
        the vector environment; the caller closes it.

    Raises:
        ImportError: backend="envpool" without EnvPool.
        TypeError: no id, or no function; or another library's name for one of these arguments.
        ValueError: neither or both of env_name and make_env, options without env_name, or
            num_envs < 1; with EnvPool an id that it does not have, or options that it lacks.

    """
    check_options("make_vect_envs", env_kwargs, ("num_envs",))
    if (env_name is None) == (make_env is None):
        raise ValueError(
            f"make_vect_envs: expected one of env_name and make_env, got {env_name=}, {make_env=}"
        )
    if make_env is not None and env_kwargs:
        hints = [meant(name, ("num_envs", "should_async_vector", "timeout")) for name in env_kwargs]
        raise ValueError(
            f"make_vect_envs: expected options for gymnasium.make with env_name only, got "
            f"{env_kwargs} beside make_env{''.join(hints)}"
        )
    num_envs = checked("num_envs", num_envs, Annotated[int, ENVIRONMENTS])
    should_async_vector = checked("should_async_vector", should_async_vector, bool)
    backend = checked("backend", backend, Literal["gymnasium", "envpool"])
    if backend == "envpool":
        _check_for_threads(make_env, should_async_vector, timeout)
        pool = EnvPoolVectorEnv(cast(str, env_name), num_envs, **env_kwargs)
        return cast(TypedVectorEnv, pool)
    _check_maker(env_name, make_env)
    if timeout is not None and not (should_async_vector and timeout > 0):
        raise ValueError(
            f"timeout: expected seconds above 0 for environments in processes, got {timeout} with "
            f"{should_async_vector=}; nothing can interrupt a step in this process"
        )
    token = f"_recurrent_rl_built_{uuid.uuid4().hex}"

    def build() -> gym.Env[Any, Any]:
        made = gym.make(env_name, **env_kwargs) if make_env is None else make_env()  # type: ignore[arg-type]
        if not isinstance(made, gym.Env):
            raise TypeError(
                f"make_env: expected a function that returns a Gymnasium environment, got "
                f"{type(made).__name__}; for PettingZoo's there is make_multi_agent_vect_envs"
            )
        own = getattr(made.unwrapped, "__dict__", {})
        if token in own and num_envs > 1:
            raise one_for_all()
        own[token] = True
        return made

    makers = [build] * num_envs
    if should_async_vector:
        return cast(TypedVectorEnv, WorkerVectorEnv(makers, timeout=timeout))
    made = InProcessVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    return cast(TypedVectorEnv, made)


def _check_for_threads(make_env: Any, should_async_vector: bool, timeout: float | None) -> None:
    """Raise ValueError for what makes no sense where EnvPool builds and steps environments."""
    if make_env is not None:
        raise ValueError(
            "make_env: expected env_name with backend='envpool', which builds environments of its "
            "own in compiled code, got a function; leave backend out"
        )
    if not should_async_vector:
        raise ValueError(
            "should_async_vector: expected to be left out with backend='envpool', whose "
            "environments run in threads, got False; num_threads=1 has them in one"
        )
    if timeout is not None:
        raise ValueError(
            f"timeout: expected None with backend='envpool', got {timeout}; nothing can interrupt "
            f"a step of its threads"
        )


def _check_maker(env_name: Any, make_env: Any) -> None:
    """Raise TypeError if something else stands where a name or a function should."""
    if make_env is not None:
        check_maker("make_env", make_env, "make_env=")
    elif not isinstance(env_name, str | EnvSpec):
        what = described(env_name)
        hint = "pass it as make_env=" if is_maker(env_name) else remedy(env_name, "make_env=")
        raise TypeError(f"env_name: expected a registered Gymnasium id, got {what}; {hint}")
