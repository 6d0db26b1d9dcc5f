"""Spaces compared, described in plain values for checkpoints, and rebuilt."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.leaves import SUPPORTED_OBSERVATIONS


def same_space(expected: gym.Space[Any], got: gym.Space[Any], *, bounds: bool = False) -> bool:
    """Whether data of ``got`` can be fed to networks made for ``expected``.

    Bounds of observations may differ (a wrapper may tighten them), those of actions (``bounds``)
    may not; nor may shapes, dtypes' kinds and the numbers of choices. How many bits choices have
    does not matter: actions are cast to the environment's dtype on their way there.
    """
    if isinstance(expected, spaces.Box) and isinstance(got, spaces.Box):
        if expected.shape != got.shape or expected.dtype.kind != got.dtype.kind:
            return False
        if (expected.dtype == np.uint8) != (got.dtype == np.uint8):
            return False  # bytes are stored as such, and images of them scaled
        return not bounds or (
            _same_bounds(expected.low, got.low) and _same_bounds(expected.high, got.high)
        )
    if isinstance(expected, spaces.Discrete) and isinstance(got, spaces.Discrete):
        return (expected.n, expected.start) == (got.n, got.start)
    if isinstance(expected, spaces.MultiDiscrete) and isinstance(got, spaces.MultiDiscrete):
        return np.array_equal(expected.nvec, got.nvec) and np.array_equal(expected.start, got.start)
    if isinstance(expected, spaces.Dict) and isinstance(got, spaces.Dict):
        return expected.spaces.keys() == got.spaces.keys() and all(
            same_space(part, got.spaces[key]) for key, part in expected.spaces.items()
        )
    if isinstance(expected, spaces.Tuple) and isinstance(got, spaces.Tuple):
        pairs = zip(expected.spaces, got.spaces, strict=False)
        return len(expected.spaces) == len(got.spaces) and all(same_space(a, b) for a, b in pairs)
    return expected == got


def _same_bounds(expected: Array, got: Array) -> bool:
    """Whether bounds are equal: whole numbers exactly, others but for rounding to float32."""
    if expected.dtype.kind in "iub":
        return np.array_equal(expected, got)
    return np.allclose(expected.astype(np.float64), got.astype(np.float64), rtol=1e-5, atol=0)


def space_to_dict(space: gym.Space[Any]) -> dict[str, Any]:
    """Describe a supported space in tensors and plain values, for a checkpoint."""
    if isinstance(space, spaces.Box):
        return {
            "kind": "Box",
            "low": torch.from_numpy(space.low.copy()),
            "high": torch.from_numpy(space.high.copy()),
            "dtype": str(space.dtype),
            # Whole numbers have no infinity, so bounds do not say whether they were given.
            "bounded_below": torch.from_numpy(np.array(space.bounded_below)),
            "bounded_above": torch.from_numpy(np.array(space.bounded_above)),
        }
    if isinstance(space, spaces.Discrete):
        return {
            "kind": "Discrete",
            "n": int(space.n),
            "start": int(space.start),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "kind": "MultiDiscrete",
            "nvec": torch.from_numpy(space.nvec.astype(np.int64)),
            "start": torch.from_numpy(space.start.astype(np.int64)),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.MultiBinary):
        # MultiBinary(3) and MultiBinary([3]) are not equal.
        return {"kind": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
    if isinstance(space, spaces.Dict):
        parts = [[key, space_to_dict(part)] for key, part in space.spaces.items()]
        return {"kind": "Dict", "parts": parts}
    if isinstance(space, spaces.Tuple):
        return {"kind": "Tuple", "parts": [space_to_dict(part) for part in space.spaces]}
    raise TypeError(f"space: expected {SUPPORTED_OBSERVATIONS}, got {space}")


def space_from_dict(data: dict[str, Any]) -> gym.Space[Any]:
    """Rebuild what ``space_to_dict`` described."""
    kind = data["kind"]
    if kind == "Box":
        dtype = np.dtype(data["dtype"])
        box = spaces.Box(data["low"].numpy(), data["high"].numpy(), dtype=dtype.type)
        if "bounded_below" in data:  # not in data of before they were kept
            box.bounded_below = data["bounded_below"].numpy()
            box.bounded_above = data["bounded_above"].numpy()
        return box
    if kind == "Discrete":
        return _discrete(data["n"], data["start"], np.dtype(data.get("dtype", "int64")))
    if kind == "MultiDiscrete":
        dtype = np.dtype(data["dtype"])
        return spaces.MultiDiscrete(
            data["nvec"].numpy(), dtype=dtype.type, start=data["start"].numpy()
        )
    if kind == "MultiBinary":
        return spaces.MultiBinary(data["n"])
    if kind == "Dict":
        return spaces.Dict({key: space_from_dict(part) for key, part in data["parts"]})
    if kind == "Tuple":
        return spaces.Tuple([space_from_dict(part) for part in data["parts"]])
    raise ValueError(f"space: expected a kind out of {SUPPORTED_OBSERVATIONS}, got {kind!r}")


def _discrete(n: int, start: int, dtype: np.dtype[Any]) -> spaces.Discrete:
    if dtype == np.int64:  # the only one that older versions of Gymnasium know
        return spaces.Discrete(n, start=start)
    return spaces.Discrete(n, start=start, dtype=dtype.type)
