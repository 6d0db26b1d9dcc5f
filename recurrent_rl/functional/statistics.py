"""Statistics as pure functions: means, deviations, explained variance.

Letters: M active steps of a minibatch.
"""

import torch
from torch import Tensor


def masked_mean_std(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (population) standard deviation of the chosen elements; (0, 0) if there are none.

    Args:
        x: any shape; elements outside the mask may be anything.
        mask: bool, x's shape.

    Returns:
        two scalars.

    """
    chosen = x[mask]
    if chosen.numel() == 0:
        return x.new_zeros(()), x.new_zeros(())
    # Relative to one of them: equal elements then deviate by 0, not by the rounding of their mean,
    # which `normalize` would blow up to 1.
    origin = chosen[0]
    chosen = chosen - origin
    return origin + chosen.mean(), chosen.std(unbiased=False)


def normalize(x: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """Shift and scale the chosen elements to zero mean and unit deviation; 0 elsewhere.

    A single chosen element, or several equal ones, become 0.

    Args:
        x: any shape.
        mask: bool, x's shape.
        eps: keeps the quotient finite.

    Returns:
        x's shape.

    """
    mean, std = masked_mean_std(x, mask)
    return torch.where(mask, (x - mean) / (std + eps), x.new_zeros(()))


def explained_variance(prediction: Tensor, target: Tensor) -> float:
    """1 - Var[target - prediction] / Var[target]; NaN if the target does not vary, or is empty.

    Args:
        prediction: [M].
        target: [M].

    Returns:
        at most 1 (perfect); 0 for a constant prediction.

    """
    if target.numel() == 0:
        return float("nan")
    variance = (target - target[0]).var(unbiased=False)  # of equal targets: 0, without rounding
    if variance == 0:
        return float("nan")
    return float(1 - (target - prediction).var(unbiased=False) / variance)
