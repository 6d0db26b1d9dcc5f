"""Spaces compared, described in plain values for checkpoints, and rebuilt."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from recurrent_rl.spaces.leaves import SUPPORTED_OBSERVATIONS


def same_space(expected: gym.Space[Any], got: gym.Space[Any], *, bounds: bool = False) -> bool:
    """Whether data of ``got`` can be fed to networks made for ``expected``.

    Bounds of observations may differ (a wrapper may tighten them), those of actions (``bounds``)
    may not; nor may shapes, dtypes' kinds and the numbers of choices.
    """
    if isinstance(expected, spaces.Box) and isinstance(got, spaces.Box):
        if expected.shape != got.shape or expected.dtype.kind != got.dtype.kind:
            return False
        if (expected.dtype == np.uint8) != (got.dtype == np.uint8):
            return False  # bytes are stored as such, and images of them scaled
        return not bounds or (
            np.allclose(expected.low, got.low) and np.allclose(expected.high, got.high)
        )
    if isinstance(expected, spaces.Dict) and isinstance(got, spaces.Dict):
        return expected.spaces.keys() == got.spaces.keys() and all(
            same_space(part, got.spaces[key]) for key, part in expected.spaces.items()
        )
    if isinstance(expected, spaces.Tuple) and isinstance(got, spaces.Tuple):
        pairs = zip(expected.spaces, got.spaces, strict=False)
        return len(expected.spaces) == len(got.spaces) and all(same_space(a, b) for a, b in pairs)
    return expected == got


def space_to_dict(space: gym.Space[Any]) -> dict[str, Any]:
    """Describe a supported space in tensors and plain values, for a checkpoint."""
    if isinstance(space, spaces.Box):
        return {
            "kind": "Box",
            "low": torch.from_numpy(space.low.copy()),
            "high": torch.from_numpy(space.high.copy()),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
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
        return spaces.Box(data["low"].numpy(), data["high"].numpy(), dtype=dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(data["n"], start=data["start"])
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
