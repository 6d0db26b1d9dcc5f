"""Rollouts cut into sequences that contain no reset.

Letters: T steps, N rows (environment, agent), S sequences, L longest sequence, K layers, H units.
Time comes first.

The kernels know nothing of episodes. So a rollout is *cut* into sequences that never contain a
reset; each begins from zeros or from a known state and runs through a whole-sequence kernel. Steps
whose observation is not real (``exists=False``) are left out of the sequences, which freezes the
state over them exactly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor


@dataclass(frozen=True)
class Sequences:
    """Where the training sequences of a [T, N] rollout lie.

    ``order`` lists the flat indices (t * N + n) of all existing steps, row by row and in time;
    sequence s runs through ``order[first[s] : first[s] + length[s]]``.

    Attributes:
        order: int64, one for each existing step.
        first: offset into order, [S].
        length: steps to run, up to the last active one, >= 1, [S].
        active: active steps among them, >= 1, [S].
        row: [S].
        chunk: index of the stored state that an unfresh sequence starts from, [S].
        fresh: the sequence starts from zeros, [S] bool.
        burn_in: steps to run before first (in order, and in the same episode), [S].
        burn_in_fresh: those start from zeros rather than from the stored state, [S] bool.
        active_mask: which steps of order are active; None if all are.

    """

    order: Tensor
    first: Tensor
    length: Tensor
    active: Tensor
    row: Tensor
    chunk: Tensor
    fresh: Tensor
    burn_in: Tensor
    burn_in_fresh: Tensor
    active_mask: Tensor | None

    def __len__(self) -> int:
        """S."""
        return len(self.first)

    def index(self, which: Tensor) -> tuple[Tensor, Tensor | None]:
        """Flat step indices of some sequences, as a padded rectangle.

        Args:
            which: sequence numbers, [S'].

        Returns:
            index: into the flattened [T * N] rollout, [L', S']; padding repeats a sequence's own
                last step, so it never reads what does not exist.
            active_index: flat positions (l * S' + s) of the active steps, [M]; None if all are.

        """
        first, length = self.first[which], self.length[which]
        longest = int(length.max())
        time = torch.arange(longest)[:, None]
        if int(length.min()) == longest:
            place, real = first + time, None
        else:
            place, real = first + torch.minimum(time, length - 1), time < length
        index = self.order[place]
        if self.active_mask is not None:
            active = self.active_mask[place]
            real = active if real is None else real & active
        return index, None if real is None else real.flatten().nonzero().squeeze(1)


def state_times(steps: int, max_seq_len: int, burn_in: int = 0, lead: int = 0) -> list[int]:
    """Times whose states a rollout must store: each multiple of L, or the burn-in before it.

    Args:
        steps: T.
        max_seq_len: L.
        burn_in: in [0, L).
        lead: steps in front of these, each a sequence of its own.

    Returns:
        lead + ceil(T / L) times, the first is 0.

    """
    times = (lead + max(t - burn_in, 0) for t in range(0, steps, max_seq_len))
    return [*range(lead), *times]


def cut_sequences(
    start: Tensor,
    exists: Tensor,
    active: Tensor,
    max_seq_len: int,
    burn_in: int = 0,
    lead: int = 0,
) -> Sequences:
    """Cut a rollout at every episode start and at multiples of L; nothing lost, nothing twice.

    Args:
        start: the state was zeroed before this step, bool [T, N].
        exists: the step's observation is real, bool [T, N].
        active: the step is trained on, bool [T, N]; only existing steps can be.
        max_seq_len: L >= 1.
        burn_in: in [0, L).
        lead: the first steps that are each a sequence of its own; multiples of L count from there.

    Returns:
        the sequences with at least one active step. Each active step is in exactly one of them.

    """
    steps, rows = start.shape
    time = torch.arange(steps)[:, None]
    chunk_begins = ((time < lead) | ((time - lead) % max_seq_len == 0)).expand(steps, rows)
    by_row = "t n -> (n t)"
    cut = rearrange(start | chunk_begins, by_row)
    segment = cut.cumsum(0) - 1  # number of the segment that a step belongs to
    begin = cut.nonzero().squeeze(1)  # a segment's first step, whether it exists or not
    segments = len(begin)

    step = rearrange(exists, by_row).nonzero().squeeze(1)  # existing steps as n * T + t
    owner = segment[step]
    count = torch.bincount(owner, minlength=segments)
    first = count.cumsum(0) - count
    is_active = rearrange(active, by_row)[step]
    rank = torch.arange(len(step)) - first[owner]  # position within the segment
    length = torch.zeros(segments, dtype=torch.int64).scatter_reduce(
        0, owner[is_active], rank[is_active] + 1, "amax"
    )
    row, t = begin // steps, begin % steps
    fresh = rearrange(start, by_row)[begin]

    # Burn-in: from the stored state's time, or from the episode's start if that came later.
    latest = torch.where(start, time, -1).cummax(0).values  # [T, N], -1: before the rollout
    stored = (t - burn_in).clamp_min(lead)
    since = latest[(t - 1).clamp_min(0), row]  # the start that governs the step before t
    before = torch.cat((exists.new_zeros(1, rows, dtype=torch.int64), exists.cumsum(0)))  # [T+1, N]
    warm_up = before[t, row] - before[torch.maximum(stored, since), row]
    warm_up = torch.where(fresh | (t <= lead), 0, warm_up)

    keep = length > 0
    return Sequences(
        order=(step % steps) * rows + step // steps,
        first=first[keep],
        length=length[keep],
        active=torch.bincount(owner[is_active], minlength=segments)[keep],
        row=row[keep],
        chunk=torch.where(t < lead, t, lead + (t - lead) // max_seq_len)[keep],
        fresh=fresh[keep],
        burn_in=warm_up[keep],
        burn_in_fresh=(since >= stored)[keep],
        active_mask=None if bool(is_active.all()) else is_active,
    )


def run_by_length(
    run: Callable[[int, Tensor, list[Tensor]], Sequence[Tensor]],
    length: Tensor,
    state: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """Run over sequences of different lengths, all those of the same length at once.

    Unlike padding this keeps the final state of every layer exact, and unlike packing it stays on
    the fused CPU kernel.

    Args:
        run: given a number of steps, some sequences and their states, runs over those steps and
            returns the states after them.
        length: [S]; 0 leaves the state as it is.
        state: [K, S, H] each.

    Returns:
        state: after each sequence's own last step, [K, S, H] each.

    """
    final = [s.clone() for s in state]
    for steps in [int(n) for n in length.unique() if n > 0]:
        which = (length == steps).nonzero().squeeze(1)
        after = run(steps, which, [s[:, which] for s in state])
        final = [f.index_copy(1, which, a) for f, a in zip(final, after, strict=True)]
    return tuple(final)
