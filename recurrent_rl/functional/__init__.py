"""Returns, losses and statistics: pure functions, each with its equation and its source."""

from recurrent_rl.functional.losses import approximate_kl, policy_loss, value_loss
from recurrent_rl.functional.returns import gae, reverse_scan
from recurrent_rl.functional.statistics import explained_variance, masked_mean_std, normalize

__all__ = [
    "approximate_kl",
    "explained_variance",
    "gae",
    "masked_mean_std",
    "normalize",
    "policy_loss",
    "reverse_scan",
    "value_loss",
]
