"""Hypothesis strategies over Gymnasium's spaces, small ones, and observations of them."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from hypothesis import strategies as st

SIZES = st.integers(1, 3)
SHAPES = st.lists(SIZES, max_size=2).map(tuple)  # without those of images
IMAGES = st.sampled_from([(2, 5, 3), (5, 2, 3), (3, 4, 4), (4, 4, 1), (1, 5, 4), (2, 2, 2)])
# Gymnasium allows other keys; those of environments are names.
KEYS = st.sampled_from(["image", "position", "direction", "observation", "b", "a", "Z"])


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Numbers in scalars, vectors, matrices and pictures, with bounds or without."""
    dtype = draw(st.sampled_from([np.float32, np.float64, np.int16]))
    shape = draw(SHAPES | IMAGES | st.just((2, 1, 3, 2)))
    if dtype is not np.int16 and draw(st.booleans()):
        return Box(-np.inf, np.inf, shape, dtype)
    return Box(-3, 7, shape, dtype)


@st.composite
def multi_discrete(draw: st.DrawFn) -> MultiDiscrete:
    """Of one or two axes, each component with a first choice of its own."""
    shape = draw(st.lists(SIZES, min_size=1, max_size=2))
    counts, starts = (
        np.array(draw(st.lists(numbers, min_size=size, max_size=size))).reshape(shape)
        for size in [int(np.prod(shape))]
        for numbers in (st.integers(1, 4), st.integers(-3, 3))
    )
    return MultiDiscrete(counts, start=starts)


def simple_spaces() -> st.SearchStrategy[gym.Space[Any]]:
    """Every kind of simple space that observations may have."""
    return st.one_of(
        boxes(),
        st.builds(lambda shape: Box(0, 255, shape, np.uint8), SHAPES | IMAGES),
        st.builds(lambda n, start: Discrete(n, start=start), st.integers(1, 4), st.integers(-3, 3)),
        multi_discrete(),
        st.builds(MultiBinary, SIZES | st.lists(SIZES, min_size=1, max_size=2)),
    )


def observation_spaces() -> st.SearchStrategy[gym.Space[Any]]:
    """Every space that observations may have, simple or nested to any depth."""
    nested = st.recursive(simple_spaces(), _around, max_leaves=6)
    return nested | _around(nested)


def _around(parts: st.SearchStrategy[gym.Space[Any]]) -> st.SearchStrategy[gym.Space[Any]]:
    return st.one_of(
        st.dictionaries(KEYS, parts, min_size=1, max_size=4).map(Dict),
        st.lists(parts, min_size=1, max_size=3).map(Tuple),
    )


def samples(space: gym.Space[Any], lead: tuple[int, ...], seed: int = 0) -> Any:
    """Observations of ``lead`` axes, in the structure and the dtypes of the space."""
    random = np.random.default_rng(seed)
    return _samples(space, lead, random)


def _samples(space: gym.Space[Any], lead: tuple[int, ...], random: np.random.Generator) -> Any:
    if isinstance(space, Dict):
        return {key: _samples(part, lead, random) for key, part in space.spaces.items()}
    if isinstance(space, Tuple):
        return tuple(_samples(part, lead, random) for part in space.spaces)
    shape = (*lead, *(space.shape or ()))
    if isinstance(space, Discrete):
        return space.start + random.integers(space.n, size=shape)
    if isinstance(space, MultiDiscrete):
        return space.start + random.integers(space.nvec, size=shape)
    if isinstance(space, MultiBinary):
        return random.integers(2, size=shape).astype(np.int8)
    assert isinstance(space, Box)
    if space.dtype.kind in "iu":
        high = 256 if space.dtype == np.uint8 else 8
        low = 0 if space.dtype == np.uint8 else -3
        return random.integers(low, high, size=shape).astype(space.dtype)
    # float32 is what is stored.
    return random.normal(size=shape).clip(-3, 7).astype(np.float32).astype(space.dtype)


def parts_of(space: gym.Space[Any], value: Any) -> list[tuple[gym.Space[Any], Any]]:
    """The simple spaces within a space, with what a value of its structure has for each."""
    if isinstance(space, Dict):
        return [x for k, part in space.spaces.items() for x in parts_of(part, value[k])]
    if isinstance(space, Tuple):
        return [x for i, part in enumerate(space.spaces) for x in parts_of(part, value[i])]
    return [(space, value)]


# All kinds of parts; keys are out of order, and some have no place in a Python identifier.
NESTED = Dict(
    {
        "view": Tuple(
            [
                Box(0, 255, (2, 3, 1), np.uint8),
                Dict({"to the left": Box(-9, 9, (1, 2, 3)), "far": Discrete(3)}),
            ]
        ),
        "image": Box(0, 255, (3, 4, 4), np.uint8),
        "place": Box(-9, 9, (2,), np.float64),
        "bits": MultiBinary([2, 2]),
        "choices": MultiDiscrete([[2, 3]], start=[[5, -1]]),
        "ram": Box(0, 255, (2,), np.uint8),
    }
)


def nested_samples(**changes: Any) -> dict[str, Any]:
    """Two observations of ``NESTED``, some parts of which are changed, or None: left out."""
    observation = {**samples(NESTED, (2,)), **changes}
    return {key: part for key, part in observation.items() if part is not None}


def row_of(observation: Any, i: int) -> Any:
    """Row i of observations of any structure."""
    if isinstance(observation, dict):
        return {key: row_of(part, i) for key, part in observation.items()}
    if isinstance(observation, tuple):
        return tuple(row_of(part, i) for part in observation)
    return observation[i]
