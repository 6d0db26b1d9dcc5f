"""How training sequences are dealt into minibatches, and those into rectangles.

Letters: S sequences, L longest of them.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.spaces.array import Array

# What a recurrent network takes on a CPU, in steps of one row: a step of any number of rows as
# long as so many rows (LSTM of 64 units: 7 us, and 1.5 us for each row), and a call 0.2 ms.
STEP_COST = 8
CALL_COST = 128


def minibatch_count(active: Tensor, batch_size: int) -> int:
    """Return how many minibatches sequences with so many active steps, [S], are dealt into."""
    if len(active) == 0:
        return 0
    return max(1, round(int(active.sum()) / batch_size))


def minibatches(
    active: Tensor, batch_size: int, generator: torch.Generator, count: int | None = None
) -> Iterator[Tensor]:
    """Deal whole sequences at random into minibatches of about ``batch_size`` active steps.

    Their number is the rounded quotient of all active steps and ``batch_size``, so none is a small
    remainder. A sequence's length has no say: short sequences are of short episodes, and
    minibatches sorted by it have means of the advantage that are further apart than chance makes
    them. What little is padding is the business of ``rectangles``.

    Args:
        active: active steps of each sequence, [S].
        batch_size: >= 1.
        generator: on the CPU.
        count: of minibatches, some of which may be empty; None: as many as ``minibatch_count``
            says, without empty ones.

    Yields:
        sequence numbers, each exactly once overall.

    """
    order = torch.randperm(len(active), generator=generator)
    if count is None:
        parts = dealt(order, active, minibatch_count(active, batch_size), generator)
        yield from (part for part in parts if len(part))
    else:
        yield from dealt(order, active, count, generator)


def dealt(
    order: Tensor, active: Tensor, count: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Cut sequences in a given order into ``count`` minibatches, and shuffle these.

    See ``minibatches``; where there are few sequences, some are empty.
    """
    # A sequence belongs where its middle lies.
    middle = active[order].cumsum(0) - 0.5 * active[order]
    owner = (middle * (count / active.sum().clamp_min(1))).long().clamp_max(count - 1)
    parts = order.split(torch.bincount(owner, minlength=count).tolist())
    for i in torch.randperm(count, generator=generator).tolist():
        yield parts[i]


def rectangles(which: Tensor, length: Tensor) -> list[Tensor]:
    """Split a minibatch into sequences of like length, where that saves time.

    Each part is padded to its own longest sequence. Splitting spares padding, but costs a call and
    more steps one after the other, so that few short sequences stay beside a long one.

    Args:
        which: the minibatch's sequences, [S].
        length: steps to run of each sequence of the rollout.

    Returns:
        parts of ``which``, the longest first; as it is if there is nothing to be saved.

    """
    # NumPy is quicker than torch on so few numbers.
    lengths = length.numpy()[which.numpy()]
    if len(lengths) < 2 or lengths.min() == lengths.max():
        return [which]
    order = np.argsort(-lengths, kind="stable")
    bounds = _splits(lengths[order])
    if not bounds:
        return [which]
    return list(which[torch.from_numpy(order)].tensor_split(bounds))


def _splits(lengths: Array) -> list[int]:
    """Where to split sequences, the longest first, so that all take the least time, about."""
    longest, count = lengths[0], len(lengths)
    if count < 2:
        return []
    rows = np.arange(count - 1, 0, -1)  # behind each place, but the first
    behind = lengths[1:]
    saved = (longest - behind) * rows - behind * STEP_COST - CALL_COST
    at = int(saved.argmax()) + 1
    if saved[at - 1] <= 0:
        return []
    return [*_splits(lengths[:at]), at, *(at + i for i in _splits(lengths[at:]))]
