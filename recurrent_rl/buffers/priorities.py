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

    """

    def __init__(self, size: int) -> None:
        """Begin with n zeros."""
        self.size = size
        self._leaves = 1 << max(size - 1, 1).bit_length()
        self._sums: Array = np.zeros(2 * self._leaves)  # node i has the children 2i and 2i + 1

    @property
    def total(self) -> float:
        """The sum of all."""
        return float(self._sums[1])

    def __getitem__(self, index: Array) -> Array:
        """Return some of the numbers."""
        values: Array = self._sums[self._leaves + index]
        return values

    def set(self, index: Array, value: Array | float) -> None:
        """Replace some of the numbers; of an index that comes twice the last counts."""
        node = self._leaves + np.asarray(index)
        self._sums[node] = value
        node = np.unique(node >> 1)
        while len(node) and node[0]:
            self._sums[node] = self._sums[2 * node] + self._sums[2 * node + 1]
            node = np.unique(node >> 1)

    def draw(self, count: int, generator: torch.Generator) -> Array:
        """Return M indices, each with a probability in proportion to its number.

        One from each of M equal parts of the sum, which spreads the draws.
        """
        uniform = torch.rand(count, generator=generator, dtype=torch.float64).numpy()
        target = (np.arange(count) + uniform) * (self.total / count)
        node = np.ones(count, dtype=np.int64)
        while node[0] < self._leaves:
            left = self._sums[2 * node]
            # Rounding may leave a little more than there is on the right.
            goes_right = (target >= left) & (self._sums[2 * node + 1] > 0)
            target = np.where(goes_right, target - left, target)
            node = 2 * node + goes_right
        return node - self._leaves

    def values(self) -> Array:
        """Return all n numbers, a copy."""
        return self._sums[self._leaves : self._leaves + self.size].copy()
