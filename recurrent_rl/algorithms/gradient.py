"""The one function that takes a gradient step, whatever the algorithm."""

import torch
from torch import Tensor, nn


def gradient_step(loss: Tensor, optimizer: torch.optim.Optimizer, max_norm: float) -> Tensor:
    """Take one clipped step; return the global gradient norm before clipping, detached.

    Raises:
        FloatingPointError: the norm is not finite; the weights are those before the step.

    """
    optimizer.zero_grad(set_to_none=False)  # gradients may be views of one vector
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, max_norm)
    if not torch.isfinite(norm):
        raise FloatingPointError(
            f"learn: expected a finite gradient, got norm {norm.item()} (loss {loss.item()}); the "
            f"weights are those before this step. Lower lr or reward_scale, or set "
            f"normalize_reward=True"
        )
    optimizer.step()
    return norm.detach()
