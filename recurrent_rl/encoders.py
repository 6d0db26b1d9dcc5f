"""Encoders: from what is observed to what the heads read, with memory or without.

Letters: N rows, S sequences, L longest sequence, K layers, H units, D features, F width of the
extra inputs (previous action, previous reward, identity), C channels of images.
"""

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from recurrent_rl.config import CnnConfig, NetConfig
from recurrent_rl.observations import Features, ObservationCodec
from recurrent_rl.recurrent import RecurrentCore, run_by_length


class ResidualBlock(nn.Module):
    """``x + W2 act(W1 x + b1) + b2``.

    Source: He et al. 2016, "Identity Mappings in Deep Residual Networks"; starting as the identity
    from Zhang et al. 2019, "Fixup Initialization".
    """

    def __init__(self, width: int, activation: str) -> None:
        """Arg ``width``: of what comes in, of what goes out, and in between."""
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        self.activation: nn.Module = getattr(nn, activation)()

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Give out what comes in; only W2 is zero, so gradients reach it at once."""
        self.outer.weight.zero_()
        self.outer.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        y: Tensor = x + self.outer(self.activation(self.inner(x)))
        return y


def mlp(
    inputs: int,
    hidden: Sequence[int],
    activation: str,
    outputs: int | None,
    residual: int = 0,
    layer_norm: bool = False,
) -> nn.Sequential:
    """Linear layers with an activation after each hidden one, then residual blocks.

    ``outputs=None`` ends on those. ``layer_norm`` normalises in front of each activation (Ba et al.
    2016, "Layer Normalization").
    """
    layers: list[nn.Module] = []
    for width in hidden:
        layers.append(nn.Linear(inputs, width))
        layers += [nn.LayerNorm(width)] if layer_norm else []
        layers.append(getattr(nn, activation)())
        inputs = width
    layers += [ResidualBlock(inputs, activation) for _ in range(residual)]
    if outputs is not None:
        layers.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*layers)


def orthogonal_init(module: nn.Module, gain: float) -> None:
    """Orthogonal weights and zero biases; those of recurrent layers are so gate by gate.

    Source: Saxe et al. 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear
    neural networks"; gains as in Andrychowicz et al. 2021, "What Matters in On-Policy RL".
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.orthogonal_(layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LSTM | nn.GRU):
            for name, parameter in layer.named_parameters():
                if name.startswith("bias"):
                    nn.init.zeros_(parameter)
                    continue
                for gate in parameter.data.split(layer.hidden_size):
                    nn.init.orthogonal_(gate, 1.0)


