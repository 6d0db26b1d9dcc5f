"""Writing steps that training loops have saved into a replay.

Letters: E environments, A agents of a group, N = E * A rows.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from recurrent_rl.algorithms.saved_step import SavedStep, Stored
from recurrent_rl.buffers.replay import SequenceReplayBuffer
from recurrent_rl.buffers.ring import ReplayLayout
from recurrent_rl.buffers.ring_part import Part
from recurrent_rl.buffers.steps import StepShapes
from recurrent_rl.spaces.array import Array


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
