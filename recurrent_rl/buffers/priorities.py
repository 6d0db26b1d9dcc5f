"""Priorities of a great many things, drawn from in proportion.

Letters: n things, M draws.
"""

import numpy as np
import torch

from recurrent_rl.spaces.array import Array


class SumTree:
    """Numbers >= 0, of which sums over any beginning are known in logarithmic time.

    Source: Schaul et al. 2016, "Prioritized Experience Replay", appendix B.2.1.

    Attributes:
        size: n.
        sums: node i has the children 2i and 2i + 1; the last n nodes are the numbers, [2n].

    """

    def __init__(self, size: int) -> None:
        """Begin with n >= 1 zeros."""
        self.size = size
        self.sums: Array = np.zeros(2 * size)

    @property
    def total(self) -> float:
        """The sum of all."""
        return float(self.sums[1])

    def __getitem__(self, index: Array) -> Array:
        """Return some of the numbers."""
        values: Array = self.sums[self.size + index]
        return values

    def set(self, index: Array, value: Array | float) -> None:
        """Replace some of the numbers; of an index that comes twice the last counts."""
        node = self.size + np.asarray(index)
        self.sums[node] = value
        while len(node):
            # Nodes of two depths go up together: each one's parents come after it.
            node = np.unique(node >> 1)
            node = node[node > 0]
            self.sums[node] = self.sums[2 * node] + self.sums[2 * node + 1]

    def draw(self, count: int, generator: torch.Generator) -> Array:
        """Return M indices, each with a probability in proportion to its number.

        One from each of M equal parts of the sum, which spreads the draws.
        """
        uniform = torch.rand(count, generator=generator, dtype=torch.float64).numpy()
        target = (np.arange(count) + uniform) * (self.total / count)
        node = np.ones(count, dtype=np.int64)
        while (inner := node < self.size).any():
            child = 2 * np.where(inner, node, 0)
            left, right = self.sums[child], self.sums[child + 1]
            # Rounding may leave a little more than there is on the right.
            goes_right = inner & (target >= left) & (right > 0)
            target = np.where(goes_right, target - left, target)
            node = np.where(inner, child + goes_right, node)
        return node - self.size

    def values(self) -> Array:
        """Return all n numbers, a copy."""
        return self.sums[self.size :].copy()
