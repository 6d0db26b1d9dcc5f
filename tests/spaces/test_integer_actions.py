"""Tests of `recurrent_rl.spaces.actions`: Box actions of whole numbers, and odd bounds."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from recurrent_rl.networks.choose_distribution import make_distribution
from recurrent_rl.networks.configs import PolicyConfig
from recurrent_rl.spaces.actions import BoxCodec, IntegerBoxCodec, action_codec

DTYPES = [np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint64, np.bool_]
squashed_or_not = pytest.mark.parametrize("squash", [False, True])


def first_shares(space: Box, squash: bool, count: int = 40_000) -> dict[int, float]:
    """How often a policy that knows nothing yet plays each value."""
    codec = action_codec(space, squash)
    distribution = make_distribution(codec, PolicyConfig(squash_output=squash), 8)
    noise = distribution.noise((count,), torch.Generator().manual_seed(0))
    played = codec.to_env(distribution.sample(torch.zeros(count, codec.features), noise).detach())
    values, counts = np.unique(played, return_counts=True)
    return dict(zip(values.tolist(), (counts / count).tolist(), strict=True))


@squashed_or_not
@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 3), (-2, 2), (-1, 1), (5, 9), (-9, 0)])
def test_every_value_is_played_about_equally_often_at_first(
    low: int, high: int, squash: bool
) -> None:
    shares = first_shares(Box(low, high, (1,), np.int32), squash)
    assert sorted(shares) == list(range(low, high + 1))
    even = 1 / len(shares)
    # Of the standard normal distribution function exactly, of tanh within these.
    least, most = (0.75, 1.5) if squash else (0.93, 1.07)
    assert all(least * even < share < most * even for share in shares.values())


@squashed_or_not
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_value_comes_back_from_the_environment(dtype: Any, squash: bool) -> None:
    low, high = (0, 1) if dtype is np.bool_ else (0, 200) if dtype is np.uint8 else (3, 120)
    space = Box(low, high, (1,), dtype)
    codec = action_codec(space, squash)
    values = np.arange(low, high + 1).astype(dtype)[:, None]
    stored = codec.from_env(values)
    assert stored.dtype == torch.float32
    outside = codec.to_env(stored)
    assert outside.dtype == dtype
    assert np.array_equal(outside, values)
    assert np.array_equal(codec.encode(stored).numpy(), values.astype(np.float32))
    assert all(space.contains(action) for action in outside)


@squashed_or_not
@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (-(2**63), 2**63 - 1, np.int64),
        (-(2**63), -(2**63) + 1, np.int64),
        (2**62, 2**62 + 2, np.int64),
        (0, 2**64 - 1, np.uint64),
        (2**64 - 3, 2**64 - 1, np.uint64),
        (-(2**31), 2**31 - 1, np.int32),
        (-128, 127, np.int8),
    ],
)
def test_no_range_overflows(low: int, high: int, dtype: Any, squash: bool) -> None:
    space = Box(np.array([low], dtype), np.array([high], dtype), dtype=dtype)
    codec = action_codec(space, squash)
    stored = torch.tensor([[-1e9], [-3.0], [0.0], [3.0], [1e9]])
    outside = codec.to_env(stored)
    assert outside[[0, -1], 0].tolist() == [low, high]
    assert sorted(outside[:, 0].tolist()) == outside[:, 0].tolist()
    assert all(space.contains(action) for action in outside)
    again = codec.from_env(outside)
    assert torch.isfinite(again).all()
    for shown in (codec.encode(stored), codec.encode(again)):
        assert torch.isfinite(shown).all()
    middle = (int(outside[2, 0]) - low) / max(high - low, 1)
    assert middle == pytest.approx(0.5, abs=0.51 if high - low < 3 else 0.01)


def test_whole_numbers_without_bounds_are_rounded() -> None:
    space = Box(-np.inf, np.inf, (3,), np.int64)
    codec = action_codec(space)
    assert not codec.squash  # type: ignore[union-attr]
    outside = codec.to_env(torch.tensor([[0.6, -1.7, 1e30]]))
    assert outside[0, :2].tolist() == [1, -2]
    assert outside[0, 2] > 2**62
    assert codec.from_env(np.array([[4, -5, 6]])).tolist() == [[4, -5, 6]]
    one_sided = Box(np.array([0, -3]), np.array([np.inf, 3]), dtype=np.int32)
    with pytest.raises(ValueError, match=r"squash_output: expected .*finite bounds"):
        action_codec(one_sided, True)
    mixed = action_codec(one_sided)
    assert mixed.to_env(torch.tensor([[-4.0, -9.0], [2.4, 9.0]])).tolist() == [[0, -3], [2, 3]]
    assert torch.equal(mixed.encode(torch.tensor([[2.4, 9.0]])), torch.tensor([[2.0, 3.0]]))
    assert torch.equal(mixed.from_env(np.array([[7, 0]])), torch.tensor([[7.0, 0.0]]))


@squashed_or_not
@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_whole_numbers_of_any_shape(squash: bool, shape: tuple[int, ...]) -> None:
    space = Box(-3, 4, shape, np.int16)
    codec = action_codec(space, squash)
    assert isinstance(codec, IntegerBoxCodec)
    stored = torch.randn(2, 5, codec.features)
    outside = codec.to_env(stored)
    assert (outside.shape, outside.dtype) == ((2, 5, *shape), np.int16)
    shown = codec.encode(stored).numpy()
    assert np.array_equal(shown, outside.reshape(shown.shape))  # networks see what was played
    assert np.array_equal(codec.to_env(codec.from_env(outside)), outside)
    assert not codec.state_dict()


def test_a_squashed_density_refers_to_the_range_of_the_rounded_numbers() -> None:
    # -1/2 to 5/2 is three wide.
    codec = action_codec(Box(0, 2, (1,), np.int32), True)
    assert isinstance(codec, BoxCodec)
    assert codec.half_range.tolist() == [1.5]


# --- odd bounds -----------------------------------------------------------------------------------

GREATEST = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    "space",
    [
        Box(-GREATEST, GREATEST, (2,)),
        Box(-1e300, 1e300, (2,), np.float64),
        Box(np.array([-1, -1e30]), np.array([1, 1e30]), dtype=np.float64),
    ],
    ids=str,
)
def test_bounds_that_stand_for_none_are_none(space: Box) -> None:
    codec = action_codec(space)
    assert isinstance(codec, BoxCodec)
    assert not codec.squash
    assert codec.to_env(torch.tensor([[0.5, -0.5]])).tolist() == [[0.5, -0.5]]
    assert codec.encode(torch.tensor([[0.5, -0.5]])).tolist() == [[0.5, -0.5]]
    with pytest.raises(ValueError, match=r"finite bounds, got .*at most 1e\+18 .*RescaleAction"):
        action_codec(space, True)


@squashed_or_not
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_a_number_without_a_choice_is_always_played_and_counts_for_nothing(
    dtype: Any, squash: bool
) -> None:
    low, high = np.array([2, -1], dtype), np.array([2, 1], dtype)
    free = Box(low[1:], high[1:], dtype=dtype)
    codec, codec_alone = (
        action_codec(Box(low, high, dtype=dtype), squash),
        action_codec(free, squash),
    )
    outside = codec.to_env(torch.randn(9, 2))
    assert (outside[:, 0] == 2).all()
    stored = codec.from_env(outside)
    assert torch.isfinite(stored).all()
    assert (codec.encode(stored)[:, 0] == 2).all()
    config = PolicyConfig(squash_output=squash)
    both, alone = (make_distribution(one, config, 8) for one in (codec, codec_alone))
    mean, action = torch.randn(5, 2, requires_grad=True), torch.randn(5, 2)
    log_prob, entropy = both.log_prob(mean, action), both.entropy(mean)
    torch.testing.assert_close(log_prob, alone.log_prob(mean[:, 1:], action[:, 1:]))
    torch.testing.assert_close(entropy, alone.entropy(mean[:, 1:]))
    (grad,) = torch.autograd.grad((log_prob + entropy).sum(), mean)
    assert (grad[:, 0] == 0).all()
    assert torch.isfinite(grad).all()


def test_very_wide_ranges_are_shown_in_half_ranges() -> None:
    codec = action_codec(Box(-1e12, 1e12, (1,)))
    assert codec.encode(torch.tensor([[0.5]])).tolist() == [[pytest.approx(np.tanh(0.5))]]
    usual = action_codec(Box(-1e3, 1e3, (1,)))
    assert usual.encode(torch.tensor([[0.5]])).tolist() == [[pytest.approx(1e3 * np.tanh(0.5))]]


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
def test_actions_without_any_number_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="action_space: expected at least one number, got Box"):
        action_codec(Box(0, 1, shape))
