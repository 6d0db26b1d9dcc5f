"""Tests of `recurrent_rl.spaces.layout`: observations of any space as one array, and checked."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
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
from hypothesis import strategies as st
from support.spaces_of import (
    NESTED,
    nested_samples,
    observation_spaces,
    parts_of,
    row_of,
    samples,
)

from recurrent_rl.spaces.codec import ObservationCodec
from recurrent_rl.spaces.layout import ObservationLayout

VECTOR = Box(-1.0, np.array([1.0, 2.0, np.inf]), dtype=np.float32)
INDEX = Discrete(4, start=-2)
IMAGE = Box(0, 255, (2, 3, 1), np.uint8)
LEADS = st.sampled_from([(), (1,), (3,), (2, 3), (0,)])


def assert_equal(space: gym.Space[Any], ours: Any, theirs: Any) -> None:
    """The same structure, values and dtypes."""
    pairs = zip(parts_of(space, ours), parts_of(space, theirs), strict=True)
    for (_, a), (_, b) in pairs:
        np.testing.assert_array_equal(a, b)
        assert np.asarray(a).dtype == np.asarray(b).dtype


# --- one array ---------------------------------------------------------------------------------


@given(observation_spaces(), LEADS)
def test_unpacking_gives_what_was_packed(space: gym.Space[Any], lead: tuple[int, ...]) -> None:
    layout, observation = ObservationLayout(space), samples(space, lead)
    stored = layout.pack(observation, lead)
    assert stored.shape == (*lead, *layout.shape)
    assert stored.dtype == layout.array_dtype
    assert_equal(space, layout.unpack(stored), observation)
    # As a rollout's store keeps it: whatever its dtype, nothing that float32 can tell gets lost.
    kept = torch.as_tensor(stored, dtype=layout.dtype).numpy()
    pairs = zip(parts_of(space, layout.unpack(kept)), parts_of(space, observation), strict=True)
    for (_, a), (_, b) in pairs:
        np.testing.assert_array_equal(a, b)


@given(observation_spaces())
def test_rows_are_packed_one_by_one_as_together(space: gym.Space[Any]) -> None:
    layout, observation = ObservationLayout(space), samples(space, (3,))
    together = layout.pack(observation, (3,))
    for i in range(3):
        alone = layout.pack(row_of(observation, i))
        assert alone.shape == layout.shape
        np.testing.assert_array_equal(alone, together[i])


@pytest.mark.parametrize(
    ("space", "shape", "dtype", "array_dtype"),
    [
        (VECTOR, (3,), torch.float32, np.float32),
        (Box(-1, 1, (), np.float64), (), torch.float32, np.float64),
        (Box(-1, 1, (2, 3), np.int16), (2, 3), torch.float32, np.int16),
        (Box(0, 255, (3,), np.uint8), (3,), torch.uint8, np.uint8),
        (IMAGE, (2, 3, 1), torch.uint8, np.uint8),
        (Box(0, 1, (2, 3, 1)), (2, 3, 1), torch.float32, np.float32),
        (INDEX, (), torch.int64, np.int64),
        (MultiDiscrete([[2, 3]]), (1, 2), torch.int64, np.int64),
        (MultiBinary(3), (3,), torch.int8, np.int8),
        # Numbers alone are float32; bytes alone are bytes, whatever their number.
        (Tuple([VECTOR, INDEX, Box(0, 1, (2, 2, 1))]), (8,), torch.float32, np.float32),
        (Dict(a=IMAGE, b=MultiBinary(3)), (9,), torch.uint8, np.uint8),
        # Both: numbers in four bytes each, then the bytes, rounded up to whole numbers.
        (Dict(a=IMAGE, b=VECTOR), (4 * 3 + 8,), torch.uint8, np.uint8),
        (NESTED, (4 * (2 + 1 + 2 + 6) + 60,), torch.uint8, np.uint8),
    ],
)
def test_shape_and_dtype_of_the_store(
    space: gym.Space[Any], shape: Any, dtype: torch.dtype, array_dtype: Any
) -> None:
    layout, codec = ObservationLayout(space), ObservationCodec(space)
    assert (layout.shape, layout.dtype, layout.array_dtype) == (shape, dtype, array_dtype)
    assert (codec.shape, codec.dtype) == (shape, dtype)


def test_equal_spaces_have_one_layout_whatever_the_order_of_their_keys() -> None:
    # Gymnasium sorts the keys of a dictionary, but not those of keywords.
    spaces = [
        Dict(b=VECTOR, a=Box(-1, 1, (1,)), c=INDEX),
        Dict({"b": VECTOR, "a": Box(-1, 1, (1,)), "c": INDEX}),
    ]
    assert [list(space.spaces) for space in spaces] == [["b", "a", "c"], ["a", "b", "c"]]
    observation = samples(spaces[0], (2,))
    records = [ObservationLayout(space).pack(observation, (2,)) for space in spaces]
    np.testing.assert_array_equal(*records)


@given(observation_spaces())
def test_what_stands_where_there_is_no_observation_is_one(space: gym.Space[Any]) -> None:
    layout, codec = ObservationLayout(space), ObservationCodec(space)
    assert layout.blank.shape == layout.shape
    layout.check_stored(layout.blank[None], 1)
    stored = torch.as_tensor(layout.blank[None], dtype=codec.dtype)
    assert codec.invalid(stored).tolist() == [False]
    for part, value in parts_of(space, layout.unpack(layout.blank)):
        if isinstance(part, Discrete | MultiDiscrete):
            assert np.array_equal(value, part.start)
        else:
            assert not np.any(value)


# --- checks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "observation"),
    [
        (VECTOR, np.zeros((2, 3))),
        (VECTOR, [[0, 1, 2], [3, 4, 5]]),
        (VECTOR, np.zeros((2, 3), dtype=bool)),
        (INDEX, np.array([-2, 1])),
        (INDEX, [0, 0]),
        (MultiBinary(2), [[0, 1], [1, 1]]),
        (MultiDiscrete([2, 3], start=[1, 0]), np.array([[1, 2], [2, 0]])),
        (IMAGE, np.zeros((2, 2, 3, 1), np.uint8)),
    ],
)
def test_good_observations_pass(space: gym.Space[Any], observation: Any) -> None:
    checked = ObservationLayout(space).check(observation, 2)
    np.testing.assert_array_equal(checked, observation)


@given(observation_spaces())
def test_good_observations_of_any_space_pass(space: gym.Space[Any]) -> None:
    layout, observation = ObservationLayout(space), samples(space, (3,))
    np.testing.assert_array_equal(
        layout.check(observation, 3), layout.pack(observation, (3,)), strict=True
    )
    batch, rows, single = layout.batched(observation)
    assert (rows, single) == (3, False)
    assert batch is observation
    alone = samples(space, (), seed=1)
    batch, rows, single = layout.batched(alone)
    assert (rows, single) == (1, True)
    np.testing.assert_array_equal(layout.check(batch, 1)[0], layout.pack(alone))


@pytest.mark.parametrize("observation", [np.zeros(3), np.zeros((3, 2)), np.zeros((2, 3, 1))])
def test_a_wrong_shape_is_named_with_the_one_expected(observation: Any) -> None:
    with pytest.raises(ValueError, match=r"observation: expected shape \[N, ...\] = \[2, 3\], got"):
        ObservationLayout(VECTOR).check(observation, 2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_named_with_its_row(bad: float) -> None:
    observation = np.zeros((4, 3), dtype=np.float32)
    observation[2, 1] = bad
    with pytest.raises(ValueError, match=r"observation: expected finite numbers, .* in row 2"):
        ObservationLayout(VECTOR).check(observation, 4)


@pytest.mark.parametrize("observation", [np.array([["a"] * 3] * 2), np.full((2, 3), None)])
def test_what_is_no_number_is_a_type_error(observation: Any) -> None:
    with pytest.raises(TypeError, match="observation: expected numbers"):
        ObservationLayout(VECTOR).check(observation, 2)


@pytest.mark.parametrize("observation", [[-3, 0], [0, 2], [0.0, 1.0]])
def test_an_index_outside_its_space_is_an_error(observation: list[float]) -> None:
    with pytest.raises(ValueError, match=r"observation: expected integers in \[-2, 1\], got"):
        ObservationLayout(INDEX).check(observation, 2)


SIDE = nested_samples()["view"][1]


@pytest.mark.parametrize(
    ("observation", "error", "message"),
    [
        (
            nested_samples(image=None),
            TypeError,
            r"^observation: .*observation\['image'\] and .*\['bits'",
        ),
        (
            nested_samples(view=SIDE),
            TypeError,
            r"^observation: expected .*observation\['view'\]\[0\]",
        ),
        (np.zeros((2, 3)), TypeError, r"^observation: expected .*observation\['image'\].* ndarray"),
        (None, TypeError, r"^observation: expected .*observation\['image'\].*, got NoneType"),
        (
            nested_samples(image=np.zeros((2, 4, 4, 3), np.uint8)),
            ValueError,
            r"^observation\['image'\]: expected shape \[2, 3, 4, 4\], got \[2, 4, 4, 3\]",
        ),
        (
            nested_samples(place=np.zeros(2)),
            ValueError,
            r"^observation\['place'\]: expected shape \[2, 2\], got \[2\]",
        ),
        (
            nested_samples(place=[[0, 1], [2, np.nan]]),
            ValueError,
            r"^observation\['place'\]: expected finite numbers, got \[ ?2\. +nan\] in row 1",
        ),
        (
            nested_samples(view=(samples(IMAGE, (2,)), {**SIDE, "far": np.array([0, 3])})),
            ValueError,
            r"^observation\['view'\]\[1\]\['far'\]: expected integers in \[0, 2\], got \[0.*, 3",
        ),
        (
            nested_samples(view=(samples(IMAGE, (2,)), {**SIDE, "far": np.array([0, 0.5])})),
            ValueError,
            r"^observation\['view'\]\[1\]\['far'\]: expected integers in \[0, 2\], got",
        ),
        (
            nested_samples(choices=[[[5, -1]], [[5, -2]]]),
            ValueError,
            r"^observation\['choices'\]: expected integers in \[\[\[5, -1\]\], \[\[6, 1\]\]\], got",
        ),
    ],
)
def test_a_part_that_is_wrong_is_named(observation: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        ObservationLayout(NESTED).check(observation, 2)


@pytest.mark.parametrize("space", [Text(3), Graph(VECTOR, INDEX), Sequence(VECTOR)])
@pytest.mark.parametrize(
    ("around", "path"),
    [
        (lambda space: space, ""),
        (lambda space: Dict(a=VECTOR, b=space), r"\['b'\]"),
        (lambda space: Dict(a=Tuple([VECTOR, Dict(deep=space)])), r"\['a'\]\[1\]\['deep'\]"),
    ],
)
def test_other_spaces_are_named_with_their_path(space: Any, around: Any, path: str) -> None:
    expected = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these"
    message = rf"^observation_space{path}: expected {expected}, got {type(space).__name__}\("
    for build in (ObservationLayout, ObservationCodec):
        with pytest.raises(TypeError, match=message + ".*FilterObservation"):
            build(around(space))


@pytest.mark.parametrize("space", [Dict(), Tuple([]), Dict(a=Tuple([]))])
def test_spaces_without_any_part_are_refused(space: gym.Space[Any]) -> None:
    with pytest.raises(TypeError, match=r"^observation_space: expected at least one part, got "):
        ObservationLayout(space)


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (Discrete(3), 1.5),
        (MultiDiscrete([3, 3]), np.array([1, 0.5])),
        (MultiBinary(2), np.array([0, 7], np.int8)),
        (MultiBinary(2), np.array([0, -1], np.int8)),
        (Box(-5, 5, (2,), np.int64), np.array([1, 0.7])),
        (Box(-5, 5, (2,), np.int64), np.array([1, np.nan])),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_what_would_be_cut_to_a_whole_number_is_an_error(
    space: gym.Space[Any], value: Any, nested: bool
) -> None:
    if nested:
        space, value = Dict(part=space, x=Box(-1, 1, (1,))), {"part": value, "x": np.zeros(1)}
    with pytest.raises(ValueError, match=r"^observation(\['part'\])?: expected (whole|integers)"):
        ObservationCodec(space).layout.pack(value)


def test_errors_stay_short_beside_large_images() -> None:
    space = Dict(image=Box(0, 255, (84, 84, 4), np.uint8), x=Box(-1, 1, (500,)))
    layout = ObservationCodec(space).layout
    stored = layout.pack({"image": np.zeros((84, 84, 4), np.uint8), "x": np.full(500, np.nan)})
    fault = layout.fault(stored)
    assert fault is not None
    assert fault[:2] == ("['x']", "finite numbers")
    assert len(fault[2]) < 200


def test_lists_for_tuples_will_do() -> None:
    space = Tuple([Box(-1, 1, (2,)), Discrete(3)])
    layout = ObservationCodec(space).layout
    batch, rows, single = layout.batched([[0.5, 0.25], 2])
    assert (rows, single) == (1, True)
    assert layout.check(batch, rows).tolist() == [[0.5, 0.25, 2]]


def test_choices_that_float32_cannot_tell_apart_are_refused() -> None:
    """Within records, that is: alone they are kept as whole numbers."""
    far = Discrete(4, start=2**24)
    with pytest.raises(ValueError, match=r"^observation\['far'\]: expected choices between -2\^24"):
        ObservationLayout(Dict(far=far, x=Box(-1, 1, (1,))))
    codec = ObservationCodec(far)
    assert codec(torch.tensor([2**24 + 1])).vector.tolist() == [[0, 1, 0, 0]]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (np.int8, 200),  # -56 in an int8
        (np.int8, -129),
        (np.uint8, 256),
        (np.uint16, 70000),  # 4464
        (np.uint16, -1),
        (np.int16, 2**15),
        (np.int32, 2**31),
        (np.uint32, -1),
        (np.uint64, -1),
        (np.int64, 1e30),
        (np.bool_, 2),
    ],
)
@pytest.mark.parametrize("shape", [(2,), (2, 2, 1), (1, 2, 2, 1)])
@pytest.mark.parametrize("nested", [False, True])
def test_what_would_wrap_around_in_a_spaces_dtype_is_an_error(
    dtype: Any, value: Any, shape: Any, nested: bool
) -> None:
    least, most = (0, 1) if dtype is np.bool_ else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    space: gym.Space[Any] = Box(least, most, shape, dtype)
    observation: Any = np.full((1, *shape), value)
    if nested:
        space, observation = Dict(part=space, x=Box(-1, 1, (1,))), {"part": observation, "x": [[0]]}
    message = r"^observation(\['part'\])?: expected whole numbers in \[.*got"
    for check in (ObservationLayout(space).pack, ObservationLayout(space).check):
        with pytest.raises(ValueError, match=message):
            check(observation, *([(1,)] if check.__name__ == "pack" else [1]))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32])
@pytest.mark.parametrize("nested", [False, True])
def test_what_lies_beyond_the_bounds_that_scale_it_is_an_error(dtype: Any, nested: bool) -> None:
    """A space that says 0 to 1 of an image that has 0 to 100 would saturate all units."""
    space: gym.Space[Any] = Box(0, 1, (2, 2, 1), dtype)
    observation: Any = np.array([[[[0], [1]]] * 2, [[[1], [100]]] * 2], dtype)
    if nested:
        space, observation = Tuple([space, Discrete(2)]), (observation, [0, 1])
    codec = ObservationCodec(space)
    stored = codec.layout.pack(observation, (2,))
    with pytest.raises(ValueError, match=r"expected numbers in \[0, 1\] .*got 100 in row 1; what"):
        codec.layout.check_stored(stored, 2)
    assert codec.invalid(codec.layout.tensor(stored)).tolist() == [False, True]
    fault = codec.layout.fault(stored[1])
    assert fault is not None
    assert fault[1].startswith("numbers in [0, 1]")


@pytest.mark.parametrize(
    ("space", "part"), [(Box(-1, 1, (2,), np.float64), ""), (Box(-1, 1, (2,)), r"\['x'\]")]
)
def test_what_float32_does_not_hold_is_not_finite(space: Any, part: str) -> None:
    value: Any = np.array([[0, 1], [0, 1e39]])
    if part:
        space, value = Dict(x=space, n=Discrete(2)), {"x": value, "n": [0, 0]}
    codec = ObservationCodec(space)
    with pytest.raises(
        ValueError, match=rf"^observation{part}: expected finite numbers.* in row 1"
    ):
        codec.layout.check(value, 2)
    stored = codec.layout.tensor(codec.layout.pack(value, (2,)))
    assert codec.invalid(stored).tolist() == [False, True]


def test_stores_take_whatever_numpy_holds() -> None:
    layout = ObservationLayout(Box(-9, 9, (2, 2)))
    numbers = np.arange(8.0).reshape(2, 2, 2)
    read_only = np.broadcast_to(numbers[0], (2, 2, 2))
    for array in (
        numbers[:, ::-1],
        numbers.astype(">f4"),
        numbers.astype(np.longdouble),
        read_only,
    ):
        tensor = layout.tensor(array)
        assert tensor.dtype == torch.float32
        np.testing.assert_array_equal(tensor, array)
