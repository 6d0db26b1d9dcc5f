"""Networks of the user's own in the place of encoders.

Letters: N rows, S sequences, L longest sequence, K layers, H units, F width of the extra inputs
(previous action, previous reward, identity).
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from recurrent_rl.recurrent.sequences import run_by_length
from recurrent_rl.spaces.codec import ObservationCodec


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
                own shape, but images as [C, height, width] (frames of a stack as channels); whole
                numbers of images, and bytes, scaled by their space's bounds; one-hot
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
        _check_network(network, name)
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

        def some(steps: int, which: Tensor, before: list[Tensor]) -> tuple[Tensor, ...]:
            part = tree(lambda leaf: leaf[:steps, which], x)
            return self.forward(part, None if extra is None else extra[:steps, which], before)[1]

        return run_by_length(some, length, state)


def _check_network(network: nn.Module, name: str) -> None:
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
