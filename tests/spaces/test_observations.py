"""Tests of `recurrent_rl.observations`: any space as one array, and as a network's features."""

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
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import given
from hypothesis import strategies as st
from support.agents import LEARNING, assert_same_weights, network, weights
from support.spaces_of import observation_spaces, parts_of, samples

from recurrent_rl import PPO, collect_rollouts_recurrent
from recurrent_rl.algorithms.unroll import replay
from recurrent_rl.spaces.codec import ObservationCodec
from recurrent_rl.spaces.layout import ObservationLayout

VECTOR = Box(-1.0, np.array([1.0, 2.0, np.inf]), dtype=np.float32)
INDEX = Discrete(4, start=-2)
IMAGE = Box(0, 255, (2, 3, 1), np.uint8)
LEADS = st.sampled_from([(), (1,), (3,), (2, 3), (0,)])
# All kinds of parts; keys are out of order, and some have no place in a Python identifier.
NESTED = Dict(
    {
        "view": Tuple([IMAGE, Dict({"to the left": Box(-9, 9, (1, 2, 3)), "far": Discrete(3)})]),
        "image": Box(0, 255, (3, 4, 4), np.uint8),
        "place": Box(-9, 9, (2,), np.float64),
        "bits": MultiBinary([2, 2]),
        "choices": MultiDiscrete([[2, 3]], start=[[5, -1]]),
        "ram": Box(0, 255, (2,), np.uint8),
    }
)


def assert_equal(space: gym.Space[Any], ours: Any, theirs: Any) -> None:
    """The same structure, values and dtypes."""
    pairs = zip(parts_of(space, ours), parts_of(space, theirs), strict=True)
    for (_, a), (_, b) in pairs:
        np.testing.assert_array_equal(a, b)
        assert np.asarray(a).dtype == np.asarray(b).dtype


# --- one array --------------------------------------------------------------------------------


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
        alone = layout.pack(_row(observation, i))
        assert alone.shape == layout.shape
        np.testing.assert_array_equal(alone, together[i])


def _row(observation: Any, i: int) -> Any:
    if isinstance(observation, dict):
        return {key: _row(part, i) for key, part in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_row(part, i) for part in observation)
    return observation[i]


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


def test_an_image_beside_numbers_costs_its_bytes() -> None:
    space = Dict(image=Box(0, 255, (64, 64, 3), np.uint8), place=VECTOR, heading=Discrete(4))
    layout = ObservationLayout(space)
    bytes_ = math.prod(layout.shape) * layout.dtype.itemsize
    assert bytes_ == 64 * 64 * 3 + 4 * (3 + 1)
    agent = PPO(space, Discrete(2), {"encoder_config": {"latent_dim": 4}})
    buffer = agent.prepare_buffer(8, 2, masked=False)
    assert buffer.obs.nbytes == 8 * 2 * bytes_


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


# --- features ---------------------------------------------------------------------------------


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
            one = _row(one, i)
        expected, pictures = features_by_hand(space, one)
        assert vector[place].tolist() == expected
        assert len(pictures) == len(images)
        for ours, theirs in zip(images, pictures, strict=True):
            np.testing.assert_allclose(ours[place], theirs, rtol=1e-6)


def as_stored(codec: ObservationCodec, observation: Any, lead: tuple[int, ...]) -> torch.Tensor:
    """Observations as a rollout keeps them."""
    store = torch.zeros((*lead, *codec.shape), dtype=codec.dtype)
    return store.copy_(torch.from_numpy(codec.layout.pack(observation, lead)))


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


# --- what no policy can read ------------------------------------------------------------------


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


def nested(**changes: Any) -> dict[str, Any]:
    """Two observations of ``NESTED``, some parts of which are changed, or None: left out."""
    observation = {**samples(NESTED, (2,)), **changes}
    return {key: part for key, part in observation.items() if part is not None}


SIDE = nested()["view"][1]


