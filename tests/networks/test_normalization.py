"""Tests of `recurrent_rl.networks.normalization`: running statistics."""

import copy
import math
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recurrent_rl.networks.normalization import RewardNorm, RunningNorm


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 30), st.just(2)),
        elements=st.floats(-1e3, 1e3, width=32),
    ),
    st.lists(st.integers(0, 30), max_size=5),
)
def test_running_moments_do_not_depend_on_how_the_data_arrive(
    data: np.ndarray[Any, Any], cuts: list[int]
) -> None:
    norm = RunningNorm(2)
    for part in np.split(data, sorted(min(c, len(data)) for c in cuts)):  # some parts are empty
        norm.update(torch.from_numpy(part))
    assert float(norm.count) == len(data)
    exact = data.astype(np.float64)
    np.testing.assert_allclose(norm.mean.numpy(), exact.mean(0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(norm.variance.numpy(), exact.var(0), rtol=1e-9, atol=1e-6)


def test_running_moments_are_exact_far_from_zero() -> None:
    # In float32 the variance around a mean of 1e4 would be lost after a few thousand steps.
    norm = RunningNorm(1)
    data = 1e4 + torch.randn(100_000, 1, dtype=torch.float64)
    for part in data.split(64):
        norm.update(part)
    assert norm.mean.dtype == norm.variance.dtype == norm.count.dtype == torch.float64
    torch.testing.assert_close(norm.variance, data.var(0, unbiased=False), rtol=1e-9, atol=0)


def symmetric_logarithm(x: float) -> float:
    return math.copysign(math.log(1 + abs(x)), x)


def test_normalisation_begins_as_a_logarithm_and_then_standardises() -> None:
    norm = RunningNorm(3)
    x = 5 + 3 * torch.randn(2000, 3)
    expected = [[symmetric_logarithm(value) for value in row] for row in x.tolist()]
    torch.testing.assert_close(norm(x), torch.tensor(expected))
    norm.update(x)
    y = norm(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.mean(0), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(y.std(0, unbiased=False), torch.ones(3), rtol=1e-4, atol=0)
    assert norm(torch.full((1, 3), 1e6)).tolist() == [[10, 10, 10]]
    assert norm(torch.full((1, 3), -1e6)).tolist() == [[-10, -10, -10]]


def test_a_feature_that_never_varies_stays_finite() -> None:
    norm = RunningNorm(1)
    norm.update(torch.full((10, 1), 3.0))
    assert norm(torch.full((4, 1), 3.0)).abs().max() < 1e-3


def test_without_statistics_different_values_stay_different() -> None:
    values = torch.tensor([-3e38, -250, -50, -1e-3, 0, 1e-3, 50, 250, 1e6, 3e38])[:, None]
    seen = RunningNorm(1)(values)
    assert (seen.diff(dim=0) > 0).all()
    assert seen.abs().max() < 100
    # Nor does a feature that stood still at first become one of two values when it moves.
    norm = RunningNorm(2)
    x = torch.randn(100, 2)
    x[:, 1] = 1e4 + 0.1
    norm.update(x)
    assert (norm(x)[:, 1].abs() < 1e-2).all()
    moved = torch.stack([torch.tensor([50.0, -50.0, 0.0]), 1e4 + torch.tensor([-20.0, 20.0, 90.0])])
    first, second = norm(moved.T).T.tolist()
    assert first[:2] == [10, -10]  # what varied is clipped to so many deviations
    for value, distance in zip(second, (-20.1, 19.9, 89.9), strict=True):
        assert abs(value - symmetric_logarithm(distance)) < 1e-3
    norm.update(moved.T)  # now its spread is known
    assert 0 < norm(moved.T)[2, 1] <= 10


def test_tiny_units_are_no_reason_to_think_that_a_feature_stands_still() -> None:
    norm, x = RunningNorm(1), 1e-3 * torch.randn(1000, 1)
    norm.update(x)
    torch.testing.assert_close(norm(x).std(unbiased=False), torch.tensor(1.0), rtol=0.02, atol=0)


def test_normalisation_moves_in_update_only() -> None:
    norm = RunningNorm(2)
    norm.update(torch.randn(10, 2))
    before = copy.deepcopy(norm.state_dict())
    norm.train()(torch.randn(10, 2))
    norm.update(torch.zeros(0, 2))
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name])


def test_copies_and_loaded_normalisers_behave_alike() -> None:
    norm, x = RunningNorm(2), torch.randn(5, 2)
    norm.update(4 + 2 * torch.randn(50, 2))
    loaded = RunningNorm(2)
    loaded.load_state_dict(norm.state_dict())
    copied = copy.deepcopy(norm)
    for other in (loaded, copied):
        assert torch.equal(other(x), norm(x))
    copied.update(torch.randn(50, 2))
    assert not torch.equal(copied(x), norm(x)), "a copy must not share its moments"
    assert torch.equal(loaded(x), norm(x))
    assert set(norm.state_dict()) == {"mean", "variance", "count"}


@pytest.mark.parametrize("convert", ["half", "double", "float", "bfloat16"])
def test_moments_keep_their_precision_when_a_policy_changes_its(convert: str) -> None:
    norm = RunningNorm(2)
    norm.update(1e4 + torch.randn(100_000, 2))
    before = copy.deepcopy(norm.state_dict())
    getattr(norm, convert)()
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert value.dtype == torch.float64


# --- rewards ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 1.0, -1000.0])
def test_returns_that_have_not_varied_are_left_as_they_are(value: float) -> None:
    norm = RewardNorm()
    for _ in range(3):
        norm.update(torch.full((10, 1), value))
        assert float(norm.scale) == norm.factor(0.9) == 1


def test_returns_that_have_varied_get_a_deviation_of_one() -> None:
    norm, returns = RewardNorm(), 3 * torch.randn(500, 1)
    norm.update(returns)
    assert norm.factor(0.99) == float(norm.scale)
    assert float(norm.scale) == pytest.approx(1 / float(returns.std(unbiased=False)), rel=1e-6)


def test_small_differences_between_large_rewards_survive_clipping() -> None:
    norm, rewards = RewardNorm(), 20 + torch.rand(500, 1)
    norm.update(rewards)  # gamma = 0
    scaled = rewards * norm.factor(0.0)
    assert 4 < scaled.mean() <= 5
    assert scaled.max() < 10


def test_an_outlier_counts_as_a_thousand_times_the_usual() -> None:
    norm = RewardNorm()
    norm.update(torch.tensor([[1.0], [-1.0]]).repeat(500, 1))
    outlier = torch.cat((torch.ones(999, 1), torch.full((1, 1), 1e14)))
    with pytest.warns(UserWarning, match=r"^reward: a discounted return of 1e\+14 where .* is 1;"):
        norm.update(outlier)
    assert float(norm.variance) == pytest.approx(1000**2 / 2000, rel=0.01)
    norm.update(1e9 * outlier)  # once is enough
    # What is greater for good is followed.
    for _ in range(8):
        norm.update(torch.tensor([[1e14], [-1e14]]).repeat(500, 1))
    assert float(norm.scale) == pytest.approx(1e-14, rel=0.5)


def test_returns_that_an_outlier_has_made_vanish_are_reported() -> None:
    norm = RewardNorm()
    norm.update(torch.tensor([[1e12], [0.0]]))
    with pytest.warns(UserWarning, match="next to nothing is left"):
        norm.update(torch.rand(100, 1))


def test_saved_reward_statistics_that_are_not_finite_begin_anew() -> None:
    norm = RewardNorm()
    saved = {**norm.state_dict(), "variance": torch.tensor([math.inf], dtype=torch.float64)}
    with pytest.warns(UserWarning, match="not finite; they begin anew"):
        norm.load_state_dict(saved)
    assert norm.state_dict() == {**RewardNorm().state_dict()}
    assert float(norm.scale) == 1