class Cnn(nn.Module):
    """Images to vectors: convolutions, then a linear layer, each with an activation.

    Source: LeCun et al. 1989, "Backpropagation Applied to Handwritten Zip Code Recognition".

    Attributes:
        convolutions: empty if images are only flattened; then there is no linear layer either.
        area: pixels that the last convolution leaves of each channel.
        outputs: width of the vectors.

    """

    def __init__(self, shape: Sequence[int], config: CnnConfig, latent_dim: int) -> None:
        """Raise ValueError for a kernel that is too large; ``shape`` is (C, height, width)."""
        super().__init__()
        channels, height, width = shape
        layers: list[nn.Module] = []
        for wider, kernel, stride in config.layers(height, width):
            layers += [nn.Conv2d(channels, wider, kernel, stride)]
            layers += [getattr(nn, config.activation)()]
            channels = wider
            height, width = ((size - kernel) // stride + 1 for size in (height, width))
        self.convolutions = nn.Sequential(*layers)
        self.area, self.outputs = height * width, channels * height * width
        self.latent = nn.Sequential()
        if layers:
            self.latent = mlp(self.outputs, (latent_dim,), config.activation, None)
            self.outputs = latent_dim

    def forward(self, x: Tensor) -> Tensor:
        """[..., C, height, width] -> [..., latent_dim]."""
        lead = x.shape[:-3]
        y: Tensor = self.latent(self.convolutions(x.reshape(-1, *x.shape[-3:])).flatten(1))
        return y.reshape(*lead, self.outputs)


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
        self, codec: ObservationCodec, extra: int, net: NetConfig, recurrent: bool
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
        vector = x.vector if self.vector_mlp is None else self.vector_mlp(x.vector)
        joined = [vector] if vector.shape[-1] else []
        joined += [cnn(image) for cnn, image in zip(self.cnns, x.images, strict=True)]
        if extra is not None and self.core is None:
            joined.append(extra)
        y: Tensor = self.mlp(joined[0] if len(joined) == 1 else torch.cat(joined, -1))
        return y if extra is None or self.core is None else torch.cat((y, extra), -1)

    def _behind(self, read: Tensor, given: Tensor) -> Tensor:
        """Go around and behind the core, which made of what it ``read`` what it has ``given``."""
        if self.skip is not None:
            given = given + self.skip(read)
        return given if self.norm is None else self.norm(given)

    def step(
        self, x: Features, extra: Tensor | None, state: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step: [N, D] -> [N, H], and the state after it."""
        y = self._front(x, extra)
        if self.core is None:
            return y, ()
        given, after = self.core.step(y, state)
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
        return self.core.run(self._front(x, extra), length, state)[1]


class SequenceNetwork(Protocol):
    """What a network of one's own (``actor_network``, ``critic_network``) must offer.

    It is a ``torch.nn.Module`` that takes the place of an encoder: the heads, which ``head_config``
    describes, read what it gives. It knows nothing of episodes: where one starts, and where a row
    pauses, is the policy's business. What it gives may depend on a row's own past alone, not on
    other rows or on chance, or the learner would not find what collection saw: BatchNorm and
    Dropout are refused.
    """

    def initial_state(self, rows: int) -> Sequence[Tensor]:
        """Return the memory of N rows at the start of an episode: zeros, [K, N, H] each.

        Empty for a network without memory.
        """

    def forward(
        self, observation: Any, extra: Tensor | None, state: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Go through whole sequences; acting is the case of L = 1.

        Args:
            observation: [L, S, ...], floats in the structure of the observation space: a Box in its
                own shape, but images as [C, height, width], bytes of them scaled to [0, 1]; one-hot
                vectors for Discrete and (joined) for MultiDiscrete; bits for MultiBinary. Not
                standardised, whatever ``normalize_obs`` is.
            extra: previous action, previous reward, identity, as far as the policy sees them, [L,
                S, F]; None without any.
            state: before the first step, [K, S, H] each.

        Returns:
            output: [L, S, anything].
            state: after the last step.

        """


class CustomEncoder(nn.Module):
    """A network of the user's own in the place of an encoder.

    Attributes:
        network: it.
        shapes: (K, H) of each state tensor.
        outputs: width of what it gives.

    """

    def __init__(
        self, network: nn.Module, codec: ObservationCodec, extra: int, recurrent: bool, name: str
    ) -> None:
        """Try the network out.

        Raises:
            TypeError: it is no module, or has not the two methods.
            ValueError: it gives something else than ``SequenceNetwork`` says.

        """
        super().__init__()
        _check_own(network, name)
        self.network = network
        with torch.no_grad():
            state = tuple(network.initial_state(1))  # type: ignore[operator]
            if any(x.ndim != 3 or x.shape[1] != 1 or bool(x.any()) for x in state):
                raise ValueError(
                    f"{name}: expected initial_state(1) to give zeros of shape [K, 1, H], got "
                    f"{[list(x.shape) for x in state]}"
                )
            if state and not recurrent:
                raise ValueError(
                    f"{name}: expected a network without state, as recurrent=False, got one with "
                    f"{len(state)} state tensors; leave recurrent=False out"
                )
            self.shapes = [(len(x), x.shape[2]) for x in state]
            blank = torch.from_numpy(codec.layout.blank).to(codec.dtype)
            like = next((p for p in network.parameters()), torch.zeros(()))
            seen = tree(lambda x: x.to(like), codec.nested(blank.expand(1, 1, *blank.shape)))
            given, after = network(seen, like.new_zeros(1, 1, extra) if extra else None, state)
            shapes = [list(x.shape) for x in after]
            if given.ndim != 3 or shapes != [list(x.shape) for x in state]:
                raise ValueError(
                    f"{name}: expected forward to give [L, S, ...] and a state like that of "
                    f"initial_state, got {list(given.shape)} and {shapes} from one step of one row"
                )
        self.outputs = int(given.shape[2])

    def step(
        self, x: Any, extra: Tensor | None, state: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step: [N, ...] -> [N, outputs], and the state after it."""
        y, after = self(tree(lambda part: part[None], x), _or_none(extra), state)
        return y[0], after

    def forward(
        self, x: Any, extra: Tensor | None, state: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Whole sequences: [L, S, ...] -> [L, S, outputs], and the state after them."""
        y, after = self.network(x, extra, tuple(state))
        return y, tuple(after)

    def run(
        self, x: Any, extra: Tensor | None, length: Tensor, state: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Return the state after sequences of different ``length`` [S]."""

        def some(steps: int, which: Tensor, before: list[Tensor]) -> tuple[Tensor, Any]:
            part = tree(lambda leaf: leaf[:steps, which], x)
            return self.forward(part, None if extra is None else extra[:steps, which], before)

        return run_by_length(some, length, state)[1]


def _check_own(network: nn.Module, name: str) -> None:
    """Refuse what a policy cannot work with.

    Raises:
        TypeError: it is no module, has not the two methods, or has parameters of another dtype.
        ValueError: it has layers whose output depends on other rows or on chance.

    """
    if not isinstance(network, nn.Module) or not hasattr(network, "initial_state"):
        raise TypeError(
            f"{name}: expected a torch.nn.Module with initial_state(rows) and "
            f"forward(observation, extra, state), as recurrent_rl.SequenceNetwork describes, "
            f"got {type(network).__name__}"
        )
    for part, module in network.named_modules():
        dropout = getattr(module, "dropout", 0) if isinstance(module, nn.RNNBase) else 0
        if isinstance(module, _BatchNorm | _DropoutNd) or dropout:
            raise ValueError(
                f"{name}: expected layers whose output depends on a row's own past alone, got "
                f"{module} at {part!r}; use LayerNorm, or leave it out"
            )
    for part, parameter in network.named_parameters():
        if parameter.dtype != torch.get_default_dtype():
            raise TypeError(
                f"{name}: expected parameters of {torch.get_default_dtype()}, got "
                f"{parameter.dtype} at {part!r}"
            )


def tree(function: Any, value: Any) -> Any:
    """Apply a function to each tensor of a nested observation."""
    if isinstance(value, dict):
        return {key: tree(function, part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(tree(function, part) for part in value)
    return function(value)


def _or_none(extra: Tensor | None) -> Tensor | None:
    return None if extra is None else extra[None]
