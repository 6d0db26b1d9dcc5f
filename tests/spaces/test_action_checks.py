"""Tests of `recurrent_rl.spaces.actions`: the environment's form, and actions from outside."""

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

from recurrent_rl.spaces.actions import action_codec

VECTOR = Box(-1.0, np.array([1.0, 2.0, np.inf]), dtype=np.float32)
INDEX = Discrete(4, start=-2)
SEVERAL = MultiDiscrete([[2, 3], [1, 4]], start=[[0, -1], [5, 2]])
BITS = MultiBinary([2, 3])
OTHERS = [Text(3), Graph(VECTOR, INDEX), Sequence(VECTOR)]


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
    codec = action_codec(space)
    assert (codec.env_shape, codec.env_dtype) == (shape, np.dtype(dtype))
    assert np.array_equal(codec.blank, blank)


@pytest.mark.parametrize(
    ("space", "width"), [(VECTOR, 3), (INDEX, 4), (SEVERAL, 10), (BITS, 6), (Box(0, 1, ()), 1)]
)
def test_width_of_actions_as_inputs(space: Any, width: int) -> None:
    assert action_codec(space).features == width


@pytest.mark.parametrize("space", [*OTHERS, Dict(a=INDEX), Tuple([INDEX])])
def test_other_actions_are_refused(space: gym.Space[Any]) -> None:
    message = r"^action_space: expected Discrete, MultiDiscrete, MultiBinary and Box, got "
    with pytest.raises(TypeError, match=message + type(space).__name__):
        action_codec(space)


WHOLE = Box(0, 5, (2,), np.int8)
UNBOUNDED = Box(-np.inf, np.inf, (1,))
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
        (WHOLE, np.array([5, 0]), [5, 0]),
        (WHOLE, np.array([5.0, 0.0]), [5, 0]),
        (Discrete(3, dtype=np.int8), np.int64(2), 2),
        (Discrete(1), 0, 0),
        (MultiDiscrete([1, 2]), [0, 1], [0, 1]),
        (UNBOUNDED, [1e30], [np.float32(1e30)]),
        (Box(-5, 5, (), np.int32), 3, 3),
    ],
    ids=repr,
)
def test_good_actions_from_outside(space: Any, action: Any, expected: Any) -> None:
    checked = action_codec(space).check(action)
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
        (PAIR, ["0", "1"], r"^expected numbers of Box"),
        (Discrete(3, dtype=np.int8), 256, r"^expected an action in Discrete"),
        (Discrete(3), 2**64, r"^expected (an action in|numbers of) Discrete"),
        (Discrete(3), None, r"^expected numbers of Discrete"),
        (WHOLE, [256, 0], r"^expected an action in Box"),
        (WHOLE, [0.5, 0], r"^expected whole numbers of Box"),
        (WHOLE, [np.inf, 0], r"^expected an action in Box"),
        (UNBOUNDED, [np.inf], r"^expected an action in Box"),
        (Box(-1e300, 1e300, (1,), np.float64), [1e299], r"^expected an action in Box"),
    ],
    ids=repr,
)
def test_bad_actions_from_outside(space: Any, action: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        action_codec(space).check(action)
