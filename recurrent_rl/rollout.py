"""The sequence rollout buffer: preallocated storage, returns, and cutting into minibatches.

Letters: T steps, N rows (environment, agent), S sequences, L longest sequence (``max_seq_len``),
K layers, H units, M active steps of a minibatch. Time comes first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recurrent_rl.functional import gae, normalize
from recurrent_rl.recurrent import HiddenState, Sequences, cut_sequences, state_times


@dataclass(frozen=True)
class Batch:
    """One minibatch of whole sequences; what the learner sees.

    Attributes:
        observation: [L, S, *shape], padded behind a sequence's end by its own last step.
        extra: [L, S, F] or None.
        state: before each sequence's first step, [K, S, H] each.
        chosen: flat positions (l * S + s) of the active steps, [M]; None if all are.
        step: their places in the rollout (t * N + n), [M].
        action: of the active steps, [M, *shape]; so are the fields that follow.
        mask: [M, mask_size] or None.
        log_prob: at collection, [M].
        value: at collection, [M].
        advantage: normalised, if the configuration says so, [M].
        returns: [M].
        padding: steps of [L, S] that no sequence has.
        prefix: burn-in: its observation, extra and length [S]; None without any.

    """

    observation: Tensor
    extra: Tensor | None
    state: list[Tensor]
    chosen: Tensor | None
    step: Tensor
    action: Tensor
    mask: Tensor | None
    log_prob: Tensor
    value: Tensor
    advantage: Tensor
    returns: Tensor
    padding: int
    prefix: tuple[Tensor, Tensor | None, Tensor] | None

    def __len__(self) -> int:
        """M."""
        return len(self.log_prob)


class SequenceRolloutBuffer:
    """A rollout of T steps and N rows, time-major, on the CPU.

    Fields are plain tensors that collection writes into, row t at step t. Allocated once; its
    memory is the sum of the fields.

    Attributes:
        obs: what the policy saw, [T, N, *shape].
        extra: previous action and reward as the policy saw them, [T, N, F] or None.
        action: stored form, [T, N, *shape].
        action_mask: bool [T, N, mask_size] or None.
        log_prob: at collection, [T, N].
        value: at collection, [T, N].
        reward: of the transition at t, as the environment gave it, [T, N].
        start: the state was zeroed before consuming obs[t], bool [T, N].
        exists: the observation is real; else the state is frozen, bool [T, N].
        active: the policy chose this action and it is trained on, bool [T, N].
        terminated: outcome of the transition at t, bool [T, N].
        truncated: likewise.
        bootstrap: V(final observation, state after t) where truncated, [T, N].
        hidden: states at multiples of L (less the burn-in), [ceil(T / L), N, K, H] each.
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

        Raises:
            ValueError: a size out of range.

        """
        for name, size in (("steps", steps), ("rows", rows), ("max_seq_len", max_seq_len)):
            if size < 1:
                raise ValueError(f"{name}: expected at least 1, got {size}")
        if not 0 <= burn_in < max_seq_len:
            raise ValueError(
                f"burn_in: expected at least 0 and less than max_seq_len = {max_seq_len}, "
                f"got {burn_in}"
            )
        self.steps, self.rows = steps, rows
        self.max_seq_len, self.burn_in = max_seq_len, burn_in
        self.obs = torch.zeros(steps, rows, *obs_shape, dtype=obs_dtype)
        self.extra = torch.zeros(steps, rows, extra) if extra else None
        self.action = torch.zeros(steps, rows, *action_shape, dtype=action_dtype)
        self.action_mask = torch.ones(steps, rows, mask_size).bool() if mask_size else None
        self.log_prob, self.value, self.reward, self.bootstrap, self.advantage, self.returns = (
            torch.zeros(steps, rows) for _ in range(6)
        )
        self.start, self.terminated, self.truncated = (
            torch.zeros(steps, rows, dtype=torch.bool) for _ in range(3)
        )
        self.exists, self.active = (torch.ones(steps, rows, dtype=torch.bool) for _ in range(2))
        self.state_at = state_times(steps, max_seq_len, burn_in)
        self.hidden = [torch.zeros(len(self.state_at), rows, k, h) for k, h in state_shapes]
        self._chunk_at = {t: i for i, t in enumerate(self.state_at)}

    def nbytes(self) -> int:
        """Bytes of all fields."""
        fields = [x for x in vars(self).values() if isinstance(x, Tensor)]
        return sum(x.nbytes for x in fields + self.hidden)

    def clear(self) -> None:
        """Put the flags that collection writes only where they differ back to their defaults."""
        for flag in (self.start, self.terminated, self.truncated):
            flag.zero_()
        for flag in (self.exists, self.active):
            flag.fill_(True)
        self.bootstrap.zero_()

    def store_state(self, t: int, state: HiddenState) -> None:
        """Keep the state before step t (after any reset), if it is one of those to be kept."""
        chunk = self._chunk_at.get(t)
        if chunk is not None:
            # A state may end on the previous action, which is stored in `extra` already.
            for stored, tensor in zip(self.hidden, state.tensors, strict=False):
                stored[chunk] = tensor.transpose(0, 1)  # [K, N, H] -> [N, K, H]

    def compute_returns(
        self, last_value: Tensor, gamma: float, gae_lambda: float, reward_scale: float = 1.0
    ) -> None:
        """Fill ``advantage`` and ``returns``; see ``functional.gae``.

        Args:
            last_value: V(next observation, carried state), [N].
            gamma: in [0, 1].
            gae_lambda: in [0, 1].
            reward_scale: multiplies rewards, which stay as they are in the buffer.

        """
        self.advantage, self.returns = gae(
            self.reward * reward_scale,
            self.value,
            last_value,
            self.bootstrap,
            self.terminated,
            self.truncated,
            self.active & self.exists,
            gamma,
            gae_lambda,
        )

    def sequences(self) -> Sequences:
        """Return the training sequences: each active step is in exactly one."""
        active = self.active & self.exists
        return cut_sequences(self.start, self.exists, active, self.max_seq_len, self.burn_in)

    def targets(self, normalize_advantage: bool) -> Tensor:
        """Return what a loss compares with, together, so that a minibatch gathers it at once.

        Args:
            normalize_advantage: to zero mean and unit deviation over the active steps.

        Returns:
            log_prob, value, advantage and return of each step, [T * N, 4].

        """
        advantage = self.advantage
        if normalize_advantage:
            advantage = normalize(advantage, self.active & self.exists)
        columns = (self.log_prob, self.value, advantage, self.returns)
        return torch.stack([x.flatten() for x in columns], dim=1)

    def batch(self, cuts: Sequences, which: Tensor, targets: Tensor) -> Batch:
        """Gather some sequences.

        Args:
            cuts: from ``sequences``.
            which: sequence numbers, [S].
            targets: from ``targets``.

        Returns:
            the minibatch, on the CPU.

        """
        index, chosen = cuts.index(which)
        step = index.flatten()  # [L, S] -> [L * S]
        if chosen is not None:
            step = step[chosen]
        log_prob, value, advantage, returns = targets[step].unbind(1)
        prefix, fresh = None, cuts.fresh[which]
        if self.burn_in:
            # Even without a step to burn in: an episode may have started since, unseen as yet.
            fresh = fresh | cuts.prefix_fresh[which]
        if self.burn_in and bool((length := cuts.prefix[which]).any()):
            back = (cuts.first[which] - length) + torch.minimum(
                torch.arange(int(length.max()))[:, None], (length - 1).clamp_min(0)
            )
            at = cuts.order[back]  # [B, S]
            extra = _take(self.extra, at) if self.extra is not None else None
            prefix = (_take(self.obs, at), extra, length)
        return Batch(
            observation=_take(self.obs, index),
            extra=_take(self.extra, index) if self.extra is not None else None,
            state=[
                h[cuts.chunk[which], cuts.row[which]]  # [S, K, H]
                .transpose(0, 1)
                .masked_fill(fresh[:, None], 0)
                for h in self.hidden
            ],
            chosen=chosen,
            step=step,
            action=_take(self.action, step),
            mask=_take(self.action_mask, step) if self.action_mask is not None else None,
            log_prob=log_prob,
            value=value,
            advantage=advantage,
            returns=returns,
            padding=index.numel() - int(cuts.length[which].sum()),
            prefix=prefix,
        )


def _take(field: Tensor, index: Tensor) -> Tensor:
    """Pick flat steps of a [T, N, ...] field: [*index.shape, ...]."""
    return field.flatten(0, 1)[index]


def minibatches(
    active: Tensor, length: Tensor, batch_size: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Deal whole sequences into minibatches of about ``batch_size`` active steps, shuffled.

    Sequences of like length go together, in random order among equals, so that little is padding;
    then the minibatches are shuffled. Their number is the rounded quotient of all active steps and
    ``batch_size``, so none is a small remainder.

    Args:
        active: active steps of each sequence, [S].
        length: steps to run of each sequence, [S].
        batch_size: >= 1.
        generator: on the CPU.

    Yields:
        sequence numbers, each exactly once overall.

    """
    if len(length) == 0:
        return
    count = max(1, round(int(active.sum()) / batch_size))
    shuffled = torch.randperm(len(length), generator=generator)
    order = shuffled[length[shuffled].argsort(stable=True)]
    # A sequence belongs where its middle lies.
    middle = active[order].cumsum(0) - 0.5 * active[order]
    owner = (middle * (count / active.sum())).long().clamp_max(count - 1)
    parts = order.split(torch.bincount(owner, minlength=count).tolist())
    for i in torch.randperm(count, generator=generator).tolist():
        if len(parts[i]):
            yield parts[i]
