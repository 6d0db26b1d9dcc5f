"""Sampled windows run through trunks again.

Letters: W places of a window, P of them from the first that is trained on, R rows (windows x
agents), S sequences, K layers, H units, D features.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.buffers.minibatches import rectangles
from recurrent_rl.buffers.replay import GroupWindows, Windows
from recurrent_rl.functional.targets import NStep, n_step
from recurrent_rl.networks.acting_policy import Policy
from recurrent_rl.networks.trunk import Trunk
from recurrent_rl.recurrent.sequences import cut_sequences


class Replayed:
    """One group's part of sampled windows, for networks to be run over.

    Windows may have starts of lives within them, and places where nothing was seen; trunks are run
    over the sequences between, as everywhere.

    Attributes:
        windows: what was sampled, on the CPU.
        device: of the networks.
        places: P.
        rows: R.
        nstep: what decisions have led to; places count from the first that is trained on.

    """

    def __init__(
        self, windows: GroupWindows, burn_in: int, length: int, device: torch.device
    ) -> None:
        """Args: what was sampled, places in front, those trained on, and where networks are."""
        self.windows, self.device = windows, device
        self._burn_in, self.length = burn_in, length
        whole, self.rows = windows.start.shape
        self.places = whole - burn_in
        self._plan: _Plan | None = None

    def part(self, field: Tensor, begin: int = 0, end: int | None = None) -> Tensor:
        """Return some places of a field [W, R, ...], counted from the first trained on."""
        stop = None if end is None else self._burn_in + end
        return field[self._burn_in + begin : stop]

    def targets(self, gamma: float, steps: int) -> NStep:
        """Return what decisions have led to, on the CPU; see ``functional.n_step``."""
        w = self.windows
        fields = (w.reward, w.active, w.exists, w.start, w.terminated, w.truncated, w.final)
        reward, active, exists, start, terminated, truncated, final = map(self.part, fields)
        return n_step(
            reward,
            active,
            exists,
            start,
            terminated,
            truncated,
            final,
            gamma,
            steps=steps,
            length=self.length,
        )

    def features(self, trunk: Trunk, begin: int = 0, end: int | None = None) -> Tensor:
        """Return a trunk's features at places ``begin`` to ``end``, [end - begin, R, D].

        They are those of a row's own life up to each place; zeros where nothing was seen.
        """
        end = self.places if end is None else end
        if not trunk.shapes:
            return self._memoryless(trunk, begin, end)
        if self._plan is None:
            self._plan = _Plan(self)
        return self._plan.run(trunk)[begin:end]

    def _memoryless(self, trunk: Trunk, begin: int, end: int) -> Tensor:
        observation = self.part(self.windows.obs, begin, end)
        extra = self.extra(begin, end)
        exists = self.part(self.windows.exists, begin, end)
        if bool(exists.all()):
            whole: Tensor = trunk(trunk.inputs(observation.to(self.device)), extra, ())[0]
            return whole
        # What does not exist is left out: whatever stands there, 0 times it need not be 0.
        index = exists.flatten().nonzero().squeeze(1)
        seen = observation.flatten(0, 1)[index][None].to(self.device)
        index = index.to(self.device)
        given = None if extra is None else extra.flatten(0, 1)[index][None]
        y: Tensor = trunk(trunk.inputs(seen), given, ())[0][0]
        blank = y.new_zeros(exists.numel(), trunk.outputs)
        return blank.index_copy(0, index, y).view(*exists.shape, -1)

    def extra(self, begin: int, end: int) -> Tensor | None:
        """Return extra inputs of some places, [end - begin, R, F], or None."""
        extra = self.windows.extra
        return None if extra is None else self.part(extra, begin, end).to(self.device)


def replayed(
    windows: Windows, policies: Mapping[str, Policy], device: torch.device
) -> dict[str, Replayed]:
    """Return a sample's groups for networks to be run over.

    Args:
        windows: sampled; states that are another network's, of other widths, count as zeros.
        policies: by group.
        device: of the networks.

    """
    return {
        name: Replayed(
            _with_own_state(group, policies[name]), windows.burn_in, windows.length, device
        )
        for name, group in windows.groups.items()
    }


def _with_own_state(group: GroupWindows, policy: Policy) -> GroupWindows:
    """Return a group's windows with states of the policy's shapes, zeros if they have others."""
    wanted = policy.state_shapes[: policy.memory]
    if [(x.shape[0], x.shape[2]) for x in group.state] == wanted:
        return group
    rows = group.start.shape[1]
    return replace(group, state=[torch.zeros(k, rows, h) for k, h in wanted])


class _Plan:
    """How trunks with memory run over windows: burn-in first, then the sequences.

    Attributes:
        whole: no window has a start behind its first place, or a place without an observation.

    """

    def __init__(self, replayed: Replayed) -> None:
        self._r = replayed
        windows, device = replayed.windows, replayed.device
        start, exists = (replayed.part(x) for x in (windows.start, windows.exists))
        self._fresh = start[0].to(device)[:, None] if bool(start[0].any()) else None
        self._burn = self._burn_in_steps()
        self.whole = bool(exists.all()) and not bool(start[1:].any())
        places, rows = start.shape
        obs = replayed.part(windows.obs)
        extra = None if windows.extra is None else replayed.part(windows.extra)
        # Of each what is seen, and where states come from: [S], and which are zeros, [S, 1].
        self._parts: list[tuple[Tensor, Tensor | None, Tensor | None, Tensor]] = []
        if self.whole:
            moved = None if extra is None else extra.to(device)
            self._parts.append((obs.to(device), moved, None, start[:0]))
            return
        position = torch.full((places * rows,), -1, dtype=torch.int64)
        flat, flat_extra = obs.flatten(0, 1), None if extra is None else extra.flatten(0, 1)
        base = 0
        lives = _lives(start) if bool(exists.all()) else _lives_with_gaps(start, exists)
        for index, real, row, fresh in lives:
            position[index.flatten()[real]] = base + real
            base += index.numel()
            moved = None if flat_extra is None else flat_extra[index].to(device)
            given = flat[index].to(device), moved, row.to(device), fresh.to(device)[:, None]
            self._parts.append(given)
        absent = position < 0
        self._blank = bool(absent.any())
        self._position = position.masked_fill_(absent, base).to(device)

    def _burn_in_steps(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor] | None:
        """Return what is replayed in front: the steps of each row's life that lie there."""
        r = self._r
        burn_in = r._burn_in
        if not burn_in:
            return None
        w = r.windows
        start, exists = w.start[:burn_in], w.exists[:burn_in]
        time = torch.arange(burn_in)[:, None]
        since = torch.where(start, time, -1).amax(0)  # last start, -1: none
        taken = exists & (time >= since) & ~w.start[burn_in]
        if not bool(taken.any()):
            return None
        front = (~taken).long().argsort(dim=0, stable=True)
        longest = int(taken.sum(0).max())
        front, row = front[:longest], torch.arange(r.rows)
        obs = w.obs[front, row].to(r.device)
        extra = None if w.extra is None else w.extra[front, row].to(r.device)
        return obs, extra, taken.sum(0).to(r.device), (since >= 0).to(r.device)

    def _begin(self, trunk: Trunk) -> list[Tensor]:
        """Return a trunk's own state tensors before the first place trained on."""
        r = self._r
        own = [x.to(r.device) for x in r.windows.state[trunk.place]]
        if [(x.shape[0], x.shape[2]) for x in own] != list(trunk.shapes):
            # Of another network; zeros mean the same to all.
            own = [torch.zeros(k, r.rows, h, device=r.device) for k, h in trunk.shapes]
        if self._burn is not None:
            obs, extra, length, fresh = self._burn
            own = [x.masked_fill(fresh[:, None], 0) for x in own]
            with torch.no_grad():
                own = list(trunk.run(trunk.inputs(obs), extra, length, _placed(trunk, own)))
        if self._fresh is not None:
            own = [x.masked_fill(self._fresh, 0) for x in own]
        return own

    def run(self, trunk: Trunk) -> Tensor:
        """Return features [P, R, D]."""
        begin = self._begin(trunk)
        given: list[Tensor] = []
        for obs, extra, row, fresh in self._parts:
            state = begin
            if row is not None:
                state = [x.index_select(1, row).masked_fill(fresh, 0) for x in begin]
            given.append(trunk(trunk.inputs(obs), extra, _placed(trunk, state))[0])
        if self.whole:
            return given[0]
        if not given:
            return begin[0].new_zeros(self._r.places, self._r.rows, trunk.outputs)
        parts = [x.flatten(0, 1) for x in given]
        if self._blank:
            parts.append(parts[0].new_zeros(1, trunk.outputs))
        flat = parts[0] if len(parts) == 1 else torch.cat(parts)
        # Not by brackets: the gradient of these takes several times as long.
        return flat.index_select(0, self._position).view(self._r.places, self._r.rows, -1)


