"""Spaces compared, described in plain values for checkpoints, and rebuilt."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from recurrent_rl.spaces.layout import SUPPORTED_OBSERVATIONS


def same_space(ours: gym.Space[Any], theirs: gym.Space[Any], *, bounds: bool = False) -> bool:
    """Whether data of ``theirs`` can be fed to networks made for ``ours``.

    Bounds of observations may differ (a wrapper may tighten them), those of actions (``bounds``)
    may not; nor may shapes, dtypes' kinds and the numbers of choices.
    """
    if isinstance(ours, spaces.Box) and isinstance(theirs, spaces.Box):
        if ours.shape != theirs.shape or ours.dtype.kind != theirs.dtype.kind:
            return False
        if (ours.dtype == np.uint8) != (theirs.dtype == np.uint8):
            return False  # bytes are stored as such, and images of them scaled
        return not bounds or (
            np.allclose(ours.low, theirs.low) and np.allclose(ours.high, theirs.high)
        )
    if isinstance(ours, spaces.Dict) and isinstance(theirs, spaces.Dict):
        return ours.spaces.keys() == theirs.spaces.keys() and all(
            same_space(part, theirs.spaces[key]) for key, part in ours.spaces.items()
        )
    if isinstance(ours, spaces.Tuple) and isinstance(theirs, spaces.Tuple):
        pairs = zip(ours.spaces, theirs.spaces, strict=False)
        return len(ours.spaces) == len(theirs.spaces) and all(same_space(a, b) for a, b in pairs)
    return ours == theirs


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
