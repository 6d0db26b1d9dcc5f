"""Hidden state, explicit: it goes in and comes out, and nobody keeps it for the user.

Letters: N rows (environment, agent), K layers, H units.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Mask = Tensor | np.ndarray[Any, Any] | Sequence[bool] | bool | np.bool_
Rows = Mask | int | np.integer[Any] | slice | Sequence[int]


def _tensor(rows: Any, name: str) -> Tensor:
    """Return rows in any form as a tensor, or say what they are instead."""
    if isinstance(rows, Tensor):
        return rows
    try:
        return torch.as_tensor(np.ascontiguousarray(rows))  # torch knows no negative strides
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name}: expected indices or a bool mask [N], got {rows!r}") from None


class HiddenState:
    """What a recurrent policy remembers, explicitly, for N rows.

    Attributes:
        tensors: each [K, N, H] (LSTM: h and c, GRU and minGRU: h, LRU: real and imaginary parts;
            for actor and critic each when they have encoders of their own); empty for a
            feed-forward policy.
        rows: N.

    ``state[rows]`` selects rows (an index, a slice, a list, or a bool mask), ``state.reset(mask)``
    zeroes them. Arrays, lists and tensors on any device will do.
    """

    __slots__ = ("rows", "tensors")

    def __init__(self, tensors: Sequence[Tensor], rows: int) -> None:
        """Hold the tensors as they are, without a copy."""
        self.tensors = tuple(tensors)
        self.rows = rows

    def __getitem__(self, rows: Rows) -> "HiddenState":
        """Select rows; a single index keeps its axis.

        Raises:
            IndexError: no such row.
            TypeError: neither indices nor bools.
            ValueError: a mask of another length than N.

        """
        if isinstance(rows, slice):
            chosen: Any = rows
        else:
            index = _tensor(rows, "rows").reshape(-1)
            index = index if len(index) else index.long()  # an empty list becomes a float tensor
            if index.dtype == torch.bool:
                index = self._mask(index, "rows").nonzero()[:, 0]
            elif index.is_floating_point() or index.is_complex():
                raise TypeError(f"rows: expected indices or a bool mask [N], got {rows!r}")
            if bool(((index < -self.rows) | (index >= self.rows)).any()):
                raise IndexError(f"rows: expected indices of {self.rows} rows, got {rows!r}")
            chosen = index.to(self._device)
        count = len(torch.arange(self.rows)[chosen if isinstance(rows, slice) else chosen.cpu()])
        return HiddenState([x[:, chosen] for x in self.tensors], count)

    @property
    def _device(self) -> torch.device:
        return self.tensors[0].device if self.tensors else torch.device("cpu")

    def _mask(self, rows: Mask, name: str) -> Tensor:
        """Return a mask as a bool tensor [N] beside the state."""
        mask = rows if isinstance(rows, Tensor) else _tensor(rows, name)
        if mask.ndim == 0:
            mask = mask.reshape(1)
        if mask.dtype != torch.bool and len(mask):
            raise TypeError(
                f"{name}: expected a bool mask [N] = [{self.rows}], got {rows!r}; flags of numbers "
                f"become one by .astype(bool), and rows are selected by state[rows]"
            )
        if mask.shape != (self.rows,):
            raise ValueError(
                f"{name}: expected a bool mask [N] = [{self.rows}], got shape {list(mask.shape)}"
            )
        return mask if mask.device == self._device else mask.to(self._device)

    def reset(self, rows: Mask) -> "HiddenState":
        """Return a copy with zeros where ``rows``, bool [N], is True.

        Raises:
            TypeError: no bools.
            ValueError: of another length than N.

        """
        mask = self._mask(rows, "rows")[:, None]
        return HiddenState([x.masked_fill(mask, 0) for x in self.tensors], self.rows)

    def where(self, rows: Mask, other: "HiddenState") -> "HiddenState":
        """Take this state's rows where ``rows``, bool [N], is True, else the other's.

        Raises:
            TypeError: no bools.
            ValueError: of another length than N, or a state of other shapes.

        """
        mask = self._mask(rows, "rows")[:, None]
        if [x.shape for x in self.tensors] != [x.shape for x in other.tensors]:
            raise ValueError(f"other: expected a state like {self}, got {other}")
        return HiddenState(
            [torch.where(mask, a, b) for a, b in zip(self.tensors, other.tensors, strict=True)],
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
