"""Functions that build environments, and what people give in their place."""

import types
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv
from pettingzoo import AECEnv, ParallelEnv

from recurrent_rl.aliases import ALIASES
from recurrent_rl.validation import shown


def check_maker(name: str, make: Any, keyword: str = "") -> None:
    """Check that something is a function that builds an environment.

    Args:
        name: what messages call it.
        make: it.
        keyword: how it is passed, "make_env=" for example, for the remedy.

    Raises:
        TypeError: it is an environment, a module, or something else; says what to write instead.

    """
    if not is_maker(make):
        raise TypeError(
            f"{name}: expected a function that builds an environment, got {described(make)}; "
            f"{remedy(make, keyword)}"
        )


def is_maker(make: Any) -> bool:
    """Whether something is a function, or a class, that may build environments."""
    return isinstance(make, type) or (callable(make) and not _is_environment(make))


def described(value: Any) -> str:
    """Return what something is that is no function, as messages say it."""
    if isinstance(value, types.ModuleType):
        return f"module {value.__name__}"
    is_one = ", which is one" if _is_environment(value) else ""
    return f"{type(value).__name__} {_short(value)}{is_one}"


def remedy(value: Any, keyword: str = "") -> str:
    """Return what to write in the place of something that is no function."""
    if isinstance(value, types.ModuleType):
        kinds = [kind for kind in ("parallel_env", "env") if callable(getattr(value, kind, None))]
        if kinds:
            return f"pass its function: make_multi_agent_vect_envs({value.__name__}.{kinds[0]})"
        return "pass a function of it that builds an environment"
    if isinstance(value, VectorEnv) or hasattr(value, "num_envs"):
        return "it is a vector already: use it as it is"
    if isinstance(value, str):
        return "pass it as env_name"
    if isinstance(value, Sequence) and all(map(callable, value)):
        return "pass one function, and num_envs= for how many"
    call = "MyEnv()"
    if _is_environment(value):
        call = f"{type(getattr(value, 'unwrapped', value)).__name__}(...)"
    return f"write {keyword}lambda: {call}, which builds a new one each time"


def check_options(function: str, options: Mapping[str, Any], own: Sequence[str]) -> None:
    """Refuse options for environments that are another library's names of a function's own.

    Args:
        function: whose.
        options: that would be passed on.
        own: names of the function's arguments.

    Raises:
        TypeError: there is one; says what it is called here.

    """
    for name in options:
        alias = ALIASES.get(name.lower())
        here = [each for each in alias.names if each in own] if alias else []
        if here:
            raise TypeError(f"{function} has no argument {name!r}; it is called {here[0]} here")


def _is_environment(value: Any) -> bool:
    kinds = (gym.Env, VectorEnv, ParallelEnv, AECEnv)
    return isinstance(value, kinds) or hasattr(value, "num_envs")


def _short(value: Any) -> str:
    text = shown(value)
    return text if len(text) <= 80 else text[:77] + "..."
