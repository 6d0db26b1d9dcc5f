"""Layers that encoders and heads are made of.

Letters: D features, C channels of images.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recurrent_rl.networks.configs import CnnConfig
from recurrent_rl.networks.linear import Linear
from recurrent_rl.recurrent.cell import Cell


class Layers(nn.Sequential):
    """Layers in turn, each called without what a module's call takes if nobody hooks into it.

    That is 1 to 2 us, at each step of acting several times.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., H]."""
        layers = self._modules.values()
        if any(map(is_hooked, layers)) or any(_GLOBAL_HOOKS):
            y: Tensor = nn.Sequential.forward(self, x)  # type: ignore[no-untyped-call]
            return y
        for layer in layers:
            x = layer.forward(x)
        return x


_GLOBAL_HOOKS = (
    nn.modules.module._global_forward_pre_hooks,
    nn.modules.module._global_forward_hooks,
    nn.modules.module._global_backward_pre_hooks,
    nn.modules.module._global_backward_hooks,
)


def is_hooked(module: Any) -> bool:
    """Whether calling a module is more than its ``forward``."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or module._compiled_call_impl
    )


def is_altered(module: nn.Module) -> bool:
    """Whether calling a module, or its parameters' gradients, are more than its class says.

    Whoever computes in its place asks this first.
    """
    return (
        is_hooked(module)
        or any(_GLOBAL_HOOKS)
        or "forward" in vars(module)
        or any(
            p._backward_hooks or p._post_accumulate_grad_hooks
            for p in module.parameters(recurse=False)
        )
    )


class ResidualBlock(nn.Module):
    """``x + W2 act(W1 x + b1) + b2``.

    Source: He et al. 2016, "Identity Mappings in Deep Residual Networks"; starting as the identity
    from Zhang et al. 2019, "Fixup Initialization".
    """

    def __init__(self, width: int, activation: str) -> None:
        """Arg ``width``: of what comes in, of what goes out, and in between."""
        super().__init__()
        self.inner, self.outer = Linear(width, width), Linear(width, width)
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
        layers.append(Linear(inputs, width))
        layers += [nn.LayerNorm(width)] if layer_norm else []
        layers.append(getattr(nn, activation)())
        inputs = width
    layers += [ResidualBlock(inputs, activation) for _ in range(residual)]
    if outputs is not None:
        layers.append(Linear(inputs, outputs))
    return Layers(*layers)


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
        elif isinstance(layer, Cell):
            layer.orthogonal_init()


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
