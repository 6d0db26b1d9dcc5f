"""Who has used an environment last: only that collection may continue on it.

An agent collects from a vector, tests in a wrapper around it or in one of its environments, and so
on; what counts are the innermost environments, which all of these share, and the innermost vector,
which may know of resets that are still to come. Each gets a mark.
"""

from typing import Any

_MARK = "_recurrent_rl_used_by"


def innermost(env: Any) -> list[Any]:
    """Return the environments at the bottom of a vector (or of one environment) and its wrappers.

    A vector that keeps its environments to itself, in other processes for example, is innermost.
    """
    bottom = getattr(env, "unwrapped", env)
    inner = getattr(bottom, "envs", None)
    if isinstance(inner, list | tuple) and inner:
        return [getattr(each, "unwrapped", each) for each in inner]
    return [bottom]


def mark(env: Any, user: object | None) -> None:
    """Note who has used an environment; None: somebody who will not come back."""
    for each in (getattr(env, "unwrapped", env), *innermost(env)):
        setattr(each, _MARK, user)


def is_marked(env: Any, user: object) -> bool:
    """Whether ``user`` was the last one to use the innermost vector and all its environments."""
    used = (getattr(env, "unwrapped", env), *innermost(env))
    return all(getattr(each, _MARK, None) is user for each in used)
