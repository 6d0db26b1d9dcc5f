"""The kinds of recurrent cells. Nothing else asks which cell it is.

A new kind is a subclass of ``Cell`` and an entry in ``CellKind`` and ``CELLS``.
"""

from typing import Literal

from recurrent_rl.recurrent.cell import Cell
from recurrent_rl.recurrent.gated import GRU, LSTM
from recurrent_rl.recurrent.lru import LRU
from recurrent_rl.recurrent.mingru import MinGRU

CellKind = Literal["lstm", "gru", "mingru", "lru"]

CELLS: dict[CellKind, type[Cell]] = {"lstm": LSTM, "gru": GRU, "mingru": MinGRU, "lru": LRU}
