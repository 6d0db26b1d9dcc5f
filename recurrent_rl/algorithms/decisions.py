"""Decisions of a sample whose outcome is known, and what they say of its windows.

Letters: L places that are trained on, R rows, M decisions among them whose outcome is known, A
agents of a group, B windows.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.functional.targets import NStep

LEAST_PRIORITY = 1e-6  # so that no window is out of reach for good


class Known(NamedTuple):
    """The decisions of a sample whose outcome is known, M of them, on the networks' device.

    Attributes:
        at: flat places (t * R + r); None where all L * R are.
        reward: up to the place whose value follows, [M].
        discount: of that value, [M].
        place: flat, [M].
        weight: in the loss, [M].
        row: window-wise rows, [M], on the CPU.

    """

    at: Tensor | None
    reward: Tensor
    discount: Tensor
    place: Tensor
    weight: Tensor
    row: Tensor

    def span(self, rows: int) -> tuple[int, int]:
        """Return the first time whose value is asked for, and the one behind the last; of R rows.

        There must be decisions.
        """
        return int(self.place.min()) // rows, int(self.place.max()) // rows + 1

    def pick(self, field: Tensor) -> Tensor:
        """Return a field [L, R, ...] at the decisions, [M, ...]."""
        flat = field.flatten(0, 1)
        # Not by brackets: the gradient of these takes several times as long.
        return flat if self.at is None else flat.index_select(0, self.at)


def known_decisions(
    nstep: NStep, weight: Tensor, agents: int, scale: float, device: torch.device
) -> Known:
    """Return what is known of a sample's decisions.

    Args:
        nstep: of it.
        weight: of each window, [B].
        agents: A.
        scale: multiplies rewards.
        device: of the networks.

    """
    rows = nstep.known.shape[1]
    row = torch.arange(rows).expand_as(nstep.known)
    wide = weight if agents == 1 else weight.repeat_interleave(agents)
    reward = nstep.reward if scale == 1 else nstep.reward * scale
    place = torch.add(row, nstep.place, alpha=rows)
    fields = [reward, nstep.discount, place, wide.expand_as(reward), row]
    picked, index = [field.flatten() for field in fields], None
    if not bool(nstep.known.all()):
        index = nstep.known.flatten().nonzero().squeeze(1)
        picked = [field.index_select(0, index) for field in picked]
    reward, discount, place, wide = (x.to(device) for x in picked[:4])
    return Known(
        None if index is None else index.to(device), reward, discount, place, wide, picked[4]
    )


def priorities(error: Tensor, row: Tensor, agents: int, windows: int, mix: float) -> Tensor:
    """Return each window's priority: a mix of its greatest and its mean absolute error, [B].

    Source: Kapturowski et al. 2019, "Recurrent Experience Replay in Distributed Reinforcement
    Learning", sec. 2.3.

    Args:
        error: of M decisions.
        row: theirs, int [M].
        agents: A.
        windows: B.
        mix: eta.

    """
    # In NumPy, whose calls take a quarter of the time of torch's for a few hundred numbers.
    size, window = error.detach().abs().cpu().numpy(), row.numpy() // agents
    count = np.maximum(np.bincount(window, minlength=windows), 1)
    mean = np.bincount(window, size, windows) / count
    greatest = np.zeros(windows, dtype=size.dtype)
    with np.errstate(invalid="ignore"):  # what is not finite is found when the step is taken
        np.maximum.at(greatest, window, size)
    mixed = np.maximum(mix * greatest + (1 - mix) * mean, LEAST_PRIORITY)
    return torch.from_numpy(mixed.astype(size.dtype))
