"""A replay that several agents share, each of which goes on from a copy of its own.

They collect at the same time, perhaps in several processes, and what each has added is put behind
what was there, one after the other. So the outcome does not depend on who was faster.

Letters: C places of an environment, E environments, A agents in a group, P places that were added
to all environments together, Q states that were stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.buffers.replay import SequenceReplayBuffer
from recurrent_rl.buffers.ring_part import Part
from recurrent_rl.buffers.steps import StepShapes
from recurrent_rl.spaces.array import Array

_ARRAYS = ("begun", "places", "begins", "owner", "priorities")


@dataclass(frozen=True)
class News:
    """What was added to a copy of a replay.

    Attributes:
        begun: places that the copy began with, int [E].
        places: that were added to each environment, int [E]; the last C of them are kept.
        steps: environment steps among all of them.
        gap: see ``SequenceReplayBuffer``.
        fields: by group and name, [P, A, ...]: environment after environment.
        begins: what begins at each place, see ``Ring``, int8 [P].
        states: by group, a tensor [Q, A, K, H] for each of the state's.
        owner: of the states, int [Q].
        priorities: of all windows that the copy has, to the power of ``exponent``; None without.
        exponent: of priorities.
        greatest: of all priorities.

    """

    begun: Array
    places: Array
    steps: int
    gap: int
    fields: dict[str, dict[str, Tensor]]
    begins: Array
    states: dict[str, list[Tensor]]
    owner: Array
    priorities: Array | None
    exponent: float
    greatest: float

    def to_data(self) -> dict[str, Any]:
        """Tensors and plain values, for ``from_data``."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        tensors = {k: None if x is None else torch.from_numpy(x) for k, x in arrays.items()}
        return {**vars(self), **tensors}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "News":
        """Rebuild what ``to_data`` described."""
        arrays = {k: None if data[k] is None else data[k].cpu().numpy() for k in _ARRAYS}
        return cls(**{**data, **arrays})


def copied(memory: SequenceReplayBuffer) -> SequenceReplayBuffer:
    """Return a copy that shares nothing with ``memory``."""
    return SequenceReplayBuffer.from_data(memory.to_data())


def seal(memory: SequenceReplayBuffer) -> None:
    """End all lives, and let a window begin at the present places.

    So what comes next means the same wherever it stands.
    """
    if memory.layout is None:
        return
    memory.close()
    memory.writer = None
    rest = -memory.written % memory.layout.stride
    while rest.any():
        which = np.flatnonzero(rest)
        memory.write_blank(which)
        memory.advance(which, time=False)
        rest[which] -= 1


def news_since(before: SequenceReplayBuffer, memory: SequenceReplayBuffer) -> News:
    """Return what was added to a copy; both are sealed.

    Args:
        before: what it was a copy of.
        memory: the copy.

    """
    begun = before.written if before.layout is not None else np.zeros(memory.envs, dtype=np.int64)
    places = memory.written - begun
    env, place = _places(memory, places)
    state_env, chunk = _chunks(memory, places)
    fields, states = {}, {}
    for name, part in memory.parts.items():
        where = _rows_at(part, place % memory.places, env)
        fields[name] = {k: field[where] for k, field in _fields(part).items()}
        where = _rows_at(part, chunk % memory.chunks, state_env)
        states[name] = [hidden[where] for hidden in part.hidden]
    return News(
        begun=begun.copy(),
        places=places,
        steps=memory.counter - before.counter,
        gap=memory.gap,
        fields=fields,
        begins=memory.begins[place % memory.places, env],
        states=states,
        owner=memory.owner[chunk % memory.chunks, state_env],
        priorities=None if memory.priorities is None else memory.priorities.values(),
        exponent=memory.exponent,
        greatest=memory.greatest,
    )


def _rows_at(part: Part, place: Array, env: Array) -> tuple[Tensor, Tensor]:
    """Return the indices of all agents' rows in environments, int [n], at places, int [n]."""
    row = env[:, None] * part.size + np.arange(part.size)
    return torch.from_numpy(place)[:, None], torch.from_numpy(row)


def fit_states(memory: SequenceReplayBuffer, shapes: Mapping[str, StepShapes]) -> None:
    """Make room for states of these shapes, by group, and forget those of other shapes."""
    wanted = {name: list(shapes[name].state_shapes) for name in memory.parts}
    if all([x.shape[2:] for x in p.hidden] == wanted[name] for name, p in memory.parts.items()):
        return
    for name, part in memory.parts.items():
        part.hidden = [torch.zeros(memory.chunks, part.rows, k, h) for k, h in wanted[name]]
        part.shapes = replace(part.shapes, state_shapes=wanted[name])
    memory.owner[:] = -1


