"""Whole numbers scaled by the bounds of their space.

Letters: ... any leading axes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.leaves import Leaf


def scale_of(leaf: Leaf) -> tuple[Array, Array]:
    """Return what a leaf's values are counted from, and what they are then multiplied by.

    The value of the bounds that is furthest from zero becomes 1 or -1, and zero stays zero. Where
    zero lies outside the bounds, they are counted from the bound that is nearest to it.

    Returns:
        offset and factor, [*shape] each; 0 and 1 for what is not scaled, see ``Leaf.limits``.

    """
    if leaf.limits is None:
        return np.zeros(leaf.shape), np.ones(leaf.shape)
    low, high = leaf.limits
    offset = np.clip(0.0, low, high)
    reach = np.maximum(high - offset, offset - low)
    return offset, 1 / np.where(reach > 0, reach, 1)  # a value that never changes may be anything


class Scaling(nn.Module):
    """``(x - offset) * factor``, made from a space alone and so no part of a checkpoint.

    Attributes:
        offset: a number, or [*shape].
        factor: likewise.

    """

    offset: Tensor | float
    factor: Tensor | float

    def __init__(self, offset: Array, factor: Array) -> None:
        """Scale values [..., *shape]; one number serves for all where they are equal."""
        super().__init__()
        self._shifts = bool(offset.any())
        for name, values in (("offset", offset), ("factor", factor)):
            if (values == values.flat[0]).all():
                setattr(self, name, float(values.flat[0]))
            else:
                tensor = torch.as_tensor(values, dtype=torch.get_default_dtype())
                self.register_buffer(name, tensor, persistent=False)

    @classmethod
    def of(cls, leaves: Sequence[Leaf]) -> "Scaling | None":
        """Return the scaling of leaves laid one after the other, flat; None: they stay as are."""
        pairs = [scale_of(leaf) for leaf in leaves]
        if not pairs:
            return None
        offset, factor = (
            np.concatenate([x.ravel() for x in part]) for part in zip(*pairs, strict=True)
        )
        if not offset.any() and bool((factor == 1).all()):
            return None
        return cls(offset, factor)

    def forward(self, x: Tensor) -> Tensor:
        """Floats [..., *shape] to floats of the same shape."""
        if self._shifts:
            x = x - self.offset
        return x * self.factor
