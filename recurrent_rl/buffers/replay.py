"""The replay: a ring of steps, from which windows are sampled and learned from again.

Each environment writes at its own pace: an observation that ends a life takes a place of its own,
so that targets can be computed from it, and no observation is kept twice. Windows begin at
multiples of a stride, where the state before them is stored.

Letters: C places of an environment, E environments, A agents in a group, R = B * A rows of a
group in B windows, W places of a window, L of them trained on, K layers, H units.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.buffers.priorities import SumTree
from recurrent_rl.buffers.steps import StepShapes
from recurrent_rl.recurrent.state import HiddenState
from recurrent_rl.spaces.array import Array

FLAGS = ("start", "exists", "active", "terminated", "truncated", "final")


@dataclass(frozen=True)
class ReplayLayout:
    """How replayed sequences lie.

    Attributes:
        length: L, places of a window that are trained on; 1 without memory.
        stride: places from one window's beginning to the next one's; below L windows overlap.
        burn_in: places in front of them, replayed without a gradient.

    """

    length: int = 1
    stride: int = 1
    burn_in: int = 0


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
        slot: where the windows' priorities are, int [B].
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


class _Part:
    """One group's fields, [C, E * A, ...]."""

    def __init__(self, places: int, envs: int, size: int, shapes: StepShapes, chunks: int) -> None:
        self.shapes, self.size, self.rows = shapes, size, envs * size
        lead = (places, self.rows)
        self.obs = torch.zeros(*lead, *shapes.obs_shape, dtype=shapes.obs_dtype)
        self.extra = torch.zeros(*lead, shapes.extra) if shapes.extra else None
        self.action = torch.zeros(*lead, *shapes.action_shape, dtype=shapes.action_dtype)
        self.action_mask: Tensor | None = None
        if shapes.mask_size:
            self.action_mask = torch.ones(*lead, shapes.mask_size, dtype=torch.bool)
        self.reward = torch.zeros(lead)
        self.start, self.exists, self.active, self.terminated, self.truncated, self.final = (
            torch.zeros(lead, dtype=torch.bool) for _ in FLAGS
        )
        self.hidden = [torch.zeros(chunks, self.rows, k, h) for k, h in shapes.state_shapes]
        self.idle = np.zeros(self.rows, dtype=np.int64)  # places since each row's last decision
        # Views: NumPy writes a few numbers in a tenth of the time that torch takes.
        self.arrays = {name: x.numpy() for name, x in vars(self).items() if isinstance(x, Tensor)}

    def add_masks(self, mask_size: int) -> None:
        """Make room for action masks; until now everything was allowed."""
        self.action_mask = torch.ones(*self.obs.shape[:2], mask_size, dtype=torch.bool)
        self.arrays["action_mask"] = self.action_mask.numpy()

    def fields(self) -> dict[str, Tensor]:
        """Return all that is stored, by name."""
        found = {name: x for name, x in vars(self).items() if isinstance(x, Tensor)}
        return found | {f"hidden{i}": x for i, x in enumerate(self.hidden)}


