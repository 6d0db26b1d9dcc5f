"""The bounds of rewards, and of what normalisation makes of them."""

import math
from typing import Final

# A greater reward is an error of the environment: squares of its sums would leave float32, and it
# alone would decide over all statistics.
REWARD_LIMIT: Final = 1e15

# Normalised rewards are clipped to +- this, as by Stable-Baselines3's VecNormalize: the first
# reward after a long time without any is hundreds of deviations away from what was seen before.
REWARD_CLIP: Final = 10.0

# A return so many times greater than the root mean square of all before it counts as this much in
# the statistics. Returns that are greater for good raise them a thousandfold in each rollout.
OUTLIER: Final = 1000.0


def has_varied(mean: float, variance: float) -> bool:
    """Whether a deviation is above a millionth of the mean, which is more than rounding makes."""
    return variance > 1e-12 * mean * mean


def greatest_factor(mean: float, variance: float, gamma: float) -> float:
    """Return what rewards may be multiplied by, so that clipping leaves the typical ones alone.

    A reward that is the same in each step becomes half of ``REWARD_CLIP`` at most. Rewards that
    vary by little around something large, in episodes without an end or with a small gamma, would
    otherwise all be clipped to the same number.

    Args:
        mean: of the discounted returns.
        variance: likewise.
        gamma: discount factor, in [0, 1].

    """
    steady = (1 - gamma) * math.sqrt(mean * mean + variance)
    return 0.5 * REWARD_CLIP / steady if steady > 0 else math.inf
