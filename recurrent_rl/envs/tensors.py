"""Vectors that show torch's tensors, on whatever device, and take actions as such.

Simulators on a GPU do, and have an attribute ``device``, by which they are known. What they show is
read by policies as it is; flags, rewards, and what goes into a store or a message, become NumPy's
arrays when they are asked for.

Letters: E environments.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.layout import ObservationLayout


def layer_with_device(env: Any) -> Any:
    """Return the outermost of a vector and what it wraps that has a ``device``; None: nothing has.

    The device itself may be None, which is that of the observations.
    """
    layer = env
    while layer is not None:
        if isinstance(getattr(layer, "device", 0), str | torch.device | None):
            return layer
        layer = getattr(layer, "env", None)  # wrappers do not pass on what they do not know
    return None


def device_of(value: Any) -> torch.device | None:
    """Return where the tensors of an observation are; None: it has none."""
    if isinstance(value, Tensor):
        return value.device
    if isinstance(value, Mapping | tuple | list):
        parts = value.values() if isinstance(value, Mapping) else value
        return next((found for part in parts if (found := device_of(part)) is not None), None)
    return None


def as_arrays(value: Any) -> Any:
    """Return a value in which tensors are NumPy's arrays, those of dictionaries when asked for."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, _Arrays):
        return value
    if isinstance(value, Mapping):
        return _Arrays(value)
    if isinstance(value, tuple | list):
        return type(value)(map(as_arrays, value))
    return value


class _Arrays(Mapping[Any, Any]):
    """A dictionary whose tensors are fetched from their device when somebody looks at them."""

    def __init__(self, inner: Mapping[Any, Any]) -> None:
        self._inner = inner

    def __getitem__(self, key: Any) -> Any:
        return as_arrays(self._inner[key])

    def __iter__(self) -> Iterator[Any]:
        return iter(self._inner)

    def __len__(self) -> int:
        return len(self._inner)


def stored_tensor(layout: ObservationLayout, shown: Any, stored: Array) -> Tensor:
    """Return observations as policies read them, on the device on which they were shown.

    Args:
        layout: of the observation space.
        shown: what the vector showed; has tensors.
        stored: the same as an array, [E, *shape].

    """
    device = device_of(shown)
    assert device is not None
    if isinstance(shown, Tensor) and shown.shape == stored.shape and device.type != "cpu":
        return shown.detach().to(layout.dtype)
    return layout.tensor(stored).to(device)


def actions_for(env: Any, action: Array | Tensor, dtype: Any, device: torch.device) -> Tensor:
    """Return actions as an environment of tensors takes them, [E, ...].

    Args:
        env: from ``layer_with_device``.
        action: [E, ...]; copied, so that the environment may do with it what it likes.
        dtype: NumPy's, of the action space.
        device: on which the environment has shown its observations.

    """
    where = device if env.device is None else torch.device(env.device)
    kind = torch.from_numpy(np.empty(0, dtype)).dtype
    return torch.as_tensor(action).to(where, kind, copy=True)


@contextlib.contextmanager
def of_its_own() -> Iterator[None]:
    """Let an environment make tensors that it can write to wherever it is called from.

    Collection runs in ``torch.inference_mode``, whose tensors nobody else may change in place.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield
