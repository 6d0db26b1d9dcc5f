"""Tests of `recurrent_rl.networks.normalization`: running statistics."""

import copy
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from recurrent_rl.networks.normalization import RunningNorm


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


def test_normalisation_begins_as_the_identity_and_then_standardises() -> None:
    norm = RunningNorm(3)
    x = 5 + 3 * torch.randn(2000, 3)
    torch.testing.assert_close(norm(x), x.clamp(-10, 10))
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
