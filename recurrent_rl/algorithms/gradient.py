"""The one function that takes a gradient step, whatever the algorithm."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def gradient_step(
    loss: Tensor, *optimizers: torch.optim.Optimizer, max_norm: float, also: Sequence[Tensor] = ()
) -> Tensor:
    """Take one clipped step; return the global gradient norm before clipping, detached.

    Args:
        loss: a number.
        optimizers: over different parameters, whose gradients are clipped together.
        max_norm: of them; infinity leaves gradients as they are.
        also: other losses, of parameters of their own, whose gradients are computed with it.

    Raises:
        FloatingPointError: loss or norm are not finite; the weights are those before the step.

    """
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=False)  # gradients may be views of one vector
    torch.autograd.backward([loss, *also])
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    parameters = [p for group in groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, max_norm)
    if not torch.isfinite(norm + loss.detach()):  # of a clipped error only the loss is infinite
        raise FloatingPointError(
            f"learn: expected a finite gradient, got norm {norm.item()} (loss {loss.item()}); the "
            f"weights are those before this step. Lower lr or reward_scale, or set "
            f"normalize_reward=True"
        )
    for optimizer in optimizers:
        optimizer.step()
    return norm.detach()
