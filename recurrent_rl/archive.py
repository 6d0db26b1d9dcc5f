"""Reading what ``torch.save`` writes, if it holds tensors and plain values and nothing else.

Not by ``torch.load``: that looks at no checksum and believes what a file says about its sizes, so
that damaged or crafted files give uninitialised numbers, cost gigabytes, or (with old versions)
run code. Here nothing is built that the file has no bytes for, and no name in it is looked up.
"""

import math
import pickletools
import sys
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

# Names of what a storage holds, as torch has them for historical reasons.
_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
_DTYPES = {f"torch {name}Storage": dtype for name, dtype in _STORAGES.items()} | {
    "torch.storage UntypedStorage": torch.uint8,
    **{f"torch {name}": getattr(torch, name) for name in ("uint16", "uint32", "uint64")},
}

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE")
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Record(NamedTuple):
    """What was read.

    Attributes:
        content: tensors and plain values.
        size: bytes that describe the structure; there cannot be more values than these, unless
            some are written once and used again.

    """

    content: Any
    size: int


class _Name(NamedTuple):
    """A name that the file mentions; it is never looked up."""

    name: str


class _Storage(NamedTuple):
    """Numbers that tensors are parts of."""

    numbers: Tensor


def read(file: BinaryIO, device: torch.device | str = "cpu") -> Record:
    """Read an archive.

    Args:
        file: open for reading, from its beginning.
        device: where tensors go.

    Raises:
        Exception: of many kinds, for anything but an undamaged archive of tensors and plain values.

    """
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        return _Reader(archive, device).read(file.seek(0, 2))


class _Reader:
    """Reads one archive.

    Attributes:
        records: by name, without the common folder.

    """

    def __init__(self, archive: zipfile.ZipFile, device: torch.device | str) -> None:
        self._archive, self._device = archive, device
        self._storages: dict[str, _Storage] = {}
        self.records: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            name = info.filename.partition("/")[2]
            if name in self.records:
                raise ValueError(f"two parts are named {name!r}")
            self.records[name] = info

    def read(self, size: int) -> Record:
        """Read all; ``size`` is the whole file's [bytes]."""
        if "constants.pkl" in self.records or any(n.startswith("code/") for n in self.records):
            raise ValueError("it is a TorchScript archive, which has code in it")
        for name, info in self.records.items():
            if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
                raise ValueError(f"{name} is compressed, which torch.save never does")
        if sum(info.file_size for info in self.records.values()) > size:
            raise ValueError(f"its parts claim more than the file's {size} bytes")
        if "byteorder" in self.records and self._bytes("byteorder") != sys.byteorder.encode():
            raise ValueError(f"its numbers are not {sys.byteorder}-endian, as this machine's are")
        structure = self._bytes("data.pkl")
        # Views of one storage count each; ours are those of a policy's parameters, once.
        self._room = 8 * size
        content = _interpreted(structure, self._storage, self._called)
        return Record(content, len(structure))

    def _bytes(self, name: str) -> bytes:
        info = self.records[name]
        content = self._archive.read(info)  # compares the checksum
        if len(content) != info.file_size:
            raise ValueError(f"{name} has {len(content)} bytes, it says {info.file_size}")
        return content

    def _storage(self, given: Any) -> _Storage:
        """Return the numbers that a persistent id stands for."""
        kind, name, key, _, count = given
        if kind != "storage" or not isinstance(name, _Name) or name.name not in _DTYPES:
            raise ValueError(f"expected a storage of numbers, got {given!r}")
        dtype = _DTYPES[name.name]
        if key not in self._storages:
            content = bytearray(self._bytes(f"data/{key}"))
            if type(count) is not int or len(content) != count * dtype.itemsize:
                raise ValueError(f"data/{key} has {len(content)} bytes for {count!r} of {dtype}")
            numbers = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0)
            self._storages[key] = _Storage(numbers.to(dtype).to(self._device))
        storage = self._storages[key]
        if storage.numbers.dtype != dtype or len(storage.numbers) != count:
            raise ValueError(f"data/{key} is described in two ways")
        return storage

    def _called(self, name: Any, arguments: Any) -> Any:
        """Return what a call in the file gives, if it is one of the few that are needed."""
        if name == _Name("collections OrderedDict") and arguments == ():
            return {}
        if name == _Name("torch._utils _rebuild_tensor_v2"):
            storage, offset, size, stride, _, _ = arguments[:6]
            return self._tensor(storage.numbers, offset, size, stride)
        if name == _Name("torch._utils _rebuild_tensor_v3"):
            storage, offset, size, stride, _, _, dtype = arguments[:7]
            return self._tensor(storage.numbers.view(_DTYPES[dtype.name]), offset, size, stride)
        raise ValueError(f"expected tensors and plain values, got a call of {name!r}")

    def _tensor(self, numbers: Tensor, offset: Any, size: Any, stride: Any) -> Tensor:
        if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride):
            raise ValueError(f"expected a shape and strides, got {size!r} and {stride!r}")
        if any(type(x) is not int or x < 0 for x in (offset, *size, *stride)):
            raise ValueError(f"expected sizes, got {offset!r}, {size!r} and {stride!r}")
        count = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        self._room -= count * numbers.element_size()
        if self._room < 0 or (count and last >= len(numbers)):
            raise ValueError(f"a tensor of shape {size} claims more numbers than there are")
        return numbers.as_strided(size, stride, offset)


def _interpreted(
    data: bytes, storage: Callable[[Any], Any], called: Callable[[Any, Any], Any]
) -> Any:
    """Follow a pickle that has tensors and plain values in it.

    Args:
        data: the pickle, of protocol 2, as torch writes it.
        storage: gives what a persistent id stands for.
        called: gives the result of a function's name and its arguments.

    Raises:
        Exception: of many kinds, for anything else.

    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def popped(count: int) -> list[Any]:
        if not 0 <= count <= len(stack):
            raise ValueError("a part is missing")
        start = len(stack) - count
        items = stack[start:]
        del stack[start:]
        return items

    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name in _TUPLES:
            stack.append(tuple(popped(_TUPLES[name])))
        elif name == "TUPLE":
            stack.append(tuple(popped(len(stack) - marks.pop())))
        elif name in ("APPEND", "APPENDS"):
            items = popped(1 if name == "APPEND" else len(stack) - marks.pop())
            _of(list, stack).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = popped(2 if name == "SETITEM" else len(stack) - marks.pop())
            _of(dict, stack).update(zip(items[::2], items[1::2], strict=True))
        elif name == "GLOBAL":
            stack.append(_Name(str(argument)))
        elif name == "BINPERSID":
            stack.append(storage(*popped(1)))
        elif name == "REDUCE":
            stack.append(called(*popped(2)))
        elif name == "BUILD":  # attributes of a state_dict, which say how modules were versioned
            popped(1)
            _of(dict, stack)
        elif name == "STOP":
            (result,) = stack
            return result
        elif name != "PROTO":
            raise ValueError(f"expected tensors and plain values, got pickle's {name}")
    raise ValueError("it does not end")


def _of(kind: type, stack: list[Any]) -> Any:
    if type(stack[-1]) is not kind:
        raise ValueError(f"expected a {kind.__name__}, got a {type(stack[-1]).__name__}")
    return stack[-1]
