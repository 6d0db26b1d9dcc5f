"""A ring of steps: what several environments have gone through, the latest of it.

Each environment writes at its own pace: an observation that ends a life takes a place of its own,
so that targets can be computed from it, and no observation is kept twice. Windows begin at
multiples of a stride, where the state before them is stored.

Letters: C places of an environment, E environments, A agents in a group, N = E * A rows, n of the
environments, K layers, H units.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.buffers.priorities import SumTree
from recurrent_rl.buffers.ring_part import FLAGS, Part
from recurrent_rl.buffers.steps import StepShapes
from recurrent_rl.recurrent.state import HiddenState
from recurrent_rl.spaces.array import Array
from recurrent_rl.validation import COUNT, checked

# What begins at a place: an episode, or what is left of one that something else came before.
EPISODE, REST = 1, 2


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


class Ring:
    """Places that environments write into one after the other, the oldest over again.

    Attributes:
        memory_size: environment steps that it holds, over all environments, about.
        layout: how windows lie; None before the first step.
        envs: E; 0 before the first step.
        counter: environment steps that it was ever given.
        parts: by group.
        written: places that each environment has ever begun and left, int [E].
        owner: whose the stored states are, int [chunks, E]; -1: nobody's.
        begins: what begins at each place, ``EPISODE``, ``REST`` or 0, int8 [C, E].
        gap: the most places that ever lay between a row's decisions, or the last and the end, in
            one life.
        priorities: of windows, to the power of ``exponent``; None without.
        exponent: of priorities.
        greatest: priority so far, which new windows get.
        shows_next: the present places hold what will be seen next.
        joins: what is being written goes on in the middle of lives that began elsewhere.
        writer: who wrote last.

    """

    def __init__(self, memory_size: int = 100_000) -> None:
        """Begin empty.

        Raises:
            TypeError: no whole number.
            ValueError: no room for a step.

        """
        self.memory_size: int = checked("memory_size", memory_size, Annotated[int, COUNT])
        self.layout: ReplayLayout | None = None
        self.envs, self.counter, self._stored = 0, 0, 0
        self.parts: dict[str, Part] = {}
        self.gap, self.greatest, self.exponent = 1, 1.0, 1.0
        self.priorities: SumTree | None = None
        self.shows_next, self.joins, self._collecting = False, False, False
        self.writer: Any = None

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
            _check_fits(self, shapes, sizes, envs, layout)
        if prioritised and self.priorities is None:
            self.priorities = SumTree(self.chunks * self.envs)
            self.priorities.set(self._slot(*self._windows()), self.greatest**self.exponent)

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
            name: Part(self.places, envs, sizes[name], shape, self.chunks)
            for name, shape in shapes.items()
        }
        self.written = np.zeros(envs, dtype=np.int64)
        self.floor = np.zeros(envs, dtype=np.int64)  # windows before have been lost
        self.owner = np.full((self.chunks, envs), -1, dtype=np.int64)
        self.begins = np.zeros((self.places, envs), dtype=np.int8)
        self._begun = self.written.copy()

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
            where = (place[env].repeat(part.size), part.rows_of(env))
        for field, value in values.items():
            part.arrays[field][where] = value

    def write_blank(self, which: Array) -> None:
        """Let the present places of environments, int [n], hold nothing; they take no time."""
        flags = dict.fromkeys(FLAGS, False) | {"final": True, "reward": 0}
        for name, part in self.parts.items():
            # Of final states nobody says what is allowed.
            masks = {} if part.action_mask is None else {"action_mask": True}
            self.write(name, {**flags, **masks}, which)
        self.begins[self.written[which] % self.places, which] = 0

    def begin(self, writer: Any, continued: bool) -> None:
        """Begin a collection, which ``abandon`` can take back.

        Args:
            writer: who writes; what another has written is ended as if cut by a limit.
            continued: lives go on where the writer's last collection ended.

        """
        follows = continued and self.shows_next and self.writer is writer
        if not follows:
            self.close()
            for part in self.parts.values():
                part.idle[:] = 0
        # Of what such lives remember nothing is known here: they replay as if they began.
        self.joins, self.writer = continued and not follows, writer
        self._begun, self._collecting = self.written.copy(), True
        self._before = self.counter, self.shows_next

    def note_begin(self, ended: Array | None, first: bool) -> None:
        """Note which environments' episodes begin with what is seen now.

        Args:
            ended: whose last one has ended, bool [E]; None: nobody's.
            first: nothing was seen before in this collection.

        """
        place = self.written % self.places
        if not first:
            self.begins[place, np.arange(self.envs)] = 0 if ended is None else EPISODE * ended
        elif not self.shows_next:
            self.begins[place, np.arange(self.envs)] = REST if self.joins else EPISODE

    def abandon(self) -> None:
        """Take back what has been written since ``begin``; what it was written over is lost."""
        if not self._collecting:
            return
        self._collecting = False
        first, span = self._range()[0], int((self.written - self._begun).max())
        # What was seen first had been seen before, and is fine.
        time = self._begun + np.arange(1, min(span, self.places) + 1)[:, None]
        k, env = np.nonzero(time <= self.written)
        place = time[k, env] % self.places
        for part in self.parts.values():
            where = (place.repeat(part.size), part.rows_of(env))
            for name in ("obs", "extra", "reward"):  # they may be NaN
                if name in part.arrays:
                    part.arrays[name][where] = 0
        self.written = self._begun.copy()
        self.floor = np.minimum(first, (self.written - 1) // self._stride + 1)
        self.counter, shown = self._before
        self.shows_next = shown and span < self.places
        self.recount()
        if self.priorities is not None:
            held = np.zeros(self.chunks * self.envs, dtype=bool)
            held[self._slot(*self._windows())] = True
            self.priorities.set(np.flatnonzero(~held), 0.0)
        if self.shows_next:
            for name in self.parts:
                self.write(name, {"reward": 0, "terminated": False, "truncated": False})
            self.close()

    def recount(self) -> None:
        """Count the environment steps that are held."""
        self._stored = int(self._steps().sum())

    def _steps(self) -> Array:
        """Return which places hold steps that are within reach, bool [C, E]."""
        last = self.written - 1
        time = last - (last - np.arange(self.places)[:, None]) % self.places
        part = next(iter(self.parts.values()))
        held = time >= self._range()[0] * self._stride
        steps: Array = held & ~part.arrays["final"][:, :: part.size]
        return steps

    def close(self) -> None:
        """End lives that nobody will go on with, as if cut by a limit: what is seen next is known.

        To be called where collection starts afresh; then ``shows_next`` is False.
        """
        if self.shows_next:
            self.shows_next = False
            self.cut(np.ones(self.envs, dtype=bool))

    def cut(self, ended: Array) -> None:
        """End lives in environments, bool [E], as if by a limit, with what they see at present."""
        cut = np.zeros(self.envs, dtype=bool)
        alive_of: dict[str, Array] = {}
        for name, part in self.parts.items():
            here, before = (x % self.places for x in (self.written, self.written - 1))
            row = np.arange(part.rows)
            here, before = here.repeat(part.size), before.repeat(part.size)
            alive_of[name] = part.arrays["exists"][here, row] & ~part.arrays["start"][here, row]
            alive_of[name] &= ended.repeat(part.size)
            alive = alive_of[name] & ~part.arrays["terminated"][before, row]
            part.arrays["truncated"][before, row] |= alive
            cut |= alive_of[name].reshape(-1, part.size).any(1)
        which = np.flatnonzero(cut)
        blank = {"active": False, "start": False, "final": True}
        for name, part in self.parts.items():
            alive = alive_of[name][part.rows_of(which)]
            self.write(name, {"exists": alive, **blank}, which)
        if len(which):
            self.advance(which, time=False)

    def store_state(self, name: str, state: HiddenState, owner: int) -> None:
        """Keep the state before the present places, of rows for which these are to be kept."""
        assert self.layout is not None
        part, burn_in = self.parts[name], self.layout.burn_in
        due = (self.written + burn_in) % self._stride == 0
        if not part.hidden or not due.any():
            return
        env = np.flatnonzero(due)
        chunk = (self.written[env] + burn_in) // self._stride % self.chunks
        self.owner[chunk, env] = owner
        rows = part.rows_of(env)
        where = (torch.from_numpy(chunk.repeat(part.size)), torch.from_numpy(rows))
        fits = [x.shape[::2] for x in state.tensors[: len(part.hidden)]] == [
            x.shape[2:] for x in part.hidden
        ]
        for i, stored in enumerate(part.hidden):
            if fits:
                stored[where] = state.tensors[i][:, where[1]].transpose(0, 1).to(stored.device)
            else:  # another network's state; zeros mean the same to all
                stored[where] = 0

    def advance(self, which: Array | None = None, *, time: bool = True) -> None:
        """Go on to the next place.

        Args:
            which: environments, int [n]; None: all.
            time: the places that are left held a step, rather than a final observation only.

        """
        which = np.arange(self.envs) if which is None else which
        before = self.written[which]
        self.written[which] += 1
        if time:
            self.shows_next = False
            self.counter += len(which)
            self._stored += len(which)
        begun = before % self._stride == 0
        if not begun.any():
            return
        env, chunk = which[begun], before[begun] // self._stride
        # As windows begin, as many fall out of reach.
        old = chunk - self._kept
        gone = old >= self.floor[env]
        if gone.any():
            self._forget(env[gone], old[gone])
        if self.priorities is not None:
            self.priorities.set(self._slot(env, chunk), self.greatest**self.exponent)
            self.priorities.set(self._slot(env[gone], old[gone]), 0.0)

    def _forget(self, env: Array, chunk: Array) -> None:
        """Count the steps of windows out, int [n] each; they are overwritten soon."""
        place = (chunk[:, None] * self._stride + np.arange(self._stride)) % self.places
        part = next(iter(self.parts.values()))
        final = part.arrays["final"][place, env[:, None] * part.size]
        self._stored -= final.size - int(final.sum())

    # --- windows ----------------------------------------------------------------------------

    @property
    def _stride(self) -> int:
        assert self.layout is not None
        return self.layout.stride

    def _slot(self, env: Array, chunk: Array) -> Array:
        """Return where windows' priorities are, int [n]."""
        slot: Array = chunk % self.chunks * self.envs + env
        return slot

    def _range(self) -> tuple[Array, Array]:
        """Return the first window of each environment, and the one behind its last, int [E]."""
        end = (self.written - 1) // self._stride + 1
        first = np.minimum(np.maximum(end - self._kept, self.floor), end)
        return first, end

    def _windows(self) -> tuple[Array, Array]:
        """Return environment and number of all windows there are."""
        first, end = self._range()
        env = np.arange(self.envs).repeat(end - first)
        chunk = np.concatenate([np.arange(a, b) for a, b in zip(first, end, strict=True)])
        return env, chunk

    def latest(self, name: str) -> tuple[Tensor, Tensor]:
        """Return what one group has seen since ``begin``, [T, N, *shape], and whether, bool [T, N].

        T is the most places that any environment has gone on by, of those that are held still;
        ``exists`` leaves out the others'.
        """
        part = self.parts[name]
        begun = np.maximum(self._begun, self.written - self.places + 1)
        time = begun + np.arange(int((self.written - begun).max()))[:, None]  # [T, E]
        inside = torch.from_numpy((time < self.written).repeat(part.size, axis=1))
        at = torch.from_numpy((time % self.places).repeat(part.size, axis=1) * part.rows)
        index = at + torch.arange(part.rows)
        return part.obs.flatten(0, 1)[index], part.exists.flatten(0, 1)[index] & inside


def _check_fits(
    ring: Ring,
    shapes: Mapping[str, StepShapes],
    sizes: Mapping[str, int],
    envs: int,
    layout: ReplayLayout,
) -> None:
    """Raise ValueError if a ring holds steps of another shape; see ``Ring.fit``."""
    held = {name: part.size for name, part in ring.parts.items()}
    for what, expected, got in (
        ("groups of agents", held, dict(sizes)),
        ("number of environments", ring.envs, envs),
        ("layout of sequences", ring.layout, layout),
    ):
        if expected != got:
            raise ValueError(
                f"memory: expected the {what} that it holds steps of, {expected}, got {got}; "
                f"give this agent a memory of its own"
            )
    fields = ("spaces", "obs_shape", "obs_dtype", "action_shape", "action_dtype", "extra")
    for name, part in ring.parts.items():
        for field in fields:
            expected, got = getattr(part.shapes, field), getattr(shapes[name], field)
            if expected != got and not (field == "spaces" and () in (expected, got)):
                of = f" of group {name!r}" if name else ""
                raise ValueError(
                    f"memory: expected {field}{of} {expected}, of what it holds, got {got}; "
                    f"build another memory for other spaces or inputs"
                )
