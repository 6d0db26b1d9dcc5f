"""One step of several agents, as training loops give it, read and written into a replay.

Letters: E environments, A agents of a group, N = E * A rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from recurrent_rl.buffers.replay import SequenceReplayBuffer
from recurrent_rl.buffers.ring import ReplayLayout
from recurrent_rl.buffers.ring_part import Part
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


# --- the replay ---------------------------------------------------------------------------------


def shape_memory(
    memory: SequenceReplayBuffer,
    agents: Mapping[str, Stored],
    groups: Mapping[str, Sequence[str]],
    step: SavedStep,
) -> None:
    """Let a memory take the shape of what is first saved, and check what comes later.

    Raises:
        ValueError: other shapes, or a memory of agents that store more than this.

    """
    if memory.layout is None:
        shapes = {name: _shapes(agents, members, step) for name, members in groups.items()}
        sizes = {name: len(members) for name, members in groups.items()}
        _check_shapes(groups, shapes, step)
        memory.fit(shapes, sizes, step.envs, ReplayLayout())
        return
    if memory.layout != ReplayLayout() or any(p.shapes.extra for p in memory.parts.values()):
        raise ValueError(
            "save_to_memory: expected a memory of agents that see nothing but observations and "
            "remember nothing, got one that others have filled; for these, call "
            "collect_rollouts_recurrent(agent, env)"
        )
    _check_shapes(groups, {name: part.shapes for name, part in memory.parts.items()}, step)


def _check_shapes(
    groups: Mapping[str, Sequence[str]], shapes: Mapping[str, StepShapes], step: SavedStep
) -> None:
    for name, members in groups.items():
        for what in ("state", "next_state", "last_state", "action"):
            expected = shapes[name].action_shape if what == "action" else shapes[name].obs_shape
            for agent in members:
                array = getattr(step, what)[agent]
                if array is not None and array.shape[1:] != tuple(expected):
                    raise ValueError(
                        f"{what}[{agent!r}]: expected shape {[step.envs, *expected]}, as before, "
                        f"or as the agent's space or its group's others have it, got "
                        f"{list(array.shape)}"
                    )


def _shapes(agents: Mapping[str, Stored], members: Sequence[str], step: SavedStep) -> StepShapes:
    """Return what one step of one agent of a group takes."""
    known = agents[members[0]].shapes
    if known is not None:
        return known
    for agent in members:
        seen, action = step.state[agent], step.action[agent]
        if seen is not None and action is not None:
            dtypes = _stored_dtype(seen), _stored_dtype(action)
            return StepShapes(seen.shape[1:], action.shape[1:], *dtypes)
    raise ValueError(
        f"state: expected one of the agents {list(members)} in the first step, to know shapes by, "
        f"got none; build MultiAgentReplayBuffer with observation_spaces and action_spaces"
    )


def _stored_dtype(array: Array) -> torch.dtype:
    """Return how policies store such numbers: bytes, bits, choices, or anything else."""
    if array.dtype == np.uint8:
        return torch.uint8
    if array.dtype in (np.int8, np.bool_):
        return torch.int8
    return torch.int64 if array.dtype.kind in "iu" else torch.float32


class _Group:
    """One group's part of a step, in rows [N, ...]."""

    def __init__(self, part: Part, members: Sequence[str], step: SavedStep) -> None:
        self.part, self._members, self._envs = part, members, step.envs
        obs, action = part.arrays["obs"], part.arrays["action"]
        self.obs, self.next_obs, self.last_obs = (
            self._rows(x, obs) for x in (step.state, step.next_state, step.last_state)
        )
        self.action = self._rows(step.action, action)
        flag, number = part.arrays["exists"], part.arrays["reward"]
        self.reward = self._rows(step.reward, number)
        self.next_exists, self.next_start = (self._rows(x, flag) for x in (step.exists, step.start))
        self.here, self.knows_last, has_next = (
            np.tile([x[agent] is not None for agent in members], step.envs)
            for x in (step.state, step.last_state, step.next_state)
        )
        self.left_out: Array = ~has_next
        self.done, self.truncated = (
            self._rows(x, flag) & self.here for x in (step.done, step.truncated)
        )
        self.truncated &= ~self.done

    def _rows(self, by_agent: Mapping[str, Array | None], like: Array) -> Array:
        blank = np.zeros((self._envs, *like.shape[2:]), like.dtype)
        each = [blank if (x := by_agent[agent]) is None else x for agent in self._members]
        rows = np.stack(each, axis=1).reshape(-1, *like.shape[2:])
        return rows.astype(like.dtype, copy=False)

    def goes_on(self, place: Array) -> Array:
        """Whether what stands in the present places, int [E], is what is seen now, bool [E]."""
        at = place.repeat(self.part.size), np.arange(self.part.rows)
        both = self.part.arrays["exists"][at] & self.here
        equal = (self.part.arrays["obs"][at] == self.obs).reshape(self.part.rows, -1).all(1)
        same: Array = (equal | ~both).reshape(-1, self.part.size).all(1)
        return same

    def begin(self, place: Array, goes_on: Array, left_out: Array) -> None:
        """Find out who is there and whose life begins, ``exists`` and ``start``, bool [N].

        Args:
            place: the present ones, int [E].
            goes_on: what was to be seen next stands there, bool [E].
            left_out: of what was to be seen next nothing was said, bool [N].

        """
        rows, arrays = np.arange(self.part.rows), self.part.arrays
        at = place.repeat(self.part.size), rows
        before = (place - 1).repeat(self.part.size) % len(arrays["obs"]), rows
        fresh = ~goes_on.repeat(self.part.size) | left_out
        self.exists = self.here & (fresh | arrays["exists"][at])
        self.start = self.exists & (fresh | arrays["start"][at] | arrays["truncated"][before])

    def write(self, memory: SequenceReplayBuffer, name: str) -> None:
        """Write the step into the present places."""
        exists, idle = self.exists, self.part.idle
        self.ended, self.cut = self.done & exists, self.truncated & exists
        memory.write(
            name,
            {
                "obs": self.obs,
                "action": self.action,
                "reward": self.reward * exists,
                "terminated": self.ended,
                "truncated": self.cut,
                "start": self.start,
                "exists": exists,
                "active": exists,
                "final": False,
            },
        )
        idle[self.start] = 0
        memory.gap = max(memory.gap, int(idle[exists].max(initial=1)))
        idle[:] = np.where(exists, 1, idle + (idle > 0))

    def write_last(self, memory: SequenceReplayBuffer) -> None:
        """Write what lives ended with into present places, which are blank."""
        rows = np.flatnonzero(self.cut & self.knows_last)
        at = (memory.written % memory.places).repeat(self.part.size)[rows], rows
        self.part.arrays["obs"][at] = self.last_obs[rows]
        self.part.arrays["exists"][at] = True

    def write_next(self, memory: SequenceReplayBuffer, name: str) -> None:
        """Write what is seen next into the present places."""
        begins = self.ended | (self.cut & self.knows_last) | self.next_start | ~self.exists
        memory.write(
            name,
            {
                "obs": self.next_obs,
                "reward": 0,
                "terminated": False,
                "truncated": False,
                "start": self.next_exists & begins,
                "exists": self.next_exists,
                "active": self.next_exists,
                "final": False,
            },
        )


