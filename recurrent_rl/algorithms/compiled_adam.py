"""Adam's step over one vector by a compiled kernel.

The optimiser stays ``torch.optim.Adam``, with its state where it is; only its arithmetic is done
elsewhere, together with scaling the gradient down. What PyTorch does around it takes several times
as long as the arithmetic of a small network.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recurrent_rl.compiled.kernels import Kernels, kernels

# What the kernel leaves out must be as it is by default.
_PLAIN = {"weight_decay": 0, "amsgrad": False, "maximize": False, "decoupled_weight_decay": False}


class CompiledAdam:
    """A step to be taken.

    Attributes:
        norm: of the gradient.

    """

    def __init__(self, found: Kernels, vector: Tensor, group: dict[str, Any], state: Any) -> None:
        """Args: kernels, what is stepped, the optimiser's settings and its state for that."""
        self._kernels, self._vector, self._group, self._state = found, vector, group, state
        assert vector.grad is not None
        self.norm = found.norm(vector.grad)

    def step(self, max_norm: float) -> None:
        """Scale the gradient down to a norm, as ``gradient.clip`` does, and take the step."""
        gradient, group, state = self._vector.grad, self._group, self._state
        assert gradient is not None
        scale = min(max_norm / (self.norm + 1e-6), 1.0)
        state["step"] += 1
        moments = (state["exp_avg"], state["exp_avg_sq"])
        settings = (group["betas"], float(group["lr"]), group["eps"], float(state["step"]))
        self._kernels.adam(self._vector.data, gradient, moments, scale, *settings)


def compiled_adam(
    optimizers: Sequence[torch.optim.Optimizer], gradients: Sequence[Tensor]
) -> CompiledAdam | None:
    """Return the step of one plain Adam over one vector that has taken a step before, else None.

    Args:
        optimizers: that are to step together.
        gradients: which are to be clipped together.

    """
    if len(optimizers) != 1 or len(gradients) != 1 or type(optimizers[0]) is not torch.optim.Adam:
        return None
    (adam,) = optimizers
    stepped = [(group, p) for group in adam.param_groups for p in group["params"]]
    if len(stepped) != 1:
        return None
    ((group, vector),) = stepped
    state = adam.state.get(vector)
    if (
        not state
        or vector.grad is not gradients[0]
        or vector.dtype != torch.float32
        or not vector.is_cpu
        or any(group.get(name, value) != value for name, value in _PLAIN.items())
        or adam._optimizer_step_pre_hooks
        or adam._optimizer_step_post_hooks
    ):
        return None
    found = kernels()
    return None if found is None else CompiledAdam(found, vector, group, state)
