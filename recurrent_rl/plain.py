"""Plain values: what a checkpoint holds beside tensors, and its checksum.

Names and numbers come out of NumPy, enumerations and the like. They look like Python's own and
compare equal, but a file with them could not be read without code of their classes.
"""

import hashlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_PLAIN = (bool, int, float, str, type(None))
# Exact copies; str(x) and int(x) may be overridden, as enumerations do.
_BASES: tuple[tuple[type, Any], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
)


def plain(value: Any, where: str = "data") -> Any:
    """Return a copy in which all but the tensors is Python's own: numbers, text, None, containers.

    >>> plain({np.str_("a"): np.float32(0.5), "b": np.arange(2), "c": (np.bool_(True),)})
    {'a': 0.5, 'b': [0, 1], 'c': (True,)}

    Args:
        value: those, or NumPy's and subclasses of them, nested in mappings, lists and tuples.
        where: what it is, for errors.

    Raises:
        TypeError: something else; the message says where.

    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Tensor):
        if value.layout is not torch.strided or value.is_quantized or value.device.type == "meta":
            raise TypeError(f"{where}: expected an ordinary tensor, got {value.layout}")
        return value.detach().cpu()
    for base, exact in _BASES:
        if isinstance(value, base):
            return exact(value)
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biufUO":
        if isinstance(value, np.longdouble):  # whose item() is one again
            return float(value)
        return plain(value.item() if value.ndim == 0 else value.tolist(), where)
    if isinstance(value, Mapping):
        return {_key(key, where): plain(part, f"{where}.{key}") for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [plain(part, f"{where}[{i}]") for i, part in enumerate(value)]
        return parts if isinstance(value, list) else tuple(parts)
    raise TypeError(
        f"{where}: expected a number, text, None, a tensor, or lists and dictionaries of these, "
        f"got {value!r} ({type(value).__module__}.{type(value).__qualname__})"
    )


def is_plain(value: Any) -> bool:
    """Whether ``plain`` loses nothing but NumPy's or Python's types of single numbers.

    Tensors, which are moved, and arrays, of which it makes lists, are none.
    """
    if isinstance(value, Mapping):
        parts = [*value, *value.values()]
        return type(value) is dict and all(map(is_plain, parts))
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(is_plain, value))
    return type(value) in _PLAIN or isinstance(value, np.number | np.bool_ | np.str_)


def _key(key: Any, where: str) -> Any:
    if isinstance(key, Tensor | Mapping | list):
        raise TypeError(f"{where}: expected keys that are numbers or text, got {key!r}")
    return plain(key, f"a key of {where}")


def digest(value: Any, most: int = sys.maxsize) -> str:
    """Return a checksum over tensors and plain values, as ``plain`` gives them.

    It depends on content only: on the numbers of tensors, not on how they lie in memory.

    Args:
        value: from ``plain``.
        most: values that there may be, for what somebody else wrote: a small file can have lists
            of lists that are the same list again and again.

    Raises:
        TypeError: something else among them.
        ValueError: there are more.

    """
    sha, left = hashlib.sha256(), most

    def add(part: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"expected at most {most} values, got more")
        kind = type(part)
        if kind in _PLAIN:
            text = repr(part).encode("utf-8", "surrogatepass")
            sha.update(b"%s %d " % (kind.__name__.encode(), len(text)) + text)
        elif kind is Tensor:
            sha.update(f"tensor {part.dtype} {list(part.shape)} ".encode())
            sha.update(_bytes_of(part))
        elif kind is dict:
            sha.update(b"dict %d " % len(part))
            for key, inner in part.items():
                add(key)
                add(inner)
        elif kind in (list, tuple):
            sha.update(b"%s %d " % (kind.__name__.encode(), len(part)))
            for inner in part:
                add(inner)
        else:
            raise TypeError(f"expected tensors and plain values, got {kind.__name__}")

    add(value)
    return sha.hexdigest()


def _bytes_of(tensor: Tensor) -> Any:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if len(flat) else b""
