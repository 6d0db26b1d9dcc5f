"""Tests of `recurrent_rl.algorithms.decisions`."""

import pytest
import torch

from recurrent_rl.algorithms.decisions import known_decisions, priorities
from recurrent_rl.functional.targets import NStep


def test_known_decisions_by_hand() -> None:
    """Two windows of two agents each, so four rows; two places that are trained on."""
    known = torch.tensor([[True, False, True, True], [False, False, True, False]])
    reward = torch.arange(8.0).view(2, 4)
    place = torch.tensor([[1, 0, 2, 3], [1, 1, 3, 1]])
    nstep = NStep(known, reward, reward / 10, place)
    found = known_decisions(nstep, torch.tensor([0.5, 0.25]), 2, 3.0, torch.device("cpu"))
    assert found.at is not None
    assert found.at.tolist() == [0, 2, 3, 6]
    assert found.reward.tolist() == [0, 6, 9, 18]  # times the scale
    assert found.discount.tolist() == pytest.approx([0, 0.2, 0.3, 0.6])
    assert found.place.tolist() == [1 * 4 + 0, 2 * 4 + 2, 3 * 4 + 3, 3 * 4 + 2]
    assert found.weight.tolist() == [0.5, 0.25, 0.25, 0.25]
    assert found.row.tolist() == [0, 2, 3, 2]
    field = torch.arange(16).view(2, 4, 2)
    assert found.pick(field).tolist() == [[0, 1], [4, 5], [6, 7], [12, 13]]
    whole = known_decisions(
        nstep._replace(known=torch.ones(2, 4, dtype=torch.bool)),
        torch.ones(2),
        2,
        1.0,
        torch.device("cpu"),
    )
    assert whole.at is None
    assert whole.pick(field).tolist() == field.flatten(0, 1).tolist()


def test_priorities_by_hand() -> None:
    error = torch.tensor([-1.0, 2.0, 0.5, -4.0])
    row = torch.tensor([0, 1, 4, 5])  # of two agents: windows 0, 0, 2, 2; none of window 1
    found = priorities(error, row, 2, 3, 0.9)
    assert found.tolist() == pytest.approx([0.9 * 2 + 0.1 * 1.5, 1e-6, 0.9 * 4 + 0.1 * 2.25])
