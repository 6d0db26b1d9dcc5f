"""What a policy is made of, in words and numbers, for people to read."""

from collections.abc import Iterator
from typing import cast

from torch import nn

from recurrent_rl.networks.acting_policy import Policy
from recurrent_rl.networks.configs import CnnConfig, HeadConfig, NetConfig
from recurrent_rl.networks.custom import CustomEncoder
from recurrent_rl.networks.encoder import Encoder
from recurrent_rl.networks.layers import Cnn
from recurrent_rl.recurrent.cells import CELLS
from recurrent_rl.spaces.codec import ObservationCodec
from recurrent_rl.spaces.layout import ObservationLayout
from recurrent_rl.spaces.leaves import Kind


def parameter_count(module: nn.Module) -> int:
    """Trainable numbers."""
    return sum(p.numel() for p in module.parameters())


def summary(policy: Policy, net_config: NetConfig) -> list[str]:
    """Return a line for what is seen and one for each part, with its number of parameters.

    >>> from recurrent_rl import PPO
    >>> import gymnasium as gym
    >>> space = gym.spaces.Dict(
    ...     {
    ...         "image": gym.spaces.Box(0, 255, (7, 7, 3), "uint8"),
    ...         "direction": gym.spaces.Discrete(4),
    ...     }
    ... )
    >>> print(PPO(space, gym.spaces.Discrete(7)))
    PPO after 0 steps, 201,272 parameters
      sees      direction: 4 choices; image: bytes [7, 7, 3]
      encoder   image -> conv 16, 32, 64 (kernels 2, 2, 2, strides 1, 1, 1) -> 128;    192,432
                with the other 4 numbers -> LSTM 64
      actor     64 -> 64 Tanh -> Discrete(7)                                             4,615
      critic    64 -> 64 Tanh -> value                                                   4,225

    """
    lines = [f"sees      {'; '.join(_seen(policy.codec.layout))}"]
    if policy.view_codec is not None:
        lines.append(f"judged by {'; '.join(_seen(policy.view_codec.layout))}")
    encoders = list(policy.encoders)
    names = ["encoder"] if len(encoders) == 1 else ["actor's", "critic's"]
    for i, (name, encoder) in enumerate(zip(names, encoders, strict=True)):
        if isinstance(encoder, CustomEncoder):
            text = [f"{type(encoder.network).__name__} -> {encoder.outputs}"]
        else:
            codec = policy.preprocessors[-1 if i else 0].codec
            text = list(_encoder(encoder, codec, policy.extra_width(i), net_config))
        lines += _line(name, text, parameter_count(encoder))
    for name, width, gives, module in policy.heads():
        lines.append(head_summary(name, width, net_config.head_config, gives, module))
    return lines


def head_summary(name: str, width: int, head: HeadConfig, gives: str, module: nn.Module) -> str:
    """Return a line for a head.

    Args:
        name: what it is called.
        width: of what it reads.
        head: shape of its layers.
        gives: what it gives, in words.
        module: itself.

    """
    inner = "".join(f" -> {width} {head.activation}" for width in head.hidden_size)
    inner += f" + {head.residual_layers} residual" if head.residual_layers else ""
    gives = " ".join(gives.split())  # arrays in a space may go over several lines
    (line,) = _line(name, [f"{width}{inner} -> {gives}"], parameter_count(module))
    return line


def _line(name: str, text: list[str], count: int) -> list[str]:
    first, *more = text
    return [f"{name:<10}{first:<69}{count:>9,}", *(f"{'':<10}{line}" for line in more)]


def _seen(layout: ObservationLayout) -> Iterator[str]:
    for leaf in layout.leaves:
        name = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in leaf.path)
        name = f"{name.lstrip('.')}: " if name else ""
        if leaf.kind is Kind.INDEX:
            low, high = leaf.bounds
            what = ", ".join(str(n) for n in high - low + 1) + " choices"
        elif leaf.kind is Kind.BITS:
            what = f"{leaf.size} bits"
        else:
            what = f"{'bytes' if leaf.kind.in_bytes else 'numbers'} {list(leaf.shape)}"
        yield name + what


def _encoder(
    encoder: Encoder, codec: ObservationCodec, extra: int, net_config: NetConfig
) -> Iterator[str]:
    config = net_config.encoder_config
    images = [leaf for leaf in codec.layout.leaves if leaf.kind.is_image]
    for leaf, shape, cnn in zip(images, codec.image_shapes, encoder.cnns, strict=True):
        name = ".".join(str(key) for key in leaf.path) or f"image {list(shape)}"
        yield f"{name} -> {_convolutions(config.cnn_config, shape)}{cast(Cnn, cnn).outputs};"
    width = encoder.parts[0]
    joined = ""
    if codec.features:
        joined = f"{codec.features} numbers"
        if encoder.vector_mlp is not None:
            own = config.mlp_config
            widths = " -> ".join(str(w) for w in (*own.hidden_size, config.latent_dim))
            joined += f" -> {widths} {own.activation}"
        joined = f"with the other {joined}" if images else joined
    else:
        joined = str(sum(encoder.parts))
    more = f"{extra} extra one{'s' * (extra > 1)}" if extra else ""
    if more and encoder.core is None:
        joined += f" and {more}"
    for width in config.widths(encoder.core is not None, bool(images)):
        joined += f" -> {width} {config.activation}"
    if encoder.core is None:
        added = f" + {config.residual_layers} residual" if config.residual_layers else ""
        yield f"{joined}{added}, feed-forward"
        return
    joined += f", with {more}" if more else ""
    layers = f"{config.num_layers} x " if config.num_layers > 1 else ""
    added = f" + {config.residual_layers} residual" if config.residual_layers else ""
    added += " + skip" if config.core_residual else ""
    added += ", layer norm" if config.core_layer_norm else ""
    yield f"{joined} -> {CELLS[config.cell].__name__} {layers}{config.hidden_state_size}{added}"


def _convolutions(config: CnnConfig, shape: tuple[int, ...]) -> str:
    layers = config.layers(*shape[1:])
    if not layers:
        return "flattened, "
    channels, kernels, strides = (", ".join(map(str, each)) for each in zip(*layers, strict=True))
    return f"conv {channels} (kernels {kernels}, strides {strides}) -> "
