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
    time = torch.arange(first, first + length)[:, None]
    decided = (active & exists)[first : first + length]
    total, nothing = reward.new_zeros(length, rows), time.expand(length, rows)
    discount = torch.ones_like(total)
    open_, count = decided.clone(), torch.zeros(length, rows, dtype=torch.int64)
    # What is known so far: of the latest decision that was reached.
    known = torch.zeros_like(decided)
    kept = [total.clone(), torch.zeros_like(total), nothing.clone()]
    passes = torch.where(final, reward.new_tensor(1.0), reward.new_tensor(gamma))
    choice = active & exists
    shown = exists & ~start
    seen = _latest(exists)

    for k in range(places - first):
        size = min(length, places - first - k)  # those whose k-th place lies in the window
        here = slice(first + k, first + k + size)
        part = slice(0, size)
        going = open_[part]
        if not bool(going.any()):
            break
        sums, factor = total[part], discount[part]
        sums += torch.where(going, factor * reward[here], 0)
        ends, cut = terminated[here] & going, truncated[here] & ~terminated[here] & going
        factor *= torch.where(going, passes[here], 1)
        inside = here.stop < places  # otherwise the last has no place behind it
        after = slice(here.start + 1, here.stop + 1)

        def following(field: Tensor, after: slice = after, inside: bool = inside) -> Tensor:
            if inside:
                return field[after]
            return torch.cat((field[after], torch.zeros_like(field[:1])))

        _keep(kept, part, ends, sums, torch.zeros_like(sums), time[part] + k)
        behind = torch.where(following(shown), time[part] + k + 1, seen[here])
        _keep(kept, part, cut & (behind >= 0), sums, factor, behind)
        reached = following(choice & ~start) & going & ~ends & ~cut
        _keep(kept, part, reached, sums, factor, time[part] + k + 1)
        known[part] |= ends | (cut & (behind >= 0)) | reached
        count[part] += reached
        open_[part] = going & ~ends & ~cut & ~following(start) & (count[part] < steps)
    return NStep(known, kept[0], kept[1], kept[2])


def _keep(
    kept: list[Tensor], part: slice, where: Tensor, reward: Tensor, discount: Tensor, place: Tensor
) -> None:
    for field, new in zip(kept, (reward, discount, place), strict=True):
        field[part] = torch.where(where, new, field[part])


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
