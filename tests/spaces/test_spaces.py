"""Tests of `recurrent_rl.spaces`: masks and actions; spaces compared, saved and rebuilt."""

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
from recurrent_rl.spaces import action_features, action_form, check_action, mask_size
from recurrent_rl.spaces.masks import allows_something, choices, flat_mask, part_mask, without_mask
from recurrent_rl.spaces.serialization import same_space, space_from_dict, space_to_dict

VECTOR = Box(-1.0, np.array([1.0, 2.0, np.inf]), dtype=np.float32)
INDEX = Discrete(4, start=-2)
SEVERAL = MultiDiscrete([[2, 3], [1, 4]], start=[[0, -1], [5, 2]])
BITS = MultiBinary([2, 3])
OTHERS = [Text(3), Graph(VECTOR, INDEX), Sequence(VECTOR)]

# --- spaces as such -----------------------------------------------------------------------------


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


# --- masks --------------------------------------------------------------------------------------


def test_masks_are_for_choices() -> None:
    assert (choices(INDEX), mask_size(Discrete(4, start=3))) == ((4,), 4)
    assert (choices(SEVERAL), mask_size(SEVERAL)) == ((2, 3, 1, 4), 10)
    for space in (VECTOR, BITS):
        assert (choices(space), mask_size(space)) == ((), 0)


def test_masks_of_components_are_joined() -> None:
    parts = (np.array([[1, 0], [0, 1]], np.int8), np.array([[1, 1, 0], [0, 0, 1]], np.int8))
    joined = flat_mask(parts)
    assert joined.dtype == bool
    assert joined.astype(int).tolist() == [[1, 0, 1, 1, 0], [0, 1, 0, 0, 1]]
    assert flat_mask(joined) is not None
    assert np.array_equal(flat_mask(joined.astype(np.float32)), joined)
    assert flat_mask(([True], [False, True])).tolist() == [True, False, True]


def test_every_component_needs_something_allowed() -> None:
    mask = np.array(
        [
            [1, 0, 0, 1, 0, 1],
            [1, 1, 1, 1, 1, 0],  # nothing in the last
            [0, 0, 1, 1, 1, 1],  # in the first
            [1, 1, 0, 0, 0, 1],  # in the second
        ],
        dtype=bool,
    )
    assert allows_something(mask, (2, 3, 1)).tolist() == [True, False, False, False]
    assert allows_something(mask[None], (6,)).tolist() == [[True] * 4]
    assert not allows_something(np.zeros(3, bool), (3,))


MASK = Box(0, 1, (4,), np.int8)


@pytest.mark.parametrize(
    ("space", "rest"),
    [
        (Dict(observation=VECTOR, action_mask=MASK), VECTOR),
        (Dict(position=VECTOR, action_mask=MASK), Dict(position=VECTOR)),
        (
            Dict(observation=VECTOR, action_mask=MASK, more=VECTOR),
            Dict(observation=VECTOR, more=VECTOR),
        ),
        (Dict(observation=Dict(a=VECTOR), action_mask=MultiBinary(4)), Dict(a=VECTOR)),
    ],
)
def test_the_mask_is_split_off_an_observation_that_has_one(space: Any, rest: Any) -> None:
    for action in (INDEX, SEVERAL):
        assert without_mask(space, action) == (rest, True)
    for action in (VECTOR, BITS):  # there it is an observation like any other
        assert without_mask(space, action) == (space, False)


@pytest.mark.parametrize(
    "space", [VECTOR, INDEX, Dict(observation=VECTOR), Dict(action_mask=MASK), Tuple([MASK])]
)
def test_observations_without_a_mask_are_left_as_they_are(space: Any) -> None:
    assert without_mask(space, INDEX) == (space, False)


def test_observations_are_split_like_their_spaces() -> None:
    x, mask = np.ones(3), np.ones(4, np.int8)
    assert part_mask({"observation": x, "action_mask": mask}) == (x, mask)
    others = {"observation": x, "more": x, "action_mask": mask}
    rest, own = part_mask(others)
    assert rest["observation"] is rest["more"] is x
    assert own is mask
    for value in (x, {"observation": x}, {"a": x}, (x, mask), 3):
        assert part_mask(value) == (value, None)


# --- actions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "shape", "dtype", "blank"),
    [
        (VECTOR, (3,), np.float32, 0),
        (Box(1, 2, (2, 3), np.float64), (2, 3), np.float64, 0),
        (Box(0, 9, (), np.int8), (), np.int8, 0),
        (Discrete(5), (), np.int64, 0),
        (INDEX, (), np.int64, -2),
        (SEVERAL, (2, 2), np.int64, [[0, -1], [5, 2]]),
        (BITS, (2, 3), np.int8, 0),
    ],
)
def test_how_actions_are_stored_in_arrays(space: Any, shape: Any, dtype: Any, blank: Any) -> None:
    ours = action_form(space)
    assert ours[:2] == (shape, np.dtype(dtype))
    assert np.array_equal(ours[2], blank)


@pytest.mark.parametrize(
    ("space", "width"), [(VECTOR, 3), (INDEX, 4), (SEVERAL, 10), (BITS, 6), (Box(0, 1, ()), 1)]
)
def test_width_of_actions_as_inputs(space: Any, width: int) -> None:
    assert action_features(space) == width


@pytest.mark.parametrize("space", [*OTHERS, Dict(a=INDEX), Tuple([INDEX])])
def test_other_actions_are_refused(space: gym.Space[Any]) -> None:
    message = r"^action_space: expected Discrete, MultiDiscrete, MultiBinary and Box, got "
    with pytest.raises(TypeError, match=message + type(space).__name__):
        action_form(space)


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
        (SEVERAL, [[1, 1], [5, 5]], [[1, 1], [5, 5]]),
        (BITS, np.eye(2, 3), [[1, 0, 0], [0, 1, 0]]),
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
        (SEVERAL, [[2, 1], [5, 5]], r"(?s)^expected an action in MultiDisc.*, got \[\[2, 1\], \["),
        (SEVERAL, [0, 0, 5, 5], r"^expected shape \[2, 2\] of MultiDiscrete"),
        (BITS, [[0, 1, 2]] * 2, r"^expected an action in MultiBinary"),
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
