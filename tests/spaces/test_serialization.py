"""Tests of `recurrent_rl.spaces.serialization`: spaces compared, saved and rebuilt."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import (
    Box,
    Dict,
    Discrete,
    Graph,
    MultiBinary,
    MultiDiscrete,
    Sequence,
    Text,
    Tuple,
)
from hypothesis import given
from support.spaces_of import observation_spaces, parts_of, samples

from recurrent_rl import checkpoint
from recurrent_rl.spaces.serialization import same_space, space_from_dict, space_to_dict

VECTOR = Box(-1.0, np.array([1.0, 2.0, np.inf]), dtype=np.float32)
INDEX = Discrete(4, start=-2)
SEVERAL = MultiDiscrete([[2, 3], [1, 4]], start=[[0, -1], [5, 2]])
BITS = MultiBinary([2, 3])
OTHERS = [Text(3), Graph(VECTOR, INDEX), Sequence(VECTOR)]


@given(observation_spaces())
def test_spaces_survive_a_round_trip(space: gym.Space[Any]) -> None:
    again = space_from_dict(space_to_dict(space))
    assert again == space
    observation = samples(space, ())
    pairs = zip(parts_of(space, observation), parts_of(again, observation), strict=True)
    for (ours, _), (theirs, _) in pairs:
        assert ours == theirs
        assert ours.dtype == theirs.dtype
    assert same_space(space, again, bounds=True)


@pytest.mark.parametrize(
    "space",
    [
        Box(0, 9, (1,), dtype=np.int64),
        MultiDiscrete([2, 3], dtype=np.int32),
        MultiBinary(3),
        MultiBinary([3]),
        Dict(z=VECTOR, a=Tuple([SEVERAL, Dict(deep=BITS)])),
    ],
)
def test_spaces_survive_a_file(space: gym.Space[Any], tmp_path: Any) -> None:
    checkpoint.save({"space": space_to_dict(space)}, tmp_path / "space.pt")
    again = space_from_dict(checkpoint.load(tmp_path / "space.pt")["space"])
    assert again == space
    assert again.dtype == space.dtype


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64])
@pytest.mark.parametrize(
    "make",
    [
        lambda dtype: Discrete(4, start=2, dtype=dtype),
        lambda dtype: MultiDiscrete([2, 3], dtype=dtype),
        lambda dtype: Box(0, 9, (2,), dtype),
        lambda dtype: Dict(a=Discrete(3, dtype=dtype), b=Tuple([Discrete(2, dtype=dtype)])),
    ],
)
def test_dtypes_survive_a_file(make: Any, dtype: Any, tmp_path: Any) -> None:
    space = make(dtype)
    checkpoint.save({"space": space_to_dict(space)}, tmp_path / "space.pt")
    again = space_from_dict(checkpoint.load(tmp_path / "space.pt")["space"])
    assert again == space  # of Discrete spaces the dtype counts
    assert again.dtype == space.dtype


def test_spaces_without_a_dtype_come_from_before_it_was_kept() -> None:
    again = space_from_dict({"kind": "Discrete", "n": 3, "start": 1})
    assert again == Discrete(3, start=1)
    data = space_to_dict(Box(-1, 1, (2,)))
    del data["bounded_below"], data["bounded_above"]
    assert space_from_dict(data).is_bounded()  # type: ignore[attr-defined]


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_what_has_no_bounds_has_none_when_loaded(dtype: Any, tmp_path: Any) -> None:
    space = Box(np.array([-np.inf, 0, 0]), np.array([np.inf, np.inf, 3]), dtype=dtype)
    checkpoint.save({"space": space_to_dict(space)}, tmp_path / "space.pt")
    again = space_from_dict(checkpoint.load(tmp_path / "space.pt")["space"])
    assert isinstance(again, Box)
    assert again.bounded_below.tolist() == [False, True, True]
    assert again.bounded_above.tolist() == [False, False, True]


@pytest.mark.parametrize("space", OTHERS)
def test_spaces_that_cannot_be_saved_or_rebuilt_are_errors(space: gym.Space[Any]) -> None:
    expected = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these"
    for nested in (space, Dict(a=VECTOR, b=Tuple([space]))):
        kind = type(space).__name__
        with pytest.raises(TypeError, match=f"^space: expected {expected}, got {kind}"):
            space_to_dict(nested)
    with pytest.raises(ValueError, match=f"expected a kind out of {expected}, got 'Text'"):
        space_from_dict({"kind": "Text"})


def test_spaces_whose_data_fit_the_same_networks() -> None:
    assert same_space(Box(-1, 1, (3,)), Box(-5, 5, (3,)))
    assert not same_space(Box(-1, 1, (3,)), Box(-1, 1, (2,)))
    assert not same_space(Box(-1, 1, (3,)), Discrete(3))
    assert same_space(Discrete(3), Discrete(3))
    assert not same_space(Discrete(3), Discrete(4))
    assert not same_space(Discrete(3), Discrete(3, start=1))
    assert same_space(SEVERAL, MultiDiscrete(SEVERAL.nvec, start=SEVERAL.start))
    assert not same_space(SEVERAL, MultiDiscrete(SEVERAL.nvec))
    assert same_space(BITS, MultiBinary((2, 3)))
    assert not same_space(BITS, MultiBinary(6))


def test_bytes_are_not_other_integers() -> None:
    # Both are unsigned, but only bytes are stored as such, and images of them scaled.
    byte, short = (Box(0, 200, (3, 4, 4), dtype) for dtype in (np.uint8, np.uint16))
    assert same_space(byte, Box(0, 255, (3, 4, 4), np.uint8))
    assert not same_space(byte, short)
    assert same_space(Box(-1, 1, (2,), np.float32), Box(-1, 1, (2,), np.float64))


def test_nested_spaces_are_compared_part_by_part() -> None:
    ours = Dict(a=Box(-1, 1, (3,)), b=Tuple([INDEX, BITS]))
    assert same_space(ours, Dict(b=Tuple([INDEX, BITS]), a=Box(-2, 2, (3,))))
    for theirs in (
        Dict(a=Box(-1, 1, (2,)), b=Tuple([INDEX, BITS])),
        Dict(a=Box(-1, 1, (3,)), b=Tuple([BITS, INDEX])),
        Dict(a=Box(-1, 1, (3,)), b=Tuple([INDEX])),
        Dict(a=Box(-1, 1, (3,)), c=Tuple([INDEX, BITS])),
        Dict(a=Box(-1, 1, (3,)), b=Tuple([INDEX, BITS]), c=INDEX),
        Dict(a=Box(-1, 1, (3,))),
        Tuple([Box(-1, 1, (3,)), Tuple([INDEX, BITS])]),
        Box(-1, 1, (3,)),
    ):
        assert not same_space(ours, theirs)
        assert not same_space(theirs, ours)


def test_bounds_count_for_actions_and_not_for_observations() -> None:
    # A policy squashes into its own bounds: in another space its actions would mean another thing.
    ours, theirs = Box(-1, 1, (2,)), Box(-2, 2, (2,))
    assert same_space(ours, theirs)
    assert not same_space(ours, theirs, bounds=True)
    assert same_space(ours, Box(-1, 1, (2,)), bounds=True)
    assert same_space(Box(-np.inf, 1, (2,)), Box(-np.inf, 1, (2,)), bounds=True)
    assert not same_space(ours, Box(-1, 1, (2,), dtype=np.int64))


def test_bounds_of_whole_numbers_are_compared_exactly_and_small_ones_by_their_size() -> None:
    ours = Box(0, 1_000_000, (1,), np.int32)
    assert not same_space(ours, Box(0, 1_000_001, (1,), np.int32), bounds=True)
    assert same_space(ours, Box(0, 1_000_000, (1,), np.int32), bounds=True)
    assert not same_space(Box(-1e-9, 1e-9, (1,)), Box(-2e-9, 2e-9, (1,)), bounds=True)


def test_choices_of_other_bits_are_the_same_choices() -> None:
    for bounds in (False, True):
        assert same_space(Discrete(4), Discrete(4, dtype=np.int32), bounds=bounds)
        assert same_space(MultiDiscrete([2, 3]), MultiDiscrete([2, 3], np.int8), bounds=bounds)
        assert not same_space(MultiDiscrete([2, 3]), MultiDiscrete([2, 4]), bounds=bounds)
