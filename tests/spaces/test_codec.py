"""Tests of `recurrent_rl.spaces.codec`: stored observations as a network's features."""

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
    MultiBinary,
    MultiDiscrete,
    Tuple,
)
from hypothesis import given
from hypothesis import strategies as st
from support.spaces_of import observation_spaces, parts_of, row_of, samples

from recurrent_rl import PPO
from recurrent_rl.spaces.codec import ObservationCodec

INDEX = Discrete(4, start=-2)
IMAGE = Box(0, 255, (2, 3, 1), np.uint8)
LEADS = st.sampled_from([(), (1,), (3,), (2, 3), (0,)])


def as_stored(codec: ObservationCodec, observation: Any, lead: tuple[int, ...]) -> torch.Tensor:
    """Observations as a rollout keeps them."""
    store = torch.zeros((*lead, *codec.shape), dtype=codec.dtype)
    return store.copy_(torch.from_numpy(codec.layout.pack(observation, lead)))


# --- features ----------------------------------------------------------------------------------


def features_by_hand(space: gym.Space[Any], observation: Any) -> tuple[list[float], list[Any]]:
    """The vector of one observation, and its images, part by part.

    Numbers come first, then bytes, bits and one-hot vectors; parts of a kind in the order of their
    keys. Images as [C, height, width], of numbers first; those of whole numbers scaled by bounds,
    which are (-3, 7) or (0, 255) here.
    """
    kinds: dict[str, list[Any]] = {kind: [] for kind in ("numbers", "bytes", "bits", "one-hot")}
    images: dict[bool, list[Any]] = {False: [], True: []}
    for part, value in _in_order(space, observation):
        flat = np.asarray(value).flatten()
        if isinstance(part, MultiBinary):
            kinds["bits"] += flat.tolist()
        elif isinstance(part, Discrete | MultiDiscrete):
            starts = np.ravel(part.start)
            counts = [part.n] if isinstance(part, Discrete) else np.ravel(part.nvec)
            for x, start, count in zip(flat, starts, counts, strict=True):
                kinds["one-hot"] += [float(x == start + choice) for choice in range(count)]
        elif len(part.shape) in (3, 4):
            h, w, c = part.shape[-3:]
            square = (h == w) != (w == c)
            last = h == w if square else c <= h
            image = np.moveaxis(value, -1, -3) if last else value
            scaled = image * {"u": 1 / 255, "i": 1 / 7, "f": 1}[part.dtype.kind]
            images[part.dtype == np.uint8].append(scaled.reshape(-1, *scaled.shape[-2:]))
        elif len(part.shape) == 2 and part.dtype == np.uint8:  # a grey image
            images[True].append(np.asarray(value)[None] / 255)
        elif part.dtype == np.uint8:
            kinds["bytes"] += (np.float32(1 / 255) * flat.astype(np.float32)).tolist()
        else:
            kinds["numbers"] += flat.tolist()
    vector = [x for kind in kinds.values() for x in kind]
    return vector, images[False] + images[True]


def _in_order(space: gym.Space[Any], value: Any) -> list[Any]:
    if isinstance(space, Dict):
        return [x for key in sorted(space.spaces) for x in _in_order(space[key], value[key])]
    if isinstance(space, Tuple):
        return [x for i, part in enumerate(space.spaces) for x in _in_order(part, value[i])]
    return [(space, value)]


@given(observation_spaces(), LEADS)
def test_features_are_those_of_each_part(space: gym.Space[Any], lead: tuple[int, ...]) -> None:
    codec, observation = ObservationCodec(space), samples(space, lead)
    stored = as_stored(codec, observation, lead)
    vector, images = codec(stored)
    assert vector.shape == (*lead, codec.features)
    assert [image.shape[len(lead) :] for image in images] == [
        torch.Size(shape) for shape in codec.image_shapes
    ]
    for x in (vector, *images):
        assert x.dtype == torch.float32
        assert x.shape[: len(lead)] == lead
    for place in np.ndindex(lead):
        one = observation
        for i in place:
            one = row_of(one, i)
        expected, pictures = features_by_hand(space, one)
        assert vector[place].tolist() == expected
        assert len(pictures) == len(images)
        for ours, theirs in zip(images, pictures, strict=True):
            np.testing.assert_allclose(ours[place], theirs, rtol=1e-6)


