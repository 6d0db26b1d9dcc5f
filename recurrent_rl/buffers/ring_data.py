"""A ring in plain values and tensors, as checkpoints take it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.buffers.priorities import SumTree
from recurrent_rl.buffers.ring import ReplayLayout, Ring
from recurrent_rl.buffers.ring_part import Part
from recurrent_rl.buffers.steps import StepShapes

_NUMBERS = ("envs", "counter", "gap", "greatest", "exponent", "shows_next")
_ARRAYS = ("written", "floor", "owner", "begins")


def ring_data(ring: Ring) -> dict[str, Any]:
    """Return all that a ring holds, for ``fill_ring``; tensors are not copied once it is full."""
    data: dict[str, Any] = {"memory_size": ring.memory_size, "layout": None}
    if ring.layout is None:
        return data
    # Of what was never written there is nothing to say.
    places = min(int(ring.written.max()) + 1, ring.places)
    chunks = min(places // ring.layout.stride + 2 + ring.layout.burn_in, ring.chunks)
    priorities = None
    if ring.priorities is not None:
        priorities = torch.from_numpy(ring.priorities.values())
    return {
        **data,
        "layout": [ring.layout.length, ring.layout.stride, ring.layout.burn_in],
        "priorities": priorities,
        **{name: getattr(ring, name) for name in _NUMBERS},
        **{name: torch.from_numpy(getattr(ring, name)) for name in _ARRAYS},
        "parts": {name: _part_data(part, places, chunks) for name, part in ring.parts.items()},
    }


def _part_data(part: Part, places: int, chunks: int) -> dict[str, Any]:
    """Return one group's, of so many places and stored states."""
    return {
        "size": part.size,
        "shapes": _shapes_to_data(part.shapes),
        "idle": torch.from_numpy(part.idle),
        "fields": {
            field: _first(x, chunks if field.startswith("hidden") else places)
            for field, x in part.fields().items()
        },
    }


def fill_ring(ring: Ring, data: Mapping[str, Any]) -> None:
    """Let an empty ring of the same size hold what ``ring_data`` gave, in memory of its own."""
    if data["layout"] is None:
        return
    parts = data["parts"]
    ring.fit(
        {name: _shapes_from_data(part["shapes"]) for name, part in parts.items()},
        {name: part["size"] for name, part in parts.items()},
        data["envs"],
        ReplayLayout(*data["layout"]),
    )
    for name, saved in parts.items():
        part = ring.parts[name]
        if "action_mask" in saved["fields"] and part.action_mask is None:
            part.add_masks(saved["fields"]["action_mask"].shape[2])
        part.idle[:] = saved["idle"].cpu().numpy()
        for field, tensor in part.fields().items():
            stored = saved["fields"][field]
            tensor[: len(stored)].copy_(stored)
    for name in _NUMBERS:
        setattr(ring, name, data[name])
    for name in _ARRAYS:
        getattr(ring, name)[:] = data[name].cpu().numpy()
    ring.recount()
    if data["priorities"] is not None:
        ring.priorities = SumTree(ring.chunks * ring.envs)
        values = data["priorities"].cpu().numpy()
        ring.priorities.set(np.arange(len(values)), values)


def _first(field: Tensor, count: int) -> Tensor:
    """Return the first of a field; a copy of a part, as a view would be saved with all of it."""
    return field if count >= len(field) else field[:count].clone()


def _shapes_to_data(shapes: StepShapes) -> dict[str, Any]:
    """Return shapes in plain values."""
    return {
        "obs_shape": list(shapes.obs_shape),
        "action_shape": list(shapes.action_shape),
        "obs_dtype": str(shapes.obs_dtype).removeprefix("torch."),
        "action_dtype": str(shapes.action_dtype).removeprefix("torch."),
        "state_shapes": [list(shape) for shape in shapes.state_shapes],
        "extra": shapes.extra,
        "mask_size": shapes.mask_size,
        "spaces": list(shapes.spaces),
    }


def _shapes_from_data(data: Mapping[str, Any]) -> StepShapes:
    """Undo ``_shapes_to_data``."""
    return StepShapes(
        tuple(data["obs_shape"]),
        tuple(data["action_shape"]),
        getattr(torch, data["obs_dtype"]),
        getattr(torch, data["action_dtype"]),
        [(k, h) for k, h in data["state_shapes"]],
        data["extra"],
        data["mask_size"],
        tuple(data["spaces"]),
    )
