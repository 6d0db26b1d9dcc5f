"""Tests of `recurrent_rl.functional.statistics`: what counts, standardised and explained."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.arrays import bools, numbers
from support.helpers import double
from support.pairs import examples

from recurrent_rl.functional.statistics import explained_variance, masked_mean_std, normalize


@given(st.data())
def test_normalize_standardises_the_chosen_and_reads_nothing_else(data: st.DataObject) -> None:
    shape = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3))
    x, mask = data.draw(numbers(*shape)), data.draw(bools(*shape))
    chosen = x[mask].numpy()
    mean, std = masked_mean_std(x, mask)
    if len(chosen):
        assert float(mean) == pytest.approx(chosen.mean(), rel=1e-9, abs=1e-9)
        assert float(std) == pytest.approx(chosen.std(), rel=1e-7, abs=1e-9)
    else:
        assert (float(mean), float(std)) == (0, 0)

    y = normalize(x, mask)
    assert (y[~mask] == 0).all()
    if len(chosen) and chosen.std() > 1e-3:
        assert float(y[mask].mean()) == pytest.approx(0, abs=1e-6)
        assert float(y[mask].std(unbiased=False)) == pytest.approx(1, abs=1e-4)
    garbage = torch.where(mask, x, torch.nan)
    assert torch.equal(normalize(garbage, mask), y)


@given(st.floats(-1e6, 1e6, width=32), st.integers(1, 1000))
def test_normalize_makes_equal_elements_zero(value: float, count: int) -> None:
    # One active step, or a rollout without surprises: the rounding of the mean must not be blown
    # up to advantages of +-1.
    x = torch.full((count + 1,), value)
    mask = torch.arange(count + 1) < count
    assert (normalize(x, mask) == 0).all()
    assert masked_mean_std(x, mask)[1] == 0


def test_normalize_without_any_element_is_all_zeros() -> None:
    assert torch.equal(
        normalize(torch.full((2, 2), torch.nan), torch.zeros(2, 2, dtype=torch.bool)),
        torch.zeros(2, 2),
    )


@double()
def test_explained_variance() -> None:
    target = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert explained_variance(target, target) == 1
    assert explained_variance(torch.full((4,), 7.0), target) == pytest.approx(0)
    assert explained_variance(target + 5, target) == pytest.approx(1)  # blind to an offset
    assert explained_variance(-target, target) == pytest.approx(-3)
    # Var[target] = 3.5, the errors (0, 0, 0, 4) have variance 3.
    assert explained_variance(torch.tensor([1.0, 2, 3, 2]), target) == pytest.approx(1 - 3 / 3.5)


@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_explained_variance_of_what_does_not_vary_is_nan(count: int) -> None:
    # 3.3 has no exact mean in float32: a variance of rounding errors is none either.
    assert math.isnan(explained_variance(torch.arange(count) * 1.0, torch.full((count,), 3.3)))


@settings(max_examples=examples(20))
@given(st.data())
def test_explained_variance_is_at_most_one(data: st.DataObject) -> None:
    prediction, target = data.draw(numbers(6)), data.draw(numbers(6))
    share = explained_variance(prediction, target)
    assert math.isnan(share) or share <= 1
