"""Ranks that are threads of one process: the same rules as between processes, in milliseconds."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from recurrent_rl import distributed
from recurrent_rl.buffers.replay import GroupWindows, Windows
from recurrent_rl.buffers.rollout import SequenceRolloutBuffer
from recurrent_rl.distributed import ALONE, World

T = TypeVar("T")


class Thread:
    """One of several ranks that meet at a barrier."""

    def __init__(self, rank: int, held: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size, self._held, self._barrier = rank, len(held), held, barrier

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def gather(self, x: T) -> list[T]:
        self._held[self.rank] = copy.deepcopy(x)
        self._barrier.wait()
        found = copy.deepcopy(self._held)
        self._barrier.wait()  # nobody writes before all have read
        return found

    def sum(self, x: Tensor) -> Tensor:
        return x.copy_(torch.stack(self.gather(x)).sum(0))

    def numbers(self, *mine: int) -> list[tuple[int, ...]]:
        return self.gather(mine)

    def from_first(self, x: T) -> T:
        return self.gather(x)[0]


class Ranks:
    """Runs a function on each of several ranks, and shows the package where it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._here = threading.local()
        monkeypatch.setattr(distributed, "current", lambda: getattr(self._here, "world", ALONE))

    def run(self, size: int, work: Callable[[World], T]) -> list[T]:
        """Return what it gives on each rank; raise what the first one to fail has raised."""
        barrier, held = threading.Barrier(size, timeout=60), [None] * size

        def on(rank: int) -> T:
            self._here.world = world = Thread(rank, held, barrier)
            try:
                return work(world)
            except BaseException:
                barrier.abort()
                raise

        with ThreadPoolExecutor(size) as pool:
            futures = [pool.submit(on, rank) for rank in range(size)]
        errors = [future.exception() for future in futures]
        for error in sorted(filter(None, errors), key=_is_broken_barrier):
            raise error
        return [future.result() for future in futures]


def _is_broken_barrier(error: BaseException) -> bool:
    return isinstance(error, threading.BrokenBarrierError)


def rows_of_rollout(buffer: SequenceRolloutBuffer, envs: slice) -> SequenceRolloutBuffer:
    """A rollout of some of the environments."""
    part, count = copy.copy(buffer), buffer.rows // buffer.agents
    part.rows = len(range(count)[envs]) * buffer.agents
    assert buffer.lead == 0, "expected a rollout that continues nothing"

    def cut(x: Tensor, axis: int) -> Tensor:
        by_env = x.unflatten(axis, (count, buffer.agents))
        return by_env.narrow(axis, envs.start, envs.stop - envs.start).flatten(axis, axis + 1)

    for name, field in vars(buffer).items():
        if name == "views":
            continue
        if isinstance(field, Tensor):
            setattr(part, name, cut(field, 0 if name == "last_value" else 1).clone())
    part.hidden = [cut(field, 1).clone() for field in buffer.hidden]
    if buffer.views is not None:
        part.views = buffer.views.unflatten(0, (buffer.steps, count))[:, envs].flatten(0, 1).clone()
    return part


def some_windows(windows: Windows, which: slice) -> Windows:
    """A sample of some of the windows."""
    groups = {}
    for name, group in windows.groups.items():
        rows = slice(which.start * group.agents, which.stop * group.agents)
        fields = {key: x[:, rows] if isinstance(x, Tensor) else x for key, x in vars(group).items()}
        fields["state"] = [x[:, rows] for x in group.state]
        groups[name] = GroupWindows(**fields)
    return Windows(
        groups, windows.burn_in, windows.length, windows.slot[which], windows.weight[which]
    )
