"""All parameters of a network as views of one vector, and Adam's state over it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def flatten_parameters(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """Move parameters, and their gradients, into one vector each, of which they become views.

    An optimiser then takes one step for one tensor rather than for each of a dozen small ones:
    clipping and stepping a small policy takes 0.09 rather than 0.16 ms. For the CPU: cuDNN has its
    own layout.

    Returns:
        the vector, to be given to the optimiser in the parameters' stead.

    """
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]))
    flat.grad = torch.cat([g.flatten() for g in grads])
    sizes = [p.numel() for p in parameters]
    for p, data, grad in zip(
        parameters, flat.data.split(sizes), flat.grad.split(sizes), strict=True
    ):
        p.data, p.grad = data.view_as(p), grad.view_as(p)
    return flat


def split_adam_state(
    state: Mapping[str, Any], parameters: Sequence[Tensor]
) -> list[dict[str, Tensor]]:
    """Return Adam's moments and step count for each parameter; none before its first step.

    Args:
        state: from ``state_dict``, over one vector of all parameters or over each.
        parameters: all, in the vector's order.

    Returns:
        an empty dictionary for a parameter that has not taken a step; [] if none has.

    """
    moments, sizes = state["state"], [p.numel() for p in parameters]
    if not moments:
        return []
    if len(moments) != 1 or moments.get(0, {"exp_avg": torch.empty(0)})["exp_avg"].shape != (
        sum(sizes),
    ):
        return [dict(moments.get(i, {})) for i in range(len(parameters))]
    split = {name: x.split(sizes) for name, x in moments[0].items() if name != "step"}
    return [
        {
            "step": moments[0]["step"].clone(),
            **{name: split[name][i].view(p.shape).clone() for name in split},
        }
        for i, p in enumerate(parameters)
    ]