@pytest.mark.parametrize(
    ("observation", "error", "message"),
    [
        (nested(image=None), TypeError, r"^observation: .*observation\['image'\] and .*\['bits'"),
        (nested(view=SIDE), TypeError, r"^observation: expected .*observation\['view'\]\[0\]"),
        (np.zeros((2, 3)), TypeError, r"^observation: expected .*observation\['image'\].* ndarray"),
        (None, TypeError, r"^observation: expected .*observation\['image'\].*, got NoneType"),
        (
            nested(image=np.zeros((2, 4, 4, 3), np.uint8)),
            ValueError,
            r"^observation\['image'\]: expected shape \[2, 3, 4, 4\], got \[2, 4, 4, 3\]",
        ),
        (
            nested(place=np.zeros(2)),
            ValueError,
            r"^observation\['place'\]: expected shape \[2, 2\], got \[2\]",
        ),
        (
            nested(place=[[0, 1], [2, np.nan]]),
            ValueError,
            r"^observation\['place'\]: expected finite numbers, got \[ ?2\. +nan\] in row 1",
        ),
        (
            nested(view=(samples(IMAGE, (2,)), {**SIDE, "far": np.array([0, 3])})),
            ValueError,
            r"^observation\['view'\]\[1\]\['far'\]: expected integers in \[0, 2\], got \[0.*, 3",
        ),
        (
            nested(view=(samples(IMAGE, (2,)), {**SIDE, "far": np.array([0, 0.5])})),
            ValueError,
            r"^observation\['view'\]\[1\]\['far'\]: expected integers in \[0, 2\], got",
        ),
        (
            nested(choices=[[[5, -1]], [[5, -2]]]),
            ValueError,
            r"^observation\['choices'\]: expected integers in \[\[\[5, -1\]\], \[\[6, 1\]\]\], got",
        ),
    ],
)
def test_a_part_that_is_wrong_is_named(observation: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        ObservationLayout(NESTED).check(observation, 2)


@pytest.mark.parametrize("which", [0, 1])
def test_bad_parts_of_what_is_given_to_an_agent_are_named(which: int) -> None:
    agent = PPO(NESTED, Discrete(2), recurrent=False)
    rows: dict[str, Any] = {**nested(), "place": np.array([[0, 1], [2, np.inf]])}
    bad = [rows, _row(rows, 1)][which]
    with pytest.raises(ValueError, match=r"^observation\['place'\]: .* in row " + str(1 - which)):
        agent.get_action(bad)
    del bad["image"]
    with pytest.raises(TypeError, match=r"^observation: .*observation\['image'\]"):
        agent.get_action(bad)
    with pytest.raises(TypeError, match=r"^observation: .*observation\['image'\]"):
        agent.get_action(3)


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


# --- through collection and learning ----------------------------------------------------------


class Shows(gym.Env[Any, Any]):
    """Shows samples of any space, other ones at every step; ``bad`` replaces step k's, once."""

    def __init__(self, space: gym.Space[Any], index: int = 0, bad: Any = None) -> None:
        self.observation_space, self.action_space = space, Discrete(2, start=3)
        self.index, self.bad, self.clock, self.length = index, bad or {}, 0, 4 + index
        self.shown: list[Any] = []

    def _observation(self) -> Any:
        observation = samples(self.observation_space, (), seed=1000 * self.index + self.clock)
        self.shown.append(self.bad.pop(self.clock, observation))
        return self.shown[-1]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self.time, self.clock = self.time + 1, self.clock + 1
        return self._observation(), float(action), False, self.time == self.length, {}


def agent_for(space: gym.Space[Any], **options: Any) -> PPO:
    options = {**LEARNING, "latent_dim": 6, **options}
    shapes = network(options)
    shapes["encoder_config"]["latent_dim"] = options.pop("latent_dim")
    return PPO(space, Discrete(2, start=3), shapes, seed=0, **options)


SPACES = [
    NESTED,
    IMAGE,
    Box(0, 1, (2, 3, 4)),
    Box(0, 255, (5,), np.uint8),
    MultiBinary([2, 2]),
    MultiDiscrete([[2, 3], [1, 4]], start=[[0, 5], [-1, -1]]),
    Tuple([INDEX, Box(-1, 1, (), np.float64)]),
    Dict(a=MultiBinary(2), b=IMAGE),
]


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_rollout_holds_what_was_shown(space: gym.Space[Any], mode: AutoresetMode) -> None:
    envs: list[Shows] = []
    env = SyncVectorEnv(
        [lambda i=i: envs.append(Shows(space, i)) or envs[-1] for i in range(2)],  # type: ignore
        autoreset_mode=mode,
    )
    agent = agent_for(space, learn_step=12, recurrent=mode != AutoresetMode.DISABLED)
    collect_rollouts_recurrent(agent, env)
    assert agent.buffer is not None
    layout = agent.policy.codec.layout
    for row, one in enumerate(envs):
        shown = [layout.pack(x) for x in one.shown]
        if not (final_is_next := mode == AutoresetMode.NEXT_STEP):
            # An episode's last observation is not among those that are acted on.
            last = one.length + np.arange(3) * (one.length + 1)
            shown = [x for t, x in enumerate(shown) if t not in last]
        stored = agent.buffer.obs[:, row].numpy()
        for t in range(12):
            np.testing.assert_array_equal(stored[t], shown[t].astype(stored.dtype))
        assert final_is_next or len(one.shown) > 12
    log_prob, value = replay(agent.policy, agent.buffer)
    active = agent.buffer.active
    torch.testing.assert_close(log_prob[active], agent.buffer.log_prob[active])
    torch.testing.assert_close(value[active], agent.buffer.value[active])
    before = weights(agent)
    assert agent.learn().updates > 0
    after = weights(agent)
    # Every part of the network is reached, convolutions included.
    for name, _ in agent.policy.named_parameters():
        assert not torch.equal(after[name], before[name]), name


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_vectors_in_processes_show_the_same(kind: Any) -> None:
    with_env = kind([lambda i=i: Shows(NESTED, i) for i in range(2)])  # type: ignore[misc]
    agent = agent_for(NESTED, learn_step=6)
    collect_rollouts_recurrent(agent, with_env)
    with_env.close()
    assert agent.buffer is not None
    layout = agent.policy.codec.layout
    for row in range(2):
        for t in range(4):
            expected = layout.pack(samples(NESTED, (), seed=1000 * row + t))
            np.testing.assert_array_equal(agent.buffer.obs[t, row], expected)


def changed(space: gym.Space[Any], path: tuple[Any, ...], value: Any) -> Any:
    """An observation whose part at ``path`` is replaced."""
    if not path:
        return value
    observation = samples(space, ())
    key, *rest = path
    part = changed(space[key], tuple(rest), value)
    if isinstance(observation, tuple):
        return tuple(part if i == key else x for i, x in enumerate(observation))
    return {**observation, key: part}


@pytest.mark.parametrize(
    ("space", "path", "value", "expected"),
    [
        (VECTOR, (), np.array([0, np.nan, 1], np.float32), "finite numbers, got .*nan"),
        (INDEX, (), 2, r"choices of Discrete\(4, start=-2\), got 2"),
        (INDEX, (), -3, r"choices of Discrete\(4, start=-2\), got -3"),
        (MultiDiscrete([2, 3]), (), np.array([0, 3]), r"choices of MultiDiscrete.*, got \[0, 3\]"),
        (NESTED, ("place",), np.array([np.inf, 0]), r"finite numbers, got \[inf, 0"),
        (NESTED, ("view", 1, "far"), 3, r"choices of Discrete\(3\), got 3"),
        (NESTED, ("choices",), np.array([[4, 0]]), r"choices of MultiDiscrete\(.*, got \[\[4"),
    ],
)
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("step", [3, 6, 8])
def test_a_bad_observation_ends_the_rollout_with_its_place(
    space: Any, path: Any, value: Any, expected: str, mode: AutoresetMode, step: int
) -> None:
    """In the middle of an episode, as its last one (6 of SAME_STEP), and as the very last."""
    one = changed(space, path, value)
    # A vector's step that only resets, before the last of these, is none to its environment.
    clock = step - (mode == AutoresetMode.NEXT_STEP and step > 6)
    makers = [lambda: Shows(space, 0), lambda: Shows(space, 2, {clock: one})]
    env = SyncVectorEnv(makers, autoreset_mode=mode)
    agent = agent_for(space, learn_step=8)
    before = weights(agent)
    what = "observation" if mode == AutoresetMode.NEXT_STEP or step != 6 else "final observation"
    at = step - 1 if what == "final observation" else step
    part = "".join(rf"\[{key!r}\]" for key in path)
    message = rf"(?s)^{what}{part}: expected {expected}.* from environment 1 at step {at} of this"
    with pytest.raises(ValueError, match=message):
        collect_rollouts_recurrent(agent, env)
    assert_same_weights(before, weights(agent))
    assert agent.carry is None
    with pytest.raises(RuntimeError, match=r"^learn: expected a rollout collected"):
        agent.learn()
    collect_rollouts_recurrent(agent, env)  # from a fresh start, and it goes on


@pytest.mark.parametrize(
    ("space", "path", "value", "message"),
    [
        (INDEX, (), 7, r"^observation: expected integers in \[-2, 1\]"),
        (NESTED, ("place",), np.array([0, np.nan]), r"^observation\['place'\]: expected finite"),
        (NESTED, ("view", 1, "far"), 3, r"^observation\['view'\]\[1\]\['far'\]: expected integers"),
    ],
)
def test_a_bad_first_observation_is_named_at_once(
    space: Any, path: Any, value: Any, message: str
) -> None:
    one = changed(space, path, value)
    env = SyncVectorEnv([lambda: Shows(space, 0), lambda: Shows(space, 1, {0: one})])
    with pytest.raises(ValueError, match=message) as error:
        collect_rollouts_recurrent(agent_for(space), env)
    assert error.value.__notes__ == ["the first observation of environment 1"]


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


def test_grey_images_are_images() -> None:
    """Bytes in rows and columns, as Gymnasium's GrayscaleObservation gives them."""
    codec = ObservationCodec(Box(0, 255, (6, 5), np.uint8))
    assert (codec.shape, codec.image_shapes, codec.features) == ((6, 5), [(1, 6, 5)], 0)
    stored = torch.arange(30, dtype=torch.uint8).view(1, 6, 5)
    (image,) = codec(stored).images
    torch.testing.assert_close(image, stored[:, None] / 255)
    # Numbers in rows and columns are a table.
    assert ObservationCodec(Box(0, 1, (6, 5))).image_shapes == []


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
