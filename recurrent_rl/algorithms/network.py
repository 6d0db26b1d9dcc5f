"""Networks that learn from a replay: parts of one loss, each with an optimiser."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recurrent_rl.algorithms.gradient import gradient_step, take_step
from recurrent_rl.algorithms.policy_optimizer import PolicyOptimizer
from recurrent_rl.distributed import World


class Parts(nn.ModuleList):
    """Modules, or single parameters of some, that one optimiser steps."""

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return them, each once."""
        return list(self.parameters())

    def check_parts(self) -> None:
        """Find nothing amiss: modules are looked up when they are used."""


class Network:
    """Parts that one loss trains, with an optimiser for each step size.

    Attributes:
        parts: by the name of their step size.
        optimizers: likewise, of parts that have parameters.
        max_norm: gradients of all of them together are scaled down to this norm.

    """

    def __init__(
        self,
        parts: Mapping[str, Sequence[nn.Module]],
        step_sizes: Mapping[str, float],
        device: torch.device,
        eps: float,
        *,
        compiled: bool = False,
    ) -> None:
        """Put an optimiser on each part.

        Args:
            parts: modules by the name of their step size.
            step_sizes: by name.
            device: of all.
            eps: Adam's epsilon.
            compiled: take steps by kernels, see ``PolicyConfig``.

        """
        self.parts = {name: Parts(modules) for name, modules in parts.items() if modules}
        self.optimizers = {
            name: PolicyOptimizer(part, device, step_sizes[name], eps)
            for name, part in self.parts.items()
            if any(True for _ in part.parameters())
        }
        self.max_norm, self._compiled = math.inf, compiled
        self._moving = list(self.optimizers.values())

    def set_step_sizes(self, step_sizes: Mapping[str, float], share: float) -> None:
        """Change step sizes, by name, to a ``share`` of what is given."""
        for name, optimizer in self.optimizers.items():
            optimizer.set_lr(share * step_sizes[name])

    def join(self) -> bool:
        """Step exactly what requires gradients; whether there is anything."""
        self._moving = [opt for name, opt in self.optimizers.items() if opt.join(self.parts[name])]
        return bool(self._moving)

    def step(self, loss: Tensor, world: World) -> Tensor:
        """Take a gradient step; return the norm before clipping: 0 where everything is frozen.

        Args:
            loss: of which each rank has its share.
            world: of the ranks.

        """
        if not self._moving:
            return loss.new_zeros(())
        adams = [optimizer.adam for optimizer in self._moving]
        return gradient_step(loss, *adams, **self._how(world))

    def _how(self, world: World) -> dict[str, Any]:
        return {"max_norm": self.max_norm, "world": world, "compiled": self._compiled}

    def descend(self, slope: Tensor, world: World) -> None:
        """Take the step of a network of one number, whose loss has a slope that is known.

        Args:
            slope: of which each rank has its share.
            world: of the ranks.

        Raises:
            FloatingPointError: it is not finite; the number is as before the step.

        """
        for optimizer in self._moving:
            (vector,) = optimizer.adam.param_groups[0]["params"]
            if vector.grad is None:
                vector.grad = torch.zeros_like(vector)
            vector.grad.view(-1)[:1] = slope  # behind it there may be zeros that fill up
            take_step([vector.grad], slope, optimizer.adam, **self._how(world))

    def to_data(self) -> dict[str, Any]:
        """Return the optimisers' states."""
        return {name: opt.state_dict(self.parts[name]) for name, opt in self.optimizers.items()}

    def load(self, data: Mapping[str, Any]) -> None:
        """Take over what ``to_data`` gave."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(self.parts[name], data[name])
