"""Tests of `recurrent_rl.spaces.actions`: how actions are stored, taken, and shown to networks."""

import math
from typing import Any

import gymnasium as gym
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from hypothesis import given
from hypothesis import strategies as st

from recurrent_rl.spaces.actions import BoxCodec, action_codec

BOUNDED = Box(np.array([-2.0, 0.0, -1e-3]), np.array([1.0, 5.0, 1e3]), dtype=np.float32)

# --- choices and bits -----------------------------------------------------------------------------


def test_discrete_actions_count_from_zero_inside_and_from_start_outside() -> None:
    space = Discrete(3, start=-1)
    codec = action_codec(space)
    stored = torch.tensor([0, 1, 2])
    outside = codec.to_env(stored)
    assert outside.tolist() == [-1, 0, 1]
    assert outside.dtype == np.int64
    assert all(space.contains(a) for a in outside)
    assert codec.encode(stored).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert codec.encode(stored).dtype == torch.float32
    assert (codec.features, codec.mask_size, codec.shape, codec.choices) == (3, 3, (), (3,))


def test_choices_come_back_from_the_environment() -> None:
    codec = action_codec(Discrete(4, start=-2))
    stored = torch.tensor([0, 3, 1])
    assert codec.to_env(stored).tolist() == [-2, 1, -1]
    for dtype in (np.int64, np.int8):
        back = codec.from_env(codec.to_env(stored).astype(dtype))
        assert back.dtype == torch.int64
        assert torch.equal(back, stored)


def test_components_count_from_zero_inside_and_from_start_outside() -> None:
    start = np.array([[-1, 10], [0, 5]])
    space = MultiDiscrete(np.array([[3, 2], [1, 4]]), np.int16, start=start)
    codec = action_codec(space)
    stored = torch.tensor([[2, 0, 0, 3], [0, 1, 0, 1]])
    outside = codec.to_env(stored)
    assert outside.tolist() == [[[1, 10], [0, 8]], [[-1, 11], [0, 6]]]
    assert outside.dtype == np.int16
    assert all(space.contains(a) for a in outside)
    for dtype in (np.int16, np.int64):
        back = codec.from_env(outside.astype(dtype))
        assert back.dtype == torch.int64
        assert torch.equal(back, stored)
    assert codec.encode(stored).tolist() == [
        [0, 0, 1, 1, 0, 1, 0, 0, 0, 1],
        [1, 0, 0, 0, 1, 1, 0, 1, 0, 0],
    ]
    assert (codec.features, codec.mask_size, codec.shape) == (10, 10, (4,))
    assert codec.choices == (3, 2, 1, 4)


def test_a_start_near_the_end_of_a_small_dtype_does_not_wrap_around() -> None:
    space = MultiDiscrete([4], np.int8, start=[124])
    codec = action_codec(space)
    outside = codec.to_env(torch.tensor([[3]]))
    assert outside.tolist() == [[127]]
    assert codec.from_env(outside).tolist() == [[3]]


def test_bits_have_the_spaces_shape_and_dtype_outside() -> None:
    codec = action_codec(MultiBinary((2, 3)))
    stored = torch.tensor([[0, 1, 0, 1, 1, 0]], dtype=torch.int8)
    outside = codec.to_env(stored)
    assert outside.tolist() == [[[0, 1, 0], [1, 1, 0]]]
    assert outside.dtype == np.int8
    for dtype in (np.int8, np.int64, np.bool_):
        back = codec.from_env(outside.astype(dtype))
        assert back.dtype == codec.dtype == torch.int8
        assert torch.equal(back, stored)
    assert codec.encode(stored).tolist() == stored.tolist()
    assert (codec.features, codec.mask_size, codec.shape, codec.choices) == (6, 0, (6,), ())


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("squash", [False, True])
@given(hnp.arrays(np.float32, (4, 3), elements=st.floats(width=32, allow_nan=False)))
def test_bounded_actions_are_in_the_space_whatever_was_sampled(
    squash: bool, stored: np.ndarray[Any, Any]
) -> None:
    codec = BoxCodec(BOUNDED, squash)
    for action in codec.to_env(torch.from_numpy(stored)):
        assert BOUNDED.contains(action)
    encoded = codec.encode(torch.from_numpy(stored))
    assert (encoded >= codec.low).all()
    assert (encoded <= codec.high).all()


