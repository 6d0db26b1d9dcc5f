"""Tests of `recurrent_rl.envs.vector_outputs`: what a vector returns is checked by name."""

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from support.agents import make_agent
from support.envs import Scripted, scripted

from recurrent_rl import collect_rollouts_recurrent


@dataclasses.dataclass
class Seen:
    pixels: Any


class Returning(gym.vector.VectorWrapper):
    """Changes one of the five that ``step`` returns, or all of them."""

    def __init__(self, env: Any, place: int | None, change: Any) -> None:
        super().__init__(env)
        self.place, self.change = place, change

    def step(self, actions: Any) -> Any:
        returned = list(super().step(actions))
        if self.place is None:
            return self.change(tuple(returned))
        returned[self.place] = self.change(returned[self.place])
        return tuple(returned)


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (0, lambda x: x[:, :1], r"observation: expected shape \[E, ...\] = \[2, 3\].*\[2, 1\]"),
        (0, lambda x: x[0], r"observation: expected shape"),
        (0, Seen, r"observation: expected an array of numbers, got Seen"),
        (1, lambda x: x[:, None], r"reward: expected shape \[E\] = \[2\], got \[2, 1\]"),
        (1, lambda x: x[:1], r"reward: expected shape \[E\] = \[2\], got \[1\]"),
        (1, lambda x: float(x[0]), r"reward: expected shape \[E\] = \[2\], got \[\]"),
        (1, lambda x: x.astype(str), r"reward: expected numbers"),
        (2, lambda x: x[:1], r"terminated: expected shape \[E\] = \[2\], got \[1\]"),
        (2, lambda x: x[:, None], r"terminated: expected shape \[E\] = \[2\], got \[2, 1\]"),
        (3, lambda x: bool(x[0]), r"truncated: expected shape"),
        (3, lambda x: x * 2 + 3, r"truncated: expected bools, or 0 and 1, got \[3, 3\]"),
        (3, lambda x: x.astype(str), r"truncated: expected bools, got"),
        (None, lambda x: x[:2] + x[3:], r"env.step: expected a tuple of 5.*got 4 values"),
        (None, lambda x: None, r"env.step: expected a tuple of 5"),
    ],
)
def test_what_numpy_would_broadcast_is_refused(place: int, change: Any, message: str) -> None:
    env = Returning(scripted(["30t", "30t"]), place, change)
    with pytest.raises((TypeError, ValueError), match=message):
        collect_rollouts_recurrent(make_agent(env), env, 5)


@pytest.mark.parametrize(
    ("place", "change"),
    [
        (0, torch.from_numpy),
        (1, torch.from_numpy),
        (1, lambda x: x.tolist()),
        (2, lambda x: x.astype(int)),
        (2, torch.from_numpy),
        (3, lambda x: x.astype(np.float32)),
        (3, lambda x: x.tolist()),
    ],
)
def test_what_can_only_mean_one_thing_is_taken(place: int, change: Any) -> None:
    rollouts = []
    for env in (
        scripted(["3t", "4l"]),
        Returning(scripted(["3t", "4l"]), place, change),
    ):
        agent = make_agent(env)
        collect_rollouts_recurrent(agent, env, 9)
        rollouts.append(agent.buffer)
    one, other = rollouts
    for name in ("obs", "reward", "terminated", "truncated", "bootstrap"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_short_final_observations() -> None:
    def cut(info: dict[str, Any]) -> dict[str, Any]:
        return info | {"final_obs": info["final_obs"][:1]} if "final_obs" in info else info

    env = Returning(scripted(["9t", "2l"]), 4, cut)
    with pytest.raises(ValueError, match=r"final_obs.*environments \[1\].*got 1 places"):
        collect_rollouts_recurrent(make_agent(env), env, 5)


def test_final_observations_of_another_shape() -> None:
    def widen(info: dict[str, Any]) -> dict[str, Any]:
        if "final_obs" in info:
            info["final_obs"] = np.array([None, np.zeros(1, np.float32)], object)
        return info

    env = Returning(scripted(["9t", "2l"]), 4, widen)
    with pytest.raises(ValueError, match=r"final_obs'\]: expected shape.*\[1, 3\]"):
        collect_rollouts_recurrent(make_agent(env), env, 5)


class Failing(Scripted):
    def step(self, action: Any) -> Any:
        if self.clock == 3:
            raise KeyError("lost")
        return super().step(action)


@pytest.mark.parametrize("wrap", [lambda env: env, lambda env: gym.wrappers.TimeLimit(env, 99)])
def test_an_error_in_a_step_says_where(wrap: Any) -> None:
    makers = [lambda: Scripted("30t"), lambda: wrap(Failing("30t"))]
    env = gym.vector.SyncVectorEnv(makers, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    agent = make_agent(env)
    with pytest.raises(KeyError) as error:
        collect_rollouts_recurrent(agent, env, 5)
    assert error.value.__notes__ == ["in step of environment 1", "at step 3 of this rollout"]
    with pytest.raises(KeyError) as error:
        agent.test(wrap(Failing("30t")))
    assert error.value.__notes__ == ["in step of environment 0", "at step 3 of the episode"]
