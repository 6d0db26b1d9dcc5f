"""What a ring holds of one group of agents.

Letters: C places of an environment, E environments, A agents in the group, N = E * A rows, n of the
environments, K layers, H units.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.buffers.steps import StepShapes
from recurrent_rl.spaces.array import Array

FLAGS = ("start", "exists", "active", "terminated", "truncated", "final")


class Part:
    """One group's fields, [C, N, ...], and states, [chunks, N, K, H] each.

    Attributes:
        shapes: of one step of one row.
        size: A.
        rows: N.
        arrays: views of the fields, by name.
        idle: places since each row's last decision, int [N]; 0 before a life's first.

    """

    def __init__(self, places: int, envs: int, size: int, shapes: StepShapes, chunks: int) -> None:
        """Allocate."""
        self.shapes, self.size, self.rows = shapes, size, envs * size
        lead = (places, self.rows)
        self.obs = torch.zeros(*lead, *shapes.obs_shape, dtype=shapes.obs_dtype)
        self.extra = torch.zeros(*lead, shapes.extra) if shapes.extra else None
        self.action = torch.zeros(*lead, *shapes.action_shape, dtype=shapes.action_dtype)
        self.action_mask: Tensor | None = None
        if shapes.mask_size:
            self.action_mask = torch.ones(*lead, shapes.mask_size, dtype=torch.bool)
        self.reward = torch.zeros(lead)
        self.start, self.exists, self.active, self.terminated, self.truncated, self.final = (
            torch.zeros(lead, dtype=torch.bool) for _ in FLAGS
        )
        self.hidden = [torch.zeros(chunks, self.rows, k, h) for k, h in shapes.state_shapes]
        self.idle = np.zeros(self.rows, dtype=np.int64)
        self.arrays = self._views()

    def _views(self) -> dict[str, Array]:
        # NumPy writes a few numbers in a tenth of the time that torch takes.
        return {name: x.numpy() for name, x in vars(self).items() if isinstance(x, Tensor)}

    def __getstate__(self) -> dict[str, Any]:
        """All but the views, which would be copied into arrays of their own."""
        return {name: value for name, value in vars(self).items() if name != "arrays"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Look upon the copied fields."""
        vars(self).update(state)
        self.arrays = self._views()

    def add_masks(self, mask_size: int) -> None:
        """Make room for action masks; until now everything was allowed."""
        self.action_mask = torch.ones(*self.obs.shape[:2], mask_size, dtype=torch.bool)
        self.arrays["action_mask"] = self.action_mask.numpy()

    def fields(self) -> dict[str, Tensor]:
        """Return all that is stored, by name."""
        found = {name: x for name, x in vars(self).items() if isinstance(x, Tensor)}
        return found | {f"hidden{i}": x for i, x in enumerate(self.hidden)}

    def wait(self, env: Array) -> None:
        """Note that environments, int [n], have a place more without a decision."""
        rows = self.rows_of(env)
        self.idle[rows] += self.idle[rows] > 0

    def rows_of(self, env: Array) -> Array:
        """Return the rows of environments, int [n * A]."""
        if self.size == 1:
            return env
        rows: Array = (env[:, None] * self.size + np.arange(self.size)).ravel()
        return rows
