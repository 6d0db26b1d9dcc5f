"""The replay: a ring of steps, from which windows are sampled and learned from again.

Letters: E environments, A agents in a group, R = B * A rows of a group in B windows, W places of a
window, L of them trained on, K layers, H units.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.buffers.ring import EPISODE, REST, Ring
from recurrent_rl.buffers.ring_data import fill_ring, ring_data
from recurrent_rl.buffers.ring_part import FLAGS, Part
from recurrent_rl.spaces.array import Array


@dataclass(frozen=True)
class GroupWindows:
    """One group's part of sampled windows, on the CPU; fields are [W, R, ...].

    Attributes:
        obs: stored form, [W, R, *shape].
        extra: previous action, previous reward, identity, [W, R, F] or None.
        action: stored form, [W, R, *shape].
        action_mask: bool [W, R, mask_size] or None.
        reward: of the transition from each place, [W, R].
        start: the state was zeroed before what was seen, bool [W, R].
        exists: there is an observation, bool [W, R].
        active: the policy chose the action, bool [W, R].
        terminated: outcome of the transition, bool [W, R].
        truncated: likewise.
        final: the place has but the observation that a life ended with, bool [W, R].
        state: before the first place, [K, R, H] each.
        agents: A.

    """

    obs: Tensor
    extra: Tensor | None
    action: Tensor
    action_mask: Tensor | None
    reward: Tensor
    start: Tensor
    exists: Tensor
    active: Tensor
    terminated: Tensor
    truncated: Tensor
    final: Tensor
    state: list[Tensor]
    agents: int


@dataclass(frozen=True)
class Windows:
    """A sample: B windows of some environments, all groups' rows of each.

    Attributes:
        groups: by name.
        burn_in: places in front of those that are trained on.
        length: L, of those; what follows is there for targets.
        slot: which windows these are, of all that there ever were, int [B]; -1: of other kinds.
        weight: of each window in the loss, for priorities' bias, in (0, 1], [B].

    """

    groups: dict[str, GroupWindows]
    burn_in: int
    length: int
    slot: Array
    weight: Tensor

    def __len__(self) -> int:
        """B."""
        return len(self.slot)


class SequenceReplayBuffer(Ring):
    """What several environments have gone through, the latest of it, for learning again and again.

    >>> memory = SequenceReplayBuffer(100_000)
    >>> len(memory)
    0

    It takes the shape of what is first collected into it (``collect_rollouts_recurrent``), so that
    it can be built before any agent; others with the same spaces may share it then.
    """

    # --- sampling ---------------------------------------------------------------------------

    def sample(
        self,
        windows: int,
        generator: torch.Generator,
        *,
        ahead: int = 1,
        owner: int | None = None,
        exponent: float = 0.0,
        correction: float = 0.0,
    ) -> Windows:
        """Sample windows, with replacement.

        Args:
            windows: B.
            generator: on the CPU.
            ahead: decisions behind a window's end that targets need, n.
            owner: whose stored states are used; None: everybody's. Others' are zeros.
            exponent: of priorities; 0 draws uniformly.
            correction: exponent of the weights that make up for priorities; 0: all are 1.

        Raises:
            RuntimeError: nothing is held.

        """
        first, end = self._range() if self.envs else (np.zeros(1), np.zeros(1))
        if self.layout is None or not (end > first).any():
            raise RuntimeError("memory: expected steps to sample from, got none; collect first")
        weight = torch.ones(windows)
        if exponent and self.priorities is not None:
            self.take_exponent(exponent)
            drawn = self.priorities.draw(windows, generator)
            env, place = drawn % self.envs, drawn // self.envs
            # Of the numbers that share a place the latest is meant.
            chunk = end[env] - 1 - (end[env] - 1 - place) % self.chunks
            share = self.priorities[drawn] / self.priorities.total
            raw = ((end - first).sum() * share) ** -correction
            weight = torch.from_numpy(raw / raw.max()).float()
        else:
            counts = (end - first).cumsum()
            drawn = torch.randint(int(counts[-1]), (windows,), generator=generator).numpy()
            env = np.searchsorted(counts, drawn, side="right")
            chunk = end[env] - (counts[env] - drawn)
        begin, layout = chunk * self._stride, self.layout
        span = layout.burn_in, layout.length, ahead * self.gap
        return self._gather(env, begin, span, owner, chunk * self.envs + env, weight)

    def take_exponent(self, exponent: float) -> None:
        """Have all priorities to this power."""
        assert self.priorities is not None
        if exponent != self.exponent:
            values = self.priorities.values() ** (exponent / self.exponent)
            self.priorities.set(np.arange(len(values)), values)
            self.exponent = exponent

    def sample_episodes(self, count: int, generator: torch.Generator) -> Windows:
        """Sample whole episodes that are held, uniformly and with replacement.

        All of each is trained on, from a state of zeros, so that windows are as long as the longest
        of them.

        Raises:
            RuntimeError: no whole episode is held.

        """
        env, begin, length = self._episodes()
        if not len(env):
            raise RuntimeError(
                "memory: expected a whole episode to sample, got none; collect more first, or make "
                "memory_size larger than episodes are long"
            )
        drawn = torch.randint(len(env), (count,), generator=generator).numpy()
        longest = int(length[drawn].max())
        slot = np.full(count, -1, dtype=np.int64)
        end = begin[drawn] + length[drawn]
        return self._gather(env[drawn], begin[drawn], (0, longest, 0), -1, slot, end=end)

    def has_episodes(self) -> bool:
        """Whether a whole episode is held."""
        return len(self._episodes()[0]) > 0

    def _episodes(self) -> tuple[Array, Array, Array]:
        """Return environment, absolute first place and length of all whole episodes, int [n]."""
        if self.layout is None:
            return (np.zeros(0, dtype=np.int64),) * 3
        env, at = np.nonzero(self.begins.T)
        place = self.written[env] - (self.written[env] - at) % self.places
        code = self.begins[at, env]
        here = (place >= self._range()[0][env] * self._stride) & (place < self._seen()[env])
        env, place, code = env[here], place[here], code[here]
        if not self.shows_next:  # what came last has ended as well
            every = np.arange(self.envs)
            env, place = np.append(env, every), np.append(place, self.written)
            code = np.append(code, np.full(self.envs, REST))
        order = np.lexsort((place, env))
        env, place, code = env[order], place[order], code[order]
        whole = np.flatnonzero((code[:-1] == EPISODE) & (env[:-1] == env[1:]))
        return env[whole], place[whole], place[whole + 1] - place[whole]

    def _seen(self) -> Array:
        """Return the place behind the last at which something is held, int [E]."""
        seen: Array = self.written + self.shows_next
        return seen

    def _gather(
        self,
        env: Array,
        begin: Array,
        span: tuple[int, int, int],
        owner: int | None,
        slot: Array,
        weight: Tensor | None = None,
        end: Array | None = None,
    ) -> Windows:
        """Gather windows that are trained on from absolute place ``begin`` on, int [B].

        ``span`` has the numbers of places in front, trained on, and behind; ``end`` the absolute
        place behind each window's last, if they have one, int [B].
        """
        assert self.layout is not None
        burn_in, length, ahead = span
        places = burn_in + length + ahead
        time = begin - burn_in + np.arange(places)[:, None]  # [W, B]
        inside = (time >= 0) & (time < self._seen()[env])
        if end is not None:
            inside &= time < end
        at = time % self.places
        chunk = begin // self._stride % self.chunks
        foreign = np.zeros(len(env), dtype=bool)
        if owner is not None:
            foreign = self.owner[chunk, env] != owner
        groups = {
            name: self._group(part, at, inside, env, chunk, foreign)
            for name, part in self.parts.items()
        }
        weight = torch.ones(len(env)) if weight is None else weight
        return Windows(groups, burn_in, length, slot, weight)

    def _group(
        self, part: Part, at: Array, inside: Array, env: Array, chunk: Array, foreign: Array
    ) -> GroupWindows:
        size = part.size
        if size == 1:
            row, rows_at, rows_inside = env, at, inside
        else:
            row = part.rows_of(env)  # [R]
            rows_at, rows_inside = at.repeat(size, axis=1), inside.repeat(size, axis=1)
            chunk, foreign = chunk.repeat(size), foreign.repeat(size)
        index = rows_at * part.rows + row  # [W, R]
        whole = bool(rows_inside.all())

        def take(name: str) -> Tensor:
            field = part.arrays[name]
            return torch.from_numpy(field.reshape(-1, *field.shape[2:]).take(index, axis=0))

        flags = np.stack([part.arrays[name].take(index) for name in FLAGS])
        if not whole:
            flags &= rows_inside
        return GroupWindows(
            obs=take("obs"),
            extra=None if part.extra is None else take("extra"),
            action=take("action"),
            action_mask=None if part.action_mask is None else take("action_mask"),
            reward=take("reward"),
            **dict(zip(FLAGS, torch.from_numpy(flags).unbind(), strict=True)),
            state=self._states(part, torch.from_numpy(chunk * part.rows + row), foreign),
            agents=size,
        )

    @staticmethod
    def _states(part: Part, index: Tensor, foreign: Array) -> list[Tensor]:
        """Return states [K, R, H] at flat places, int [R]; zeros where ``foreign``, bool [R]."""
        states = [x.flatten(0, 1).index_select(0, index).transpose(0, 1) for x in part.hidden]
        if foreign.any():
            lost = torch.from_numpy(foreign)[:, None]
            states = [x.masked_fill(lost, 0) for x in states]
        return states

    def set_priority(self, slot: Array, priority: Array) -> None:
        """Set the priorities, > 0, of sampled windows; of those that are lost since, nothing."""
        if self.priorities is None:
            return
        self.greatest = max(self.greatest, float(priority.max(initial=0)))
        env, chunk = slot % self.envs, slot // self.envs
        first, end = self._range()
        held = (chunk >= first[env]) & (chunk < end[env])
        self.priorities.set(
            self._slot(env[held], chunk[held]),
            priority[held].astype(np.float64) ** self.exponent,
        )

    # --- what it takes, and saving -----------------------------------------------------------

    def to_data(self) -> dict[str, Any]:
        """Return all of it in tensors and plain values, for ``from_data``.

        The tensors are not copied once the ring has been filled.
        """
        return ring_data(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "SequenceReplayBuffer":
        """Rebuild what ``to_data`` described, sharing no memory with it."""
        memory = cls(data["memory_size"])
        fill_ring(memory, data)
        return memory

    def become(self, other: "SequenceReplayBuffer") -> None:
        """Take over all that another holds; the other is not to be used any more."""
        self.__dict__.update(other.__dict__)

    def nbytes(self) -> int:
        """Bytes of all fields, and of priorities."""
        fields = [x for part in self.parts.values() for x in part.fields().values()]
        if self.layout is not None:
            fields += [torch.from_numpy(x) for x in (self.begins, self.owner)]
        if self.priorities is not None:
            fields.append(torch.from_numpy(self.priorities.sums))
        return sum(x.nbytes for x in fields)
