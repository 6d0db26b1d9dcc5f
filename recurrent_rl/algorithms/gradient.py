"""The one place where gradient steps are taken, whatever the algorithm."""

import math
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
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    parameters = [p for group in groups for p in group["params"]]
    for p in parameters:
        if p.grad is not None:
            p.grad.zero_()  # not None: gradients may be views of one vector
    torch.autograd.backward([loss, *also])
    gradients = [p.grad for p in parameters if p.grad is not None]
    return take_step(gradients, loss.detach(), *optimizers, max_norm=max_norm)


def take_step(
    gradients: Sequence[Tensor],
    loss: Tensor,
    *optimizers: torch.optim.Optimizer,
    max_norm: float,
) -> Tensor:
    """Clip gradients and step; returns and raises as ``gradient_step``."""
    norm = clip(gradients, max_norm)
    # Of a clipped error only the loss is infinite.
    if not math.isfinite(float(norm + loss)):
        raise FloatingPointError(
            f"learn: expected a finite gradient, got norm {norm.item()} (loss {loss.item()}); the "
            f"weights are those before this step. Lower lr or reward_scale, or set "
            f"normalize_reward=True"
        )
    for optimizer in optimizers:
        optimizer.step()
    return norm.detach()


@torch.no_grad()
def clip(gradients: Sequence[Tensor], max_norm: float) -> Tensor:
    """Scale gradients down to a norm, and return that before.

    ``torch.nn.utils.clip_grad_norm_`` to the bit, without what one vector has no use for (the
    norms of many, factors of 1), which takes four times as long as the norm.
    """
    if len(gradients) != 1:
        norm = nn.utils.get_total_norm(gradients)
    else:
        norm = torch.linalg.vector_norm(gradients[0])
    if math.isfinite(max_norm):
        scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale)
    return norm
