"""Tests of `recurrent_rl.buffers.priorities`."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.helpers import SEEDS

from recurrent_rl.buffers.priorities import SumTree


@given(size=st.integers(1, 70), seed=SEEDS)
def test_sums_are_those_of_the_numbers(size: int, seed: int) -> None:
    random, tree = np.random.default_rng(seed), SumTree(size)
    plain = np.zeros(size)
    for _ in range(5):
        index = random.integers(size, size=random.integers(0, 2 * size + 1))
        value = random.random(len(index)) * random.integers(0, 2, len(index))
        tree.set(index, value)
        for i, x in zip(index, value, strict=True):
            plain[i] = x
        np.testing.assert_array_equal(tree.values(), plain)
        np.testing.assert_allclose(tree.total, plain.sum(), rtol=1e-12)
        np.testing.assert_array_equal(tree[index], plain[index])


@given(size=st.integers(1, 70), seed=SEEDS)
def test_draws_are_in_proportion(size: int, seed: int) -> None:
    """With one draw from each equal part of the sum, none is further off than one or two."""
    random, tree = np.random.default_rng(seed), SumTree(size)
    priority = random.random(size) * random.integers(0, 2, size)
    priority[random.integers(size)] += 0.1
    tree.set(np.arange(size), priority)
    count = 2000
    drawn = np.bincount(tree.draw(count, torch.Generator().manual_seed(seed)), minlength=size)
    assert len(drawn) == size
    assert (drawn[priority == 0] == 0).all()
    # Each index reaches over a piece of the sum, which may cut two parts.
    assert np.abs(drawn - count * priority / priority.sum()).max() <= 2


def test_draws_do_not_prefer_either_side_of_a_part() -> None:
    """Chi-square over many draws of few at a time."""
    tree, generator = SumTree(5), torch.Generator().manual_seed(0)
    priority = np.array([1.0, 2.0, 0.0, 4.0, 3.0])
    tree.set(np.arange(5), priority)
    drawn = np.bincount(np.concatenate([tree.draw(3, generator) for _ in range(2000)]), minlength=5)
    expected = 6000 * priority / 10
    assert drawn[2] == 0
    # Of 3 degrees of freedom 16.3 is exceeded once in a thousand times; strata vary less.
    assert ((drawn - expected)[priority > 0] ** 2 / expected[priority > 0]).sum() < 16.3


def test_rounding_never_draws_what_has_no_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest number below 1 is enough to reach the end of the sum."""

    def largest(count: int, **_: object) -> torch.Tensor:
        return torch.full((count,), 1 - 2.0**-53, dtype=torch.float64)

    monkeypatch.setattr(torch, "rand", largest)
    tree = SumTree(8)
    tree.set(np.arange(4), np.array([0.1, 0.7, 0.1, 0.3]))
    assert set(tree.draw(4096, torch.Generator())) == {0, 1, 2, 3}
