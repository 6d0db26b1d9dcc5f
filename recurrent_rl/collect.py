"""Collection: step environments with a recurrent policy and fill a rollout buffer.

Letters: T steps, N rows (environment, agent), F width of the extra inputs.

Per step only what the next action needs is computed. What is not (log-probabilities, values) is
computed for a block of steps at once.
"""

import weakref
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from recurrent_rl.config import PPOConfig
from recurrent_rl.functional import reverse_scan
from recurrent_rl.networks import ActorCritic, RunningNorm
from recurrent_rl.recurrent import HiddenState
from recurrent_rl.rollout import SequenceRolloutBuffer
from recurrent_rl.spaces import same_space
from recurrent_rl.vector import Array, GymRows, Observed, Outcome

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
        """Rebuild what ``to_data`` described."""
        arrays = (None if x is None else x.cpu().numpy() for x in data["observed"])
        return cls(
            Observed(*arrays),  # type: ignore[arg-type]
            HiddenState(data["state"], data["rows"]).to(device),
            data["reward"].to(device),
            data["episode_return"].cpu().numpy(),
            data["episode_length"].cpu().numpy(),
            data["discounted"].cpu(),
        )


class HasSpaces(Protocol):
    """An agent's spaces, those of one environment."""

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]


class Collecting(HasSpaces, Protocol):
    """What collection needs of an agent; ``PPO`` documents the parts."""

    config: PPOConfig
    policy: ActorCritic
    device: torch.device
    generator: torch.Generator
    reward_norm: RunningNorm | None
    carry: Carry | None
    collected: bool

    def prepare_buffer(self, steps: int, rows: int, masked: bool) -> SequenceRolloutBuffer:
        """Return a buffer for T steps of N rows, with or without action masks."""

    def next_seed(self) -> int | None:
        """Return a seed for the environments, or None for none."""

    def finish_rollout(self, last_value: Tensor) -> None:
        """Compute the returns of the rollout that is now whole; V [N] of what follows."""


# Which collection stepped an environment last: only that one may continue on it.
_latest: "weakref.WeakKeyDictionary[Any, Carry]" = weakref.WeakKeyDictionary()


def disturb(env: object) -> None:
    """Note that something else stepped the environment: the next collection on it starts afresh."""
    _latest.pop(env, None)


@dataclass
class RolloutStats:
    """What happened while collecting.

    Attributes:
        steps: transitions collected, summed over environments.
        returns: undiscounted returns of the episodes that ended, in order of ending.
        lengths: their lengths [environment steps].

    """

    steps: int
    returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    @property
    def mean_return(self) -> float:
        """Mean over the episodes that ended; NaN if none did."""
        return float(np.mean(self.returns)) if self.returns else float("nan")


