"""Tests of `recurrent_rl.envs.gymnasium_workers`: what goes wrong, and whose numbers are whose."""

import os
import random
import signal
import time
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from recurrent_rl import PPO, collect_rollouts_recurrent, make_vect_envs

PARENT = os.getpid()


class Trouble(gym.Env[Any, Any]):
    """Does something at its third step, or in its reset."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, trouble: str = "", at: str = "step") -> None:
        self.trouble, self.at, self.time = trouble, at, 0

    def _act(self) -> None:
        if self.trouble == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.trouble == "hang":
            time.sleep(60)
        elif self.trouble == "raise":
            raise KeyError("lost")
        elif self.trouble == "raise what cannot be sent":
            raise OddError(1, 2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if self.at == "reset":
            self._act()
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        if self.at == "step" and self.time == 3:
            self._act()
        return np.zeros(1, np.float32), 1.0, False, False, {}

    def close(self) -> None:
        if self.at == "close" and os.getpid() != PARENT:
            self._act()


class OddError(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("odd")


def vector(trouble: str, at: str = "step", **options: Any) -> Any:
    made: list[int] = []

    def make() -> Trouble:
        made.append(0)
        return Trouble(trouble, at)

    return make_vect_envs(make_env=make, num_envs=2, **options)


def collect(env: Any) -> None:
    agent = PPO(env.single_observation_space, env.single_action_space, seed=0)
    collect_rollouts_recurrent(agent, env, 8)


@pytest.mark.parametrize("at", ["step", "reset"])
@pytest.mark.parametrize(
    ("trouble", "kind", "message"),
    [
        ("die", RuntimeError, r"environment .*\(Trouble\): .* exit code -9.* in {}"),
        ("hang", TimeoutError, r"environment 0, 1 \(Trouble\): .* answer to {} within 0.3 seconds"),
        ("raise", KeyError, r"lost"),
        ("raise what cannot be sent", RuntimeError, r"(?s)OddError: odd"),
    ],
)
def test_trouble_is_named_and_closing_ends(
    trouble: str, kind: type[Exception], message: str, at: str
) -> None:
    env = vector(trouble, at, timeout=0.3 if trouble == "hang" else None)
    processes = env.processes
    begin = time.monotonic()
    with pytest.raises(kind, match=message.format(at)) as error:
        collect(env)
    if trouble.startswith("raise"):
        notes = "\n".join(error.value.__notes__)
        assert f"in {at} of environment" in notes
        assert "Traceback" in notes
    assert env.closed
    env.close()
    assert time.monotonic() - begin < 9
    assert not any(process.is_alive() for process in processes)


def test_closing_that_hangs_is_cut_off() -> None:
    env = vector("hang", "close")
    env.reset()
    processes = env.processes
    begin = time.monotonic()
    env.close(timeout=0.5)
    assert time.monotonic() - begin < 5
    assert not any(process.is_alive() for process in processes)


def test_closing_in_the_middle_of_a_step() -> None:
    env = vector("hang")
    env.reset()
    for _ in range(2):
        env.step(np.array([0, 0]))
    env.step_async(np.array([0, 0]))
    begin = time.monotonic()
    env.close(timeout=0.5)
    assert time.monotonic() - begin < 5


def test_building_that_fails() -> None:
    parent = os.getpid()

    def make() -> gym.Env[Any, Any]:
        if os.getpid() != parent:
            raise KeyError("no licence")
        return Trouble()

    with pytest.raises(KeyError, match="no licence") as error:
        make_vect_envs(make_env=make, num_envs=2)
    assert "in building of environment" in error.value.__notes__[0]


def test_one_object_for_all_workers() -> None:
    one = Trouble()
    with pytest.raises(ValueError, match="one object for several"):
        make_vect_envs(make_env=lambda: one, num_envs=2)


def test_what_a_worker_told_before_it_was_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error is raised, not its end, even if it has ended before it is asked for its spaces."""
    ask = AsyncVectorEnv._check_spaces

    def late(env: Any) -> None:
        for process in env.processes:
            process.join(10)
        ask(env)

    monkeypatch.setattr(AsyncVectorEnv, "_check_spaces", late)
    one = Trouble()
    with pytest.raises(ValueError, match="one object for several"):
        make_vect_envs(make_env=lambda: one, num_envs=2)


def test_a_limit_that_nothing_could_keep() -> None:
    with pytest.raises(ValueError, match="timeout: expected seconds"):
        make_vect_envs(make_env=Trouble, should_async_vector=False, timeout=1)
    with pytest.raises(ValueError, match="timeout: expected seconds"):
        make_vect_envs(make_env=Trouble, timeout=0)


