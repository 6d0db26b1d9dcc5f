"""Tests of `recurrent_rl.spaces`: observations checked, spaces compared, saved and rebuilt."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

from recurrent_rl.spaces import (
    ObservationCodec,
    array_form,
    check_action,
    mask_size,
    same_space,
    space_from_dict,
    space_to_dict,
    without_mask,
)

VECTOR = Box(-1.0, np.array([1.0, 2.0, np.inf]), dtype=np.float32)
INDEX = Discrete(4, start=-2)


def test_how_observations_are_stored() -> None:
    vector, index = ObservationCodec(VECTOR), ObservationCodec(INDEX)
    assert (vector.shape, vector.dtype, vector.features) == ((3,), torch.float32, 3)
    assert (index.shape, index.dtype, index.features) == ((), torch.int64, 4)
    x = torch.randn(5, 2, 3)
    assert vector.encode(x) is x
    encoded = index.encode(torch.tensor([[-2, 1], [0, -1]]))
    assert encoded.shape == (2, 2, 4)
    assert encoded.argmax(-1).tolist() == [[0, 3], [2, 1]]
    assert (encoded.sum(-1) == 1).all()


@pytest.mark.parametrize(
    "space",
    [Box(0, 255, (8, 8, 3), np.uint8), gym.spaces.MultiBinary(3), gym.spaces.Text(3)],
)
def test_other_observation_spaces_are_refused_with_advice(space: gym.Space[Any]) -> None:
    with pytest.raises(TypeError, match=r"observation_space: expected .*FlattenObservation"):
        ObservationCodec(space)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (4, 1, 2)])
@pytest.mark.parametrize("leading", [(), (5,), (5, 2)])
def test_boxes_of_any_shape_become_vectors(shape: Any, leading: Any) -> None:
    codec, size = ObservationCodec(Box(-1, 1, shape)), int(np.prod(shape))
    assert (codec.shape, codec.features) == (shape, size)
    x = torch.randn((*leading, *shape))
    encoded = codec.encode(x)
    assert encoded.shape == (*leading, size)
    assert torch.equal(encoded.flatten(), x.flatten())


@pytest.mark.parametrize(
    ("space", "observation"),
    [
        (VECTOR, np.zeros((2, 3))),
        (VECTOR, [[0, 1, 2], [3, 4, 5]]),
        (VECTOR, np.zeros((2, 3), dtype=bool)),
        (INDEX, np.array([-2, 1])),
        (INDEX, [0, 0]),
    ],
)
def test_good_observations_pass(space: gym.Space[Any], observation: Any) -> None:
    checked = ObservationCodec(space).check(observation, 2)
    np.testing.assert_array_equal(checked, observation)


@pytest.mark.parametrize("observation", [np.zeros(3), np.zeros((3, 2)), np.zeros((2, 3, 1))])
def test_a_wrong_shape_is_named_with_the_one_expected(observation: Any) -> None:
    with pytest.raises(ValueError, match=r"observation: expected shape \[N, ...\] = \[2, 3\], got"):
        ObservationCodec(VECTOR).check(observation, 2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_named_with_its_row(bad: float) -> None:
    observation = np.zeros((4, 3), dtype=np.float32)
    observation[2, 1] = bad
    with pytest.raises(ValueError, match=r"observation: expected finite numbers, .* in row 2"):
        ObservationCodec(VECTOR).check(observation, 4)


@pytest.mark.parametrize("observation", [np.array([["a"] * 3] * 2), np.full((2, 3), None)])
def test_what_is_no_number_is_a_type_error(observation: Any) -> None:
    with pytest.raises(TypeError, match="observation: expected numbers"):
        ObservationCodec(VECTOR).check(observation, 2)


@pytest.mark.parametrize("observation", [[-3, 0], [0, 2], [0.0, 1.0]])
def test_an_index_outside_its_space_is_an_error(observation: list[float]) -> None:
    with pytest.raises(ValueError, match=r"observation: expected integers in \[-2, 1\], got"):
        ObservationCodec(INDEX).check(observation, 2)


@pytest.mark.parametrize(
    "space", [VECTOR, INDEX, Box(-2, 2, (2, 3), dtype=np.float64), Box(0, 9, (1,), dtype=np.int64)]
)
def test_spaces_survive_a_round_trip(space: gym.Space[Any]) -> None:
    again = space_from_dict(space_to_dict(space))
    assert again == space
    assert again.dtype == space.dtype


def test_spaces_that_cannot_be_saved_or_rebuilt_are_errors() -> None:
    with pytest.raises(TypeError, match="space: expected Box or Discrete, got Text"):
        space_to_dict(gym.spaces.Text(3))
    with pytest.raises(ValueError, match="expected the kind Box or Discrete, got 'Text'"):
        space_from_dict({"kind": "Text"})


def test_spaces_whose_data_fit_the_same_networks() -> None:
    assert same_space(Box(-1, 1, (3,)), Box(-5, 5, (3,)))
    assert not same_space(Box(-1, 1, (3,)), Box(-1, 1, (2,)))
    assert not same_space(Box(-1, 1, (3,)), Discrete(3))
    assert same_space(Discrete(3), Discrete(3))
    assert not same_space(Discrete(3), Discrete(4))
    assert not same_space(Discrete(3), Discrete(3, start=1))


def test_bounds_count_for_actions_and_not_for_observations() -> None:
    # A policy squashes into its own bounds: in another space its actions would mean another thing.
    ours, theirs = Box(-1, 1, (2,)), Box(-2, 2, (2,))
    assert same_space(ours, theirs)
    assert not same_space(ours, theirs, bounds=True)
    assert same_space(ours, Box(-1, 1, (2,)), bounds=True)
    assert same_space(Box(-np.inf, 1, (2,)), Box(-np.inf, 1, (2,)), bounds=True)
    assert not same_space(ours, Box(-1, 1, (2,), dtype=np.int64))


def test_the_mask_is_split_off_an_observation_that_has_one() -> None:
    mask = Box(0, 1, (4,), np.int8)
    assert without_mask(Dict(observation=VECTOR, action_mask=mask)) == (VECTOR, True)
    others = (
        VECTOR,
        INDEX,
        Dict(observation=VECTOR),
        Dict(observation=VECTOR, action_mask=mask, more=VECTOR),
        Dict(position=VECTOR, action_mask=mask),
    )
    for space in others:
        assert without_mask(space) == (space, False)


@pytest.mark.parametrize(
    ("space", "shape", "dtype", "blank"),
    [
        (VECTOR, (3,), np.float32, 0),
        (Box(1, 2, (2, 3), np.float64), (2, 3), np.float64, 0),
        (Box(0, 9, (), np.int8), (), np.int8, 0),
        (Discrete(5), (), np.int64, 0),
        (INDEX, (), np.int64, -2),
    ],
)
def test_how_elements_are_stored_in_arrays(space: Any, shape: Any, dtype: Any, blank: int) -> None:
    assert array_form(space) == (shape, np.dtype(dtype), blank)


def test_arrays_hold_no_other_spaces() -> None:
    with pytest.raises(TypeError, match=r"^space: expected Box or Discrete, got MultiBinary\(3\)"):
        array_form(MultiBinary(3))


def test_masks_are_for_choices() -> None:
    assert mask_size(Discrete(4, start=3)) == 4
    assert mask_size(VECTOR) == 0


PAIR = Box(np.array([-1, 0], np.float32), np.array([1, 5], np.float32))


@pytest.mark.parametrize(
    ("space", "action", "expected"),
    [
        (INDEX, 1, 1),
        (INDEX, -2, -2),
        (INDEX, np.array(0), 0),
        (INDEX, np.array([1]), 1),
        (INDEX, [1], 1),
        (INDEX, np.int8(1), 1),
        (INDEX, np.array([1.0]), 1),
        (PAIR, [0.5, 5], [0.5, 5]),
        (PAIR, np.array([-1.0, 0.0]), [-1, 0]),
    ],
    ids=repr,
)
def test_good_actions_from_outside(space: Any, action: Any, expected: Any) -> None:
    checked = check_action(space, action)
    assert checked.dtype == space.dtype
    assert checked.shape == space.shape
    assert checked.tolist() == expected


@pytest.mark.parametrize(
    ("space", "action", "message"),
    [
        (INDEX, 2, r"^expected an action in Discrete\(4, start=-2\), got 2"),
        (INDEX, -3, r"^expected an action in Discrete\(4, start=-2\), got -3"),
        (INDEX, [0, 1], r"^expected one value of Discrete\(4, start=-2\), got \[0, 1\]"),
        (INDEX, [[0]], r"^expected one value of"),
        (INDEX, [], r"^expected one value of"),
        (INDEX, 0.5, r"^expected whole numbers of Discrete\(4, start=-2\), got 0\.5"),
        (INDEX, np.array([np.nan]), r"^expected whole numbers of"),
        (PAIR, 1.0, r"^expected shape \[2\] of Box.*, got 1\.0"),
        (PAIR, [1.0], r"^expected shape \[2\] of Box"),
        (PAIR, [[1.0, 2.0]], r"^expected shape \[2\] of Box"),
        (PAIR, [2.0, 0.0], r"^expected an action in Box.*, got \[2\.0, 0\.0\]"),
        (PAIR, [0.0, np.nan], r"^expected an action in Box"),
    ],
    ids=repr,
)
def test_bad_actions_from_outside(space: Any, action: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_action(space, action)
