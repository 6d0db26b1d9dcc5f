"""Statistics as pure functions: means, deviations, explained variance.

Letters: M samples, D features of each.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """How many samples there are, their mean and their (population) variance.

    Attributes:
        count: M.
        mean: float64 [D]; 0 where there are no samples.
        variance: float64 [D]; likewise.

    """

    count: int
    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, samples: Tensor) -> "Moments":
        """Return those of samples [M, D], or [M] for D = ()."""
        if len(samples) == 0:
            nothing = samples.new_zeros(samples.shape[1:], dtype=torch.float64)
            return cls(0, nothing, nothing)
        # Relative to one of them: equal samples then vary by 0, not by the rounding of their mean,
        # which `normalize` would blow up to 1.
        origin = samples[0].double()
        distance = samples.double() - origin
        return cls(len(samples), origin + distance.mean(0), distance.var(0, unbiased=False))

    def joined(self, other: "Moments") -> "Moments":
        """Return those of both parts' samples.

        Source: Chan et al. 1979, "Updating Formulae and a Pairwise Algorithm for Computing Sample
        Variances".
        """
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        total = self.count + other.count
        delta = other.mean - self.mean
        squares = self.variance * self.count + other.variance * other.count
        squares += delta.square() * (self.count * other.count / total)
        return Moments(total, self.mean + delta * (other.count / total), squares / total)

    @classmethod
    def all_of(cls, parts: Iterable["Moments"]) -> "Moments":
        """Return those of all parts' samples; there must be parts."""
        first, *others = parts
        for other in others:
            first = first.joined(other)
        return first


Gather = Callable[[Moments], list[Moments]]


def only(moments: Moments) -> list[Moments]:
    """Return what there is of samples that are all here: their moments alone."""
    return [moments]


def masked_mean_std(x: Tensor, mask: Tensor, gather: Gather = only) -> tuple[Tensor, Tensor]:
    """Mean and (population) standard deviation of the chosen elements; (0, 0) if there are none.

    Args:
        x: any shape; elements outside the mask may be anything.
        mask: bool, x's shape.
        gather: returns the moments of all parts, of which x is one.

    Returns:
        two scalars.

    """
    found = Moments.all_of(gather(Moments.of(x[mask])))
    return found.mean.to(x), found.variance.sqrt().to(x)


def normalize(x: Tensor, mask: Tensor, eps: float = 1e-8, gather: Gather = only) -> Tensor:
    """Shift and scale the chosen elements to zero mean and unit deviation; 0 elsewhere.

    A single chosen element, or several equal ones, become 0.

    Args:
        x: any shape.
        mask: bool, x's shape.
        eps: keeps the quotient finite.
        gather: see ``masked_mean_std``.

    Returns:
        x's shape.

    """
    mean, std = masked_mean_std(x, mask, gather)
    return torch.where(mask, (x - mean) / (std + eps), x.new_zeros(()))


def explained_variance(prediction: Tensor, target: Tensor, gather: Gather = only) -> float:
    """1 - Var[target - prediction] / Var[target]; NaN if the target does not vary, or is empty.

    Args:
        prediction: [M].
        target: [M].
        gather: see ``masked_mean_std``.

    Returns:
        at most 1 (perfect); 0 for a constant prediction.

    """
    total, rest = (Moments.all_of(gather(Moments.of(x))) for x in (target, target - prediction))
    if total.variance == 0:  # of no target, too
        return float("nan")
    return float(1 - rest.variance / total.variance)
