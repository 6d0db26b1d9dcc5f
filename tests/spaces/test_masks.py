"""Tests of `recurrent_rl.spaces.masks`: masks joined, checked, and split off observations."""

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from recurrent_rl.spaces.actions import action_codec
from recurrent_rl.spaces.masks import (
    allows_something,
    check_mask,
    choices,
    flat_mask,
    part_mask,
    without_mask,
)

VECTOR = Box(-1.0, np.array([1.0, 2.0, np.inf]), dtype=np.float32)
INDEX = Discrete(4, start=-2)
SEVERAL = MultiDiscrete([[2, 3], [1, 4]], start=[[0, -1], [5, 2]])
BITS = MultiBinary([2, 3])


def test_masks_are_for_choices() -> None:
    assert (choices(INDEX), action_codec(Discrete(4, start=3)).mask_size) == ((4,), 4)
    assert (choices(SEVERAL), action_codec(SEVERAL).mask_size) == ((2, 3, 1, 4), 10)
    for space in (VECTOR, BITS):
        assert (choices(space), action_codec(space).mask_size) == ((), 0)


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


def test_good_masks_become_bools() -> None:
    parts = (np.array([[1, 0], [0, 1]]), np.array([[1, 1, 0], [0, 0, 1]]))
    checked = check_mask(parts, MultiDiscrete([2, 3]), 2)
    assert checked.dtype == bool
    assert np.array_equal(checked, flat_mask(parts))
    assert check_mask([[0, 1, 0, 0]], INDEX, 1).tolist() == [[False, True, False, False]]


@pytest.mark.parametrize(
    ("mask", "space", "message"),
    [
        (
            np.ones((2, 3)),
            INDEX,
            r"expected shape \[N, n\] = \[2, 4\] for Disc.*, got shape \[2, 3\]",
        ),
        (np.ones(4), INDEX, r"expected shape \[N, n\] = \[2, 4\] for Discrete.*, got shape \[4\]"),
        (np.ones((2, 3)), VECTOR, r"expected none for Box.*, got shape \[2, 3\]"),
        ([[1, 0, 0, 0], [0, 0, 0, 0]], INDEX, r"expected at least one allowed .* none from row 1"),
        ([[1, 0, 0], [1]], INDEX, "expected an array, or a tuple with an array for each component"),
    ],
)
def test_bad_masks_are_named(mask: Any, space: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)^action_mask: " + message):
        check_mask(mask, space, 2)


def test_only_those_that_are_asked_need_something_allowed() -> None:
    mask, asked = np.eye(3, 4, k=-1), np.array([False, True, True])
    assert np.array_equal(check_mask(mask, INDEX, 3, asked=asked), mask.astype(bool))
    with pytest.raises(ValueError, match=r"got none from agent 0$"):
        check_mask(mask, INDEX, 3, asked=~asked, name="agent {}".format)
