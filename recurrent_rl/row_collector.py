"""One group's half of collection: act for its rows, and record what comes back.

Letters: T steps, N rows (environment, agent), A agents in the group.

Per step only what the next action needs is computed. What is not (log-probabilities, values) is
computed for a block of steps at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from recurrent_rl.config import PPOConfig
from recurrent_rl.functional import reverse_scan
from recurrent_rl.networks import ActorCritic, RunningNorm
from recurrent_rl.recurrent import HiddenState
from recurrent_rl.rollout import SequenceRolloutBuffer
from recurrent_rl.spaces import Array, allows_something, choices
from recurrent_rl.vector import Observed, Outcome

BLOCK = 64  # steps between two batched evaluations; bounds the memory that they need


@dataclass
class Carry:
    """Where collection stopped, so that the next call continues there.

    Attributes:
        observed: what the policy sees next.
        state: the hidden state before it; zeroing by ``observed.start`` is still to come.
        reward: the last reward, [N], for policies that see it.
        episode_return: so far, [N].
        episode_length: so far, [N] [environment steps].
        discounted: discounted return so far, [N], for reward normalisation.

    """

    observed: Observed
    state: HiddenState
    reward: Tensor
    episode_return: Array
    episode_length: Array
    discounted: Tensor

    def to_data(self) -> dict[str, Any]:
        """Tensors and plain values, for a checkpoint."""
        return {
            "observed": [None if x is None else torch.from_numpy(x) for x in self.observed],
            "state": list(self.state.tensors),
            "rows": self.state.rows,
            "reward": self.reward,
            "episode_return": torch.from_numpy(self.episode_return),
            "episode_length": torch.from_numpy(self.episode_length),
            "discounted": self.discounted,
        }

    @classmethod
    def from_data(cls, data: dict[str, Any], device: torch.device) -> "Carry":
        """Rebuild what ``to_data`` described, sharing no memory with it."""
        arrays = (None if x is None else x.cpu().numpy().copy() for x in data["observed"])
        return cls(
            Observed(*arrays),  # type: ignore[arg-type]
            HiddenState(data["state"], data["rows"]).to(device).clone(),
            data["reward"].to(device, copy=True),
            data["episode_return"].cpu().numpy().copy(),
            data["episode_length"].cpu().numpy().copy(),
            data["discounted"].to("cpu", copy=True),
        )


class Group(Protocol):
    """What collection needs of a group of agents; ``AgentGroup`` documents the parts."""

    config: PPOConfig
    action_space: gym.Space[Any]
    policy: ActorCritic
    device: torch.device
    generator: torch.Generator
    reward_norm: RunningNorm | None
    carry: Carry | None
    collected: bool
    agents: Sequence[str]
    size: int

    def prepare_buffer(self, steps: int, rows: int, masked: bool) -> SequenceRolloutBuffer:
        """Return a buffer for T steps of N rows, with or without action masks."""

    def identity(self, rows: int) -> Tensor | None:
        """Return which agent each of N rows is, one-hot [N, A], if the policy is to see it."""

    def next_seed(self) -> int | None:
        """Return a seed for the environments, or None for none."""

    def finish_rollout(self, last_value: Tensor) -> None:
        """Compute the returns of the rollout that is now whole; V [N] of what follows."""


class RowCollector:
    """One group's half of collection: acts for its rows and records what comes back.

    Attributes:
        observed: what the rows see now.
        returns: of the episodes that ended, [A] each, in order of ending.
        lengths: theirs [environment steps].

    """

    def __init__(
        self,
        group: Group,
        buffer: SequenceRolloutBuffer,
        carry: Carry,
        final_is_next: bool,
        name: Callable[[int], str],
    ) -> None:
        """Begin a rollout at ``carry``, which is left as it is; ``name`` says what a row is."""
        self.policy, self.buffer, self.generator = group.policy, buffer, group.generator
        self.device, self.name, self.final_is_next = group.device, name, final_is_next
        self.observed, self.state = carry.observed, carry.state
        self.last_reward, self.scale = carry.reward, group.config.reward_scale
        self.identity = group.identity(buffer.rows)
        self.size, self.choices = group.size, choices(group.action_space)
        self.returns: list[Array] = []
        self.lengths: list[int] = []
        self._return, self._length = carry.episode_return.copy(), carry.episode_length.copy()
        self.discounted = carry.discounted
        # Steps, and rows that were truncated there without being shown a final observation.
        self._unshown: list[tuple[int, Tensor]] = []
        buffer.clear()
        # Views: NumPy writes a row of a small array in a tenth of the time torch takes.
        self._obs, self._reward = buffer.obs.numpy(), buffer.reward.numpy()
        self._obs_rows = buffer.obs.unbind()
        self._params: list[Tensor] = []
        self._features: list[Tensor] = []

    def act(self, t: int) -> Array:
        """Choose the rows' actions at step t, in the environment's form."""
        buffer, seen = self.buffer, self.observed
        if t % BLOCK == 0:
            size = (min(BLOCK, buffer.steps - t), buffer.rows)
            self._noise = self.policy.head.noise(size, self.generator).to(self.device).unbind()
        self._obs[t] = seen.observation
        self._reset_started(seen)
        if seen.start is not None:
            buffer.start[t] = torch.from_numpy(seen.start)
        mask = self._record_mask(t, seen)
        buffer.store_state(t, self.state)
        extra = self.policy.extra_inputs(self.state, self.last_reward, self.identity)
        if buffer.extra is not None and extra is not None:
            buffer.extra[t] = extra
        acted = self.policy.act(
            self._obs_rows[t].to(self.device),
            extra,
            self.state,
            self._noise[t % BLOCK],
            mask,
            forced_actions(self.policy, seen, self.device),
        )
        buffer.action[t] = acted.action
        self._params.append(acted.params)
        self._features.append(acted.critic_features)
        if len(self._params) == BLOCK or t == buffer.steps - 1:
            self._evaluate_block(t + 1)
        self.state = acted.state if seen.exists is None else self._freeze(t, seen, acted.state)
        if seen.active is not None:
            buffer.active[t] = torch.from_numpy(seen.active)
        return self.policy.head.to_env(acted.action)

    def _reset_started(self, seen: Observed) -> None:
        if seen.start is not None:
            start = torch.from_numpy(seen.start).to(self.device)
            self.state = self.state.reset(start)
            self.last_reward = self.last_reward.masked_fill(start, 0)

    def _freeze(self, t: int, seen: Observed, after: HiddenState) -> HiddenState:
        exists = torch.from_numpy(seen.exists)
        self.buffer.exists[t] = exists
        return after.where(exists.to(self.device), self.state)

    def _record_mask(self, t: int, seen: Observed) -> Tensor | None:
        """Store the step's action mask and return it on the policy's device."""
        stored = self.buffer.action_mask
        if stored is None:
            if seen.action_mask is not None and self.policy.head.mask_size:
                raise ValueError(
                    f"action_mask: expected none, as at reset, got one at step {t}; give "
                    f"it in reset() and in every step()"
                )
            return None
        if seen.action_mask is None:
            raise ValueError(
                f"action_mask: expected one at every step, as at reset, got none at step "
                f"{t}; give it in reset() and in every step()"
            )
        if seen.action_mask.shape != stored.shape[1:]:
            raise ValueError(
                f"action_mask: expected shape [N, n] = {list(stored.shape[1:])}, got "
                f"{list(seen.action_mask.shape)}"
            )
        possible = allows_something(seen.action_mask, self.choices)
        if seen.active is not None:
            possible |= ~seen.active
        if not possible.all():
            row = int(np.flatnonzero(~possible)[0])
            raise ValueError(
                f"action_mask: expected at least one allowed action, got none from "
                f"{self.name(row)} at step {t} of this rollout"
            )
        stored[t] = torch.from_numpy(seen.action_mask)
        return stored[t].to(self.device)

    def _evaluate_block(self, end: int) -> None:
        """Log-probabilities and values of the steps since the last block."""
        part = slice(end - len(self._params), end)
        action = self.buffer.action[part].to(self.device)
        self.buffer.log_prob[part] = self.policy.head.log_prob(torch.stack(self._params), action)
        self.buffer.value[part] = self.policy.value_of(torch.stack(self._features))
        self._params.clear()
        self._features.clear()

    def record(self, t: int, outcome: Outcome, observed: Observed) -> None:
        """Take in what step t led to, and what is seen next."""
        buffer, reward = self.buffer, outcome.reward
        self._reward[t] = reward
        if self.policy.previous_reward:
            self._see_reward(reward)
        self._return += reward if outcome.score is None else outcome.score
        self._length += 1 if outcome.counted is None else outcome.counted
        ended = outcome.terminated | outcome.truncated
        if ended.any():
            buffer.terminated[t] = torch.from_numpy(outcome.terminated)
            buffer.truncated[t] = torch.from_numpy(outcome.truncated)
        if outcome.ended is not None:
            ended = outcome.ended
        if ended.any():
            self._end_episodes(ended)
        if outcome.final_observation is not None:
            self._bootstrap(t, outcome.final_rows, outcome.final_observation)
        if outcome.truncated.any() and not self.final_is_next:
            rows = outcome.truncated & ~outcome.terminated
            rows[outcome.final_rows] = False
            if rows.any():
                self._unshown.append((t, torch.from_numpy(rows)))
        self.observed = observed

    def _see_reward(self, reward: Array) -> None:
        new = torch.as_tensor(reward * self.scale, dtype=torch.float32).to(self.device)
        if self.observed.exists is not None:
            # Who saw nothing has seen no reward either: they add up until it looks again.
            absent = torch.from_numpy(~self.observed.exists).to(self.device)
            new = torch.where(absent, self.last_reward + new, new)
        self.last_reward = new

    def _end_episodes(self, ended: Array) -> None:
        rows = np.flatnonzero(ended)
        self.returns += list(self._return[rows].reshape(-1, self.size))
        self.lengths += self._length[rows[:: self.size]].tolist()
        self._return[rows], self._length[rows] = 0, 0

    def _bootstrap(self, t: int, final_rows: Array, final: Array) -> None:
        """V(final observation, state after step t), for the truncated rows only."""
        rows = torch.from_numpy(final_rows)
        place = rows.to(self.device)
        state = self.state[place]
        identity = None if self.identity is None else self.identity[place]
        extra = self.policy.extra_inputs(state, self.last_reward[place], identity)
        observation = torch.as_tensor(final, dtype=self.buffer.obs.dtype)
        # Checked here, as its value may be finite even so: normalisation clips, gates saturate.
        invalid = self.policy.codec.invalid(observation)
        if bool(invalid.any()):
            i = int(invalid.nonzero()[0, 0])
            raise self._invalid("final observation", observation[i], int(final_rows[i]), t)
        value = self.policy.value(observation.to(self.device), extra, state)
        self.buffer.bootstrap[t, rows] = value.cpu()

    def finish(self) -> tuple[Tensor, Carry]:
        """Return the value of what is seen next, [N], and where to continue.

        Raises:
            ValueError: an observation or a reward was not finite; names environment and step.

        """
        buffer, state, reward = self.buffer, self.state, self.last_reward
        # Copies: the environment may write over its arrays.
        seen = Observed(*(None if x is None else np.array(x) for x in self.observed))  # type: ignore[arg-type]
        observation = torch.as_tensor(seen.observation, dtype=buffer.obs.dtype)
        self.check_finite(buffer.steps, observation)
        # The value needs the zeroing that is still to come; what is carried on is as it was, since
        # the next call zeroes it.
        self._reset_started(seen)
        extra = self.policy.extra_inputs(self.state, self.last_reward, self.identity)
        last_value = self.policy.value(observation.to(self.device), extra, self.state).cpu()
        if self.final_is_next:
            following = torch.cat((buffer.value[1:], last_value[None]))
            torch.where(buffer.truncated, following, torch.zeros(()), out=buffer.bootstrap)
        for t, rows in self._unshown:
            buffer.bootstrap[t] = torch.where(rows, self._latest_value(t + 1), buffer.bootstrap[t])
        if seen.exists is not None:
            # Who sees nothing now expects what it expected when it last saw something.
            there = torch.from_numpy(seen.exists)
            last_value = torch.where(there, last_value, self._latest_value(buffer.steps))
        return last_value, Carry(seen, state, reward, self._return, self._length, self.discounted)

    def _latest_value(self, end: int) -> Tensor:
        """V of what each row saw last before step ``end`` of this rollout, [N]; 0 if nothing."""
        exists = self.buffer.exists[:end]
        latest = torch.where(exists, torch.arange(end)[:, None], -1).amax(0)
        value = self.buffer.value[latest.clamp_min(0), torch.arange(self.buffer.rows)]
        return torch.where(latest >= 0, value, torch.zeros(()))

    def check_finite(self, steps: int, observation: Tensor) -> None:
        """Raise ValueError if the first ``steps`` steps, or what was seen next, make no sense."""
        buffer = self.buffer
        blocks = buffer.obs[:steps].split(BLOCK) if steps else ()
        begins = (*range(0, steps, BLOCK), steps)
        for begin, seen in zip(begins, (*blocks, observation[None]), strict=True):
            invalid = self.policy.codec.invalid(seen)
            if bool(invalid.any()):
                t, row = invalid.nonzero()[0].tolist()
                raise self._invalid("observation", seen[t, row], row, begin + t)
        for name, values in (
            ("reward", buffer.reward[:steps]),
            ("value of the final observation", buffer.bootstrap[:steps]),
        ):
            finite = torch.isfinite(values)
            if not bool(finite.all()):
                t, row = finite.logical_not().nonzero()[0, :2].tolist()
                raise self._wrong(name, "finite numbers", values[t, row].item(), row, t)

    def _invalid(self, name: str, stored: Tensor, row: int, t: int) -> ValueError:
        """Say what is wrong with an observation [*shape]."""
        fault = self.policy.codec.layout.fault(stored.numpy())
        assert fault is not None
        part, expected, got = fault
        return self._wrong(name + part, expected, got, row, t)

    def _wrong(self, name: str, expected: str, value: Any, row: int, t: int) -> ValueError:
        return ValueError(
            f"{name}: expected {expected}, got {value} from {self.name(row)} at step {t} of this "
            f"rollout; the rollout is discarded, the weights are as before, and the next "
            f"collection resets the environment"
        )

    def discounted_returns(self, gamma: float) -> Tensor:
        """Return the discounted return up to and with each step, [T, N], and carry its end on."""
        buffer = self.buffer
        factor = gamma * (~(buffer.terminated | buffer.truncated)).float()
        before = torch.cat((torch.full_like(factor[:1], gamma), factor[:-1]))
        # Forwards in time is backwards on the flipped axis.
        total = reverse_scan(buffer.reward.flip(0), before.flip(0), self.discounted).flip(0)
        self.discounted = total[-1] * (factor[-1] > 0)
        return total


def forced_actions(
    policy: ActorCritic, seen: Observed, device: torch.device
) -> tuple[Tensor, Tensor] | None:
    """Return what ``ActorCritic.act`` takes as ``forced``."""
    if seen.forced is None:
        return None
    assert seen.forced_action is not None
    action = policy.head.from_env(seen.forced_action)
    return torch.from_numpy(seen.forced).to(device), action.to(device)
