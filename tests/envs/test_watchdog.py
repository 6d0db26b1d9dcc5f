"""Tests of `recurrent_rl.envs.watchdog`: a worker that hangs ends with its parent all the same."""

import multiprocessing as mp
import os
import time
from multiprocessing.connection import Connection

import pytest

from recurrent_rl.envs import watchdog
from recurrent_rl.envs.watchdog import die_with


def hang(writer: Connection, pid: int, grace: float, wake: bool) -> None:
    if not wake:
        del os.pidfd_open
    die_with(pid, grace)
    writer.send("hanging")
    time.sleep(60)


def start_and_hang(writer: Connection, grace: float, wake: bool) -> None:
    """A parent that knows nothing of its worker's trouble."""
    args = (writer, os.getpid(), grace, wake)
    mp.get_context("fork").Process(target=hang, args=args).start()
    writer.close()
    time.sleep(60)


@pytest.mark.parametrize("wake", [True, False])
def test_a_worker_that_hangs_ends_with_a_parent_that_is_killed(
    wake: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "INTERVAL", 0.1)
    reader, writer = mp.Pipe(duplex=False)
    parent = mp.get_context("fork").Process(target=start_and_hang, args=(writer, 0.1, wake))
    parent.start()
    writer.close()
    assert reader.recv() == "hanging"
    assert not reader.poll(0.5)  # while its parent lives, it is left alone
    parent.kill()
    parent.join()
    assert reader.poll(10), "the worker is still there"
    with pytest.raises(EOFError):  # nobody holds the other end any more
        reader.recv()


def test_a_parent_that_is_gone_already() -> None:
    child = mp.get_context("fork").Process(target=lambda: None)
    child.start()
    child.join()
    assert child.pid is not None
    reader, writer = mp.Pipe(duplex=False)
    late = mp.get_context("fork").Process(target=hang, args=(writer, child.pid, 0.1, True))
    late.start()
    writer.close()
    assert reader.recv() == "hanging"
    late.join(10)
    assert late.exitcode == 1
