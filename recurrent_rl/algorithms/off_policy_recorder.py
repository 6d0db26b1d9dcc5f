"""What off-policy learning records: steps, written into a replay.

Letters: E environments, A agents in a group, N = E * A rows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.acting.agent import Recorder
from recurrent_rl.acting.player import Player, Turn
from recurrent_rl.buffers.replay import SequenceReplayBuffer
from recurrent_rl.envs.rows import Observed, Outcome
from recurrent_rl.functional.reward_scaling import REWARD_LIMIT
from recurrent_rl.recurrent.state import HiddenState
from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.masks import check_mask


class Finals:
    """Observations that lives have ended with in one step, of all groups of a team.

    They take places of their own, once all groups have said theirs.
    """

    def __init__(self, memory: SequenceReplayBuffer) -> None:
        """Write into ``memory``."""
        self.memory = memory
        self._waiting: list[tuple[OffPolicyRecorder, Array, Tensor]] = []
        self._heard = 0

    def hear(self, recorder: "OffPolicyRecorder", rows: Array, observation: Tensor | None) -> None:
        """Take one group's: rows, int [n], and what they saw, [n, *shape]; go on after the last."""
        if observation is not None:
            self._waiting.append((recorder, rows, observation))
        self._heard += 1
        memory = self.memory
        if self._heard < len(memory.parts):
            return
        self._heard = 0
        memory.advance()
        if not self._waiting:
            return
        envs = [rows // recorder.size for recorder, rows, _ in self._waiting]
        which = np.unique(np.concatenate(envs))
        for name in memory.parts:
            blank = {"exists": False, "active": False, "start": False, "final": True}
            ends = {"terminated": False, "truncated": False, "reward": 0}
            memory.write(name, {**blank, **ends}, which)
        for recorder, rows, observation in self._waiting:
            recorder.write_final(rows, observation)
        for recorder in self.recorders:
            recorder.store_state(recorder.player.state)
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
        self.policy, self.name, self.owner = player.policy, name, owner
        self.size = memory.parts[group].size

    def see(self, t: int, seen: Observed) -> tuple[Tensor, Tensor | None]:
        observation = self.policy.codec.layout.tensor(seen.observation)
        mask = self._mask(t, seen)
        self._write_seen(seen, observation, mask)
        device = self.player.device
        return observation.to(device), None if mask is None else torch.from_numpy(mask).to(device)

    def _write_seen(self, seen: Observed, observation: Tensor, mask: Array | None) -> None:
        """Write what is seen into the present places."""
        exists = True if seen.exists is None else seen.exists
        self.memory.write(
            self.group,
            {
                "obs": observation.numpy(),
                "start": False if seen.start is None else seen.start,
                "exists": exists,
                "active": exists if seen.active is None else seen.active,
                "final": False,
                **({} if mask is None else {"action_mask": mask}),
            },
        )

    def _mask(self, t: int, seen: Observed) -> Array | None:
        """Return the step's allowed actions, bool [N, mask_size], where there are any."""
        part = self.memory.parts[self.group]
        if seen.action_mask is None:
            if part.action_mask is not None:
                raise ValueError(
                    f"action_mask: expected one at every step, as before, got none at step {t} of "
                    f"this collection; give it in reset() and in every step()"
                )
            return None
        if not self.policy.actions.choices:
            return None
        if part.action_mask is None:
            part.add_masks(self.policy.actions.mask_size)
        return check_mask(
            seen.action_mask,
            self.policy.actions.space,
            part.rows,
            asked=seen.active,
            name=lambda row: f"{self.name(row)} at step {t} of this collection",
        )

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
        if seen.active is None:
            idle[:] = 1
        else:
            self._count_gap(idle, seen.active, seen.start)

    def _count_gap(self, idle: Array, active: Array, start: Array | None) -> None:
        """Note how long rows wait for their next decision."""
        if start is not None:
            idle[start] = 0
        waited = idle[active & (idle > 0)]
        self.memory.gap = max(self.memory.gap, int(waited.max(initial=1)))
        idle[:] = np.where(active, 1, idle + (idle > 0))

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
        final = outcome.final_observation
        observation = None if final is None else self.policy.codec.layout.tensor(final)
        self.finals.hear(self, outcome.final_rows, observation)

    def _take_back(self, void: Array) -> None:
        """Note rows, bool [N], whose step never was."""
        part = self.memory.parts[self.group]
        place = (self.memory.written % self.memory.places).repeat(self.size)
        for flag in ("exists", "active", "start"):
            part.arrays[flag][place[void], np.flatnonzero(void)] = False

    def write_final(self, rows: Array, observation: Tensor) -> None:
        """Write what rows, int [n], saw last, [n, *shape], into places that are blank already."""
        part, memory = self.memory.parts[self.group], self.memory
        where = ((memory.written % memory.places).repeat(self.size)[rows], rows)
        part.arrays["obs"][where] = observation.numpy()
        part.arrays["exists"][where] = True
        extra = self.player.extra()
        if extra is not None:
            part.arrays["extra"][where] = extra.cpu().numpy()[rows]

    def finish(self, seen: Observed) -> None:
        observation = self.policy.codec.layout.tensor(seen.observation)
        mask = None if seen.action_mask is None else self._mask(-1, seen)
        self._write_seen(seen, observation, mask)
        self.player.begin(seen.start)
        extra = self.player.extra()
        self.memory.write(
            self.group,
            {
                "reward": 0,
                "terminated": False,
                "truncated": False,
                **({} if extra is None else {"extra": extra.cpu().numpy()}),
            },
        )
        self.memory.shows_next = True
        self._check()

    def check(self, steps: int) -> None:
        self._check()

    def abandon(self) -> None:
        self.memory.abandon()

    def _check(self) -> None:
        """Check what has been written since the collection began."""
        memory, part = self.memory, self.memory.parts[self.group]
        for env in range(memory.envs):
            places = np.arange(memory._begun[env], memory.written[env] + 1) % memory.places
            rows = slice(env * self.size, (env + 1) * self.size)
            self._check_block(part.obs[places, rows], part.reward[places, rows], env)

    def _check_block(self, seen: Tensor, reward: Tensor, env: int) -> None:
        invalid = self.policy.codec.invalid(seen)
        if bool(invalid.any()):
            t, agent = invalid.nonzero()[0].tolist()
            fault = self.policy.codec.layout.fault(seen[t, agent].numpy())
            assert fault is not None
            part, expected, got = fault
            raise self._wrong("observation" + part, expected, got, env, t, agent)
        fine = reward.abs() <= REWARD_LIMIT  # NaN is not
        if not bool(fine.all()):
            t, agent = fine.logical_not().nonzero()[0].tolist()
            expected = f"finite numbers up to +-{REWARD_LIMIT:g}"
            raise self._wrong("reward", expected, reward[t, agent].item(), env, t, agent)

    def _wrong(
        self, what: str, expected: str, value: Any, env: int, t: int, agent: int
    ) -> ValueError:
        return ValueError(
            f"{what}: expected {expected}, got {value} from {self.name(env * self.size + agent)} "
            f"at step {t} of this collection; these steps are not kept, the weights are as before, "
            f"and the next collection resets the environment"
        )
