"""One step of several agents, as training loops give it.

Letters: E environments.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from recurrent_rl.buffers.steps import StepShapes
from recurrent_rl.functional.reward_scaling import REWARD_LIMIT
from recurrent_rl.spaces.actions import action_codec
from recurrent_rl.spaces.array import Array, as_array
from recurrent_rl.spaces.layout import ObservationLayout
from recurrent_rl.validation import shown

ByAgent = Mapping[str, Any]


class Stored:
    """How one agent's observations and actions are kept.

    Attributes:
        layout: of observations; None: as the arrays that they are.
        shapes: of one step, without groups' extras; None: those of what is first saved.

    """

    def __init__(
        self,
        observation_space: gym.Space[Any] | None = None,
        action_space: gym.Space[Any] | None = None,
    ) -> None:
        """Args: the agent's spaces, if they are known."""
        self.layout: ObservationLayout | None = None
        self.shapes: StepShapes | None = None
        if observation_space is not None and action_space is not None:
            layout, codec = ObservationLayout(observation_space), action_codec(action_space)
            self.layout = layout
            self.shapes = StepShapes(
                layout.shape,
                codec.shape,
                layout.dtype,
                codec.dtype,
                spaces=(str(observation_space), str(action_space)),
            )


@dataclass(frozen=True)
class SavedStep:
    """One step of E environments, by agent; None for who is not there.

    Attributes:
        envs: E.
        state: as stored, [E, *shape].
        action: likewise.
        next_state: likewise.
        last_state: that a truncated life ended with, in the environments where one did.
        reward: [E].
        done: bool [E].
        truncated: bool [E].
        exists: it sees the next state, bool [E].
        start: a life begins with the next state, bool [E].

    """

    envs: int
    state: dict[str, Array | None]
    action: dict[str, Array | None]
    next_state: dict[str, Array | None]
    last_state: dict[str, Array | None]
    reward: dict[str, Array]
    done: dict[str, Array]
    truncated: dict[str, Array]
    exists: dict[str, Array]
    start: dict[str, Array]

    @classmethod
    def read(
        cls, agents: Mapping[str, Stored], given: Mapping[str, ByAgent], vectorised: bool, envs: int
    ) -> "SavedStep":
        """Read what a training loop gives.

        Args:
            agents: all of them.
            given: by the name of the argument.
            vectorised: there is an axis of environments.
            envs: E; 0: not known yet.

        Raises:
            TypeError: no numbers.
            ValueError: of another shape, or not finite.

        """
        reader = _Reader(given, vectorised, envs)
        infos = {agent: given["infos"].get(agent) or {} for agent in agents}
        reader.refuse_masks(infos)
        state, after = (
            {a: reader.observation(name, a, given[name].get(a), s) for a, s in agents.items()}
            for name in ("state", "next_state")
        )
        last = {
            a: reader.observation("final_obs", a, infos[a].get("final_obs"), s)
            for a, s in agents.items()
        }
        if all(seen is None for seen in state.values()):
            raise ValueError("state: expected what at least one agent sees, got none")
        done, truncated = (
            {a: reader.flags(name, a, given[name].get(a)) for a in agents}
            for name in ("done", "truncated")
        )
        exists = {a: reader.flags("exists", a, infos[a].get("exists"), True) for a in agents}
        start = {a: reader.flags("start", a, infos[a].get("start")) for a in agents}
        for agent in agents:
            if after[agent] is None:
                exists[agent] = np.zeros(reader.envs, dtype=bool)
            if last[agent] is not None:  # so this is what the beginning of another life means
                truncated[agent] = (truncated[agent] | start[agent]) & ~done[agent]
        return cls(
            envs=reader.envs,
            state=state,
            action={a: reader.action(a, state[a] is not None) for a in agents},
            next_state=after,
            last_state=last,
            reward={a: reader.reward(a) for a in agents},
            done=done,
            truncated=truncated,
            exists=exists,
            start=start,
        )


