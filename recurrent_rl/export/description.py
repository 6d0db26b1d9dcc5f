"""What an exported file says of itself: names, shapes and spaces, in JSON.

Letters: N rows.
"""

import math
from typing import Any

import gymnasium as gym
import torch

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.export.step import PolicyStep, TensorSpec
from recurrent_rl.spaces.serialization import space_to_dict
from recurrent_rl.versions import versions

VERSION = 1  # of the description


def described(group: AgentGroup, step: PolicyStep, about: dict[str, Any]) -> dict[str, Any]:
    """Return what a file says of itself.

    Args:
        group: whose policy it is.
        step: what was exported.
        about: the agent that it is of.

    """
    return {
        "format": "recurrent_rl policy",
        "version": VERSION,
        **about,
        "agents": list(group.agents),
        "deterministic": True,
        "observation_space": described_space(step.policy.codec.space),
        "action_space": described_space(step.policy.actions.space),
        "inputs": [_described_tensor(spec) for spec in step.inputs],
        "outputs": [_described_tensor(spec) for spec in step.outputs],
        "versions": versions(),
    }


def _described_tensor(spec: TensorSpec) -> dict[str, Any]:
    shape = ["N" if size is None else size for size in spec.shape]
    return {"name": spec.name, "role": spec.role, "dtype": str(spec.dtype), "shape": shape}


def described_space(space: gym.Space[Any]) -> dict[str, Any]:
    """Return a space in what JSON has: a bound that all numbers share once, no bound as null."""
    plain: dict[str, Any] = _plain(space_to_dict(space))
    return plain


def _with_shapes(data: dict[str, Any]) -> dict[str, Any]:
    """Say what shape a Box has, since bounds may not tell any more."""
    if data["kind"] != "Box":
        return data
    kept = {key: data[key] for key in ("kind", "dtype", "low", "high")}
    return kept | {"shape": list(data["low"].shape)}


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        array = value.numpy()
        return _plain(array.flat[0].item() if (array == array.flat[0]).all() else array.tolist())
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in _with_shapes(value).items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and math.isinf(value) else value
