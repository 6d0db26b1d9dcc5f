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
    """The vector of one observation, and its images before scaling, part by part.

    Numbers come first, then bytes, bits and one-hot vectors; parts of a kind in the order of their
    keys. Images as [C, height, width], of numbers first.
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
        elif len(part.shape) == 3:
            h, w, c = part.shape
            square = (h == w) != (w == c)
            last = h == w if square else c <= h
            images[part.dtype == np.uint8].append(np.moveaxis(value, -1, 0) if last else value)
        elif len(part.shape) == 2 and part.dtype == np.uint8:  # a grey image
            images[True].append(np.asarray(value)[None])
        else:
            kinds["bytes" if part.dtype == np.uint8 else "numbers"] += flat.tolist()
    vector = [x for kind in kinds.values() for x in kind]
    return vector, images[False] + [image / 255 for image in images[True]]


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
    numbers, bytes_, bits, one_hot = [0.5, -2, 3.5], [200], [0, 1], [0, 1, 0, 1, 0, 1, 0]
    assert codec(stored).vector.tolist() == numbers + bytes_ + bits + one_hot
    assert codec.continuous == len(numbers + bytes_)


def test_one_hot_vectors_are_counted_from_the_first_choice() -> None:
    codec = ObservationCodec(INDEX)
    encoded = codec(torch.tensor([[-2, 1], [0, -1]])).vector
    assert encoded.shape == (2, 2, 4)
    assert encoded.argmax(-1).tolist() == [[0, 3], [2, 1]]
    assert (encoded.sum(-1) == 1).all()


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (4, 1, 2, 1)])
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
    codec = ObservationCodec(Box(0, 200, shape, dtype), channels_last=last)
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
    # Vectors of bytes are left alone: they may be anything.
    ram = ObservationCodec(Box(0, 255, (2,), np.uint8))
    assert ram(torch.tensor([3, 255], dtype=torch.uint8)).vector.tolist() == [3, 255]


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
