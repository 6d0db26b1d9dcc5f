"""Target networks: slowly moving copies of the networks that are trained."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recurrent_rl.networks.flat_parameters import in_runs, one_vector
from recurrent_rl.networks.off_policy import copied, move_towards


class Target:
    """A network's slowly moving copy.

    Attributes:
        source: the network.
        module: the copy.
        pairs: its parameters that move, each with the one that it follows.

    """

    def __init__(self, source: nn.Module, shared: Sequence[nn.Module] = ()) -> None:
        """Copy ``source``; its parts in ``shared`` stay one with it."""
        self.source, self._shared = source, list(shared)
        self.module: Any = copied(source, shared)
        self._at: list[int] = []
        self._look_up()
        one_vector([target for target, _ in self.pairs])
        self.join()

    def _look_up(self) -> None:
        shared = [x for part in self._shared for x in (*part.parameters(), *part.buffers())]
        held = set(map(id, shared))
        self.pairs, self._buffers = (
            [(new, old) for new, old in zip(copy, source, strict=True) if id(old) not in held]
            for copy, source in (
                (self.module.parameters(), self.source.parameters()),
                (self.module.buffers(), self.source.buffers()),
            )
        )

    def join(self) -> None:
        """Look up the source's weights, in whose place there may be others by now."""
        self._look_up()
        at = [x.data_ptr() for pair in self.pairs for x in pair]
        if at != self._at:
            self._at, self._joined = at, in_runs(self.pairs)

    def move(self, tau: float) -> None:
        """Go a share ``tau`` of the way to the source; buffers, as statistics are, all of it."""
        if self._joined:
            target, source = zip(*self._joined, strict=True)
            move_towards(target, source, tau)
        for new, old in self._buffers:
            new.copy_(old)

    def to_data(self) -> list[Tensor]:
        """Return its parameters and buffers."""
        return [target.detach() for target, _ in (*self.pairs, *self._buffers)]

    def load(self, data: Sequence[Tensor]) -> None:
        """Take over what ``to_data`` gave."""
        with torch.no_grad():
            for (target, _), saved in zip((*self.pairs, *self._buffers), data, strict=True):
                target.copy_(saved)
