"""Trunks: from what a row sees and remembers to the features that heads read.

A trunk is a preprocessor and an encoder with its slice of the hidden state. Actor and
critic share one or have one each; a target network is a copy of a trunk and its head.

Letters: T steps, N rows, S sequences, L longest sequence, K layers, H units, D features, F width of
the extra inputs (previous action, previous reward, identity), A agents.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from recurrent_rl.distributed import ALONE, World
from recurrent_rl.functional.statistics import Moments
from recurrent_rl.networks.custom import CustomEncoder
from recurrent_rl.networks.encoder import Encoder
from recurrent_rl.networks.normalization import RunningNorm
from recurrent_rl.recurrent.state import HiddenState
from recurrent_rl.spaces.codec import Features, ObservationCodec


@dataclass(frozen=True)
class ExtraInputs:
    """What a policy sees beside the observation.

    Attributes:
        action: width of the last action, which is the last part of the hidden state; 0 for none.
        reward: whether the last reward is shown.
        identities: the number of agents that are told apart, A; 0 for none.

    """

    action: int = 0
    reward: bool = False
    identities: int = 0

    @property
    def width(self) -> int:
        """F."""
        return self.action + int(self.reward) + self.identities

    def joined(
        self, state: HiddenState, reward: Tensor | None, identity: Tensor | None = None
    ) -> Tensor | None:
        """Return all of it as one input [N, F], or None.

        Args:
            state: holds the last action.
            reward: the last one, [N].
            identity: which of the agents each row is, one-hot, [N, A].

        """
        return self.together(state.tensors[-1][0] if self.action else None, reward, identity)

    def together(
        self, action: Tensor | None, reward: Tensor | None, identity: Tensor | None
    ) -> Tensor | None:
        """Do the same with the last action as networks read it, [N, n]."""
        if not self.width:
            return None
        parts: list[Tensor] = []
        if self.action:
            assert action is not None
            parts.append(action)
        if self.reward:
            assert reward is not None
            parts.append(reward[:, None])
        if self.identities:
            assert identity is not None
            parts.append(identity)
        return torch.cat(parts, -1)


class Preprocessor(nn.Module):
    """Stored observations to features, standardised by running statistics if so configured.

    Attributes:
        codec: how observations are stored and shown.
        norm: of their numbers; None without.
        image_norms: of each image; empty without.

    """

    def __init__(self, codec: ObservationCodec, normalize: bool) -> None:
        """Arg ``normalize``: whether to standardise."""
        super().__init__()
        self.codec = codec
        numbers = codec.continuous
        self.norm = RunningNorm(numbers) if normalize and numbers else None
        # Pixel by pixel: what never changes vanishes, and small things that do stand out.
        self.image_norms = nn.ModuleList(
            RunningNorm(math.prod(shape)) for shape in codec.image_shapes if normalize
        )

    def forward(self, observation: Tensor) -> Features:
        """Stored observations [..., *shape] to features [..., D]."""
        x = self.codec.forward(observation)  # not through Module's call: 3 us, at each step
        if self.norm is None and not self.image_norms:
            return x
        vector, images = x
        if self.norm is not None:
            numbers = self.codec.continuous
            vector = self.norm(x.vector[..., :numbers])
            if numbers < self.codec.features:
                vector = torch.cat((vector, x.vector[..., numbers:]), -1)
        if self.image_norms:
            pairs = zip(self.image_norms, images, strict=True)
            images = tuple(norm(x.flatten(-3)).view(x.shape) for norm, x in pairs)
        return Features(vector, images)

    @torch.no_grad()
    def update(self, observation: Tensor, exists: Tensor, world: World = ALONE) -> None:
        """Take the observations of a rollout into the running statistics, if there are any.

        Args:
            observation: stored form, [T, N, *shape], on any device.
            exists: those that are real, bool [T, N].
            world: whose ranks have more.

        """
        if self.norm is None and not self.image_norms:
            return
        norms = cast(list[RunningNorm], [*filter(None, (self.norm, *self.image_norms))])
        device, numbers = norms[0].mean.device, []
        of_images: list[list[Moments]] = [[] for _ in self.image_norms]
        # In blocks of steps, since images as floats take a lot of room.
        for seen, real in zip(observation.split(16), exists.split(16), strict=True):
            x: Features = self.codec(seen[real].to(device))
            numbers.append(x.vector[:, : self.codec.continuous])
            for found, image in zip(of_images, x.images, strict=False):
                found.append(Moments.of(image.flatten(1)))
        parts = [Moments.of(torch.cat(numbers))] if self.norm is not None else []
        parts += map(Moments.all_of, of_images)
        for norm, part in zip(norms, parts, strict=True):
            norm.take(part, world)


class Trunk(nn.Module):
    """From observations, extra inputs and memory to features.

    Attributes:
        preprocessor: in front of the encoder; trunks of one policy share it.
        encoder: built in, or the user's own.
        outputs: width of the features.
        shapes: (K, H) of each of its state tensors.
        place: where these are among the tensors of a hidden state.

    """

    def __init__(
        self,
        preprocessor: Preprocessor,
        encoder: Encoder | CustomEncoder,
        place: int = 0,
    ) -> None:
        """Put the parts together; the state's tensors begin at number ``place``."""
        super().__init__()
        self.preprocessor, self.encoder = preprocessor, encoder
        self.outputs, self.shapes = encoder.outputs, encoder.shapes
        self.place = slice(place, place + len(self.shapes))
        self.is_custom = isinstance(encoder, CustomEncoder)

    @property
    def is_frozen(self) -> bool:
        """Whether it has parameters, and none of them is trained."""
        parameters = list(self.parameters())
        return bool(parameters) and not any(p.requires_grad for p in parameters)

    def inputs(self, observation: Tensor) -> Any:
        """Return stored observations [..., *shape] in the form that the encoder reads."""
        if self.is_custom:
            return self.preprocessor.codec.nested(observation)
        return self.preprocessor.forward(observation)

    def step(
        self, inputs: Any, extra: Tensor | None, tensors: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Take one step.

        Args:
            inputs: from ``inputs``, of N rows.
            extra: from ``ExtraInputs.joined``, [N, F] or None.
            tensors: all of a hidden state's, before the step.

        Returns:
            features: [N, outputs].
            state: its own tensors after the step, [K, N, H] each.

        """
        return self.encoder.step(inputs, extra, tensors[self.place])

    def forward(
        self, inputs: Any, extra: Tensor | None, tensors: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run over whole sequences.

        Args:
            inputs: from ``inputs``, [L, S, ...].
            extra: [L, S, F] or None.
            tensors: all of a hidden state's, before the first step.

        Returns:
            features: [L, S, outputs].
            state: its own tensors after the last step, [K, S, H] each.

        """
        result: tuple[Tensor, tuple[Tensor, ...]] = self.encoder(inputs, extra, tensors[self.place])
        return result

    def run(
        self, inputs: Any, extra: Tensor | None, length: Tensor, tensors: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Return its own state tensors after sequences of different ``length`` [S]."""
        return self.encoder.run(inputs, extra, length, tensors[self.place])
