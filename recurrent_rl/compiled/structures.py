"""The structures of ``ppo.c``, field by field.

A structure holds addresses only; whoever makes one keeps the tensors that it points to.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

_INT, _LONG, _FLOAT = ctypes.c_int, ctypes.c_int64, ctypes.c_float
_ARRAY = ctypes.c_void_p
ACTIVATIONS = {"Tanh": 0, "ReLU": 1}

Fields = Sequence[tuple[str, Any]]


class Linear(ctypes.Structure):
    """``struct linear``."""

    _fields_: ClassVar[Fields] = [
        ("inputs", _INT),
        ("outputs", _INT),
        *((name, _ARRAY) for name in ("w", "b", "of_w", "of_b")),
    ]


class Mlp(ctypes.Structure):
    """``struct mlp``."""

    _fields_: ClassVar[Fields] = [
        ("count", _INT),
        ("activation", _INT),
        ("ends_on_activation", _INT),
        ("layers", ctypes.POINTER(Linear)),
    ]


class Cell(ctypes.Structure):
    """``struct cell``."""

    _fields_: ClassVar[Fields] = [
        *((name, _INT) for name in ("gates", "inputs", "units")),
        *((name, _ARRAY) for name in ("w_ih", "w_hh", "b_ih", "b_hh")),
        *((name, _ARRAY) for name in ("of_ih", "of_hh", "of_b_ih", "of_b_hh")),
    ]


class Trunk(ctypes.Structure):
    """``struct trunk``."""

    _fields_: ClassVar[Fields] = [
        *((name, _INT) for name in ("features", "extras", "outputs", "count")),
        *((name, _ARRAY) for name in ("x", "where", "extra")),
        ("front", Mlp),
        ("cells", ctypes.POINTER(Cell)),
        ("h", _ARRAY),
        ("c", _ARRAY),
    ]


class Rollout(ctypes.Structure):
    """``struct rollout``."""

    _fields_: ClassVar[Fields] = [
        ("rows", _LONG),
        *((name, _ARRAY) for name in ("order", "first", "length", "row", "chunk", "fresh")),
        *((name, _ARRAY) for name in ("active", "actions", "choices", "mask")),
        *((name, _ARRAY) for name in ("log_prob", "value", "advantage", "returns")),
    ]


class Policy(ctypes.Structure):
    """``struct policy``."""

    _fields_: ClassVar[Fields] = [
        ("trunk_count", _INT),
        ("trunks", ctypes.POINTER(Trunk)),
        ("actor", Mlp),
        ("critic", Mlp),
        ("log_std", _ARRAY),
        ("of_log_std", _ARRAY),
        ("least_log_std", _FLOAT),
    ]


class Coefficients(ctypes.Structure):
    """``struct coefficients``."""

    _fields_: ClassVar[Fields] = [
        *((name, _FLOAT) for name in ("clip", "clip_value", "value", "entropy", "share")),
    ]


class Record(ctypes.Structure):
    """``struct record``."""

    policy_loss: float
    value_loss: float
    entropy: float
    kl: float
    clipped: int
    active: int

    _fields_: ClassVar[Fields] = [
        *((name, ctypes.c_double) for name in ("policy_loss", "value_loss", "entropy", "kl")),
        ("clipped", _LONG),
        ("active", _LONG),
    ]


def address(tensor: Tensor | None, dtype: torch.dtype = torch.float32) -> int | None:
    """Return where a tensor's numbers lie; None, the null pointer, for none.

    Raises:
        TypeError: a kernel would read something else there.

    """
    if tensor is None:
        return None
    if tensor.dtype != dtype or not tensor.is_cpu or not tensor.is_contiguous():
        dense = "dense" if tensor.is_contiguous() else "not dense"
        raise TypeError(
            f"kernel: expected {dtype} on cpu, dense, got {tensor.dtype} on "
            f"{tensor.device.type}, {dense}; convert it, or leave compiled=True out"
        )
    return tensor.data_ptr()


def _with_gradients(parameters: Sequence[Tensor]) -> list[int | None]:
    """Return the addresses of parameters, then those of their gradients."""
    gradients = [p.grad for p in parameters]
    assert all(g is not None for g in gradients)
    return [address(x) for x in (*parameters, *gradients)]


def mlp(
    layers: Sequence[tuple[Tensor, Tensor]], activation: str, *, ends_on_activation: bool = False
) -> Mlp:
    """Describe layers: weight [H, D] and bias [H] of each, which have gradients."""
    described = [Linear(*w.shape[::-1], *_with_gradients((w, b))) for w, b in layers]
    array = (Linear * len(described))(*described)
    return Mlp(len(described), ACTIVATIONS[activation], ends_on_activation, array)


def cells(rnn: nn.LSTM | nn.GRU) -> "ctypes.Array[Cell]":
    """Describe the layers of an LSTM or a GRU, whose parameters have gradients."""
    units = rnn.hidden_size
    described = [
        Cell(len(weights[0]) // units, weights[0].shape[1], units, *_with_gradients(weights))
        for weights in rnn.all_weights
    ]
    return (Cell * len(described))(*described)
