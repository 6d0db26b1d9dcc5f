"""Several processes that train one agent: each steps environments of its own, gradients are joined.

>>> from recurrent_rl import distributed
>>> distributed.init().size  # not started by torchrun: alone
1

Started by ``torchrun --nproc-per-node=N script.py``, a script that says ``distributed.init()``
first trains one agent on N times as many environments: what each rank does is what one process
would do, and sums over all ranks take the place of sums.

Letters: R ranks.
"""

import atexit
import datetime
import os
import pickle
import warnings
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor

from recurrent_rl.shared_sum import SharedSum, open_shared

T = TypeVar("T")
TIMEOUT = 600.0


@runtime_checkable
class World(Protocol):
    """The processes that train one agent together.

    All of them must ask for the same things in the same order; those who wait for one that never
    asks are told so, by a ``RuntimeError``, when the timeout is over.

    Attributes:
        rank: this process's number, in [0, size).
        size: R.

    """

    rank: int
    size: int

    @property
    def is_first(self) -> bool:
        """Whether this is the process that logs and saves."""

    def sum(self, x: Tensor) -> Tensor:
        """Put the sum over all ranks in a tensor's place, and return it."""

    def gather(self, x: T) -> list[T]:
        """Return what each rank gives, in their order: any values that can be pickled."""

    def numbers(self, *mine: int) -> list[tuple[int, ...]]:
        """Return what each rank gives, in their order; as many on all, and quicker."""

    def from_first(self, x: T) -> T:
        """Return what rank 0 gives."""


class Alone:
    """A world of one process, where nothing needs to be said."""

    rank, size = 0, 1
    is_first = True

    def sum(self, x: Tensor) -> Tensor:
        return x

    def gather(self, x: T) -> list[T]:
        return [x]

    def numbers(self, *mine: int) -> list[tuple[int, ...]]:
        return [mine]

    def from_first(self, x: T) -> T:
        return x


class Ranks:
    """Several processes, by ``torch.distributed``'s default group.

    Those of one machine add up what is on the CPU through memory that they share.
    """

    def __init__(self, timeout: float) -> None:
        """Take part in the group, which must have been initialised."""
        self.rank, self.size, self._timeout = dist.get_rank(), dist.get_world_size(), timeout
        self._shared: SharedSum | None = None
        self._shared = self._open(0)

    def _open(self, length: int) -> SharedSum | None:
        self._shared = None  # so that they speak of it by other means
        return open_shared(self.rank, self.size, length, self._timeout, self.gather)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, x: Tensor) -> Tensor:
        shared = self._shared
        if shared is None or x.device.type != "cpu":
            dist.all_reduce(x)
            return x
        if x.nbytes > shared.room:
            shared = self._shared = self._open(x.nbytes)
            return self.sum(x)
        shared.add_up(x)
        return x

    def gather(self, x: T) -> list[T]:
        if self._shared is None:
            found: list[Any] = [None] * self.size
            dist.all_gather_object(found, x)
            return found
        data = pickle.dumps(x)
        lengths = [length for (length,) in self.numbers(len(data))]
        table = torch.zeros(self.size, max(lengths), dtype=torch.uint8)
        table[self.rank, : len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        rows = zip(self.sum(table), lengths, strict=True)
        return [pickle.loads(bytes(row[:length].numpy())) for row, length in rows]

    def numbers(self, *mine: int) -> list[tuple[int, ...]]:
        table = torch.zeros(self.size, len(mine), dtype=torch.int64)
        table[self.rank] = torch.tensor(mine)
        return [tuple(row) for row in self.sum(table).tolist()]

    def from_first(self, x: T) -> T:
        held = [x]
        dist.broadcast_object_list(held, src=0)
        return held[0]


ALONE: World = Alone()
_world: World = ALONE
_warned = False


def init(timeout: float = TIMEOUT) -> World:
    """Train together with the other processes that torchrun has started; once, at the beginning.

    Agents are built as ever, with the same settings on all ranks; those of rank 0 count, weights
    included. Rank 0 logs, shows progress and saves. A script that was not started by torchrun goes
    on alone.

    Args:
        timeout: how long a rank waits for the others before it fails [s]; more than a test of the
            agent, or whatever rank 0 does alone, may take.

    Returns:
        the world, as ``current`` does.

    Raises:
        ValueError: no positive number of seconds.
        RuntimeError: the others cannot be reached.

    """
    global _world
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise ValueError(f"timeout: expected a positive number of seconds, got {timeout!r}")
    if _world.size > 1:
        return _world
    if not dist.is_available():
        raise RuntimeError(
            "distributed.init: expected a torch that has torch.distributed, got none"
        )
    if not dist.is_initialized():
        if launched() == 1:
            return _world
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            timeout=datetime.timedelta(seconds=timeout),
        )
        atexit.register(finish)
    if dist.get_world_size() > 1:
        _world = Ranks(timeout)
    return _world


def finish() -> None:
    """Leave the others; what is trained from here on is trained alone."""
    global _world, _warned
    _world, _warned = ALONE, True  # on purpose
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def current() -> World:
    """Return the world that agents are trained in."""
    global _warned
    if _world.size == 1 and not _warned and launched() > 1:
        _warned = True
        warnings.warn(
            f"torchrun has started {launched()} processes, each of which trains an agent of its "
            f"own, and writes to the same files; call recurrent_rl.distributed.init() first to "
            f"train one agent together",
            stacklevel=3,
        )
    return _world


def launched() -> int:
    """Return how many processes torchrun, or whatever sets the same variables, has started."""
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE"} <= os.environ.keys() else 1


def check_alone(what: str, instead: str) -> None:
    """Raise RuntimeError if there are several ranks.

    Args:
        what: cannot be done by several.
        instead: what to do.

    """
    if _world.size > 1:
        raise RuntimeError(
            f"{what}: expected one process, got {_world.size} ranks that train together; {instead}"
        )


def check_same(world: World, values: dict[str, Any], what: str) -> None:
    """Raise ValueError, on all ranks, if the same names have other values on one of them.

    Args:
        world: of the ranks.
        values: by name; their texts are compared.
        what: they are of.

    """
    mine = {name: repr(value) for name, value in values.items()}
    for rank, theirs in enumerate(each := world.gather(mine)):
        for name in {**each[0], **theirs}:
            first, other = (one.get(name, "nothing") for one in (each[0], theirs))
            if first != other:
                raise ValueError(
                    f"{what}: expected the same {name} on all ranks, got {_cut(first)} on "
                    f"rank 0 and {_cut(other)} on rank {rank}; build it alike in each process"
                )


def _cut(text: str, most: int = 200) -> str:
    """Return a text, cut if it is long."""
    return text if len(text) <= most else f"{text[:most]}..."


def fingerprint(tensors: Sequence[Tensor]) -> int:
    """Return a number that is the same for the same bits in the same order, and hardly else."""
    found = 0
    for x in tensors:
        flat = x.detach().contiguous().flatten()
        words = flat.view(torch.int32 if flat.element_size() == 4 else torch.uint8)
        # Sums wrap around, which is no harm.
        found = hash((found, int(words.sum(dtype=torch.int64)), tuple(x.shape)))
    return found
