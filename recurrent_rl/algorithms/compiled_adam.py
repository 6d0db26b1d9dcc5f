"""Adam's step over vectors by a compiled kernel.

Optimisers stay ``torch.optim.Adam``, with their states where they are; only the arithmetic is done
elsewhere, together with scaling gradients down. What PyTorch does around it takes several times as
long as the arithmetic of a small network.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recurrent_rl.compiled.kernels import Kernels, kernels

# What the kernel leaves out must be as it is by default.
_PLAIN = {"weight_decay": 0, "amsgrad": False, "maximize": False, "decoupled_weight_decay": False}


class _Vector(NamedTuple):
    """What one optimiser steps.

    Attributes:
        values: the parameters.
        gradient: of them.
        group: the optimiser's settings.
        state: its moments, and how many steps it has taken.

    """

    values: Tensor
    gradient: Tensor
    group: Mapping[str, Any]
    state: Any


class CompiledAdam:
    """Steps of some optimisers, to be taken together.

    Attributes:
        norm: of all gradients.

    """

    def __init__(self, found: Kernels, vectors: Sequence[_Vector]) -> None:
        """Args: kernels, and what is stepped."""
        self._kernels, self._vectors = found, vectors
        self.norm = math.hypot(*(found.norm(vector.gradient) for vector in vectors))

    def step(self, max_norm: float) -> None:
        """Scale gradients down to a norm, as ``gradient.clip`` does, and take the steps."""
        scale = min(max_norm / (self.norm + 1e-6), 1.0)
        for values, gradient, group, state in self._vectors:
            state["step"] += 1
            self._kernels.adam(
                values,
                gradient,
                (state["exp_avg"], state["exp_avg_sq"]),
                scale,
                group["betas"],
                float(group["lr"]),
                group["eps"],
                float(state["step"]),
            )


def compiled_adam(
    optimizers: Sequence[torch.optim.Optimizer], gradients: Sequence[Tensor]
) -> CompiledAdam | None:
    """Return the steps of plain Adams over a vector each that have taken a step before, else None.

    Args:
        optimizers: that are to step together.
        gradients: which are to be clipped together.

    """
    vectors = [_vector(optimizer) for optimizer in optimizers]
    known = [vector for vector in vectors if vector is not None]
    if len(known) != len(vectors) or len(known) != len(gradients):
        return None
    found = kernels()
    return None if found is None else CompiledAdam(found, known)


def _vector(adam: torch.optim.Optimizer) -> _Vector | None:
    stepped = [(group, p) for group in adam.param_groups for p in group["params"]]
    if type(adam) is not torch.optim.Adam or len(stepped) != 1:
        return None
    ((group, vector),) = stepped
    state = adam.state.get(vector)
    if (
        not state
        or vector.grad is None
        or vector.dtype != torch.float32
        or not vector.is_cpu
        or not vector.is_contiguous()
        or any(group.get(name, value) != value for name, value in _PLAIN.items())
        or adam._optimizer_step_pre_hooks
        or adam._optimizer_step_post_hooks
    ):
        return None
    return _Vector(vector.data, vector.grad, group, state)