def test_order_of_features() -> None:
    space = Dict(
        {
            "e": Discrete(2),
            "d": Box(-9, 9, (2,)),
            "c": MultiBinary(2),
            "b": Box(0, 255, (1,), np.uint8),
            "a": MultiDiscrete([2, 3], start=[0, 7]),
            "f": Box(-9, 9, ()),
        }
    )
    codec = ObservationCodec(space)
    observation = {"a": [1, 8], "b": [200], "c": [0, 1], "d": [0.5, -2], "e": 0, "f": 3.5}
    stored = torch.from_numpy(codec.layout.pack(observation))
    numbers, bytes_, bits, one_hot = [0.5, -2, 3.5], [200 / 255], [0, 1], [0, 1, 0, 1, 0, 1, 0]
    expected = torch.tensor(numbers + bytes_ + bits + one_hot)
    torch.testing.assert_close(codec(stored).vector, expected)
    assert codec.continuous == len(numbers + bytes_)


def test_one_hot_vectors_are_counted_from_the_first_choice() -> None:
    codec = ObservationCodec(INDEX)
    encoded = codec(torch.tensor([[-2, 1], [0, -1]])).vector
    assert encoded.shape == (2, 2, 4)
    assert encoded.argmax(-1).tolist() == [[0, 3], [2, 1]]
    assert (encoded.sum(-1) == 1).all()


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 1, 1, 2, 2)])
@pytest.mark.parametrize("lead", [(), (5,), (5, 2)])
def test_boxes_of_any_shape_become_vectors(shape: Any, lead: Any) -> None:
    codec, size = ObservationCodec(Box(-1, 1, shape)), math.prod(shape)
    assert (codec.shape, codec.features, codec.continuous) == (shape, size, size)
    x = torch.randn((*lead, *shape))
    encoded = codec(x).vector
    assert encoded.shape == (*lead, size)
    assert torch.equal(encoded.flatten(), x.flatten())


