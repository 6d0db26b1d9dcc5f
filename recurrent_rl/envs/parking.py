"""Environments that wait at the end of an episode, so that testing resets each only once.

A vector resets an environment whose episode has ended, but a test may be over there, or want the
next episode to begin with a seed of its own.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium.error import AlreadyPendingCallError
from gymnasium.vector import SyncVectorEnv


class Waiting:
    """A member of a ``SyncVectorEnv`` that is not reset after its episode's end until released.

    Until then it shows the episode's first observation, which is certainly valid.

    Attributes:
        env: the member itself.
        waits: whether it does.
        ended: its episode has ended.

    """

    def __init__(self, env: Any, waits: bool = True) -> None:
        """See ``env`` as one that waits, or that may be told to."""
        self.env, self.waits, self.ended, self._asleep = env, waits, False, False
        self._first: Any = None
        self._mask: Any = None

    def __getattr__(self, name: str) -> Any:
        """Everything else is the member's."""
        if name == "env":  # not set yet
            raise AttributeError(name)
        return getattr(self.env, name)

    def wait_after_episodes(self, waits: bool) -> None:
        """Wait, or no longer."""
        self.waits = waits
        self.release()

    def release(self) -> None:
        """Let the next reset be one."""
        self.ended = self._asleep = False

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Reset, unless the episode has just ended."""
        if self.waits and self.ended:
            self._asleep = True
            return self._first, {}
        returned: tuple[Any, dict[str, Any]] = self.env.reset(**options)
        self.ended = False
        if self.waits:
            self._first = copy.deepcopy(returned[0])
        return returned

    def step(self, action: Any) -> tuple[Any, ...]:
        """Take a step, unless the episode has ended."""
        if self._asleep:
            return self._first, 0.0, False, False, {}
        returned: tuple[Any, ...] = self.env.step(action)
        self.ended = bool(returned[2] or returned[3])
        return returned

    def get_wrapper_attr(self, name: str) -> Any:
        """Return an attribute of whichever wrapper has it; after the end all is allowed."""
        if name in ("wait_after_episodes", "release"):
            return getattr(self, name)
        if name == "action_masks" and self.waits:
            return self._action_masks
        return self.env.get_wrapper_attr(name)

    def _action_masks(self) -> Any:
        if self._asleep and self._mask is not None:
            return self._mask
        mask = self.env.get_wrapper_attr("action_masks")()
        parts = mask if isinstance(mask, tuple) else (mask,)
        ones = tuple(np.ones_like(part) for part in parts)
        self._mask = ones if isinstance(mask, tuple) else ones[0]
        return mask


@contextlib.contextmanager
def waiting(vector: Any) -> Iterator[list[Any]]:
    """Let the members of a vector wait after their episodes, for as long as this is open.

    Yields:
        the members; none if the vector keeps its environments to itself.

    """
    if hasattr(vector, "wait_after_episodes"):  # workers of our own
        vector.wait_after_episodes(True)
        try:
            yield [vector]
        finally:
            # After Ctrl-C an answer may be still to come.
            if not vector.closed:
                with contextlib.suppress(AlreadyPendingCallError):
                    vector.wait_after_episodes(False)
        return
    if not isinstance(vector, SyncVectorEnv):
        yield []
        return
    members = vector.envs
    try:
        waiting = [Waiting(env) for env in members]
        vector.envs = waiting  # type: ignore[assignment]
        yield waiting
    finally:
        vector.envs = members
