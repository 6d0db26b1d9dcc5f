"""What mutations may change in the architecture of a network: widths, depths and activations."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.networks.configs import CONVOLUTIONS, NetConfig
from recurrent_rl.networks.encoder import Encoder


@dataclass(frozen=True)
class Site:
    """One number in a network's configuration that an architecture mutation may change.

    Attributes:
        path: names leading to the field, as in ("encoder_config", "cnn_config", "channel_size").
        place: index of the number in the field's list; None where the field is one number.
        value: the present number.
        lists: values of the list fields that are set together, this one among them.

    """

    path: tuple[str, ...]
    place: int | None
    value: int
    lists: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        """The name, as in ``encoder.hidden_state_size`` or ``head.hidden_size[0]``."""
        return path_name(self.path) + ("" if self.place is None else f"[{self.place}]")

    @property
    def is_channel(self) -> bool:
        """Whether the number is that of a convolution's channels."""
        return self.path[-1] == "channel_size"

    def set(self, net_config: NetConfig, value: int) -> NetConfig:
        """Return the configuration with another value at this site."""
        *parts, name = self.path
        changes: dict[str, Any] = {name: value}
        if self.place is not None:
            numbers = list(self.lists[name])
            numbers[self.place] = value
            changes = {**self.lists, name: tuple(numbers)}
        changed: NetConfig = replace_fields(net_config, parts, changes)
        return changed


def path_name(path: Sequence[str]) -> str:
    """Return a field's name, as in ``encoder.cnn_config.channel_size``."""
    return ".".join((path[0].removesuffix("_config"), *path[1:]))


def replace_fields(config: Any, parts: Sequence[str], changes: Mapping[str, Any]) -> Any:
    """Replace fields of a configuration within configurations."""
    if parts:
        changes = {parts[0]: replace_fields(getattr(config, parts[0]), parts[1:], changes)}
    return config.replace(**changes)


def _is_built_in(group: AgentGroup) -> bool:
    """Whether any encoder is the package's, so that ``encoder_config`` describes it."""
    return any(isinstance(encoder, Encoder) for encoder in group.policy.encoders)


def _has_vector_mlp(group: AgentGroup) -> bool:
    config, codec = group.net_config.encoder_config, group.policy.codec
    return _is_built_in(group) and config.vector_space_mlp and codec.features > 0


def _convolutions(group: AgentGroup) -> set[tuple[tuple[int, int, int], ...]]:
    """Return the convolutions of images, as layers of (channels, kernel, stride).

    Several where images of different sizes get different ones; none without images.
    """
    if not _is_built_in(group):
        return set()
    config = group.net_config.encoder_config.cnn_config
    return {config.layers(*shape[1:]) for shape in group.policy.codec.image_shapes} - {()}


def _list_sites(path: tuple[str, ...], lists: Mapping[str, tuple[int, ...]]) -> list[Site]:
    return [Site(path, i, value, lists) for i, value in enumerate(lists[path[-1]])]


def width_sites(group: AgentGroup) -> list[Site]:
    """Return the widths of all hidden layers, and the channels of convolutions.

    Except for widths that ``morphing`` cannot change well: those that a LayerNorm follows, and the
    one that state-dependent exploration reads. Channels are left out, too, if images have different
    convolutions by default, as the configuration has only one list for all images.
    """
    encoder, head = group.net_config.encoder_config, group.net_config.head_config
    recurrent, of_encoder = group.config.recurrent, ("encoder_config",)
    sites: list[Site] = []
    if _is_built_in(group):
        hidden = encoder.widths(recurrent, bool(group.policy.codec.image_shapes))
        if not encoder.layer_norm:
            sites += _list_sites((*of_encoder, "hidden_size"), {"hidden_size": hidden})
        sites += _part_sites(group)
        if recurrent and not encoder.core_layer_norm:
            path = (*of_encoder, "hidden_state_size")
            sites.append(Site(path, None, encoder.hidden_state_size))
    if not head.layer_norm:
        sites += _list_sites(("head_config", "hidden_size"), {"hidden_size": head.hidden_size})
    explored = _explored(group)
    return [site for site in sites if str(site) != explored]


def _part_sites(group: AgentGroup) -> list[Site]:
    """Return the widths in the encoders of images, and in the MLP of vectors."""
    config = group.net_config.encoder_config
    sites: list[Site] = []
    convolutions, vector_mlp = _convolutions(group), _has_vector_mlp(group)
    if len(convolutions) == 1:
        (layers,) = convolutions
        lists = dict(zip(CONVOLUTIONS, zip(*layers, strict=True), strict=True))
        sites += _list_sites(("encoder_config", "cnn_config", "channel_size"), lists)
    normalised = vector_mlp and config.mlp_config.layer_norm
    if vector_mlp and not normalised:
        lists = {"hidden_size": config.mlp_config.hidden_size}
        sites += _list_sites(("encoder_config", "mlp_config", "hidden_size"), lists)
    if (convolutions or vector_mlp) and not normalised:
        sites.append(Site(("encoder_config", "latent_dim"), None, config.latent_dim))
    return sites


def _explored(group: AgentGroup) -> str | None:
    """Return the name of the width that state-dependent exploration reads; None without it."""
    encoder, head = group.net_config.encoder_config, group.net_config.head_config
    if not group.policy.distribution.latents:
        return None
    if head.hidden_size:
        return f"head.hidden_size[{len(head.hidden_size) - 1}]"
    if not isinstance(group.policy.encoders[0], Encoder):
        return None
    if group.config.recurrent:
        return "encoder.hidden_state_size"
    hidden = encoder.widths(False, bool(group.policy.codec.image_shapes))
    return f"encoder.hidden_size[{len(hidden) - 1}]" if hidden else "encoder.latent_dim"


def depth_sites(group: AgentGroup) -> list[Site]:
    """Return the numbers of residual layers."""
    parts = ["encoder_config"] if _is_built_in(group) else []
    return [
        Site((part, "residual_layers"), None, getattr(group.net_config, part).residual_layers)
        for part in (*parts, "head_config")
    ]


def activation_paths(group: AgentGroup) -> list[tuple[str, ...]]:
    """Return the paths of the activations that a network has."""
    encoder, head = group.net_config.encoder_config, group.net_config.head_config
    recurrent = group.config.recurrent
    paths: list[tuple[str, ...]] = []
    if _is_built_in(group):
        hidden = encoder.widths(recurrent, bool(group.policy.codec.image_shapes))
        # A residual recurrent layer has none.
        if hidden or (encoder.residual_layers and not recurrent):
            paths.append(("encoder_config", "activation"))
    if head.hidden_size or head.residual_layers:
        paths.append(("head_config", "activation"))
    if _convolutions(group):
        paths.append(("encoder_config", "cnn_config", "activation"))
    if _has_vector_mlp(group):
        paths.append(("encoder_config", "mlp_config", "activation"))
    return paths
