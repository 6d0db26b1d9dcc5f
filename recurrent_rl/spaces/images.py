"""Which axes of an image, or of a stack of images, are height and width.

Letters: ... any leading axes, C channels, H height, W width, F frames of a stack.
"""

import math
from collections.abc import Sequence

from torch import Tensor


def image_axes(shape: Sequence[int], channels_last: bool | None = None) -> tuple[int, int]:
    """Return the axes of height and width.

    Args:
        shape: of two axes [H, W], three, [C, H, W] or [H, W, C], or four, a stack of these,
            [F, C, H, W] or [F, H, W, C].
        channels_last: [H, W, C] rather than [C, H, W]; None finds out: two equal axes are height
            and width; otherwise the channels are the smaller of the first and the last axis (the
            last, if they are equal). In a stack, of four axes, two equal neighbours are height and
            width, of several such pairs the largest, which may also be the first two, [H, W, C,
            F]; otherwise, and of equal pairs, its images decide as they would alone.

    """
    if len(shape) == 2:
        return 0, 1
    if len(shape) == 3:
        return (0, 1) if _channels_last(shape, channels_last) else (1, 2)
    if channels_last is None:
        pairs = {i: shape[i] for i in range(3) if shape[i] == shape[i + 1]}
        largest = [i for i, size in pairs.items() if size == max(pairs.values())]
        if len(largest) == 1:
            return largest[0], largest[0] + 1
    return (1, 2) if _channels_last(shape[1:], channels_last) else (2, 3)


def _channels_last(shape: Sequence[int], known: bool | None) -> bool:
    if known is not None:
        return known
    if (shape[0] == shape[1]) != (shape[1] == shape[2]):  # a square image
        return shape[0] == shape[1]
    return shape[2] <= shape[0]


def image_shape(shape: Sequence[int], axes: tuple[int, int]) -> tuple[int, int, int]:
    """Return (C, H, W), C being 1 without channels, and F * C of a stack."""
    height, width = (shape[axis] for axis in axes)
    return math.prod(shape) // max(height * width, 1), height, width


def channels_first(x: Tensor, ndim: int, axes: tuple[int, int]) -> Tensor:
    """Images [..., *shape], of ``ndim`` axes, to [..., C, H, W]; frames are joined as channels."""
    if ndim == 2:
        return x.unsqueeze(-3)
    if axes[1] != ndim - 1:
        x = x.movedim([axis - ndim for axis in axes], [-2, -1])
    return x.flatten(-4, -3) if ndim == 4 else x
