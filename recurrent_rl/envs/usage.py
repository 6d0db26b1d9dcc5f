"""Who has used an environment last: only that collection may continue on it.

An agent collects from a vector, tests in a wrapper around it or in one of its environments, and so
on; what counts are the innermost environments, which all of these share. Each gets a mark.
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
    """Note who has used the innermost environments; None: somebody who will not come back."""
    envs = innermost(env)
    for place, each in enumerate(envs):
        setattr(each, _MARK, None if user is None else (user, place, len(envs)))


def is_marked(env: Any, user: object) -> bool:
    """Whether ``user`` was the last one to use these environments, all of them in this order."""
    marks = [getattr(each, _MARK, None) for each in innermost(env)]
    return all(
        found is not None and found[0] is user and found[1:] == (place, len(marks))
        for place, found in enumerate(marks)
    )
