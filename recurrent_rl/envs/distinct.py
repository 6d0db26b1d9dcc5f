"""Whether the environments of a vector are different objects, down to the innermost."""

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
from pettingzoo import AECEnv, ParallelEnv

_MARK = "_recurrent_rl_example"
# The names under which wrappers and converters, of PettingZoo and others, keep what they wrap.
_INNER = ("env", "_env", "aec_env", "par_env")


def layers(env: Any) -> Iterator[Any]:
    """Yield an environment and all that it wraps, as far as can be seen."""
    seen: set[int] = set()
    waiting = [env]
    while waiting:
        each = waiting.pop()
        if id(each) in seen or not isinstance(each, ParallelEnv | AECEnv | gym.Env):
            continue
        seen.add(id(each))
        yield each
        own = getattr(each, "__dict__", {})
        waiting += [own[name] for name in _INNER if name in own]
        waiting.append(getattr(each, "unwrapped", None))


def check_distinct(envs: Sequence[Any]) -> None:
    """Raise ValueError if an object is part of two environments."""
    owner: dict[int, int] = {}
    for e, env in enumerate(envs):
        for layer in layers(env):
            if owner.setdefault(id(layer), e) != e:
                raise ValueError(
                    f"env: expected an environment of its own for each place of the vector, got "
                    f"one {type(layer).__name__} object for several, whose episodes would run into "
                    f"each other; let the function build a new one each time: lambda: MyEnv(), not "
                    f"lambda: env"
                )


def mark_example(env: Any) -> str:
    """Mark an environment, so that copies of it in forked processes can be told; return how."""
    mark = uuid.uuid4().hex
    for layer in layers(env):
        own = getattr(layer, "__dict__", None)
        if isinstance(own, dict):
            own[_MARK] = mark
    return mark


def is_marked(env: Any, mark: str) -> bool:
    """Whether a part of an environment is a copy of what was marked so."""
    return any(getattr(layer, "__dict__", {}).get(_MARK) == mark for layer in layers(env))
