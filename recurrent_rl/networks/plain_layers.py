"""Which heads have derivatives by hand."""

from typing import NamedTuple

from torch import Tensor, nn

from recurrent_rl.functional.perceptron import ACTIVATIONS
from recurrent_rl.networks.heads import ActionHead, ValueHead
from recurrent_rl.networks.layers import is_altered
from recurrent_rl.networks.linear import Linear


class PlainLayers(NamedTuple):
    """Linear layers with one kind of activation in between.

    Attributes:
        layers: weight [H, D] and bias [H] of each.
        activation: of ``perceptron.ACTIVATIONS``.

    """

    layers: list[tuple[Tensor, Tensor]]
    activation: str

    @property
    def flat(self) -> list[Tensor]:
        """Each weight and bias in turn."""
        return [tensor for layer in self.layers for tensor in layer]


def plain_layers(head: ActionHead | ValueHead) -> PlainLayers | None:
    """Return a head's layers if they are plain, and nothing alters what they do, else None."""
    if type(head) not in (ActionHead, ValueHead) or is_altered(head):
        return None
    return plain_sequence(head.layers)


def plain_sequence(
    layers: nn.Sequential, *, ends_on_activation: bool = False
) -> PlainLayers | None:
    """Return layers if they are plain, and nothing alters what they do, else None.

    Args:
        layers: at least one is expected, unless they end on an activation.
        ends_on_activation: an activation is expected behind the last one too.

    """
    modules = list(layers)
    if any(map(is_altered, (layers, *modules))) or len(modules) % 2 == ends_on_activation:
        return None
    linear, activations = modules[::2], modules[1::2]
    kinds = {type(module) for module in activations} or {nn.Tanh}
    (kind, *others) = kinds
    if others or getattr(nn, kind.__name__, None) is not kind or kind.__name__ not in ACTIVATIONS:
        return None
    found: list[tuple[Tensor, Tensor]] = []
    for module in linear:
        # Exactly these: torch.nn.utils.parametrize makes subclasses.
        if not isinstance(module, nn.Linear) or type(module) not in (Linear, nn.Linear):
            return None
        if module.bias is None or (isinstance(module, Linear) and module.is_wide):
            return None
        found.append((module.weight, module.bias))
    return PlainLayers(found, kind.__name__)