def _fields(part: Part) -> dict[str, Tensor]:
    """Return all fields of a group but the states."""
    return {k: x for k, x in part.fields().items() if not k.startswith("hidden")}


def _ranges(first: Array, end: Array) -> tuple[Array, Array]:
    """Return environment and number of all from ``first`` to ``end``, int [E] each."""
    env = np.arange(len(first)).repeat(end - first)
    each = [np.arange(a, b) for a, b in zip(first, end, strict=True)]
    return env, np.concatenate(each)


def _places(memory: SequenceReplayBuffer, count: Array) -> tuple[Array, Array]:
    """Return environment and absolute number of the latest places, ``count`` of each, int [P]."""
    return _ranges(memory.written - np.minimum(count, memory.places), memory.written)


def _chunks(memory: SequenceReplayBuffer, count: Array) -> tuple[Array, Array]:
    """Return environment and number of the windows whose states the latest places hold, int [Q]."""
    assert memory.layout is not None
    stride, burn_in = memory.layout.stride, memory.layout.burn_in
    first, end = (-(-(x + burn_in) // stride) for x in (memory.written - count, memory.written))
    return _ranges(np.maximum(first, end - memory.chunks), end)


def extended(memory: SequenceReplayBuffer, added: Sequence[News]) -> SequenceReplayBuffer:
    """Return a copy of a sealed replay with what was added to copies of it behind it, in order.

    Windows that were there already get the mean of the priorities that they have in the copies.
    """
    result = copied(memory)
    if result.layout is None:
        raise ValueError("memory: expected the shape of what was added, got none; use fit")
    _mean_priorities(result, added)
    for each in added:
        _append(result, each)
    result.gap = max((each.gap for each in added), default=result.gap)
    result.greatest = max((each.greatest for each in added), default=result.greatest)
    return result


def _mean_priorities(memory: SequenceReplayBuffer, added: Sequence[News]) -> None:
    known = [each for each in added if each.priorities is not None]
    if memory.priorities is None or not known:
        return
    memory.take_exponent(known[0].exponent)
    # Whatever one copy has overwritten will be overwritten here, too.
    slot = memory._slot(*memory._windows())
    total = sum(_priorities_at(each, slot, memory.exponent) for each in known)
    memory.priorities.set(slot, np.asarray(total) / len(known))


def _priorities_at(added: News, slot: Array, exponent: float) -> Array:
    """Return some of a copy's priorities, to another power."""
    assert added.priorities is not None
    values: Array = added.priorities[slot]
    return values if added.exponent == exponent else values ** (exponent / added.exponent)


def _append(memory: SequenceReplayBuffer, added: News) -> None:
    """Put what was added to a copy behind what is there."""
    assert memory.layout is not None
    before = memory.written // memory.layout.stride
    memory.written += added.places
    memory.counter += added.steps
    env, place = _places(memory, added.places)
    memory.begins[place % memory.places, env] = added.begins
    for name, part in memory.parts.items():
        new = added.fields[name]
        if "action_mask" in new and part.action_mask is None:
            part.add_masks(new["action_mask"].shape[2])
        where = _rows_at(part, place % memory.places, env)
        for field, stored in _fields(part).items():
            # Without masks all is allowed.
            stored[where] = new[field] if field in new else torch.ones((), dtype=stored.dtype)
    _append_states(memory, added)
    memory.recount()
    if memory.priorities is not None:
        _append_priorities(memory, added, before)


def _append_states(memory: SequenceReplayBuffer, added: News) -> None:
    """Take over states; zeros in place of those of another network's shapes."""
    env, chunk = _chunks(memory, added.places)
    memory.owner[chunk % memory.chunks, env] = added.owner
    for name, part in memory.parts.items():
        where = _rows_at(part, chunk % memory.chunks, env)
        new = added.states[name]
        fits = [x.shape[2:] for x in new] == [x.shape[2:] for x in part.hidden]
        for i, stored in enumerate(part.hidden):
            stored[where] = new[i] if fits else torch.zeros(())


def _append_priorities(memory: SequenceReplayBuffer, added: News, before: Array) -> None:
    """Give new windows the priorities that they had in the copy, and none to those out of reach.

    ``before`` has the number of windows that each environment had, int [E].
    """
    assert memory.priorities is not None
    assert memory.layout is not None
    env, chunk = memory._windows()
    slot, new = memory._slot(env, chunk), chunk >= before[env]
    present = memory.priorities[slot]
    present[new] = memory.greatest**memory.exponent
    if added.priorities is not None:
        shift = added.begun // memory.layout.stride - before
        there = memory._slot(env[new], (chunk + shift[env])[new])
        present[new] = _priorities_at(added, there, memory.exponent)
    values = np.zeros(memory.priorities.size)
    values[slot] = present
    memory.priorities.set(np.arange(len(values)), values)
