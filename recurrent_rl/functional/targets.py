"""What replayed decisions are worth, as pure functions.

Letters: W places of a window, L of them trained on, R rows. Time comes first.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class NStep(NamedTuple):
    """What decisions have led to, and where their values go on, [L, R] each.

    Attributes:
        known: it is a decision, and what it led to is known.
        reward: discounted sum up to ``place``.
        discount: of the value there; 0 where the life ended for good.
        place: of what is seen next and has a value: the n-th decision after this one, fewer behind
            them where the window ends, or the observation that a truncated life ended with.

    """

    known: Tensor
    reward: Tensor
    discount: Tensor
    place: Tensor


def n_step(
    reward: Tensor,
    active: Tensor,
    exists: Tensor,
    start: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    final: Tensor,
    gamma: float,
    *,
    steps: int = 1,
    first: int = 0,
    length: int | None = None,
) -> NStep:
    """Sum what follows upon decisions, up to the n-th decision after them.

    A row's reward between two of its decisions belongs to the first. A life that was cut by a limit
    is valued at what it ended with, one place later; where that was not shown, at what was seen
    last. A place that only holds such an observation takes no time. What breaks off without an end
    (a start that nothing has ended before) is not known.

    Source: Sutton 1988, "Learning to Predict by the Methods of Temporal Differences"; time limits
    as in Pardo et al. 2018, "Time Limits in Reinforcement Learning".

    Args, on the CPU:
        reward: of the transition from each place, [W, R].
        active: the policy chose there, bool [W, R].
        exists: there is an observation, bool [W, R].
        start: a life begins there, bool [W, R].
        terminated: it ends with this transition, bool [W, R].
        truncated: it is cut off after this transition, bool [W, R].
        final: the place has nothing but an observation that a life ended with, bool [W, R].
        gamma: discount of an environment step, in [0, 1].
        steps: n >= 1.
        first: place of the first that is trained on.
        length: L; None: all from there on.

    Returns:
        ``NStep``; what is not known has zeros and its own place.

    """
    # In NumPy, whose calls take a quarter of the time of torch's for a few hundred numbers.
    told = (active, exists, start, terminated, truncated, final)
    active_, exists_, start_, terminated_, truncated_, final_ = (x.numpy() for x in told)
    gained = reward.detach().numpy()
    places, rows = gained.shape
    length = places - first if length is None else length
    choice, shown = active_ & exists_, exists_ & ~start_
    # What is seen one place later; behind the last place nothing is.
    shown_next, chosen_next, starts_next = (_next(x) for x in (shown, choice & shown, start_))
    every, zero, one = np.arange(places)[:, None], gained.dtype.type(0), gained.dtype.type(1)
    seen = np.maximum.accumulate(np.where(exists_, every, -1), axis=0)
    last = np.where(terminated_ | truncated_ | chosen_next, every, -1).max(0)
    passes = np.where(final_, one, gained.dtype.type(gamma))
    time, going = every[first : first + length], choice[first : first + length]
    count = np.zeros((length, rows), dtype=np.int64)
    total, factor = np.zeros_like(gained[:length]), np.ones_like(gained[:length])
    # What is known so far: of the latest decision that was reached.
    found = (np.zeros_like(going), total, np.zeros_like(total), time.repeat(rows, 1))
    for k in range(places - first):
        size = min(length, places - first - k)  # those whose k-th place lies in the window
        here, now = slice(first + k, first + k + size), time[:size] + k
        # Where nothing is to come that could tell, there is no use in going on.
        going = going[:size] & (now <= last)
        if not going.any():
            break
        total = total[:size] + np.where(going, factor[:size] * gained[here], zero)
        factor = factor[:size] * np.where(going, passes[here], one)
        ends = terminated_[here] & going
        cut = truncated_[here] & going & ~ends
        behind = np.where(shown_next[here], now + 1, seen[here])
        reached = chosen_next[here] & going & ~ends & ~cut
        place = np.where(cut, behind, np.where(ends, now, now + 1))
        known = ends | (cut & (behind >= 0)) | reached
        for old, new in zip(
            found, (known, total, np.where(ends, zero, factor), place), strict=True
        ):
            np.copyto(old[:size], new, where=known)
        going = going & ~ends & ~cut & ~starts_next[here]
        count = count[:size] + reached
        going &= count < steps
    return NStep(*(torch.from_numpy(x) for x in found))


def _next(field: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what is one place later, [W, R]; False behind the last."""
    return np.concatenate((field[1:], np.zeros_like(field[:1])))


RESCALING = 1e-3  # epsilon of ``rescaled``


def rescaled(value: Tensor) -> Tensor:
    """Squeeze values: ``h(x) = sign(x) (sqrt(|x| + 1) - 1) + eps x``.

    Source: Pohlen et al. 2018, "Observe and Look Further: Achieving Consistent Performance on
    Atari", proposition A.2.
    """
    return value.sign() * ((value.abs() + 1).sqrt() - 1) + RESCALING * value


def unscaled(value: Tensor) -> Tensor:
    """Undo ``rescaled``."""
    size = value.abs() + 1 + RESCALING
    # (root - 1) / (2 eps), without the difference that float32 would lose four digits in.
    ratio = 2 * size / ((1 + 4 * RESCALING * size).sqrt() + 1)
    return value.sign() * (ratio.square() - 1)
