"""Who has used an environment last: only that collection may continue on it.

An agent collects from a vector, tests in a wrapper around it or in one of its environments, and so
on; what counts are the innermost environments, which all of these share, and the innermost vector,
which may know of resets that are still to come. Each gets a mark. Whoever else steps or resets one
of them, through whatever wrapper, trips over a wire that lies there while nobody collects, and the
mark is gone; collecting itself meets no wires.
"""

import copy
import warnings
import weakref
from collections.abc import Callable
from typing import Any

_MARK = "_recurrent_rl_used_by"
_SEEDED = "_recurrent_rl_seeded_by_a_test"
_METHODS = ("step", "reset", "step_async", "reset_async", "step_rows", "reset_rows")


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
    for each in _used(env):
        own = _attributes(each)
        if own is None:
            continue
        for name in _METHODS:
            if isinstance(own.get(name), _Wire):
                own[name].remove(each)
        own[_MARK] = user
        if user is not None:
            for name in _METHODS:
                if name in own or hasattr(type(each), name):
                    own[name] = _Wire(each, name, own.get(name))


def is_marked(env: Any, user: object) -> bool:
    """Whether ``user`` was the last one to use the innermost vector and all its environments."""
    return all((_attributes(each) or {}).get(_MARK) is user for each in _used(env))


def note_seeded(env: Any, seeded: bool) -> None:
    """Note whether a test has seeded an environment last."""
    for each in innermost(env):
        own = _attributes(each)
        if own is not None:
            own[_SEEDED] = seeded


def was_seeded(env: Any) -> bool:
    """Whether a test has seeded an environment, so that its random numbers would come again."""
    return any((_attributes(each) or {}).get(_SEEDED) for each in innermost(env))


def _used(env: Any) -> list[Any]:
    bottom = getattr(env, "unwrapped", env)
    inner = innermost(env)
    return inner if inner[0] is bottom else [bottom, *inner]


def _attributes(env: Any) -> dict[str, Any] | None:
    """Return the dictionary of an object's own attributes; None: it takes none.

    The dictionary, since objects may refuse or redirect what is set as an attribute.
    """
    own = getattr(env, "__dict__", None)
    if isinstance(own, dict):
        return own
    warnings.warn(
        f"env: expected an environment that takes attributes, to note who has used it last, got a "
        f"{type(env).__name__} with __slots__; each collection starts afresh on it. Add "
        f"'__dict__' to its __slots__, or pass reset=False to continue in any case",
        UserWarning,
        stacklevel=2,
    )
    return None


class _Wire:
    """Stands before a method of an environment; whoever calls it first has used the environment."""

    def __init__(self, env: Any, name: str, before: Any) -> None:
        """Args: the environment, the method's name, what stood there as its own attribute."""
        self._name, self._before = name, before
        try:
            # A strong reference would keep a dropped environment until the next garbage collection.
            self._env: Callable[[], Any] = weakref.ref(env)
        except TypeError:
            self._env = lambda: env

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        env = self._env()
        if env is None:
            raise ReferenceError(f"{self._name}: the environment that it belongs to is gone")
        mark(env, None)
        if self._before is not None:
            return self._before(*args, **kwargs)
        return getattr(type(env), self._name).__get__(env)(*args, **kwargs)

    def remove(self, env: Any) -> None:
        """Put back what stood there."""
        if self._before is None:
            del env.__dict__[self._name]
        else:
            env.__dict__[self._name] = self._before

    def __reduce__(self) -> tuple[Any, ...]:
        return _Wire, (self._env(), self._name, self._before)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Wire":
        env, name, before = self.__reduce__()[1]
        return _Wire(copy.deepcopy(env, memo), name, copy.deepcopy(before, memo))
