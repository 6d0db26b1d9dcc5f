"""Hidden state, explicit: it goes in and comes out, and nobody keeps it for the user.

Letters: N rows (environment, agent), K layers, H units.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class HiddenState:
    """What a recurrent policy remembers, explicitly, for N rows.

    Attributes:
        tensors: each [K, N, H] (LSTM: h and c, GRU: h; for actor and critic each when they have
            encoders of their own); empty for a feed-forward policy.
        rows: N.

    ``state[rows]`` selects rows (an index, a slice, a list, or a bool mask), ``state.reset(mask)``
    zeroes them.
    """

    __slots__ = ("rows", "tensors")

    def __init__(self, tensors: Sequence[Tensor], rows: int) -> None:
        """Hold the tensors as they are, without a copy."""
        self.tensors = tuple(tensors)
        self.rows = rows

    def __getitem__(self, rows: int | slice | Sequence[int] | Tensor) -> "HiddenState":
        """Select rows; a single index keeps its axis."""
        if not isinstance(rows, slice):
            rows = torch.as_tensor(rows).reshape(-1)
            rows = rows if len(rows) else rows.long()  # an empty list becomes a float tensor
        return HiddenState([x[:, rows] for x in self.tensors], len(torch.arange(self.rows)[rows]))

    def reset(self, rows: Tensor) -> "HiddenState":
        """Return a copy with zeros where ``rows`` [N] is True."""
        return HiddenState([x.masked_fill(rows[:, None], 0) for x in self.tensors], self.rows)

    def where(self, rows: Tensor, other: "HiddenState") -> "HiddenState":
        """Take this state's rows where ``rows`` [N] is True, else the other's."""
        return HiddenState(
            [
                torch.where(rows[:, None], a, b)
                for a, b in zip(self.tensors, other.tensors, strict=True)
            ],
            self.rows,
        )

    def to(self, device: torch.device | str) -> "HiddenState":
        """Return the state on another device."""
        return HiddenState([x.to(device) for x in self.tensors], self.rows)

    def clone(self) -> "HiddenState":
        """Return a copy that shares no memory and no gradient."""
        return HiddenState([x.detach().clone() for x in self.tensors], self.rows)

    def __repr__(self) -> str:
        """Rows and shapes."""
        return f"HiddenState(rows={self.rows}, shapes={[list(x.shape) for x in self.tensors]})"
