"""How well numbers can be read out of others linearly: ridge regression, fitted and scored apart.

Letters: T_i steps of episode i, n steps of all, D features, Q quantities.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recurrent_rl.spaces.array import Array

PENALTIES = 10.0 ** np.arange(-6, 2)  # of which one is chosen, times n
FOLDS = 5  # at most, to choose it
# Steps that a fit takes at most, evenly from all: with few features, and with many, as of images.
STEPS, STEPS_OF_MANY, MANY = 5000, 1000, 1000


@dataclass(frozen=True)
class Readout:
    """A linear function of features, y = (x - mean) / scale @ weights + offset.

    Attributes:
        mean: of the features, [D].
        scale: their standard deviation, [D]; 1 for those that never change.
        weights: [D, Q].
        offset: mean of the quantities, [Q].

    """

    mean: Array
    scale: Array
    weights: Array
    offset: Array

    def __call__(self, features: Array) -> Array:
        """Read [T, Q] out of features [T, D]."""
        read: Array = (features - self.mean) / self.scale @ self.weights + self.offset
        return read


def fit_readout(features: Sequence[Array], quantities: Sequence[Array]) -> Readout:
    """Fit a ridge regression to some episodes.

    min over W of sum |y - x W|^2 + n penalty |W|^2, of standardised features x; the penalty is the
    one of ``PENALTIES`` that does best on episodes left out, if there are at least two.

    Args:
        features: by episode, [T_i, D].
        quantities: by episode, [T_i, Q].

    """
    folds = np.array_split(np.arange(len(features)), min(FOLDS, len(features)))
    penalty = float(np.median(PENALTIES))
    if len(folds) > 1:
        errors = np.zeros(len(PENALTIES))
        for fold in folds:
            rest = [i for i in range(len(features)) if i not in fold]
            candidates = _ridge(features, quantities, rest, PENALTIES)
            x = np.concatenate([features[i] for i in fold])
            y = np.concatenate([quantities[i] for i in fold])
            errors += [float(((readout(x) - y) ** 2).sum()) for readout in candidates]
        penalty = float(PENALTIES[errors.argmin()])
    return _ridge(features, quantities, range(len(features)), [penalty])[0]


def _ridge(
    features: Sequence[Array],
    quantities: Sequence[Array],
    episodes: Sequence[int],
    penalties: Sequence[float] | Array,
) -> list[Readout]:
    """Fit one readout for each penalty, to some of the episodes."""
    x = np.concatenate([features[i] for i in episodes]).astype(np.float64)
    y = np.concatenate([quantities[i] for i in episodes]).astype(np.float64)
    most = STEPS if x.shape[1] <= MANY else STEPS_OF_MANY
    if len(x) > most:
        chosen = np.linspace(0, len(x) - 1, most).astype(int)
        x, y = x[chosen], y[chosen]
    mean, scale, offset = x.mean(0), x.std(0), y.mean(0)
    scale = np.where(scale > 1e-8 * (1 + np.abs(mean)), scale, 1.0)
    x, y = (x - mean) / scale, y - offset
    n, d = x.shape
    # Of x^T x or of x x^T, whichever is smaller.
    values, vectors = np.linalg.eigh(x.T @ x if d <= n else x @ x.T)
    values = values.clip(0)
    target = vectors.T @ (x.T @ y if d <= n else y)
    fitted = []
    for penalty in penalties:
        weights = vectors @ (target / (values + n * penalty)[:, None])
        fitted.append(Readout(mean, scale, weights if d <= n else x.T @ weights, offset))
    return fitted


def r_squared(read: Sequence[Array], true: Sequence[Array]) -> Array:
    """Return the share of each quantity's variance that a readout explains, [Q].

    1 - sum (y - read)^2 / sum (y - mean y)^2 over all episodes; below 0 where their mean would have
    been the better guess.

    Args:
        read: by episode, [T_i, Q].
        true: likewise.

    """
    guess, y = np.concatenate(read), np.concatenate(true)
    explained: Array = 1 - ((y - guess) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)
    return explained