@pytest.mark.parametrize(
    ("shape", "last", "expected"),
    [
        ((8, 6, 3), None, (3, 8, 6)),
        ((3, 8, 6), None, (3, 8, 6)),
        ((4, 4, 4), None, (4, 4, 4)),
        ((4, 8, 4), None, (4, 4, 8)),  # the last, if they are equal
        ((8, 8, 12), None, (12, 8, 8)),  # two equal axes are height and width
        ((12, 8, 8), None, (12, 8, 8)),
        ((8, 6, 3), False, (8, 6, 3)),
        ((3, 8, 6), True, (6, 3, 8)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_which_axis_has_the_channels(
    shape: tuple[int, ...], last: bool | None, expected: tuple[int, ...], dtype: Any
) -> None:
    codec = ObservationCodec(Box(0, 255, shape, dtype), channels_last=last)
    assert codec.image_shapes == [expected]
    image = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    (seen,) = codec(torch.from_numpy(image)).images
    moved = expected != shape or (last is None and shape == (4, 4, 4))
    by_hand = np.moveaxis(image, -1, 0) if moved else image
    scale = 255 if dtype is np.uint8 else 1
    np.testing.assert_allclose(seen, by_hand / scale, rtol=1e-6)


def test_images_of_bytes_are_scaled_unless_told_otherwise() -> None:
    image = torch.tensor([[[0], [51], [255]], [[1], [2], [3]]], dtype=torch.uint8)
    (scaled,), (plain,) = (
        ObservationCodec(IMAGE, normalize_images=normalize)(image).images
        for normalize in (True, False)
    )
    assert plain.tolist() == [[[0, 51, 255], [1, 2, 3]]]
    torch.testing.assert_close(scaled, plain / 255)
    agent = PPO(IMAGE, Discrete(2), normalize_images=False)
    assert torch.equal(agent.policy.preprocessor(image).images[0], plain)
    # Whatever is made of whole numbers then stays as it is.
    for space in (Box(0, 255, (2,), np.uint8), Box(-9, 9, (2, 2, 1), np.int32)):
        stored = torch.full((1, *space.shape), 5)
        seen = ObservationCodec(space, normalize_images=False)(stored)
        assert (seen.images[0] if seen.images else seen.vector).unique().tolist() == [5]


# --- scaling by the bounds -----------------------------------------------------------------------


def seen_of(space: gym.Space[Any], value: Any) -> torch.Tensor:
    """What a network sees of an observation that is the same everywhere."""
    codec = ObservationCodec(space)
    stored = torch.as_tensor(np.full((1, *codec.shape), value), dtype=codec.dtype)
    vector, images = codec(stored)
    return (images[0] if images else vector)[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint64])
@pytest.mark.parametrize("high", [1, 9, 100])
@pytest.mark.parametrize(
    "shape", [(8, 8, 2), (2, 8, 8), (8, 8), (64,), (4, 8, 8, 3), (4, 3, 8, 8), (), (2, 1, 8, 8, 3)]
)
def test_bytes_and_images_of_whole_numbers_are_seen_at_full_contrast(
    shape: Any, high: int, dtype: Any
) -> None:
    space = Box(0, high, shape, dtype)
    is_image = len(shape) in (3, 4) or (len(shape) == 2 and dtype in (np.uint8, np.uint16))
    assert bool(ObservationCodec(space).image_shapes) == is_image
    # Vectors of wider numbers count anything, and bounds of theirs are guesses.
    scaled = is_image or np.dtype(dtype).itemsize == 1
    for value in (0, 1, high):
        expected = value / high if scaled else value
        assert seen_of(space, value).unique().tolist() == [pytest.approx(expected)]


@pytest.mark.parametrize(
    ("low", "high", "pairs"),
    [
        (0, 255, {0: 0, 51: 0.2, 255: 1}),
        (-1, 2, {-1: -0.5, 0: 0, 2: 1}),  # zero stays zero, as on a board
        (-128, 127, {-128: -1, 0: 0, 64: 0.5}),
        (-4, 0, {-4: -1, 0: 0}),
        (100, 104, {100: 0, 101: 0.25, 104: 1}),  # else all would be seen as about 1
        (-104, -100, {-104: -1, -100: 0}),
        (7, 7, {7: 0}),
        (0, 0, {0: 0}),
        (-7, -7, {-7: 0}),
    ],
)
@pytest.mark.parametrize("shape", [(2, 3, 1), (5,)])
def test_bytes_are_scaled_by_the_bounds_of_their_space(
    low: int, high: int, pairs: dict[int, float], shape: Any
) -> None:
    dtype = np.uint8 if low >= 0 else np.int8
    space = Box(low, high, shape, dtype)
    for value, expected in pairs.items():
        assert seen_of(space, value).unique().tolist() == [pytest.approx(expected)]


def test_each_number_is_scaled_by_its_own_bounds() -> None:
    low, high = (np.array(x).reshape(2, 1, 2) for x in ([0, 0, -4, 5], [1, 255, 4, 7]))
    space = Dict(
        board=Box(low, high, dtype=np.int16),
        ram=Box(np.array([0, 1], np.uint8), np.array([5, 3], np.uint8), dtype=np.uint8),
        free=Box(-1, 1, (1,)),
    )
    codec = ObservationCodec(space, channels_last=True)
    observation = {"board": high - np.array([[[1, 51]], [[2, 1]]]), "ram": [3, 2], "free": [0.5]}
    vector, (image,) = codec(torch.from_numpy(codec.layout.pack(observation)))
    torch.testing.assert_close(vector, torch.tensor([0.5, 0.6, 0.5]))
    torch.testing.assert_close(image, torch.tensor([[[0], [0.5]], [[0.8], [0.5]]]))
    nested = codec.nested(torch.from_numpy(codec.layout.pack(observation)))
    torch.testing.assert_close(nested["ram"], torch.tensor([0.6, 0.5]))
    torch.testing.assert_close(nested["board"], image)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint64])
def test_bounds_that_say_nothing_scale_nothing(dtype: Any) -> None:
    space = Box(0, np.iinfo(dtype).max, (4, 4, 1), dtype)
    assert seen_of(space, 3).unique().tolist() == [3]


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (-np.finfo(np.float32).max, np.finfo(np.float32).max),
        (-1e300, 1e300),
        (0.5, 0.5),
        (0.0, 0.0),
        (-np.inf, np.inf),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3,), (4, 4, 1)])
def test_bounds_of_any_size_leave_numbers_as_they_are(
    low: float, high: float, dtype: Any, shape: Any
) -> None:
    with np.errstate(over="ignore"):
        low, high = dtype(low), dtype(high)
    assert seen_of(Box(low, high, shape, dtype), 0.5).unique().tolist() == [0.5]