def _lives(start: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Cut windows at starts of lives, bool [P, R], where something is seen at all places.

    In NumPy, whose calls take a quarter of the time of torch's for a few hundred numbers.

    Yields:
        index: flat places of sequences of like length, [L, S]; padding repeats the last.
        real: which of these are no padding, flat.
        row: of each, [S].
        fresh: it begins with zeros rather than with the window's state, bool [S].

    """
    places, rows = start.shape
    begins = start.numpy().T.copy()
    begins[:, 0] = True
    row, time = np.nonzero(begins)
    last = np.append(row[1:] != row[:-1], True)
    length = np.where(last, places, np.append(time[1:], 0)) - time
    for chosen in rectangles(torch.arange(len(row)), torch.from_numpy(length)):
        which = chosen.numpy()
        step = np.arange(length[which].max())[:, None]
        index = (time[which] + np.minimum(step, length[which] - 1)) * rows + row[which]
        real = np.flatnonzero(step < length[which])
        found = index, real, row[which], time[which] > 0
        yield tuple(torch.from_numpy(x) for x in found)  # type: ignore[misc]


def _lives_with_gaps(
    start: Tensor, exists: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Do the same where nothing is seen at some places, bool [P, R]."""
    cuts = cut_sequences(start, exists, exists, len(start))
    which = torch.arange(len(cuts))
    for chosen in rectangles(which, cuts.length) if len(cuts) else []:
        index, active = cuts.index(chosen)
        real = torch.arange(index.numel()) if active is None else active
        yield index, real, cuts.row[chosen], cuts.fresh[chosen]


def _placed(trunk: Trunk, own: list[Tensor]) -> list[Tensor]:
    """Return tensors of which the trunk's own stand where it looks for them."""
    return [own[0]] * trunk.place.start + own


def joint(own: Sequence[Tensor], others: Sequence[Tensor], group: int, windows: int) -> Tensor:
    """Join what stands for each agent of a team, for the critics of one group.

    Args:
        own: for each group what stands for its agents, [P, B * A, Z]; here as judged.
        others: likewise, as the other agents of the judged one.
        group: number of the group whose critics read it.
        windows: B.

    Returns:
        for each row of the group the judged agent's first, then those of the group's others, then
        those of all other groups' agents, [P, B * A, *].

    """
    judged = own[group].unflatten(1, (windows, -1))  # [P, B, A, Z]
    agents = judged.shape[2]
    parts = [judged]
    if agents > 1:
        mates = others[group].unflatten(1, (windows, -1))
        order = torch.tensor([[j for j in range(agents) if j != i] for i in range(agents)])
        parts.append(mates[:, :, order.to(mates.device)].flatten(3))
    for i, each in enumerate(others):
        if i != group:
            wide = each.unflatten(1, (windows, -1)).flatten(2)  # [P, B, A' * Z']
            parts.append(wide[:, :, None].expand(-1, -1, agents, -1))
    return torch.cat(parts, -1).flatten(1, 2)
