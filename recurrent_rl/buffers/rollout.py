"""The rollout: steps as they were collected, what on-policy learning adds, and minibatches.

Letters: T steps, N rows (environment, agent), S sequences, L longest sequence (``max_seq_len``),
K layers, H units, M active steps of a minibatch, B longest burn-in. Time comes first.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from recurrent_rl.buffers.open_decisions import OpenDecisions, last_decision
from recurrent_rl.buffers.steps import Steps, StepShapes
from recurrent_rl.distributed import ALONE, World
from recurrent_rl.functional.returns import gae, reverse_scan
from recurrent_rl.functional.statistics import normalize
from recurrent_rl.recurrent.sequences import Sequences


class BurnIn(NamedTuple):
    """What is replayed without gradient in front of some sequences.

    Attributes:
        observation: [B, S, *shape], padded behind its end by its own last step.
        extra: [B, S, F] or None.
        length: [S], each in [0, B].
        view: what a central critic reads, [B, S, *shape] or None.

    """

    observation: Tensor
    extra: Tensor | None
    length: Tensor
    view: Tensor | None


@dataclass(frozen=True)
class Batch:
    """One minibatch of whole sequences; what the learner sees.

    Attributes:
        observation: [L, S, *shape], padded behind a sequence's end by its own last step.
        extra: [L, S, F] or None.
        state: before each sequence's first step (or burn-in), [K, S, H] each.
        active_index: flat positions (l * S + s) of the active steps, [M]; None if all are.
        step: their places in the rollout (t * N + n), [M].
        action: of the active steps, [M, *shape]; so are the fields that follow.
        mask: [M, mask_size] or None.
        targets: log-probability and value at collection, advantage (normalised, if the
            configuration says so) and return, [4, M]; also ``log_prob`` and so on.
        padding: steps of [L, S] that no sequence has.
        burn_in: None without any.
        view: what a central critic reads, [L, S, *shape] or None.

    """

    observation: Tensor
    extra: Tensor | None
    state: list[Tensor]
    active_index: Tensor | None
    step: Tensor
    action: Tensor
    mask: Tensor | None
    targets: Tensor
    padding: int
    burn_in: BurnIn | None
    view: Tensor | None

    def __len__(self) -> int:
        """M."""
        return len(self.step)

    @property
    def log_prob(self) -> Tensor:
        """At collection, [M]."""
        return self.targets[0]

    @property
    def value(self) -> Tensor:
        """At collection, [M]."""
        return self.targets[1]

    @property
    def advantage(self) -> Tensor:
        """[M]."""
        return self.targets[2]

    @property
    def returns(self) -> Tensor:
        """[M]."""
        return self.targets[3]


class SequenceRolloutBuffer(Steps):
    """A rollout of T steps and N rows, and what on-policy learning adds to its steps.

    Attributes, beside those of ``Steps``:
        log_prob: at collection, [T, N].
        value: at collection, [T, N].
        bootstrap: V(final observation, state after t) where truncated, [T, N].
        last_value: V of what follows the last step, [N].
        held: rows and places of decisions that are left open and not trained on here, int64 [M]
            each; None if there are none.
        advantage: set by ``compute_returns``, [T, N].
        returns: likewise.

    """

    def __init__(
        self,
        steps: int,
        rows: int,
        *,
        obs_shape: tuple[int, ...],
        obs_dtype: torch.dtype = torch.float32,
        action_shape: tuple[int, ...],
        action_dtype: torch.dtype = torch.float32,
        state_shapes: Sequence[tuple[int, int]] = (),
        max_seq_len: int = 1,
        burn_in: int = 0,
        extra: int = 0,
        mask_size: int = 0,
        lead: int = 0,
        view_shape: tuple[int, ...] | None = None,
        view_dtype: torch.dtype = torch.float32,
        agents: int = 1,
    ) -> None:
        """Allocate.

        Args:
            steps: T >= 1.
            rows: N >= 1.
            obs_shape: of one stored observation.
            obs_dtype: likewise.
            action_shape: of one stored action.
            action_dtype: likewise.
            state_shapes: (K, H) of each state tensor.
            max_seq_len: L >= 1.
            burn_in: in [0, L).
            extra: F; 0 for no extra inputs.
            mask_size: width of an action mask; 0 for none.
            lead: 1 for a rollout that begins with what the one before has left open, else 0.
            view_shape: of one stored view of a central critic; None without one.
            view_dtype: likewise.
            agents: A, rows of one environment.

        Raises:
            ValueError: a size out of range.

        """
        shapes = StepShapes(
            obs_shape,
            action_shape,
            obs_dtype,
            action_dtype,
            state_shapes,
            extra,
            mask_size,
            view_shape=view_shape,
            view_dtype=view_dtype,
            agents=agents,
        )
        super().__init__(steps, rows, shapes, max_seq_len=max_seq_len, burn_in=burn_in, lead=lead)
        self.log_prob, self.value, self.bootstrap, self.advantage, self.returns = (
            torch.zeros(lead + steps, rows) for _ in range(5)
        )
        self.last_value = torch.zeros(rows)
        self.held: tuple[Tensor, Tensor] | None = None
        self._held_state: list[Tensor] = []
        self._first: OpenDecisions | None = None

    def clear(self) -> None:
        """Put what recorders write only where it differs back to its default."""
        super().clear()
        self.bootstrap.zero_()
        self.held = None

    def behind_lead(self) -> "SequenceRolloutBuffer":
        """Return the T steps without the lead: views, for recorders to write into."""
        if not self.lead:
            return self
        part = copy.copy(self)
        part.lead, part.state_at = 0, [t - self.lead for t in self.state_at[self.lead :]]
        part.chunk_at = {t: i for i, t in enumerate(part.state_at)}
        for name, field in vars(self).items():
            if isinstance(field, Tensor) and field.shape[0] == self.lead + self.steps:
                setattr(part, name, field[self.lead :])
        part.hidden = [field[self.lead :] for field in self.hidden]
        if self.views is not None:
            part.views = self.views[self.lead * self.rows :]
        return part

    # --- decisions that are still open ------------------------------------------------------

    def put_first(self, decisions: OpenDecisions) -> None:
        """Begin with the decisions that the rollout before has left open.

        Their log-probabilities and values are for the recorder to write. ``lead`` is 1.
        """
        row = decisions.row
        for flag in (self.exists, self.active):
            flag[0] = False
            flag[0, row] = True
        self._first = decisions
        self.reward[0] = 0
        self.reward[0, row] = decisions.reward
        self.obs[0, row], self.action[0, row] = decisions.obs, decisions.action
        for field, part in (
            (self.extra, decisions.extra),
            (self.action_mask, decisions.action_mask),
        ):
            if field is not None and part is not None:
                field[0, row] = part
        if self.views is not None and decisions.view is not None:
            self.views[row] = decisions.view
        for stored, part in zip(self.hidden, decisions.hidden, strict=True):
            stored[0, row] = part

    def hold_back(self, asked: Tensor, before: Sequence[Tensor]) -> None:
        """Leave decisions open whose rows have not been asked again: the next rollout trains them.

        Args:
            asked: rows that the policy chooses for next, bool [N].
            before: state before each row's last decision, [K, N, H] each.

        """
        ended = self.terminated | self.truncated
        row, time = last_decision(self.active & self.exists, ended, asked)
        if len(row):
            self.held = row, time
            self._held_state = [state[:, row].transpose(0, 1).cpu() for state in before]
            self.active[time, row] = False

    def open_decisions(self, gamma: float, discount_by: str = "step") -> OpenDecisions | None:
        """Return the decisions that were held back, with what they have earned so far."""
        if self.held is None:
            return None
        row, time = self.held
        discount = self.discounts(gamma, discount_by)[:, row]  # [T, M]
        if discount_by == "decision":
            discount[-1] = 1  # they have not been asked again
        place = torch.arange(len(discount))[:, None]
        reward = torch.where(place >= time, self.reward[:, row], torch.zeros(()))
        # Earlier steps have neither reward nor discount, so that the sum ends at the decision.
        discount = torch.where(place >= time, discount, torch.ones(()))
        earned = reverse_scan(reward, discount, torch.zeros(len(row)))[0]
        at = (time, row)
        return OpenDecisions(
            row=row,
            obs=self.obs[at],
            extra=None if self.extra is None else self.extra[at],
            action=self.action[at],
            action_mask=None if self.action_mask is None else self.action_mask[at],
            hidden=self._held_state,
            reward=earned,
            discount=discount.prod(0),
            view=self.views_of(time * self.rows + row),
        )

    def decided(self) -> Tensor:
        """Where the policy chose the action, whether it is trained on here or not, bool [T, N]."""
        decided, held = self.active & self.exists, self._open()
        return decided if held is None else decided | held

    def _open(self) -> Tensor | None:
        """Where decisions are held back, bool [lead + T, N]; None: nowhere."""
        if self.held is None:
            return None
        row, time = self.held
        held = torch.zeros_like(self.active)
        held[time, row] = True
        return held

    # --- returns ----------------------------------------------------------------------------

    def discounts(self, gamma: float, discount_by: str = "step") -> Tensor:
        """Return the discount of what follows each step, [lead + T, N].

        Args:
            gamma: in [0, 1].
            discount_by: "step", or "decision": only where the policy chooses next, or the row's
                life ends, so that in turn-based games gamma counts its own turns.

        """
        discount = torch.full_like(self.reward, gamma)
        if discount_by == "decision":
            last = self.terminated | self.truncated
            last[-1] = True
            last[:-1] |= self.decided()[1:]
            discount = torch.where(last, discount, torch.ones(()))
        if self._first is not None:  # by steps its discount has come as far as the next one
            since = self._first.discount
            row = self._first.row
            discount[0, row] = since if discount_by == "step" else since * discount[0, row]
        return discount

    def compute_returns(
        self,
        last_value: Tensor,
        gamma: float,
        gae_lambda: float,
        reward_scale: float = 1.0,
        *,
        reward_clip: float = math.inf,
        discount_by: str = "step",
    ) -> None:
        """Fill ``advantage`` and ``returns``; see ``functional.gae``.

        Args:
            last_value: V(next observation, carried state), [N].
            gamma: in [0, 1].
            gae_lambda: in [0, 1].
            reward_scale: multiplies rewards, which stay as they are in the buffer.
            reward_clip: then they are clipped to +- this.
            discount_by: see ``discounts``.

        """
        alike = not self.lead and discount_by == "step"
        self.advantage, self.returns = gae(
            (self.reward * reward_scale).clamp_(-reward_clip, reward_clip),
            self.value,
            last_value,
            self.bootstrap,
            self.terminated,
            self.truncated,
            self.decided(),
            gamma if alike else self.discounts(gamma, discount_by),
            gae_lambda,
            self._open(),
        )

    def targets(self, normalize_advantage: bool, world: World = ALONE) -> Tensor:
        """Return what a loss compares with, together, so that a minibatch gathers it at once.

        Args:
            normalize_advantage: to zero mean and unit deviation over the active steps.
            world: whose ranks' steps count for that.

        Returns:
            log_prob, value, advantage and return of each step, [4, T * N].

        """
        advantage = self.advantage
        if normalize_advantage:
            chosen = self.active & self.exists
            advantage = normalize(advantage, chosen, gather=world.gather)
        columns = (self.log_prob, self.value, advantage, self.returns)
        return torch.stack([x.flatten() for x in columns])

    def batch(self, cuts: Sequences, which: Tensor, targets: Tensor) -> Batch:
        """Gather some sequences.

        Args:
            cuts: from ``sequences``.
            which: sequence numbers, [S].
            targets: from ``targets``.

        Returns:
            the minibatch, on the CPU.

        """
        index, active_index = cuts.index(which)
        step = index.flatten()  # [L, S] -> [L * S]
        if active_index is not None:
            step = step.index_select(0, active_index)
        fresh = cuts.fresh[which]
        if self.burn_in:
            # Even without a step to burn in: an episode may have started since, unseen as yet.
            fresh = fresh | cuts.burn_in_fresh[which]
        place = cuts.chunk[which] * self.rows + cuts.row[which]
        return Batch(
            observation=_take(self.obs, index),
            extra=_take(self.extra, index) if self.extra is not None else None,
            state=[
                _take(h, place).transpose(0, 1).masked_fill(fresh[:, None], 0)  # [S, K, H] first
                for h in self.hidden
            ],
            active_index=active_index,
            step=step,
            action=_take(self.action, step),
            mask=_take(self.action_mask, step) if self.action_mask is not None else None,
            targets=targets.index_select(1, step),
            padding=index.numel() - int(cuts.length[which].sum()),
            burn_in=self._burn_in(cuts, which) if self.burn_in else None,
            view=self.views_of(index),
        )

    def _burn_in(self, cuts: Sequences, which: Tensor) -> BurnIn | None:
        """Gather what is to be replayed in front of some sequences."""
        length = cuts.burn_in[which]
        if not bool(length.any()):
            return None
        back = (cuts.first[which] - length) + torch.minimum(
            torch.arange(int(length.max()))[:, None], (length - 1).clamp_min(0)
        )
        at = cuts.order[back]  # [B, S]
        extra = None if self.extra is None else _take(self.extra, at)
        return BurnIn(_take(self.obs, at), extra, length, self.views_of(at))


def _take(field: Tensor, index: Tensor) -> Tensor:
    """Pick flat steps of a [T, N, ...] field: [*index.shape, ...]."""
    # Half the time of indexing by a tensor.
    taken = field.flatten(0, 1).index_select(0, index.flatten())
    return taken if index.ndim == 1 else taken.unflatten(0, index.shape)


def discounted_returns(
    rollout: SequenceRolloutBuffer,
    gamma: float,
    before: Tensor | None,
    discount_by: str = "step",
) -> tuple[Tensor, Tensor]:
    """Discounted return of each episode from its beginning to each step, for reward scaling.

    ``G[t] = reward[t] + gamma G[t - 1]``, anew after each end (Engstrom et al. 2020,
    "Implementation Matters in Deep RL", algorithm 1).

    Args:
        rollout: T steps of N rows; what an earlier one has left open is counted already.
        gamma: in [0, 1].
        before: what the steps before have left, [N]; of no account unless these continue them.
        discount_by: see ``SequenceRolloutBuffer.discounts``.

    Returns:
        returns: [T, N].
        after: what these leave, [N].

    """
    if before is None or not rollout.continued:
        before = torch.zeros(rollout.rows)
    lead = rollout.lead
    ended = (rollout.terminated | rollout.truncated)[lead:]
    factor = torch.full_like(rollout.reward[lead:], gamma)
    first = factor[:1]
    if discount_by == "decision":
        factor = rollout.discounts(gamma, discount_by)[lead:]
        first = torch.where(rollout.decided()[lead : lead + 1], first, torch.ones(()))
    factor = factor * (~ended).float()
    factors = torch.cat((first, factor[:-1]))
    # Forwards in time is backwards on the flipped axis.
    total = reverse_scan(rollout.reward[lead:].flip(0), factors.flip(0), before).flip(0)
    return total, total[-1] * (~ended[-1]).float()