def test_actions_within_bounds_reach_the_environment_as_they_are() -> None:
    codec = BoxCodec(Box(-1.0, 1.0, (2,)), False)
    assert codec.to_env(torch.tensor([[0.25, -0.5], [3.0, -3.0]])).tolist() == [
        [0.25, -0.5],
        [1.0, -1.0],
    ]
    squashed = BoxCodec(Box(-1.0, 3.0, (1,)), True)
    torch.testing.assert_close(
        torch.from_numpy(squashed.to_env(torch.tensor([[0.0], [0.5]]))),
        torch.tensor([[1.0], [1 + 2 * math.tanh(0.5)]]),
    )


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_actions_have_the_spaces_dtype_and_stay_within_its_bounds(
    dtype: type[np.floating[Any]], squash: bool
) -> None:
    # float32(0.1) lies above the float64 0.1: a bound rounded on the way would be overstepped.
    space = Box(
        np.array([-0.1, 0.3]).astype(dtype), np.array([0.1, 0.7]).astype(dtype), dtype=dtype
    )
    codec = BoxCodec(space, squash)
    for action in codec.to_env(torch.tensor([[50.0, 50.0], [-50.0, -50.0], [0.05, 0.5]])):
        assert action.dtype == dtype
        assert space.contains(action)


def test_unbounded_actions_are_left_alone() -> None:
    codec = BoxCodec(Box(-np.inf, np.inf, (2,)))
    assert codec.to_env(torch.tensor([[1e30, -1e30]])).tolist() == [pytest.approx([1e30, -1e30])]


@pytest.mark.parametrize(
    "space", [Box(-np.inf, np.inf, (2,)), Box(0.0, np.inf, (2,)), Box(-np.inf, 0.0, (2,))]
)
def test_squashing_without_bounds_is_an_error_that_says_what_to_do(space: Box) -> None:
    with pytest.raises(
        ValueError, match=r"squash_output: expected .* finite bounds.*RescaleAction"
    ):
        action_codec(space, squash_output=True)


@pytest.mark.parametrize("squash", [False, True])
def test_box_actions_of_any_shape(squash: bool) -> None:
    space = Box(-1.0, 1.0, (2, 3))
    codec = BoxCodec(space, squash)
    assert (codec.features, codec.mask_size, codec.shape, codec.choices) == (6, 0, (6,), ())
    action = torch.randn(4, 6)
    outside = codec.to_env(action)
    assert outside.shape == (4, 2, 3)
    assert outside.dtype == np.float32
    assert all(space.contains(a) for a in outside)
    np.testing.assert_allclose(outside.reshape(4, 6), codec.bounded(action).numpy())


def test_actions_are_squashed_where_all_bounds_are_finite() -> None:
    for space, expected in ((BOUNDED, True), (Box(0.0, np.inf, (2,)), False)):
        codec = action_codec(space)
        assert isinstance(codec, BoxCodec)
        assert codec.squash == expected


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("leading", [(5,), (2, 3)])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_box_actions_come_back_from_the_environment(
    squash: bool, leading: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    space = Box(np.full(shape, -2.0), np.full(shape, 1.0), dtype=np.float64)
    codec = BoxCodec(space, squash)
    # Within the bounds: what is clipped does not come back.
    stored = 0.9 * (2 * torch.rand(*leading, codec.features) - 1)
    action = codec.to_env(stored)
    assert action.shape == (*leading, *shape)
    back = codec.from_env(action)
    assert (back.shape, back.dtype) == (stored.shape, torch.float32)
    torch.testing.assert_close(back, stored, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(codec.to_env(back), action, rtol=1e-4, atol=1e-5)


def test_actions_come_back_without_squashing_as_they_are() -> None:
    BOUNDED.seed(0)
    action = BOUNDED.sample()
    assert torch.equal(BoxCodec(BOUNDED, False).from_env(action), torch.from_numpy(action))


def test_squashed_actions_at_the_bounds_stay_finite() -> None:
    codec = BoxCodec(BOUNDED, True)
    bounds = np.stack([BOUNDED.low, BOUNDED.high])
    stored = codec.from_env(bounds)
    assert torch.isfinite(stored).all()
    assert (stored[0] < -5).all()
    assert (stored[1] > 5).all()
    np.testing.assert_allclose(codec.to_env(stored), bounds, rtol=1e-5, atol=2e-3)


# --- every kind of space --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "space", [Discrete(3, start=-4), MultiDiscrete([3, 2]), MultiBinary((2, 3)), BOUNDED], ids=str
)
def test_what_follows_from_the_space_is_no_part_of_a_checkpoint(space: gym.Space[Any]) -> None:
    assert not action_codec(space).state_dict()


@pytest.mark.parametrize("space", [gym.spaces.Text(5), gym.spaces.Dict({"a": Discrete(2)})])
def test_unsupported_action_spaces_are_named_with_what_is_supported(
    space: gym.Space[Any],
) -> None:
    supported = r"Discrete, MultiDiscrete, MultiBinary and Box"
    for squash in (None, False, True):
        with pytest.raises(TypeError, match=rf"action_space: expected {supported}, got"):
            action_codec(space, squash)