class RowCollector:
    """One group's half of collection: acts for its rows and records what comes back."""

    def __init__(
        self,
        policy: ActorCritic,
        buffer: SequenceRolloutBuffer,
        carry: Carry,
        generator: torch.Generator,
        reward_input_scale: float,
        final_is_next: bool,
    ) -> None:
        """Begin a rollout at ``carry``, which is left as it is."""
        self.policy, self.buffer, self.generator = policy, buffer, generator
        self.device = next(policy.parameters()).device
        self.observed, self.state = carry.observed, carry.state
        self.last_reward, self.scale = carry.reward, reward_input_scale
        self.returns, self.lengths = carry.episode_return.copy(), carry.episode_length.copy()
        self.discounted, self.final_is_next = carry.discounted, final_is_next
        self.stats = RolloutStats(steps=buffer.steps * buffer.rows)
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
        extra = self.policy.extra_inputs(self.state, self.last_reward)
        if buffer.extra is not None and extra is not None:
            buffer.extra[t] = extra
        acted = self.policy.act(
            self._obs_rows[t].to(self.device), extra, self.state, self._noise[t % BLOCK], mask
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
                    f"info['action_mask']: expected none, as at reset, got one at step {t}; put it "
                    f"into the info of reset() and of step()"
                )
            return None
        if seen.action_mask is None:
            raise ValueError(
                f"info['action_mask']: expected one at every step, as at reset, got none at step "
                f"{t}; put it into the info of reset() and of step()"
            )
        if seen.action_mask.shape != stored.shape[1:]:
            raise ValueError(
                f"info['action_mask']: expected shape [N, n] = {list(stored.shape[1:])}, got "
                f"{list(seen.action_mask.shape)}"
            )
        possible = seen.action_mask.any(-1)
        if seen.active is not None:
            possible |= ~seen.active
        if not possible.all():
            row = int(np.flatnonzero(~possible)[0])
            raise ValueError(
                f"info['action_mask']: expected at least one allowed action, got none from "
                f"environment {row} at step {t} of this rollout"
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
            self.last_reward = torch.as_tensor(reward * self.scale, dtype=torch.float32).to(
                self.device
            )
        self.returns += reward
        self.lengths += 1 if self.observed.active is None else self.observed.active
        ended = outcome.terminated | outcome.truncated
        if ended.any():
            buffer.terminated[t] = torch.from_numpy(outcome.terminated)
            buffer.truncated[t] = torch.from_numpy(outcome.truncated)
            rows = np.flatnonzero(ended)
            self.stats.returns += self.returns[rows].tolist()
            self.stats.lengths += self.lengths[rows].tolist()
            self.returns[rows], self.lengths[rows] = 0, 0
        if outcome.final_observation is not None:
            self._bootstrap(t, outcome.final_rows, outcome.final_observation)
        self.observed = observed

    def _bootstrap(self, t: int, final_rows: Array, final: Array) -> None:
        """V(final observation, state after step t), for the truncated rows only."""
        rows = torch.from_numpy(final_rows)
        place = rows.to(self.device)
        state = self.state[place]
        extra = self.policy.extra_inputs(state, self.last_reward[place])
        observation = torch.as_tensor(final, dtype=self.buffer.obs.dtype).to(self.device)
        # Checked here, as its value may be finite even so: normalisation clips, gates saturate.
        finite = torch.isfinite(observation)
        if not bool(finite.all()):
            i = int(finite.logical_not().nonzero()[0, 0])
            raise _not_finite("final observation", final[i].tolist(), int(final_rows[i]), t)
        self.buffer.bootstrap[t, rows] = self.policy.value(observation, extra, state).cpu()

    def finish(self) -> tuple[Tensor, Carry]:
        """Return the value of what is seen next, [N], and where to continue.

        Raises:
            ValueError: an observation or a reward was not finite; names environment and step.

        """
        buffer, state, reward = self.buffer, self.state, self.last_reward
        seen = self.observed._replace(observation=np.array(self.observed.observation))
        observation = torch.as_tensor(seen.observation, dtype=buffer.obs.dtype)
        self.check_finite(buffer.steps, observation)
        # The value needs the zeroing that is still to come; what is carried on is as it was, since
        # the next call zeroes it.
        self._reset_started(seen)
        extra = self.policy.extra_inputs(self.state, self.last_reward)
        last_value = self.policy.value(observation.to(self.device), extra, self.state).cpu()
        if self.final_is_next:
            following = torch.cat((buffer.value[1:], last_value[None]))
            torch.where(buffer.truncated, following, torch.zeros(()), out=buffer.bootstrap)
        return last_value, Carry(seen, state, reward, self.returns, self.lengths, self.discounted)

    def check_finite(self, steps: int, observation: Tensor) -> None:
        """Raise ValueError if the first ``steps`` steps, or what was seen next, are not finite."""
        buffer = self.buffer
        for name, values in (
            ("observation", torch.cat((buffer.obs[:steps], observation[None]))),
            ("reward", buffer.reward[:steps]),
            ("value of the final observation", buffer.bootstrap[:steps]),
        ):
            finite = torch.isfinite(values)
            if not bool(finite.all()):
                t, row = finite.logical_not().nonzero()[0, :2].tolist()
                raise _not_finite(name, values[t, row].tolist(), row, t)

    def discounted_returns(self, gamma: float) -> Tensor:
        """Return the discounted return up to and with each step, [T, N], and carry its end on."""
        buffer = self.buffer
        factor = gamma * (~(buffer.terminated | buffer.truncated)).float()
        before = torch.cat((torch.full_like(factor[:1], gamma), factor[:-1]))
        # Forwards in time is backwards on the flipped axis.
        total = reverse_scan(buffer.reward.flip(0), before.flip(0), self.discounted).flip(0)
        self.discounted = total[-1] * (factor[-1] > 0)
        return total


def _not_finite(name: str, value: Any, row: int, t: int) -> ValueError:
    return ValueError(
        f"{name}: expected finite numbers, got {value} from environment {row} at step {t} of this "
        f"rollout; the rollout is discarded, the weights are as before, and the next collection "
        f"resets the environment"
    )


def collect_rollouts_recurrent(
    agent: Collecting,
    env: VectorEnv[Any, Any, Any],
    n_steps: int | None = None,
    *,
    reset: bool | None = None,
) -> RolloutStats:
    """Fill the agent's buffer with T steps from each environment, ready for ``agent.learn()``.

    Collection continues where the agent's last call on the same environment stopped: observation
    and hidden state carry over. On another environment, or one that something else has stepped
    through this package since, it starts afresh.

    Args:
        agent: recurrent or feed-forward.
        env: a Gymnasium vector environment that declares its autoreset mode.
        n_steps: T; None takes the agent's ``learn_step``.
        reset: True starts afresh in any case. False continues in any case: after loading a
            checkpoint, on an environment that you have put back into the state it was saved in.

    Returns:
        the episodes that ended on the way. The rollout itself is in ``agent.buffer``.

    Raises:
        TypeError: env is no vector environment.
        ValueError: no declared autoreset mode, spaces that are not the agent's, data that are not
            finite (named with environment and step), or nothing to continue from.

    """
    rows = GymRows(env)
    check_spaces(agent, env)
    steps = agent.config.learn_step if n_steps is None else n_steps
    if steps < 1:
        raise ValueError(f"n_steps: expected at least 1, got {steps}")
    carry = _where_to_start(agent, rows, reset)
    buffer = agent.prepare_buffer(steps, rows.rows, carry.observed.action_mask is not None)
    # Until the rollout is whole there is nothing to continue from, nor to learn from.
    agent.carry, agent.collected = None, False
    disturb(env)
    with torch.inference_mode():
        group = RowCollector(
            agent.policy,
            buffer,
            carry,
            agent.generator,
            agent.config.reward_scale,
            rows.final_is_next,
        )
        for t in range(steps):
            action = group.act(t)
            try:
                outcome, observed = rows.step(action, group.observed)
            except Exception:
                # It may have failed on the action that its own bad numbers led to.
                group.check_finite(t, buffer.obs[t])
                raise
            group.record(t, outcome, observed)
        last_value = _finish(agent, group)
    agent.finish_rollout(last_value)
    assert agent.carry is not None
    _latest[env] = agent.carry
    return group.stats


def _finish(agent: Collecting, group: RowCollector) -> Tensor:
    if agent.reward_norm is not None:
        buffer = group.buffer
        total = group.discounted_returns(agent.config.gamma)
    last_value, agent.carry = group.finish()
    if agent.reward_norm is not None:
        agent.reward_norm.update(total[buffer.active & buffer.exists][:, None])
    return last_value


def check_spaces(agent: HasSpaces, env: VectorEnv[Any, Any, Any]) -> None:
    """Raise ValueError if the environment's spaces are not the agent's."""
    for name, ours, theirs in (
        ("observation", agent.observation_space, env.single_observation_space),
        ("action", agent.action_space, env.single_action_space),
    ):
        if not same_space(ours, theirs, bounds=name == "action"):
            raise ValueError(
                f"env: expected the agent's {name} space {ours}, got {theirs}; build the agent "
                f"from this environment's spaces, or wrap the environment as in training"
            )


def _where_to_start(agent: Collecting, rows: GymRows, reset: bool | None) -> Carry:
    carry: Carry | None = agent.carry
    if reset is None:
        reset = carry is None or _latest.get(rows.env) is not carry
    if not reset:
        if carry is None or carry.state.rows != rows.rows:
            had = "nothing" if carry is None else f"{carry.state.rows} environments"
            raise ValueError(
                f"reset=False: expected a collection on {rows.rows} environments to continue, the "
                f"agent has {had}; leave reset out"
            )
        return carry
    # Whatever comes of it, the reset ends what anyone could have continued.
    agent.carry = None
    disturb(rows.env)
    observed = rows.reset(agent.next_seed())
    agent.policy.codec.check(observed.observation, rows.rows)
    device = agent.device
    return Carry(
        observed,
        agent.policy.initial_state(rows.rows),
        torch.zeros(rows.rows, device=device),
        np.zeros(rows.rows),
        np.zeros(rows.rows, dtype=np.int64),
        torch.zeros(rows.rows),
    )


# One function serves policies with and without memory; the second name is for those without.
collect_rollouts = collect_rollouts_recurrent
