"""Tests of `recurrent_rl.wrappers.MaskVelocityVectorWrapper`."""

import doctest
import importlib.util
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

import recurrent_rl
from recurrent_rl.wrappers import (
    VELOCITY_INDICES,
    MaskVelocityVectorWrapper,
    MaskVelocityWrapper,
    mask_velocity_vector,
)

needs_box2d = pytest.mark.skipif(
    importlib.util.find_spec("Box2D") is None, reason="needs the extra box2d"
)


def vector(env_id: str, *wrappers: Any, mode: AutoresetMode = AutoresetMode.NEXT_STEP) -> Any:
    """Gymnasium's vector of three environments, whose episodes have ten steps at most."""
    options = {"autoreset_mode": mode}
    return gym.make_vec(
        env_id,
        3,
        vectorization_mode="sync",
        wrappers=wrappers,
        vector_kwargs=options,
        max_episode_steps=10,
    )


class Given(VectorEnv[Any, Any, Any]):
    """Returns what the test says."""

    def __init__(self, seen: Any, info: Any = None, space: Any = None) -> None:
        self.num_envs, self.seen, self.info = 2, seen, {} if info is None else info
        self.single_observation_space = space or Box(-9, 9, (3,))
        self.single_action_space = Discrete(2)
        self.action_space = gym.spaces.MultiDiscrete([2, 2])

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return self.seen, self.info

    def step(self, actions: Any) -> Any:
        return self.seen, np.zeros(2), np.ones(2, bool), np.zeros(2, bool), self.info


@pytest.mark.parametrize("mode", list(AutoresetMode)[:2], ids=lambda mode: mode.name)
@pytest.mark.parametrize(
    "env_id",
    [pytest.param(i, marks=needs_box2d if i[:5] == "Lunar" else ()) for i in VELOCITY_INDICES],
)
def test_masks_what_the_wrapper_of_single_environments_masks(
    env_id: str, mode: AutoresetMode
) -> None:
    ours = MaskVelocityVectorWrapper(vector(env_id, mode=mode))
    theirs = vector(env_id, MaskVelocityWrapper, mode=mode)
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.observation_space == theirs.observation_space
    assert np.array_equal(ours.reset(seed=1)[0], theirs.reset(seed=1)[0])
    finals = 0
    for _ in range(12):
        action = theirs.action_space.sample()
        one, other = ours.step(action), theirs.step(action)
        for a, b in zip(one[:4], other[:4], strict=True):
            assert np.array_equal(a, b)
        assert one[4].keys() == other[4].keys()
        for a, b in zip(one[4].get("final_obs", ()), other[4].get("final_obs", ()), strict=True):
            assert (a is None) == (b is None)
            finals += a is not None
            assert a is None or np.array_equal(a, b)
    assert (finals > 0) == (mode == AutoresetMode.SAME_STEP)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("kind", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_nothing_of_the_vector_is_changed_and_nan_is_hidden(kind: Any) -> None:
    seen, final = kind([[1.0, float("nan"), 3], [4, 5, 6]]), kind([[7.0, 8, 9]] * 2)
    info = {"final_obs": final, "speed": 3}
    env = MaskVelocityVectorWrapper(Given(seen, info), indices=[1])
    observed, *_, told = env.step(None)
    assert type(observed) is type(seen)
    assert np.array_equal(observed, [[1, 0, 3], [4, 0, 6]])
    assert np.array_equal(told["final_obs"], [[7, 0, 9]] * 2)
    assert told["speed"] == 3
    assert math.isnan(seen[0, 1])
    assert info["final_obs"] is final
    assert final[0, 1] == 8


def test_final_observations_of_some_only() -> None:
    info = {"final_observation": (None, np.ones(3, np.float32))}
    env = MaskVelocityVectorWrapper(Given(np.ones((2, 3), np.float32), info), indices=[0, 2])
    none, final = env.step(None)[4]["final_observation"]
    assert none is None
    assert final.tolist() == [0, 1, 0]


def test_what_makes_no_sense_is_refused() -> None:
    seen = np.ones((2, 3), np.float32)
    wrap = MaskVelocityVectorWrapper
    with pytest.raises(TypeError, match=r"env: expected a .*VectorEnv, .*MaskVelocityWrapper$"):
        wrap(gym.make("CartPole-v1"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"without a spec.*indices="):
        wrap(Given(seen))
    with pytest.raises(ValueError, match=r"without a spec.*indices="):
        wrap(SyncVectorEnv([lambda: gym.make("CartPole-v1")]))
    with pytest.raises(ValueError, match=r"'Acrobot-v1'.*indices="):
        wrap(vector("Acrobot-v1"))
    with pytest.raises(ValueError, match=r"indices: expected integers in \[0, 3\).*got \[3\]"):
        wrap(Given(seen), indices=[3])
    with pytest.raises(TypeError, match="observation_space: expected a one-dimensional Box"):
        wrap(Given(seen, space=Dict(a=Box(0, 1, (2,)))), indices=[0])
    flat = gym.wrappers.vector.ReshapeObservation(vector("CartPole-v1"), (2, 2))
    with pytest.raises(ValueError, match=r"one-dimensional Box, got shape \(2, 2\)"):
        wrap(flat)


def test_the_example_runs_and_the_names_are_exported() -> None:
    failed, attempted = doctest.testmod(mask_velocity_vector)
    assert (failed, attempted) == (0, 6)
    from wrappers import MaskVelocityVectorWrapper as OldName

    assert OldName is recurrent_rl.MaskVelocityVectorWrapper is MaskVelocityVectorWrapper