class _Reader:
    """Reads arguments, and finds what is wrong with them.

    Attributes:
        envs: E; 0 before the first array.

    """

    def __init__(self, given: Mapping[str, ByAgent], vectorised: bool, envs: int) -> None:
        self._given, self._vectorised, self.envs = given, vectorised, envs

    def refuse_masks(self, infos: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise ValueError for action masks, which would be lost."""
        masked = [a for a, info in infos.items() if info.get("action_mask") is not None]
        masked += [
            agent
            for agent, seen in self._given["state"].items()
            if isinstance(seen, Mapping) and "action_mask" in seen
        ]
        if masked:
            raise ValueError(
                f"action_mask: expected none, as save_to_memory has no field for it, got one of "
                f"agent {masked[0]!r}; collect by collect_rollouts_recurrent(agent, env) and call "
                f"agent.learn()"
            )

    def observation(self, name: str, agent: str, value: Any, stored: Stored) -> Array | None:
        """Return what an agent sees, as stored, [E, *shape]."""
        if value is None:
            return None
        if stored.layout is None:
            return self._batch(name, agent, _numbers(f"{name}[{agent!r}]", value))
        layout = stored.layout
        if not self._vectorised:
            value = layout.batched(value)[0]
        try:
            array = layout.check(value, _rows_in(layout, value))
        except (TypeError, ValueError) as error:
            error.add_note(f"{name} of agent {agent!r}")
            raise
        return self._batch(name, agent, array, has_axis=True)

    def _batch(self, name: str, agent: str, array: Array, *, has_axis: bool = False) -> Array:
        """Return an array with its axis of environments, [E, ...], all finite."""
        if not (self._vectorised or has_axis):
            array = array[None]
        if not array.ndim or not len(array) or (self.envs and len(array) != self.envs):
            raise ValueError(
                f"{name}[{agent!r}]: expected {self.envs or 'some'} environments, got shape "
                f"{list(array.shape)}; is_vectorised={self._vectorised} says whether the first "
                f"axis is theirs"
            )
        self.envs = len(array)
        finite = np.isfinite(array.reshape(self.envs, -1)).all(1)
        if not finite.all():
            raise ValueError(
                f"{name}[{agent!r}]: expected finite numbers, got others in environment "
                f"{int(np.flatnonzero(~finite)[0])}; leave agents out that are not there, or let "
                f"infos say so by 'exists'"
            )
        return array

    def action(self, agent: str, is_there: bool) -> Array | None:
        """Return what an agent chose, [E, *shape]."""
        value = self._given["action"].get(agent)
        if value is None and is_there:
            raise ValueError(
                f"action: expected one of agent {agent!r}, as state has what it saw, got none"
            )
        if value is None:
            return None
        return self._batch("action", agent, _numbers(f"action[{agent!r}]", value))

    def reward(self, agent: str) -> Array:
        """Return what it brought an agent, [E]."""
        value = self._given["reward"].get(agent)
        if value is None:
            return np.zeros(self.envs, dtype=np.float32)
        array = self._batch("reward", agent, _numbers(f"reward[{agent!r}]", value))
        if array.shape != (self.envs,) or not (np.abs(array) <= REWARD_LIMIT).all():
            raise ValueError(
                f"reward[{agent!r}]: expected numbers up to +-{REWARD_LIMIT:g}, shape [{self.envs}]"
                f", got {shown(value)}"
            )
        return array.astype(np.float32)

    def flags(self, name: str, agent: str, value: Any, usual: bool = False) -> Array:
        """Return something that is True or False, bool [E]."""
        if value is None:
            return np.full(self.envs, usual)
        array = self._batch(name, agent, _numbers(f"{name}[{agent!r}]", value))
        if array.shape != (self.envs,) or not np.isin(array, (0, 1)).all():
            raise ValueError(
                f"{name}[{agent!r}]: expected True or False, shape [{self.envs}], got "
                f"{shown(value)}"
            )
        return array.astype(bool)


def _rows_in(layout: ObservationLayout, value: Any) -> int:
    """Return how many observations of a space these are."""
    try:
        for key in layout.leaves[0].path:
            value = value[key]
        return len(value)
    except (KeyError, IndexError, TypeError):
        return 1  # whoever looks closer will say what is wrong


def _numbers(name: str, value: Any) -> Array:
    array = as_array(value.numpy(force=True) if isinstance(value, torch.Tensor) else value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected numbers, got {shown(value)}")
    return array
