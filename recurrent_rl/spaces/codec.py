"""Stored observations shown to networks as features.

Letters: ... any leading axes, D features, C channels, H height, W width.
"""

import math
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from recurrent_rl.spaces.images import channels_first, image_axes, image_shape
from recurrent_rl.spaces.layout import ObservationLayout, Place, nest
from recurrent_rl.spaces.leaves import Kind, Path
from recurrent_rl.spaces.scaling import Scaling


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
            normalize_images: scale images of whole numbers, and bytes, by their space's bounds.
            channels_last: images are [H, W, C] rather than [C, H, W]; None finds out, see
                ``image_axes``.

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
            (i, leaf, place, image_axes(leaf.shape, channels_last))
            for i, (leaf, place) in enumerate(zip(leaves, self.layout.places, strict=True))
            if leaf.kind.is_image
        ]
        self.image_shapes = [image_shape(leaf.shape, axes) for _, leaf, _, axes in self._images_at]
        self._of_numbers: Scaling | None = None
        self._of_bytes: Scaling | None = None
        self._scalings: list[Scaling | None] = [None] * len(leaves)
        if normalize_images:
            self._of_numbers = Scaling.of([x for x in leaves if x.kind is Kind.NUMBERS])
            self._of_bytes = Scaling.of([x for x in leaves if x.kind in (Kind.BYTES, Kind.BITS)])
            self._scalings = [Scaling.of([leaf]) for leaf in leaves]
        self._plain = self._plain and self._of_numbers is None
        # Of numbers and of bytes, in dtypes that have them exactly; on the CPU, as stores are.
        self._enforced: list[tuple[Place, Tensor, Tensor]] = []
        for leaf, place in zip(leaves, self.layout.places, strict=True):
            if leaf.enforced is not None:
                dtype = torch.uint8 if leaf.kind.in_bytes else torch.float32
                least, most = (torch.from_numpy(x.flatten()).to(dtype) for x in leaf.enforced)
                self._enforced.append((place, least, most))
        # So that they follow the codec to other devices; a plain list is faster to reach into.
        self._by_leaf = nn.ModuleList(x for x in self._scalings if x is not None)

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
            x = numbers[..., : size[Kind.NUMBERS]].to(dtype)
            parts.append(x if self._of_numbers is None else self._of_numbers.forward(x))
        if in_vector := size[Kind.BYTES] + size[Kind.BITS]:
            x = in_bytes[..., :in_vector].to(dtype)
            parts.append(x if self._of_bytes is None else self._of_bytes.forward(x))
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
        for i, leaf, (of_bytes, begin, end), axes in self._images_at:
            x = (in_bytes if of_bytes else numbers)[..., begin:end].to(torch.get_default_dtype())
            scaling = self._scalings[i]
            x = (x if scaling is None else scaling.forward(x)).reshape(*lead, *leaf.shape)
            images.append(channels_first(x, len(leaf.shape), axes))
        return tuple(images)

    def nested(self, stored: Tensor) -> Any:
        """Turn stored observations [..., *shape] into tensors in the structure of the space.

        Returns:
            floats, for each simple space: a Box in its own shape, but images [..., C, H, W], with
            the frames of a stack as channels; scaled as in ``forward``; one-hot vectors [..., n]
            for Discrete, joined ones for MultiDiscrete; bits.

        """
        lead = stored.shape[: stored.ndim - len(self.shape)]
        both = self._sections(stored)
        images = iter(self._images(*both))
        by_path: dict[Path, Tensor] = {}
        at = 0
        for leaf, (of_bytes, begin, end), scaling in zip(
            self.layout.leaves, self.layout.places, self._scalings, strict=True
        ):
            x = both[of_bytes][..., begin:end]
            if leaf.kind is Kind.INDEX:
                here = (self.component >= at) & (self.component < at + leaf.size)
                x = x.index_select(-1, self.component[here] - at) == self.choice[here]
                by_path[leaf.path], at = x.to(torch.get_default_dtype()), at + leaf.size
            elif leaf.kind.is_image:
                by_path[leaf.path] = next(images)
            else:
                x = x.to(torch.get_default_dtype())
                x = x if scaling is None else scaling.forward(x)
                # A tuple: there may be no axis at all.
                by_path[leaf.path] = x.reshape((*lead, *leaf.shape))
        return nest(self.space, by_path)

    def invalid(self, stored: Tensor) -> Tensor:
        """Say which of some stored observations [..., *shape], on the CPU, no policy can read.

        Returns:
            bool [...]: a number is not finite, an index out of range, or a whole number beyond the
            bounds by which it is scaled.

        """
        lead = stored.shape[: stored.ndim - len(self.shape)]
        wrong = torch.zeros(lead, dtype=torch.bool)
        both = self._sections(stored)
        numbers = both[0]
        if self.layout.numbers and numbers.dtype.is_floating_point:
            wrong |= ~torch.isfinite(numbers).all(-1)
        if self._size[Kind.INDEX]:
            index = self._index(numbers)
            wrong |= ((index < self._low) | (index > self._high)).any(-1)
            if index.dtype.is_floating_point:
                wrong |= (index != index.round()).any(-1)
        for (of_bytes, begin, end), least, most in self._enforced:
            x = both[of_bytes][..., begin:end]
            wrong |= ((x < least) | (x > most)).any(-1)
        return wrong