class SequenceReplayBuffer:
    """What several environments have gone through, the latest of it, for learning again and again.

    >>> memory = SequenceReplayBuffer(100_000)
    >>> len(memory)
    0

    It takes the shape of what is first collected into it (``collect_rollouts_recurrent``), so that
    it can be built before any agent; others with the same spaces may share it then.

    Attributes:
        memory_size: environment steps that it holds, over all environments, about.
        layout: how windows lie; None before the first step.
        envs: E; 0 before the first step.
        counter: environment steps that it was ever given.

    """

    def __init__(self, memory_size: int = 100_000) -> None:
        """Begin empty.

        Raises:
            ValueError: no room for a step.

        """
        if memory_size < 1:
            raise ValueError(f"memory_size: expected at least 1 step, got {memory_size}")
        self.memory_size = memory_size
        self.layout: ReplayLayout | None = None
        self.envs, self.counter, self._stored = 0, 0, 0
        self.parts: dict[str, _Part] = {}
        self.gap = 1  # the most places that ever lay between a row's decisions in one life
        self.priorities: SumTree | None = None
        self.greatest = 1.0  # priority so far, which new windows get
        self.shows_next = False  # the present places hold what will be seen next

    def __len__(self) -> int:
        """Environment steps that are held now."""
        return self._stored

    # --- its shape --------------------------------------------------------------------------

    def fit(
        self,
        shapes: Mapping[str, StepShapes],
        sizes: Mapping[str, int],
        envs: int,
        layout: ReplayLayout,
        *,
        prioritised: bool = False,
    ) -> None:
        """Take this shape, or check that it has it.

        Args:
            shapes: of one step of one row, by group.
            sizes: A by group.
            envs: E.
            layout: how windows lie.
            prioritised: keep priorities.

        Raises:
            ValueError: it holds steps of other spaces, agents, environments or sequences.

        """
        if self.layout is None:
            self._allocate(shapes, sizes, envs, layout)
        else:
            self._check(shapes, sizes, envs, layout)
        if prioritised and self.priorities is None:
            self.priorities = SumTree(self.chunks * self.envs)
            if self.counter:
                env, chunk = self._windows()
                self.priorities.set(self._slot(env, chunk), self.greatest)

    def _allocate(
        self,
        shapes: Mapping[str, StepShapes],
        sizes: Mapping[str, int],
        envs: int,
        layout: ReplayLayout,
    ) -> None:
        self.envs, self.layout = envs, layout
        # Windows whose beginning is being overwritten are out of reach, so there are some more.
        self._kept = math.ceil(math.ceil(self.memory_size / envs) / layout.stride)
        self.chunks = self._kept + math.ceil((layout.burn_in + 1) / layout.stride)
        self.places = self.chunks * layout.stride
        self.parts = {
            name: _Part(self.places, envs, sizes[name], shape, self.chunks)
            for name, shape in shapes.items()
        }
        self.written = np.zeros(envs, dtype=np.int64)  # places that each has ever begun and left
        self.owner = np.full((self.chunks, envs), -1, dtype=np.int64)

    def _check(
        self,
        shapes: Mapping[str, StepShapes],
        sizes: Mapping[str, int],
        envs: int,
        layout: ReplayLayout,
    ) -> None:
        held = {name: part.size for name, part in self.parts.items()}
        for what, expected, got in (
            ("groups of agents", held, dict(sizes)),
            ("environments", self.envs, envs),
            ("sequences", self.layout, layout),
        ):
            if expected != got:
                raise ValueError(
                    f"memory: expected the {what} that it holds steps of, {expected}, got {got}; "
                    f"give this agent a memory of its own"
                )
        for name, part in self.parts.items():
            for field in ("obs_shape", "obs_dtype", "action_shape", "action_dtype", "extra"):
                expected, got = getattr(part.shapes, field), getattr(shapes[name], field)
                if expected != got:
                    raise ValueError(
                        f"memory: expected {field} {expected}, of what it holds, got {got}; build "
                        f"another memory for other spaces or inputs"
                    )

    # --- writing ----------------------------------------------------------------------------

    def write(self, name: str, values: Mapping[str, Any], which: Array | None = None) -> None:
        """Write into the present places.

        Args:
            name: of the group.
            values: by field, [n * A, ...] or one for all, arrays or tensors on the CPU.
            which: environments, int [n]; None: all.

        """
        part, place = self.parts[name], self.written % self.places
        where: Any
        if which is None and (place == place[0]).all():
            where = int(place[0])
        else:
            env = np.arange(self.envs) if which is None else which
            row = (env[:, None] * part.size + np.arange(part.size)).ravel()
            where = (place[env].repeat(part.size), row)
        for field, value in values.items():
            part.arrays[field][where] = value

    def begin(self) -> None:
        """Note where a collection begins, so that ``abandon`` can take it back."""
        self._begun = self.written.copy()

    def abandon(self) -> None:
        """Blank what has been written since ``begin``: nobody is to learn from it."""
        for env, (first, end) in enumerate(zip(self._begun, self.written, strict=True)):
            place = np.arange(first, end + 1) % self.places
            for part in self.parts.values():
                rows = slice(env * part.size, (env + 1) * part.size)
                part.reward[place, rows] = 0
                for name in FLAGS:
                    getattr(part, name)[place, rows] = False
        self.shows_next = False

    def close(self) -> None:
        """End lives that nobody will go on with, as if cut by a limit: what is seen next is known.

        To be called where collection starts afresh; then ``shows_next`` is False.
        """
        if not self.shows_next:
            return
        self.shows_next = False
        cut = np.zeros(self.envs, dtype=bool)
        for part in self.parts.values():
            here, before = (x % self.places for x in (self.written, self.written - 1))
            row = np.arange(part.rows)
            here, before = here.repeat(part.size), before.repeat(part.size)
            alive = part.arrays["exists"][here, row] & ~part.arrays["start"][here, row]
            part.arrays["truncated"][before, row] |= alive & ~part.arrays["terminated"][before, row]
            cut |= alive.reshape(-1, part.size).any(1)
        which = np.flatnonzero(cut)
        for name, part in self.parts.items():
            row = (which[:, None] * part.size + np.arange(part.size)).ravel()
            here = (self.written[which] % self.places).repeat(part.size)
            alive = part.arrays["exists"][here, row] & ~part.arrays["start"][here, row]
            self.write(
                name, {"exists": alive, "active": False, "start": False, "final": True}, which
            )
        if len(which):
            self.advance(which, time=False)

    def store_state(self, name: str, state: HiddenState, owner: int) -> None:
        """Keep the state before the present places, of rows for which these are to be kept."""
        assert self.layout is not None
        part, layout = self.parts[name], self.layout
        due = (self.written + layout.burn_in) % layout.stride == 0
        if not part.hidden or not due.any():
            return
        env = np.flatnonzero(due)
        chunk = (self.written[env] + layout.burn_in) // layout.stride % self.chunks
        fits = [x.shape[::2] for x in state.tensors[: len(part.hidden)]] == [
            torch.Size(x.shape[2:]) for x in part.hidden
        ]
        # Another network's state means nothing to this one's shapes; zeros do for all.
        self.owner[chunk, env] = owner if fits else -1
        if not fits:
            return
        rows = (env[:, None] * part.size + np.arange(part.size)).ravel()
        where = (torch.from_numpy(chunk.repeat(part.size)), torch.from_numpy(rows))
        for stored, tensor in zip(part.hidden, state.tensors, strict=False):
            stored[where] = tensor[:, where[1]].transpose(0, 1).to(stored.device)

    def advance(self, which: Array | None = None, *, time: bool = True) -> None:
        """Go on to the next place.

        Args:
            which: environments, int [n]; None: all.
            time: the places that are left held a step, rather than a final observation only.

        """
        assert self.layout is not None
        which = np.arange(self.envs) if which is None else which
        before = self.written[which]
        self.written[which] += 1
        stride = self.layout.stride
        if time:
            self.counter += len(which)
            self._stored += len(which)
        # What falls out of reach, a window at a time.
        first = (before // stride - self._kept + 1) * stride
        for env in which[(before % stride == 0) & (first > 0)]:
            self._forget(env, int(self.written[env] - 1) // stride - self._kept)
        begun = which[before % stride == 0]
        if self.priorities is not None and len(begun):
            chunk = (self.written[begun] - 1) // stride
            self.priorities.set(self._slot(begun, chunk), self.greatest)
            old = chunk - self._kept
            some = old >= 0
            if some.any():
                self.priorities.set(self._slot(begun[some], old[some]), 0.0)

    def _forget(self, env: int, chunk: int) -> None:
        """Count a window's steps out; it is overwritten soon."""
        assert self.layout is not None
        stride = self.layout.stride
        place = np.arange(chunk * stride, (chunk + 1) * stride) % self.places
        part = next(iter(self.parts.values()))
        final = part.final.numpy()[place, env * part.size : (env + 1) * part.size]
        self._stored -= int((~final.all(1)).sum())

    def _slot(self, env: Array, chunk: Array) -> Array:
        slot: Array = chunk % self.chunks * self.envs + env
        return slot

    # --- sampling ---------------------------------------------------------------------------

    def _range(self) -> tuple[Array, Array]:
        """Return the first window of each environment, and the one behind its last, int [E]."""
        assert self.layout is not None
        last = (self.written - 1) // self.layout.stride
        return np.maximum(last + 1 - self._kept, 0), last + 1

    def _windows(self) -> tuple[Array, Array]:
        """Return environment and number of all windows there are."""
        first, end = self._range()
        env = np.arange(self.envs).repeat(end - first)
        chunk = np.concatenate([np.arange(a, b) for a, b in zip(first, end, strict=True)])
        return env, chunk

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
            RuntimeError: nothing has been stored.

        """
        if self.layout is None or not self.counter:
            raise RuntimeError("memory: expected steps to sample from, got none; collect first")
        first, end = self._range()
        weight = torch.ones(windows)
        if exponent and self.priorities is not None:
            slot = self.priorities.draw(windows, generator)
            env, place = slot % self.envs, slot // self.envs
            # Of the numbers that share a place the latest is meant.
            chunk = end[env] - 1 - (end[env] - 1 - place) % self.chunks
            share = self.priorities[slot] / self.priorities.total
            count = (end - first).sum()
            raw = (count * share) ** -correction
            weight = torch.from_numpy(raw / raw.max()).float()
        else:
            counts = (end - first).cumsum()
            drawn = torch.randint(int(counts[-1]), (windows,), generator=generator).numpy()
            env = np.searchsorted(counts, drawn, side="right")
            chunk = end[env] - (counts[env] - drawn)
            slot = self._slot(env, chunk)
        begin, layout = chunk * self.layout.stride, self.layout
        span = layout.burn_in, layout.length, ahead * self.gap
        return self._gather(env, begin, span, owner, slot, weight)

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
        slot = np.zeros(count, dtype=np.int64)
        end = begin[drawn] + length[drawn]
        return self._gather(env[drawn], begin[drawn], (0, longest, 0), -1, slot, end=end)

    def _episodes(self) -> tuple[Array, Array, Array]:
        """Return environment, absolute first place and length of all whole episodes, int [n]."""
        if self.layout is None or not self.counter:
            return (np.zeros(0, dtype=np.int64),) * 3
        found = []
        first = self._range()[0] * self.layout.stride
        for env in range(self.envs):
            place = np.arange(first[env], self.written[env] + self.shows_next)
            at = place % self.places
            somebody, others = np.zeros(len(place), dtype=bool), np.zeros(len(place), dtype=bool)
            for part in self.parts.values():
                rows = slice(env * part.size, (env + 1) * part.size)
                start, exists = part.start.numpy()[at, rows], part.exists.numpy()[at, rows]
                somebody |= start.any(1)
                others |= (exists & ~start).any(1)
            # Who comes later comes into an episode in which others are.
            begin = place[somebody & ~others]
            found.append((np.full(max(len(begin) - 1, 0), env), begin[:-1], np.diff(begin)))
        env_of, begins, lengths = (np.concatenate(x) for x in zip(*found, strict=True))
        return env_of, begins, lengths

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
        # The place that is being written holds what is seen next, already.
        inside = (time >= 0) & (time <= self.written[env])
        if end is not None:
            inside &= time < end
        at = time % self.places
        chunk = begin // self.layout.stride % self.chunks
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
        self, part: _Part, at: Array, inside: Array, env: Array, chunk: Array, foreign: Array
    ) -> GroupWindows:
        size = part.size
        if size == 1:
            row, rows_at, rows_inside = env, at, inside
        else:
            row = (env[:, None] * size + np.arange(size)).ravel()  # [R]
            rows_at, rows_inside = at.repeat(size, axis=1), inside.repeat(size, axis=1)
            chunk, foreign = chunk.repeat(size), foreign.repeat(size)
        index = torch.from_numpy(rows_at * part.rows + row)
        real = torch.from_numpy(rows_inside)
        whole = bool(rows_inside.all())

        def take(field: Tensor) -> Tensor:
            return field.flatten(0, 1)[index]

        flags = {name: take(getattr(part, name)) for name in FLAGS}
        if not whole:
            flags = {name: flag & real for name, flag in flags.items()}
        lost = torch.from_numpy(foreign)[:, None]
        where = (torch.from_numpy(chunk), torch.from_numpy(row))
        return GroupWindows(
            obs=take(part.obs),
            extra=None if part.extra is None else take(part.extra),
            action=take(part.action),
            action_mask=None if part.action_mask is None else take(part.action_mask),
            reward=take(part.reward),
            **flags,
            state=[x[where].transpose(0, 1).masked_fill(lost, 0) for x in part.hidden],
            agents=size,
        )

    def latest(self, name: str) -> tuple[Tensor, Tensor]:
        """Return what one group has seen since ``begin``, [T, R, *shape], and whether, bool [T, R].

        T is the most places that any environment has gone on by; ``exists`` leaves out the others'.
        """
        part = self.parts[name]
        time = self._begun + np.arange(int((self.written - self._begun).max()))[:, None]  # [T, E]
        inside = torch.from_numpy((time < self.written).repeat(part.size, axis=1))
        at = torch.from_numpy((time % self.places).repeat(part.size, axis=1) * part.rows)
        index = at + torch.arange(part.rows)
        return part.obs.flatten(0, 1)[index], part.exists.flatten(0, 1)[index] & inside

    def set_priority(self, slot: Array, priority: Array) -> None:
        """Set windows' priorities, > 0; of windows that have been overwritten since, nothing."""
        if self.priorities is None:
            return
        present = self.priorities[slot] > 0
        self.priorities.set(slot[present], priority[present])
        self.greatest = max(self.greatest, float(priority.max(initial=0)))

    # --- what it takes, and saving -----------------------------------------------------------

    def to_data(self) -> dict[str, Any]:
        """Return all of it in tensors (not copied) and plain values, for ``from_data``."""
        data: dict[str, Any] = {"memory_size": self.memory_size, "layout": None}
        if self.layout is None:
            return data
        return {
            **data,
            "layout": [self.layout.length, self.layout.stride, self.layout.burn_in],
            "envs": self.envs,
            "counter": self.counter,
            "stored": self._stored,
            "gap": self.gap,
            "greatest": self.greatest,
            "shows_next": self.shows_next,
            "written": torch.from_numpy(self.written),
            "owner": torch.from_numpy(self.owner),
            "priorities": None
            if self.priorities is None
            else torch.from_numpy(self.priorities.values()),
            "parts": {
                name: {
                    "size": part.size,
                    "shapes": _shapes_to_data(part.shapes),
                    "idle": torch.from_numpy(part.idle),
                    "fields": part.fields(),
                }
                for name, part in self.parts.items()
            },
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "SequenceReplayBuffer":
        """Rebuild what ``to_data`` described, sharing no memory with it."""
        memory = cls(data["memory_size"])
        if data["layout"] is None:
            return memory
        parts = data["parts"]
        memory.fit(
            {name: _shapes_from_data(part["shapes"]) for name, part in parts.items()},
            {name: part["size"] for name, part in parts.items()},
            data["envs"],
            ReplayLayout(*data["layout"]),
        )
        for name, saved in parts.items():
            part = memory.parts[name]
            if "action_mask" in saved["fields"] and part.action_mask is None:
                part.add_masks(saved["fields"]["action_mask"].shape[2])
            part.idle[:] = saved["idle"].cpu().numpy()
            for field, tensor in part.fields().items():
                tensor.copy_(saved["fields"][field])
        memory.counter, memory._stored, memory.gap = data["counter"], data["stored"], data["gap"]
        memory.greatest, memory.shows_next = data["greatest"], data["shows_next"]
        memory.written[:] = data["written"].cpu().numpy()
        memory.owner[:] = data["owner"].cpu().numpy()
        if data["priorities"] is not None:
            memory.priorities = SumTree(memory.chunks * memory.envs)
            values = data["priorities"].cpu().numpy()
            memory.priorities.set(np.arange(len(values)), values)
        return memory

    def nbytes(self) -> int:
        """Bytes of all fields."""
        return sum(x.nbytes for part in self.parts.values() for x in part.fields().values())


def _shapes_to_data(shapes: StepShapes) -> dict[str, Any]:
    """Return shapes in plain values."""
    return {
        "obs_shape": list(shapes.obs_shape),
        "action_shape": list(shapes.action_shape),
        "obs_dtype": str(shapes.obs_dtype).removeprefix("torch."),
        "action_dtype": str(shapes.action_dtype).removeprefix("torch."),
        "state_shapes": [list(shape) for shape in shapes.state_shapes],
        "extra": shapes.extra,
        "mask_size": shapes.mask_size,
    }


def _shapes_from_data(data: Mapping[str, Any]) -> StepShapes:
    """Undo ``_shapes_to_data``."""
    return StepShapes(
        tuple(data["obs_shape"]),
        tuple(data["action_shape"]),
        getattr(torch, data["obs_dtype"]),
        getattr(torch, data["action_dtype"]),
        [(k, h) for k, h in data["state_shapes"]],
        data["extra"],
        data["mask_size"],
    )
