"""Tests of `recurrent_rl.envs.worker_process`: how workers start, fail, and end."""

import multiprocessing as mp
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from support.multi_envs import ScriptedParallel, scripted_makers

from recurrent_rl import AsyncMultiAgentVectorEnv
from recurrent_rl.envs import multi_agent_async, worker_process
from recurrent_rl.envs.worker_process import (
    Line,
    Parent,
    Worker,
    WorkerDiedError,
    WorkerFailedError,
    end_workers,
    format_traceback,
)


def echo(parent: Parent, *names: Any) -> None:
    """Tell what it was given, then answer what comes."""
    parent.send(names)
    while True:
        parent.send(parent.receive())


def fail(parent: Parent, path: Path) -> None:
    """Fail with something to close, which takes its time."""
    parent.exit_stack.callback(path.touch)
    parent.exit_stack.callback(time.sleep, 0.5)
    raise KeyError("lost")


def lose_a_connection(parent: Parent) -> None:
    raise ConnectionResetError("the simulator has left")


def leave(parent: Parent, code: int) -> None:
    sys.exit(code)


def tell_what_is_blocked(parent: Parent) -> None:
    parent.send(signal.pthread_sigmask(signal.SIG_BLOCK, []))


def refuse(parent: Parent, signals: list[signal.Signals]) -> None:
    """Ignore signals and the end of the pipe."""
    for each in signals:
        signal.signal(each, signal.SIG_IGN)
    parent.send("ready")
    time.sleep(60)


@pytest.fixture
def start() -> Iterator[Callable[..., Worker]]:
    """Workers that are killed at the end of the test."""
    workers: list[Worker] = []

    def start(work: Any, *args: Any, method: str = "fork") -> Worker:
        workers.append(Worker(method, work, *args, name="a worker"))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.kill()
    end_workers(workers, seconds=5)


def test_messages_and_the_end_of_the_pipe(start: Any) -> None:
    workers = [start(echo, "a", 2, method=how) for how in ("fork", "spawn", "forkserver")]
    for worker in workers:
        assert worker.receive() == ("a", 2)
    time.sleep(1.5)  # their watch for the parent's end goes off meanwhile
    for worker in workers:
        worker.send({"x": 1})
        assert worker.receive() == {"x": 1}
        worker.connection.close()
        worker.process.join(20)
        assert worker.process.exitcode == 0


def test_an_exception_comes_as_text_before_anything_is_closed(start: Any, tmp_path: Path) -> None:
    worker = start(fail, tmp_path / "closed")
    with pytest.raises(WorkerFailedError, match=r"(?s)^Traceback.*in fail\n.*KeyError: 'lost'\n$"):
        worker.receive()
    assert not (tmp_path / "closed").exists()
    worker.process.join(20)
    assert (tmp_path / "closed").exists()


def test_a_connection_that_the_worker_loses_is_not_the_parents(start: Any) -> None:
    with pytest.raises(WorkerFailedError, match="ConnectionResetError: the simulator has left"):
        start(lose_a_connection).receive()


def test_a_connection_that_an_environment_loses_is_its_error() -> None:
    class Unplugged(ScriptedParallel):
        def step(self, actions: Any) -> Any:
            raise ConnectionResetError("the simulator has left")

    env = AsyncMultiAgentVectorEnv([lambda: Unplugged([{"bob_0": [(0, 9, "t")]}])])
    env.reset()
    with pytest.raises(RuntimeError, match=r"(?s)^environment 0 failed in step.*simulator has lef"):
        env.step({"bob_0": [1]})


@pytest.mark.parametrize("code", [0, 7])
def test_a_process_that_ends_without_a_message(start: Any, code: int) -> None:
    worker = start(leave, code)
    with pytest.raises(WorkerDiedError, match=f"^{code}$"):
        worker.receive()
    worker.send("too late")  # no error, as receiving has told already
    with pytest.raises(WorkerDiedError, match=f"^{code}$"):
        worker.receive()


@pytest.mark.parametrize(
    ("ignored", "terminate", "code"),
    [
        ([], False, -signal.SIGKILL),
        ([], True, -signal.SIGTERM),
        ([signal.SIGTERM], True, -signal.SIGKILL),
    ],
)
def test_one_that_does_not_leave(
    start: Any,
    ignored: list[signal.Signals],
    terminate: bool,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if ignored:
        monkeypatch.setattr(worker_process, "PLEA", 0.3)
    worker = start(refuse, ignored)
    assert worker.receive() == "ready"
    end_workers([worker], seconds=0.1, terminate=terminate)
    assert worker.process.exitcode == code
    assert worker.connection.closed


def test_ctrl_c_is_left_to_the_parent(start: Any) -> None:
    worker = start(echo)
    worker.receive()
    assert worker.process.pid is not None
    os.kill(worker.process.pid, signal.SIGINT)
    worker.send("still here")
    assert worker.receive() == "still here"


def test_errors_as_text() -> None:
    try:
        raise KeyError("lost")
    except KeyError as error:
        text = format_traceback(error)
    assert "Traceback" in text
    assert "test_errors_as_text" in text
    assert text.endswith("KeyError: 'lost'\n")


def test_ctrl_c_does_not_reach_a_worker_that_still_starts(start: Callable[..., Worker]) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.SIGINT in start(tell_what_is_blocked).receive()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


class TestLine:
    """Waiting awake, then asleep."""

    @pytest.mark.parametrize("patience", [0.0, 0.05])
    def test_a_message_is_noticed_before_and_after_falling_asleep(self, patience: float) -> None:
        here, there = mp.Pipe()
        line = Line(here, patience)
        assert not line.has_message(0)
        for delay in (0.0, 0.01, 0.1):
            timer = threading.Timer(delay, there.send, [delay])
            timer.start()
            assert line.has_message(5)
            assert here.recv() == delay
            timer.join()

    @pytest.mark.skipif(not hasattr(select, "poll"), reason="needs select.poll")
    def test_awake_it_does_not_sleep(self) -> None:
        here, there = mp.Pipe()
        there.send(1)
        with mock.patch.object(here, "poll", side_effect=AssertionError):
            assert Line(here, 1.0).has_message(None)

    @pytest.mark.parametrize("patience", [0.0, 0.05])
    def test_the_end_of_the_other_side_is_noticed(self, patience: float) -> None:
        here, there = mp.Pipe()
        there.close()
        assert Line(here, patience).has_message(5)

    @pytest.mark.parametrize(("cores", "patience"), [(2, 0.0), (3, multi_agent_async.PATIENCE)])
    def test_only_where_every_process_has_a_core(
        self, cores: int, patience: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(multi_agent_async, "available_cores", lambda: cores)
        asked = mock.Mock(side_effect=ZeroDivisionError)
        monkeypatch.setattr(multi_agent_async, "Worker", asked)
        with pytest.raises(ZeroDivisionError):
            AsyncMultiAgentVectorEnv(
                scripted_makers([[{"bob_0": [(0, 3, "t")]}]] * 4), num_workers=2
            )
        assert asked.call_args.kwargs["patience"] == patience