@pytest.mark.parametrize(
    ("shape", "last", "axes", "expected"),
    [
        ((4, 8, 6, 3), None, (1, 2), (12, 8, 6)),
        ((4, 3, 8, 6), None, (2, 3), (12, 8, 6)),
        ((4, 84, 84, 1), None, (1, 2), (4, 84, 84)),
        ((4, 1, 84, 84), None, (2, 3), (4, 84, 84)),
        ((4, 4, 84, 84), None, (2, 3), (16, 84, 84)),
        ((3, 84, 84, 84), None, (1, 2), (252, 84, 84)),
        ((84, 84, 3, 4), None, (0, 1), (12, 84, 84)),  # frames last
        ((4, 8, 6, 3), False, (2, 3), (32, 6, 3)),
        ((4, 3, 8, 6), True, (1, 2), (24, 3, 8)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16])
def test_frames_of_a_stack_become_channels(
    shape: Any, last: bool | None, axes: tuple[int, int], expected: Any, dtype: Any
) -> None:
    codec = ObservationCodec(Box(0, 250, shape, dtype), channels_last=last)
    assert codec.image_shapes == [expected]
    assert codec.features == 0
    stack = np.random.default_rng(0).integers(250, size=(2, *shape)).astype(dtype)
    (seen,) = codec(codec.layout.tensor(codec.layout.pack(stack, (2,)))).images
    rest = [1 + i for i in range(4) if i not in axes]
    by_hand = stack.transpose(0, *rest, *(1 + i for i in axes)).reshape(2, *expected)
    scale = 1 if dtype is np.float32 else 250
    np.testing.assert_allclose(seen, by_hand / scale, rtol=1e-6)
    (nested,) = torch.unbind(codec.nested(codec.layout.tensor(stack))[:1])
    assert torch.equal(nested, seen[0])


@given(observation_spaces(), LEADS)
def test_nested_tensors_are_the_features_in_the_spaces_structure(
    space: gym.Space[Any], lead: tuple[int, ...]
) -> None:
    codec, observation = ObservationCodec(space), samples(space, lead)
    stored = as_stored(codec, observation, lead)
    nested = codec.nested(stored)
    for (part, ours), (_, theirs) in zip(
        parts_of(space, nested), parts_of(space, observation), strict=True
    ):
        alone = ObservationCodec(part)
        seen = alone(torch.as_tensor(theirs, dtype=alone.dtype))
        assert ours.dtype == torch.float32
        if seen.images:
            assert torch.equal(ours, seen.images[0])
        elif isinstance(part, Discrete | MultiDiscrete):
            assert torch.equal(ours, seen.vector)
        else:
            assert ours.shape == (*lead, *part.shape)
            assert torch.equal(ours.reshape(seen.vector.shape), seen.vector)


def test_grey_images_are_images() -> None:
    """Bytes in rows and columns, as Gymnasium's GrayscaleObservation gives them."""
    codec = ObservationCodec(Box(0, 255, (6, 5), np.uint8))
    assert (codec.shape, codec.image_shapes, codec.features) == ((6, 5), [(1, 6, 5)], 0)
    stored = torch.arange(30, dtype=torch.uint8).view(1, 6, 5)
    (image,) = codec(stored).images
    torch.testing.assert_close(image, stored[:, None] / 255)
    # Numbers in rows and columns are a table.
    assert ObservationCodec(Box(0, 1, (6, 5))).image_shapes == []


# --- what no policy can read -------------------------------------------------------------------


@given(observation_spaces(), st.randoms(use_true_random=False))
def test_bad_numbers_and_indices_are_found_wherever_they_are(space: Any, random: Any) -> None:
    codec = ObservationCodec(space)
    observation = samples(space, (4, 2))
    good = torch.as_tensor(codec.layout.pack(observation, (4, 2)), dtype=codec.dtype)
    assert codec.invalid(good).tolist() == [[False] * 2] * 4
    parts = [
        (part, value)
        for part, value in parts_of(space, observation)
        if isinstance(part, Discrete | MultiDiscrete)
        or (isinstance(part, Box) and part.dtype.kind == "f")
    ]
    if not parts:
        return
    part, value = random.choice(parts)
    assert isinstance(value, np.ndarray)
    component = (2, 1, *(random.randrange(n) for n in part.shape or ()))
    if isinstance(part, Box):
        value[component] = random.choice([math.nan, math.inf, -math.inf])
    else:
        least = np.broadcast_to(part.start, value.shape)[component]
        count = np.broadcast_to(getattr(part, "n", None) or part.nvec, value.shape)[component]
        value[component] = random.choice([least - 1, least + count, least + 99])
    bad = torch.as_tensor(codec.layout.pack(observation, (4, 2)), dtype=codec.dtype)
    assert codec.invalid(bad).nonzero().tolist() == [[2, 1]]
    flat = bad.flatten(0, 1).numpy()
    with pytest.raises(ValueError, match=r"^observation.*: expected (finite numbers|integers in)"):
        codec.layout.check_stored(flat, 8)
