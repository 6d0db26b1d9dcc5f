"""Stored observations shown to networks as features.

Letters: ... any leading axes, D features, C channels, H height, W width.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from recurrent_rl.spaces.layout import Kind, ObservationLayout, Path, nest


class Features(NamedTuple):
    """What a network reads of observations.

    Attributes:
        vector: [..., D]; D may be 0.
        images: [..., C, H, W] each.

    """

    vector: Tensor
    images: tuple[Tensor, ...] = ()


class ObservationCodec(nn.Module):
    """How stored observations of one space are shown to a network.

    Attributes:
        space: the Gymnasium space of one observation.
        layout: how it is stored.
        shape: of one stored observation: a simple space's own, () for an index.
        dtype: of the store.
        features: D, width of the vector that a network reads.
        continuous: how many of these, the first, are numbers rather than bits or one-hot.
        image_shapes: (C, H, W) of each image.

    """

    component: Tensor
    choice: Tensor

    def __init__(
        self,
        space: gym.Space[Any],
        *,
        normalize_images: bool = True,
        channels_last: bool | None = None,
    ) -> None:
        """Raise TypeError, saying what is supported, for any other space.

        Args:
            space: of one observation.
            normalize_images: divide images of bytes by 255.
            channels_last: images are [H, W, C] rather than [C, H, W]; None finds out: two equal
                axes are height and width; otherwise the channels are the smaller of the first and
                the last axis (the last, if they are equal).

        """
        super().__init__()
        self.space, self.layout = space, ObservationLayout(space)
        self.shape, self.dtype = self.layout.shape, self.layout.dtype
        self.normalize_images, self.channels_last = normalize_images, channels_last
        leaves = self.layout.leaves
        # Which index of a record each one-hot feature is about, and which value it stands for.
        bounds = [leaf.bounds for leaf in leaves if leaf.kind is Kind.INDEX]
        low, high = (
            np.concatenate([b[i] for b in bounds] or [np.zeros(0, np.int64)]) for i in (0, 1)
        )
        counts = (high - low + 1).astype(np.int64)
        one_hot = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        choice = np.repeat(low, counts) + one_hot
        component = np.repeat(np.arange(len(counts)), counts)
        self.register_buffer("component", torch.from_numpy(component), persistent=False)
        # float32 (as records have them) holds these exactly, and compares with integers as well.
        self.register_buffer("choice", torch.from_numpy(choice), persistent=False)
        self._low, self._high = torch.from_numpy(low), torch.from_numpy(high)
        size = {kind: sum(x.size for x in leaves if x.kind == kind) for kind in Kind}
        self._size = size
        first = leaves[0]
        # The usual case, which can do without all that follows.
        self._plain = not self.layout.nested and first.kind is Kind.NUMBERS and len(self.shape) == 1
        self.continuous = size[Kind.NUMBERS] + size[Kind.BYTES]
        self.features = self.continuous + size[Kind.BITS] + int(counts.sum())
        self._images_at = [
            (leaf, place, self._last(leaf.shape))
            for leaf, place in zip(leaves, self.layout.places, strict=True)
            if leaf.kind.is_image
        ]
        self.image_shapes = [
            (leaf.shape[2], *leaf.shape[:2]) if last else (1, *leaf.shape)[-3:]
            for leaf, _, last in self._images_at
        ]

    def _last(self, shape: Sequence[int]) -> bool:
        if len(shape) == 2:
            return False
        if self.channels_last is not None:
            return self.channels_last
        if (shape[0] == shape[1]) != (shape[1] == shape[2]):  # a square image
            return shape[0] == shape[1]
        return shape[2] <= shape[0]

    def forward(self, stored: Tensor) -> Features:
        """Turn stored observations [..., *shape] into features of the default float type."""
        if self._plain and stored.dtype == torch.get_default_dtype():
            return Features(stored)
        sections = self._sections(stored)
        return Features(self._vector(*sections), self._images(*sections))

    def _sections(self, stored: Tensor) -> tuple[Tensor, Tensor]:
        flat = stored
        if len(self.shape) != 1:
            lead = stored.shape[: stored.ndim - len(self.shape)]
            flat = stored.reshape(*lead, math.prod(self.shape))  # not -1: there may be no rows
        numbers, in_bytes = self.layout.sections(flat)
        return numbers, in_bytes

    def _vector(self, numbers: Tensor, in_bytes: Tensor) -> Tensor:
        size, dtype, parts = self._size, torch.get_default_dtype(), []
        if size[Kind.NUMBERS]:
            parts.append(numbers[..., : size[Kind.NUMBERS]].to(dtype))
        if in_vector := size[Kind.BYTES] + size[Kind.BITS]:
            parts.append(in_bytes[..., :in_vector].to(dtype))
        if size[Kind.INDEX]:
            index = self._index(numbers)
            parts.append((index.index_select(-1, self.component) == self.choice).to(dtype))
        if not parts:
            return numbers[..., :0].to(dtype)
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def _index(self, numbers: Tensor) -> Tensor:
        begin = self._size[Kind.NUMBERS]
        return numbers[..., begin : begin + self._size[Kind.INDEX]]

    def _images(self, numbers: Tensor, in_bytes: Tensor) -> tuple[Tensor, ...]:
        lead, images = numbers.shape[:-1], []
        for leaf, (of_bytes, begin, end), last in self._images_at:
            x = (in_bytes if of_bytes else numbers)[..., begin:end].reshape(*lead, *leaf.shape)
            x = x.to(torch.get_default_dtype())
            if of_bytes and self.normalize_images:
                x = x * (1 / 255)
            if len(leaf.shape) == 2:
                x = x.unsqueeze(-3)
            images.append(x.movedim(-1, -3) if last else x)
        return tuple(images)

    def nested(self, stored: Tensor) -> Any:
        """Turn stored observations [..., *shape] into tensors in the structure of the space.

        Returns:
            floats, for each simple space: a Box in its own shape, but images [..., C, H, W] and
            scaled; one-hot vectors [..., n] for Discrete, joined ones for MultiDiscrete; bits.

        """
        lead = stored.shape[: stored.ndim - len(self.shape)]
        both = self._sections(stored)
        images = iter(self._images(*both))
        by_path: dict[Path, Tensor] = {}
        at = 0
        for leaf, (of_bytes, begin, end) in zip(
            self.layout.leaves, self.layout.places, strict=True
        ):
            x = both[of_bytes][..., begin:end]
            if leaf.kind is Kind.INDEX:
                here = (self.component >= at) & (self.component < at + leaf.size)
                x = x.index_select(-1, self.component[here] - at) == self.choice[here]
                by_path[leaf.path], at = x.to(torch.get_default_dtype()), at + leaf.size
            elif leaf.kind.is_image:
                by_path[leaf.path] = next(images)
            else:
                x = x.reshape((*lead, *leaf.shape))  # a tuple: there may be no axis at all
                by_path[leaf.path] = x.to(torch.get_default_dtype())
        return nest(self.space, by_path)

    def invalid(self, stored: Tensor) -> Tensor:
        """Say which of some stored observations [..., *shape], on the CPU, no policy can read.

        Returns:
            bool [...]: a number is not finite, or an index out of range.

        """
        lead = stored.shape[: stored.ndim - len(self.shape)]
        wrong = torch.zeros(lead, dtype=torch.bool)
        if not self.layout.numbers:
            return wrong
        numbers, _ = self._sections(stored)
        if numbers.dtype.is_floating_point:
            wrong |= ~torch.isfinite(numbers).all(-1)
        if self._size[Kind.INDEX]:
            index = self._index(numbers)
            wrong |= ((index < self._low) | (index > self._high)).any(-1)
            if index.dtype.is_floating_point:
                wrong |= (index != index.round()).any(-1)
        return wrong
