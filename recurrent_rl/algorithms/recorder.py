"""What on-policy learning records of a rollout.

Letters: T steps, N rows (environment, agent).

Per step only what the next action needs is computed. What is not (log-probabilities, values) is
computed for a block of steps at once.
"""

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.acting.agent import Recorder, Sight
from recurrent_rl.acting.player import Player, Turn
from recurrent_rl.algorithms.refusals import REWARDS, Refusals, first_beyond
from recurrent_rl.buffers.open_decisions import OpenDecisions
from recurrent_rl.buffers.rollout import SequenceRolloutBuffer
from recurrent_rl.envs.rows import Observed, Outcome
from recurrent_rl.functional.reward_scaling import REWARD_LIMIT
from recurrent_rl.networks.policy import ActorCritic
from recurrent_rl.recurrent.state import HiddenState
from recurrent_rl.spaces.array import Array

FLOAT_MAX = torch.finfo(torch.float32).max
BLOCK = 64  # steps between two batched evaluations; bounds the memory that they need


class OnPolicyRecorder(Recorder):
    """Fills one group's rollout: its steps, with their log-probabilities and values."""

    def __init__(
        self,
        buffer: SequenceRolloutBuffer,
        player: Player,
        final_is_next: bool,
        name: Callable[[int], str],
        earlier: OpenDecisions | None = None,
    ) -> None:
        """Begin a rollout.

        Args:
            buffer: to be filled.
            player: who acts.
            final_is_next: see ``RowSource``.
            name: says what a row is.
            earlier: decisions that the rollout before has left open, if the buffer has a lead.

        """
        self.rollout, self.player = buffer, player
        self.policy = cast("ActorCritic", player.policy)
        self.device, self.final_is_next = player.device, final_is_next
        self._refuse = Refusals(self.policy, name, "rollout", "the rollout is discarded")
        # Steps, and rows that were truncated there without being shown a final observation.
        self._unshown: list[tuple[int, Tensor]] = []
        buffer.clear()
        self.buffer = buffer = buffer.behind_lead()
        # Views: NumPy writes a row of a small array in a tenth of the time torch takes.
        self._obs = buffer.obs.numpy()
        # In float64, so that what float32 does not hold is found without NumPy's warning of it.
        self._reward = np.zeros(buffer.reward.shape)
        self._obs_rows = buffer.obs.unbind()
        self._views: Tensor | None = None  # [T, E, *shape]
        if buffer.views is not None:
            self._views = buffer.views.unflatten(0, (buffer.steps, -1))
        self._env = torch.arange(buffer.rows) // buffer.agents
        # Of the steps since the last evaluation.
        self._actions: list[Tensor] = []
        self._dist_params: list[Tensor] = []
        self._features: list[Tensor] = []
        # State before each row's last decision, or the decision before this rollout.
        self._before = player.state
        if earlier is not None:
            self._recall(earlier)

    def _recall(self, earlier: OpenDecisions) -> None:
        """Put decisions first, with the values and probabilities that they have by now.

        They count as the present policy's, which is a few gradient steps from the one that chose:
        so ratios are one, as everywhere, and targets and values are of one and the same network.
        """
        rollout, policy = self.rollout, self.policy
        rollout.put_first(earlier)
        with torch.inference_mode():
            params, value = policy.unroll(
                earlier.obs[None].to(self.device),
                None if earlier.extra is None else earlier.extra[None].to(self.device),
                [state.transpose(0, 1).to(self.device) for state in earlier.hidden],
                None,
                None if earlier.action_mask is None else earlier.action_mask.to(self.device),
                None if earlier.view is None else earlier.view[None].to(self.device),
            )
            distribution = policy.action_head.distribution
            log_prob = distribution.log_prob(params, earlier.action.to(self.device))
            rollout.log_prob[0, earlier.row] = log_prob.cpu()
            rollout.value[0, earlier.row] = value.cpu()
            tensors = [state.clone() for state in self._before.tensors]
            for state, then in zip(tensors, earlier.hidden, strict=False):
                state[:, earlier.row] = then.transpose(0, 1).to(self.device)
            self._before = HiddenState(tensors, self._before.rows)

    def see(self, t: int, seen: Observed) -> Sight:
        if seen.observation.dtype == self._obs.dtype:
            self._obs[t] = seen.observation
        else:
            with np.errstate(over="ignore"):  # what float32 does not hold is found at the end
                self._obs[t] = seen.observation
        if seen.start is not None:
            self.buffer.start[t] = torch.from_numpy(seen.start)
        view = None
        if self._views is not None:
            self._views[t] = self._view(seen.view)
            view = self._by_row(self._views[t])
        shown = self._obs_rows[t] if seen.tensor is None else seen.tensor
        return Sight(shown.to(self.device), self._mask(t, seen), view)

    def _view(self, view: Array | None) -> Tensor:
        """Return what a central critic sees of environments as the rollout has it, [*, *shape]."""
        assert self.policy.view_codec is not None
        assert view is not None
        return self.policy.view_codec.layout.tensor(view)

    def _by_row(self, view: Tensor) -> Tensor:
        """[E, *shape] -> [N, *shape], on the policy's device."""
        return view.index_select(0, self._env).to(self.device)

    def _mask(self, t: int, seen: Observed) -> Tensor | None:
        """Store the step's action mask and return it on the policy's device."""
        stored = self.buffer.action_mask
        if stored is None:
            if seen.action_mask is None or not self.policy.actions.choices:
                return None
            # The first there is; in front of this rollout everything was allowed.
            self.rollout.add_masks(self.policy.actions.mask_size)
            stored = self.rollout.behind_lead().action_mask
            assert stored is not None
            self.buffer.action_mask = stored
        stored[t] = torch.from_numpy(self._refuse.mask(t, seen, self.buffer.rows))
        return stored[t].to(self.device)

    def acted(self, t: int, seen: Observed, turn: Turn) -> None:
        buffer, acted = self.buffer, turn.acted
        buffer.store_state(t, turn.before)
        if buffer.extra is not None and turn.extra is not None:
            buffer.extra[t] = turn.extra
        if seen.exists is not None:
            buffer.exists[t] = torch.from_numpy(seen.exists)
        if seen.active is not None:
            active = torch.from_numpy(seen.active)
            buffer.active[t] = active
            self._before = turn.before.where(active.to(self.device), self._before)
        else:
            self._before = turn.before
        self._actions.append(acted.action)
        self._dist_params.append(acted.dist_params)
        assert acted.critic_features is not None
        self._features.append(acted.critic_features)
        if len(self._features) == BLOCK or t == buffer.steps - 1:
            self._evaluate_block(t + 1)

    def _evaluate_block(self, end: int) -> None:
        """Log-probabilities and values of the steps since the last block."""
        part = slice(end - len(self._features), end)
        action = torch.stack(self._actions)
        self.buffer.action[part] = action
        distribution = self.policy.action_head.distribution
        log_prob = distribution.log_prob(torch.stack(self._dist_params), action)
        self.buffer.log_prob[part] = log_prob
        self.buffer.value[part] = self.policy.value_of(torch.stack(self._features))
        self._actions.clear()
        self._dist_params.clear()
        self._features.clear()

    def outcome(self, t: int, outcome: Outcome) -> None:
        buffer = self.buffer
        self._reward[t] = outcome.reward
        if outcome.void is not None:
            void = torch.from_numpy(outcome.void)
            for flag in (buffer.exists, buffer.active, buffer.start):
                flag[t] &= ~void
        if (outcome.terminated | outcome.truncated).any():
            buffer.terminated[t] = torch.from_numpy(outcome.terminated)
            buffer.truncated[t] = torch.from_numpy(outcome.truncated)
        if outcome.final_observation is not None:
            self._bootstrap(t, outcome.final_rows, outcome)
        if outcome.truncated.any() and not self.final_is_next:
            rows = outcome.truncated & ~outcome.terminated
            rows[outcome.final_rows] = False
            if rows.any():
                self._unshown.append((t, torch.from_numpy(rows)))

    def _bootstrap(self, t: int, final_rows: Array, outcome: Outcome) -> None:
        """V(final observation, state after step t), for the truncated rows only."""
        assert outcome.final_observation is not None
        seen = self.policy.codec.layout.tensor(outcome.final_observation)
        # Checked here, as its value may be finite even so: normalisation clips, gates saturate.
        if found := self._refuse.first_invalid(seen):
            row = int(final_rows[found[0]])
            raise self._refuse.observation("final observation", seen[found[0]], row, t)
        if self._views is not None:
            seen = self._view(outcome.final_view)
            if found := self._refuse.first_invalid(seen, central=True):
                row = int(final_rows[found[0]])
                raise self._refuse.observation("final state", seen[found[0]], row, t, central=True)
        self.buffer.bootstrap[t, torch.from_numpy(final_rows)] = self.player.value(seen, final_rows)

    def finish(self, seen: Observed) -> None:
        buffer, rollout = self.buffer, self.rollout
        observation = self.policy.codec.layout.tensor(seen.observation)
        view = None if self._views is None else self._view(seen.view)
        self._check(buffer.steps, observation, view)
        self.player.begin(seen.start)
        last_value = self.player.value(observation if view is None else self._by_row(view))
        if self.final_is_next:
            following = torch.cat((buffer.value[1:], last_value[None]))
            torch.where(buffer.truncated, following, torch.zeros(()), out=buffer.bootstrap)
        for t, rows in self._unshown:
            buffer.bootstrap[t] = torch.where(rows, self._latest_value(t + 1), buffer.bootstrap[t])
        if seen.exists is not None:  # nothing is expected of what is blank
            last_value = last_value.where(torch.from_numpy(seen.exists), torch.zeros(()))
        rollout.last_value = last_value
        if seen.active is not None:
            asked, before = torch.from_numpy(seen.active), self._before.tensors
            rollout.hold_back(asked, before[: self.policy.memory])

    def _latest_value(self, end: int) -> Tensor:
        """V of what each row saw last before step ``end`` of this rollout, [N]; 0 if nothing."""
        rollout = self.rollout
        end += rollout.lead
        exists = rollout.exists[:end]
        latest = torch.where(exists, torch.arange(end)[:, None], -1).amax(0)
        value = rollout.value[latest.clamp_min(0), torch.arange(rollout.rows)]
        return torch.where(latest >= 0, value, torch.zeros(()))

    def check(self, steps: int) -> None:
        latest = None if self._views is None else self._views[steps - 1]
        self._check(steps - 1, self.buffer.obs[steps - 1], latest)

    def abandon(self) -> None:
        pass  # a rollout that is not whole is never learned from

    def _check(self, steps: int, observation: Tensor, view: Tensor | None) -> None:
        """Check the first ``steps`` steps, and an observation and a central view that follow."""
        buffer = self.buffer
        buffer.reward.copy_(torch.from_numpy(self._reward))
        blocks = buffer.obs[:steps].split(BLOCK) if steps else ()
        begins = (*range(0, steps, BLOCK), steps)
        for begin, seen in zip(begins, (*blocks, observation[None]), strict=True):
            if found := self._refuse.first_invalid(seen):
                t, row = found
                raise self._refuse.observation("observation", seen[t, row], row, begin + t)
        if view is not None:
            self._check_views(steps, view)
        for name, expected, values, limit in (
            ("reward", REWARDS, buffer.reward, REWARD_LIMIT),
            ("value of the final observation", "finite numbers", buffer.bootstrap, FLOAT_MAX),
        ):
            if found := first_beyond(values[:steps], limit):
                t, row = found
                raise self._refuse.error(name, expected, values[t, row].item(), row, t)

    def _check_views(self, steps: int, following: Tensor) -> None:
        """Check what a central critic saw in the first ``steps`` steps, and what follows them."""
        assert self._views is not None
        blocks = self._views[:steps].split(BLOCK) if steps else ()
        begins = (*range(0, steps, BLOCK), steps)
        for begin, seen in zip(begins, (*blocks, following[None]), strict=True):
            if found := self._refuse.first_invalid(seen, central=True):
                t, env = found
                row = env * self.buffer.agents
                raise self._refuse.observation("state", seen[t, env], row, begin + t, central=True)
