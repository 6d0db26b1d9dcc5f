"""Encoders: from what is observed to what the heads read, with memory or without.

Letters: N rows, S sequences, L longest sequence, K layers, H units, D features, F width of the
extra inputs (previous action, previous reward, identity).
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.networks.layers import Cnn, mlp
from recurrent_rl.recurrent.core import RecurrentCore
from recurrent_rl.spaces.codec import Features, ObservationCodec


class Encoder(nn.Module):
    """Observation features and extra inputs to what a head reads.

    Each image goes through its own convolutions, the vector as it is or through an MLP of its own;
    what they give is joined and goes through an MLP, then through the recurrent core.

    Attributes:
        cnns: one for each image.
        vector_mlp: the vector's own MLP, None without.
        parts: widths of what is joined: the vector's, then the images'.
        inputs: width of what the MLP reads.
        mlp_outputs: of what it gives.
        core: the recurrent core; None in a feed-forward encoder.
        skip: linear map around the core, None without.
        norm: behind both, None without.
        outputs: width of what comes out at the end.

    """

    def __init__(
        self,
        codec: ObservationCodec,
        extra: int,
        net: NetConfig,
        recurrent: bool,
        *,
        compiled: bool = False,
    ) -> None:
        """Args: what observations are like, extra F; ``net.encoder_config`` gives the widths."""
        super().__init__()
        config = net.encoder_config
        self.cnns = nn.ModuleList(
            Cnn(shape, config.cnn_config, config.latent_dim) for shape in codec.image_shapes
        )
        width = codec.features
        self.vector_mlp: nn.Sequential | None = None
        if config.vector_space_mlp and width:
            own = config.mlp_config
            hidden = (*own.hidden_size, config.latent_dim)
            self.vector_mlp = mlp(width, hidden, own.activation, None, layer_norm=own.layer_norm)
            width = config.latent_dim
        self.parts = [width, *(cast(Cnn, cnn).outputs for cnn in self.cnns)]
        hidden = config.widths(recurrent, bool(self.cnns))
        # Extra inputs join behind the MLP when there is a core to remember them.
        front = sum(self.parts) + (0 if recurrent else extra)
        blocks = 0 if recurrent else config.residual_layers
        self.mlp = mlp(front, hidden, config.activation, None, blocks, config.layer_norm)
        width = hidden[-1] if hidden else front
        self.inputs, self.mlp_outputs = front, width
        self.core: RecurrentCore | None = None
        self.skip: nn.Linear | None = None
        self.norm: nn.LayerNorm | None = None
        if recurrent:
            hidden_size = config.hidden_state_size
            self.core = RecurrentCore(
                width + extra,
                hidden_size,
                config.num_layers,
                config.cell,
                config.residual_layers,
                compiled=compiled,
            )
            if config.core_residual:
                self.skip = nn.Linear(width + extra, hidden_size, bias=False)
            if config.core_layer_norm:
                self.norm = nn.LayerNorm(hidden_size)
            width = hidden_size
        self.outputs = width

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(K, H) of each state tensor."""
        return self.core.shapes if self.core is not None else []

    def _front(self, x: Features, extra: Tensor | None) -> Tensor:
        core, own = self.core, self.mlp  # once: a module's attributes are found on a detour
        vector = x.vector if self.vector_mlp is None else self.vector_mlp(x.vector)
        joined = [vector] if vector.shape[-1] else []
        if x.images:
            joined += [cnn(image) for cnn, image in zip(self.cnns, x.images, strict=True)]
        if extra is not None and core is None:
            joined.append(extra)
        y = joined[0] if len(joined) == 1 else torch.cat(joined, -1)
        if own._modules:
            y = own(y)
        return y if extra is None or core is None else torch.cat((y, extra), -1)

    def _behind(self, read: Tensor, given: Tensor) -> Tensor:
        """Go around and behind the core, which made of what it ``read`` what it has ``given``."""
        if self.skip is not None:
            given = given + self.skip(read)
        return given if self.norm is None else self.norm(given)

    def step(
        self, x: Features, extra: Tensor | None, state: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step: [N, D] -> [N, H], and the state after it."""
        y, core = self._front(x, extra), self.core
        if core is None:
            return y, ()
        given, after = core.step(y, state)
        return self._behind(y, given), after

    def forward(
        self, x: Features, extra: Tensor | None, state: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Whole sequences: [L, S, D] -> [L, S, H], and the state after them."""
        y = self._front(x, extra)
        if self.core is None:
            return y, ()
        given, after = self.core(y, state)
        return self._behind(y, given), after

    def run(
        self, x: Features, extra: Tensor | None, length: Tensor, state: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Return the state after sequences of different ``length`` [S]."""
        if self.core is None:
            return ()
        return self.core.run(self._front(x, extra), length, state)
