"""What replayed decisions are worth, as pure functions.

Letters: W places of a window, L of them trained on, R rows. Time comes first.
"""

from typing import NamedTuple

import torch
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

    Args:
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
    places, rows = reward.shape
    length = places - first if length is None else length
    choice, shown = active & exists, exists & ~start
    # What is seen one place later; behind the last place nothing is.
    shown_next, chosen_next, starts_next = (_next(x) for x in (shown, choice & shown, start))
    seen, last = _latest(exists), _last_event(terminated | truncated | chosen_next)
    time = torch.arange(first, first + length)[:, None]
    going = choice[first : first + length]
    count = torch.zeros(length, rows, dtype=torch.int64)
    total, factor = reward.new_zeros(length, rows), reward.new_ones(length, rows)
    passes = torch.where(final, reward.new_tensor(1.0), reward.new_tensor(gamma))
    # What is known so far: of the latest decision that was reached.
    found = NStep(torch.zeros_like(going), total, torch.zeros_like(total), time.expand_as(total))
    for k in range(places - first):
        size = min(length, places - first - k)  # those whose k-th place lies in the window
        here, now = slice(first + k, first + k + size), time[:size] + k
        # Where nothing is to come that could tell, there is no use in going on.
        going = going[:size] & (now <= last)
        if not bool(going.any()):
            break
        total = total[:size] + torch.where(going, factor[:size] * reward[here], 0)
        factor = factor[:size] * torch.where(going, passes[here], 1)
        ends = terminated[here] & going
        cut = truncated[here] & going & ~ends
        behind = torch.where(shown_next[here], now + 1, seen[here])
        reached = chosen_next[here] & going & ~ends & ~cut
        place = torch.where(cut, behind, torch.where(ends, now, now + 1))
        told = ends | (cut & (behind >= 0)) | reached
        found = _kept(found, told, total, factor.masked_fill(ends, 0), place)
        going = going & ~ends & ~cut & ~starts_next[here]
        if steps > 1:
            count = count[:size] + reached
            going &= count < steps
        else:
            going &= ~reached
    return found


def _next(field: Tensor) -> Tensor:
    """Return what is one place later, [W, R]; False behind the last."""
    return torch.cat((field[1:], torch.zeros_like(field[:1])))


def _last_event(told: Tensor) -> Tensor:
    """Return the last place of each row at which anything is told, [R]; -1: none."""
    time = torch.arange(len(told))[:, None]
    return torch.where(told, time, -1).amax(0)


def _kept(found: NStep, told: Tensor, reward: Tensor, discount: Tensor, place: Tensor) -> NStep:
    """Put in what is told now, of the first places."""
    if bool(told.all()) and len(told) == len(found.known):
        return NStep(told, reward, discount, place)
    size = len(told)
    return NStep(
        *(
            torch.cat((torch.where(told, new, old[:size]), old[size:]))
            for new, old in zip((told, reward, discount, place), found, strict=True)
        )
    )


def _latest(exists: Tensor) -> Tensor:
    """Return the latest place up to each at which there was an observation, [W, R]; -1: none."""
    time = torch.arange(len(exists))[:, None]
    return torch.where(exists, time, -1).cummax(0).values


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