def write_step(
    memory: SequenceReplayBuffer,
    groups: Mapping[str, Sequence[str]],
    step: SavedStep,
    left_out: Mapping[str, Array],
) -> dict[str, Array]:
    """Write a step behind what is there.

    Args:
        memory: of its shape.
        groups: names and members.
        step: what happened.
        left_out: what the last call returned; empty before.

    Returns:
        by group, whose next state nobody has given, bool [N].

    """
    parts = {name: _Group(memory.parts[name], agents, step) for name, agents in groups.items()}
    goes_on = np.full(step.envs, memory.shows_next)
    place = memory.written % memory.places
    for part in parts.values():
        goes_on &= part.goes_on(place)
    for name, part in parts.items():
        part.begin(place, goes_on, left_out.get(name, np.zeros(part.part.rows, dtype=bool)))
    if memory.shows_next:
        memory.cut(~goes_on)
    memory.writer = None  # nobody's collection goes on from here
    for name, part in parts.items():
        part.write(memory, name)
    memory.advance()
    ends = [(p.cut & p.knows_last).reshape(step.envs, -1).any(1) for p in parts.values()]
    which = np.flatnonzero(np.any(ends, axis=0))
    if len(which):
        memory.write_blank(which)
        for part in parts.values():
            part.write_last(memory)
            part.part.wait(which)
        memory.advance(which, time=False)
    for name, part in parts.items():
        part.write_next(memory, name)
    memory.shows_next = True
    return {name: part.left_out for name, part in parts.items()}