DRAWS: dict[str, Any] = {
    "numpy": lambda: np.random.rand(),  # noqa: NPY002 - as many environments do
    "python": random.random,
    "torch": lambda: float(torch.rand(())),
}


class Global(Trouble):
    observation_space = gym.spaces.Box(0, 1, (1,))

    def __init__(self, draw: str) -> None:
        super().__init__()
        self.draw = DRAWS[draw]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.array([self.draw()], np.float32), {}

    def step(self, action: Any) -> Any:
        return np.array([self.draw()], np.float32), 0.0, False, False, {}


@pytest.mark.parametrize("draw", list(DRAWS))
@pytest.mark.parametrize("workers", [False, True])
def test_copies_draw_different_numbers_and_the_same_again(draw: str, workers: bool) -> None:
    env = make_vect_envs(make_env=lambda: Global(draw), num_envs=3, should_async_vector=workers)
    try:
        unseeded = env.reset()[0].flatten().tolist()
        np.random.seed(5)  # noqa: NPY002
        expected = DRAWS[draw]()
        np.random.seed(5)  # noqa: NPY002
        first, again = (env.reset(seed=7)[0].flatten().tolist() for _ in range(2))
        other = env.reset(seed=8)[0].flatten().tolist()
        if draw == "numpy":
            assert DRAWS[draw]() == expected  # the process's own generator has not been touched
        if workers:
            played = [env.reset(seed=7)[0], env.step(np.array([0, 0, 0]))[0]]
            assert np.array_equal(played, [env.reset(seed=7)[0], env.step(np.zeros(3, int))[0]])
    finally:
        env.close()
    assert len({*unseeded, *first, *other}) == 9 - (2 if workers else 0)
    assert first == again


class Reusing(gym.Env[Any, Any]):
    """Writes observations into arrays of its own."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, kind: str, reuse: bool) -> None:
        box = gym.spaces.Box(-1, 10, (2,))
        self.array, self.reuse, self.kind = np.zeros(2, np.float32), reuse, kind
        self.observation_space: gym.Space[Any] = {
            "box": box,
            "dict": gym.spaces.Dict({"a": box, "b": gym.spaces.Discrete(2)}),
            "tuple": gym.spaces.Tuple([box, box]),
        }[kind]

    def _see(self) -> Any:
        self.array[:] = self.time, 1
        array = self.array if self.reuse else self.array.copy()
        return {"box": array, "dict": {"a": array, "b": 1}, "tuple": (array, array)}[self.kind]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self._see(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        return self._see(), 1.0, False, self.time >= 4, {}


@pytest.mark.parametrize("kind", ["box", "dict", "tuple"])
@pytest.mark.parametrize("workers", [False, True])
def test_reused_arrays_train_like_copies(kind: str, workers: bool) -> None:
    values = []
    for reuse in (False, True):
        env = make_vect_envs(
            make_env=lambda reuse=reuse: Reusing(kind, reuse),  # type: ignore[misc]
            num_envs=2,
            should_async_vector=workers,
        )
        agent = PPO(env.single_observation_space, env.single_action_space, seed=0)
        collect_rollouts_recurrent(agent, env, 10)
        env.close()
        assert agent.buffer is not None
        values.append(agent.buffer.bootstrap[agent.buffer.truncated].tolist())
    assert values[0] == values[1]


@pytest.mark.parametrize("kind", ["box", "dict", "tuple"])
def test_reused_arrays_in_a_vector_of_ones_own(kind: str) -> None:
    env: Any = SyncVectorEnv(
        [lambda: Reusing(kind, True)] * 2, autoreset_mode=AutoresetMode.SAME_STEP
    )
    agent = PPO(env.single_observation_space, env.single_action_space, seed=0)
    with pytest.raises(ValueError, match=r"final_obs.*written into; build .* make_vect_envs"):
        collect_rollouts_recurrent(agent, env, 10)


def test_tests_in_workers_reset_once_for_each_episode() -> None:
    env = make_vect_envs(make_env=lambda: Counting(), num_envs=2)
    try:
        agent = PPO(env.single_observation_space, env.single_action_space, seed=0)
        assert agent.evaluate(env, 6).tolist() == [1, 1, 2, 2, 3, 3]
        assert env.get_attr("resets") == (3, 3)
        collect_rollouts_recurrent(agent, env, 5)
        assert env.get_attr("resets") == (6, 6)
    finally:
        env.close()


class Counting(Trouble):
    resets = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.resets += 1
        self.time = 0
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        self.time += 1
        return np.zeros(1, np.float32), self.resets / 2, self.time == 2, False, {}
