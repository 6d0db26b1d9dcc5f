"""Growing without forgetting: which old weight a new weight takes over.

A network that takes its weights from another has an *origin* for each weight: the flat position of
the old weight that it takes over, or ZERO, or FRESH (it keeps its own initial value).

The rule for growing (in the spirit of Wei et al. 2016, "Network Morphism"): what old units read of
new ones is ZERO, what new units read is FRESH. So old units, and with them all outputs, are as
before, while gradients reach the new units' weights.

Shrinking keeps the units that are needed most. The outputs' own need is 1, and what a layer reads
is needed as much as its weights say, times the need of what it writes (in the spirit of Molchanov
et al. 2017, "Pruning Convolutional Neural Networks", but from weights alone: no data is at hand).

Letters: R rows and C columns of a matrix, D inputs, H units, G gates.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

FRESH, ZERO = -1, -2


def same_origins(width: int) -> Tensor:
    """Origins of units that stay as they are, [width]."""
    return torch.arange(width)


def spread_origins(units: Tensor, size: int) -> Tensor:
    """Origins of the numbers of units that have ``size`` each, one after the other, [C * size]."""
    each = units[:, None]
    return torch.where(each < 0, each, each * size + torch.arange(size)).flatten()


def matrix_origins(rows: Tensor, columns: Tensor, width: int) -> Tensor:
    """Origins of a matrix [R, C] from those of its rows and columns; the old one is ``width``."""
    place = rows[:, None] * width + columns
    place = torch.where(columns < 0, ZERO, place)
    return torch.where(rows[:, None] < 0, FRESH, place)


def gate_origins(units: Tensor, gates: int, old_units: int) -> Tensor:
    """Origins of stacked gates' rows from those of the units, [G * H]: gate by gate."""
    offset = torch.arange(gates)[:, None] * old_units
    return torch.where(units >= 0, units + offset, FRESH).flatten()  # [G, H] -> [G * H]


def take(origin: Tensor, old: Tensor, fresh: Tensor) -> Tensor:
    """Return new values: old ones where there is an origin, zeros, or the ``fresh`` ones."""
    values = old.detach().flatten()[origin.clamp_min(0)]
    return torch.where(origin >= 0, values, torch.where(origin == ZERO, 0, fresh))


def most_useful(useful: Tensor, width: int) -> Tensor:
    """Origins of ``width`` units: all old ones and new ones behind, or the best in their order."""
    old = len(useful)
    if width >= old:
        return torch.cat((torch.arange(old), torch.full((width - old,), FRESH)))
    return useful.detach().cpu().topk(width).indices.sort().values


def largest(sizes: Sequence[float], count: int) -> list[int]:
    """Positions of the ``count`` largest, in order."""
    return sorted(sorted(range(len(sizes)), key=lambda i: -sizes[i])[:count])


def need_of_inputs(weight: Tensor, need: Tensor) -> Tensor:
    """Need of a layer's inputs, [D], from its weight [H, D] and the need of its outputs, [H]."""
    norm: Tensor = torch.linalg.vector_norm(need[:, None] * weight.detach(), dim=0)
    return norm


def row_norms(weights: Sequence[Tensor]) -> Tensor:
    """Norm of all that goes into each unit, [H], from weights [H, D] each."""
    norm: Tensor = torch.linalg.vector_norm(torch.cat([w.detach() for w in weights], 1), dim=1)
    return norm
