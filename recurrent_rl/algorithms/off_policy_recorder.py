"""What off-policy learning records: steps, written into a replay.

Letters: E environments, A agents in a group, N = E * A rows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.acting.agent import Recorder, Sight
from recurrent_rl.acting.player import Player, Turn
from recurrent_rl.algorithms.refusals import REWARDS, Refusals, first_beyond
from recurrent_rl.buffers.replay import SequenceReplayBuffer
from recurrent_rl.envs.rows import Observed, Outcome
from recurrent_rl.functional.reward_scaling import REWARD_LIMIT
from recurrent_rl.recurrent.state import HiddenState
from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.masks import allows_something, choices

BLOCK = 64  # places that are checked at a time; bounds the memory that it needs


class Finals:
    """Observations that lives have ended with in one step, of all groups of a team.

    They take places of their own, once all groups have said theirs.
    """

    def __init__(self, memory: SequenceReplayBuffer) -> None:
        """Write into ``memory``."""
        self.memory = memory
        self._waiting: list[tuple[OffPolicyRecorder, Array, Tensor, Array | None]] = []
        self._heard = 0

    def hear(
        self,
        recorder: "OffPolicyRecorder",
        rows: Array,
        observation: Tensor | None,
        mask: Array | None,
    ) -> None:
        """Take one group's; go on after the last.

        Args:
            recorder: the group's.
            rows: int [n].
            observation: what they saw last, [n, *shape], or None.
            mask: what would be allowed there, bool [n, mask_size], or None.

        """
        if observation is not None:
            self._waiting.append((recorder, rows, observation, mask))
        self._heard += 1
        memory = self.memory
        if self._heard < len(memory.parts):
            return
        self._heard = 0
        memory.advance()
        if not self._waiting:
            return
        envs = [rows // recorder.size for recorder, rows, *_ in self._waiting]
        which = np.unique(np.concatenate(envs))
        memory.write_blank(which)
        for recorder, rows, observation, mask in self._waiting:
            recorder.write_final(rows, observation, mask)
        for recorder in self.recorders:
            recorder.store_state(recorder.player.state)
            memory.parts[recorder.group].wait(which)
        self._waiting.clear()
        memory.advance(which, time=False)

    recorders: "list[OffPolicyRecorder]"


class OffPolicyRecorder(Recorder):
    """Writes one group's steps into a replay."""

    def __init__(
        self,
        memory: SequenceReplayBuffer,
        group: str,
        player: Player,
        finals: Finals,
        name: Callable[[int], str],
        owner: int,
    ) -> None:
        """Begin to write.

        Args:
            memory: fits the player's policy.
            group: its name there.
            player: who acts.
            finals: shared by all groups of the team.
            name: says what a row is.
            owner: whose states these are.

        """
        self.memory, self.group, self.player, self.finals = memory, group, player, finals
        self.policy, self.owner = player.policy, owner
        self._refuse = Refusals(player.policy, name, "collection", "these steps are not kept")
        self.size = memory.parts[group].size
        self._leads = group == next(iter(memory.parts))  # notes what all groups share
        self._steps = 0
        # Where what has not been checked begins, and the step there.
        self._unchecked, self._since = memory.written.copy(), 0
        self._ended: Array | None = None  # rows whose last step ended an episode, if it was said

    def see(self, t: int, seen: Observed) -> Sight:
        # A step takes two places at most.
        if 2 * (t + 1 - self._since) >= min(BLOCK, self.memory.places):
            self._check(self.memory.written, t)
        self._steps = t
        observation = self.policy.codec.layout.tensor(seen.observation)
        mask = self._mask(t, seen)
        self._write_seen(seen, observation, mask)
        device = self.player.device
        allowed = None if mask is None else torch.from_numpy(mask).to(device)
        shown = observation if seen.tensor is None else seen.tensor
        return Sight(shown.to(device), allowed)

    def _write_seen(self, seen: Observed, observation: Tensor, mask: Array | None) -> None:
        """Write what is seen into the present places."""
        memory, first = self.memory, self._steps == 0
        if self._leads:
            begins = seen.start if self._ended is None else self._ended
            memory.note_begin(None if begins is None else begins[:: self.size], first)
        exists = True if seen.exists is None else seen.exists
        start = False if seen.start is None else seen.start
        memory.write(
            self.group,
            {
                "obs": observation.numpy(),
                "start": exists if first and memory.joins else start,
                "exists": exists,
                "active": exists if seen.active is None else seen.active,
                "final": False,
                **({} if mask is None else {"action_mask": mask}),
            },
        )

    def _mask(self, t: int, seen: Observed) -> Array | None:
        """Return the step's allowed actions, bool [N, mask_size], where there are any."""
        part, actions = self.memory.parts[self.group], self.policy.actions
        if part.action_mask is None:
            if seen.action_mask is None or not actions.choices:
                return None
            part.add_masks(actions.mask_size)
        mask = self._refuse.mask(t, seen, part.rows)
        # Who is asked nothing may be allowed nothing; what it sees has a value all the same.
        return mask | ~allows_something(mask, choices(actions.space))[:, None]

    def acted(self, t: int, seen: Observed, turn: Turn) -> None:
        self.store_state(turn.before)
        self.memory.write(
            self.group,
            {
                "action": turn.acted.action.cpu().numpy(),
                **({} if turn.extra is None else {"extra": turn.extra.cpu().numpy()}),
            },
        )
        idle = self.memory.parts[self.group].idle
        if seen.start is not None:
            idle[seen.start] = 0
        if seen.active is None:
            self._note_gap(idle)
            idle[:] = 1
        else:
            self._note_gap(idle[seen.active])
            idle[:] = np.where(seen.active, 1, idle + (idle > 0))

    def _note_gap(self, idle: Array) -> None:
        """Note how long rows have waited for their next decision, or the end."""
        self.memory.gap = max(self.memory.gap, int(idle.max(initial=1)))

    def store_state(self, state: HiddenState) -> None:
        """Keep the state before the present places where it is to be kept."""
        self.memory.store_state(self.group, state, self.owner)

    def outcome(self, t: int, outcome: Outcome) -> None:
        with np.errstate(over="ignore"):  # what float32 does not hold is found at the end
            reward = outcome.reward.astype(np.float32)
        self.memory.write(
            self.group,
            {"reward": reward, "terminated": outcome.terminated, "truncated": outcome.truncated},
        )
        if outcome.void is not None:
            self._take_back(outcome.void)
        ended = outcome.terminated | outcome.truncated
        if ended.any():
            self._note_gap(self.memory.parts[self.group].idle[ended])
        self._ended = outcome.ended
        final = outcome.final_observation
        observation = None if final is None else self.policy.codec.layout.tensor(final)
        self.finals.hear(self, outcome.final_rows, observation, outcome.final_mask)

    def _take_back(self, void: Array) -> None:
        """Note rows, bool [N], whose step never was."""
        part = self.memory.parts[self.group]
        place = (self.memory.written % self.memory.places).repeat(self.size)
        for flag in ("exists", "active", "start"):
            part.arrays[flag][place[void], np.flatnonzero(void)] = False

    def write_final(self, rows: Array, observation: Tensor, mask: Array | None) -> None:
        """Write what rows, int [n], saw last, [n, *shape], into places that are blank already.

        ``mask`` has what would be allowed there, bool [n, mask_size]; None: everything.
        """
        part, memory = self.memory.parts[self.group], self.memory
        where = ((memory.written % memory.places).repeat(self.size)[rows], rows)
        part.arrays["obs"][where] = observation.numpy()
        part.arrays["exists"][where] = True
        sizes = choices(self.policy.actions.space)
        if mask is not None and part.action_mask is not None and mask.shape[1] == sum(sizes):
            part.arrays["action_mask"][where] = mask | ~allows_something(mask, sizes)[:, None]
        extra = self.player.extra()
        if extra is not None:
            part.arrays["extra"][where] = extra.cpu().numpy()[rows]

    def finish(self, seen: Observed) -> None:
        self._steps += 1
        observation = self.policy.codec.layout.tensor(seen.observation)
        masked = self.memory.parts[self.group].action_mask is not None
        mask = None
        if seen.action_mask is not None:
            mask = self._mask(self._steps, seen)
        self._write_seen(seen, observation, mask)
        self.player.begin(seen.start)
        self.store_state(self.player.state)
        extra = self.player.extra()
        self.memory.write(
            self.group,
            {
                "reward": 0,
                "terminated": False,
                "truncated": False,
                **({"action_mask": True} if masked and mask is None else {}),
                **({} if extra is None else {"extra": extra.cpu().numpy()}),
            },
        )
        self.memory.shows_next = True
        self._check(self.memory.written + 1, self._steps + 1)

    def check(self, steps: int) -> None:
        self._check(self.memory.written + 1, steps)

    def abandon(self) -> None:
        self.memory.abandon()

    # --- checks -----------------------------------------------------------------------------

    def _check(self, end: Array, step: int) -> None:
        """Check what has been written since the last check.

        Args:
            end: places of environments behind the last to be checked, int [E].
            step: that begins there.

        """
        memory, part = self.memory, self.memory.parts[self.group]
        begin = self._unchecked
        longest = int((end - begin).max())
        for first in range(0, longest, BLOCK):
            time = begin + np.arange(first, min(first + BLOCK, longest))[:, None]  # [T, E]
            # Others' steps stand in for places that are not there.
            place = np.minimum(time, end - 1) % memory.places
            where: Any = place[:, 0]
            if not (place == place[:, :1]).all():
                where = (place.repeat(self.size, axis=1), np.arange(part.rows))
            seen, reward, exists = part.obs[where], part.reward[where], part.exists[where]
            if found := self._refuse.first_invalid(seen, exists):  # absent agents see zeros
                t, row = found
                what, step = self._named("observation", row, int(time[t, row // self.size]))
                raise self._refuse.observation(what, seen[t, row], row, step)
            if found := first_beyond(reward, REWARD_LIMIT):
                t, row = found
                what, step = self._named("reward", row, int(time[t, row // self.size]))
                raise self._refuse.error(what, REWARDS, reward[t, row].item(), row, step)
        self._unchecked, self._since = end.copy(), step

    def _named(self, what: str, row: int, place: int) -> tuple[str, int]:
        """Return what is at an absolute place, and of which step of this collection."""
        final = self.memory.parts[self.group].arrays["final"][:, row]
        since = np.arange(self._unchecked[row // self.size], place) % self.memory.places
        step = self._since + int((~final[since]).sum())
        return (f"final {what}", step - 1) if final[place % self.memory.places] else (what, step)
