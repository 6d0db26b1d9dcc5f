"""Observations of any space on their way from environments through collection to learning."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import (
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Tuple,
)
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from support.agents import LEARNING, assert_same_weights, network, weights
from support.spaces_of import NESTED, nested_samples, row_of, samples

from recurrent_rl import PPO, collect_rollouts_recurrent
from recurrent_rl.algorithms.unroll import replay
from recurrent_rl.spaces.layout import ObservationLayout

VECTOR = Box(-1.0, np.array([1.0, 2.0, np.inf]), dtype=np.float32)
INDEX = Discrete(4, start=-2)
IMAGE = Box(0, 255, (2, 3, 1), np.uint8)


@pytest.mark.parametrize("which", [0, 1])
def test_bad_parts_of_what_is_given_to_an_agent_are_named(which: int) -> None:
    agent = PPO(NESTED, Discrete(2), recurrent=False)
    rows: dict[str, Any] = {**nested_samples(), "place": np.array([[0, 1], [2, np.inf]])}
    bad = [rows, row_of(rows, 1)][which]
    with pytest.raises(ValueError, match=r"^observation\['place'\]: .* in row " + str(1 - which)):
        agent.get_action(bad)
    del bad["image"]
    with pytest.raises(TypeError, match=r"^observation: .*observation\['image'\]"):
        agent.get_action(bad)
    with pytest.raises(TypeError, match=r"^observation: .*observation\['image'\]"):
        agent.get_action(3)


class Shows(gym.Env[Any, Any]):
    """Shows samples of any space, other ones at every step; ``bad`` replaces step k's, once."""

    def __init__(self, space: gym.Space[Any], index: int = 0, bad: Any = None) -> None:
        self.observation_space, self.action_space = space, Discrete(2, start=3)
        self.index, self.bad, self.clock, self.length = index, bad or {}, 0, 4 + index
        self.shown: list[Any] = []

    def _observation(self) -> Any:
        observation = samples(self.observation_space, (), seed=1000 * self.index + self.clock)
        self.shown.append(self.bad.pop(self.clock, observation))
        return self.shown[-1]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self.time, self.clock = self.time + 1, self.clock + 1
        return self._observation(), float(action), False, self.time == self.length, {}


def agent_for(space: gym.Space[Any], **options: Any) -> PPO:
    options = {**LEARNING, "latent_dim": 6, **options}
    shapes = network(options)
    shapes["encoder_config"]["latent_dim"] = options.pop("latent_dim")
    return PPO(space, Discrete(2, start=3), shapes, seed=0, **options)


SPACES = [
    NESTED,
    IMAGE,
    Box(0, 1, (2, 3, 4)),
    Box(0, 255, (5,), np.uint8),
    MultiBinary([2, 2]),
    MultiDiscrete([[2, 3], [1, 4]], start=[[0, 5], [-1, -1]]),
    Tuple([INDEX, Box(-1, 1, (), np.float64)]),
    Dict(a=MultiBinary(2), b=IMAGE),
]


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_rollout_holds_what_was_shown(space: gym.Space[Any], mode: AutoresetMode) -> None:
    envs: list[Shows] = []
    env = SyncVectorEnv(
        [lambda i=i: envs.append(Shows(space, i)) or envs[-1] for i in range(2)],  # type: ignore
        autoreset_mode=mode,
    )
    agent = agent_for(space, learn_step=12, recurrent=mode != AutoresetMode.DISABLED)
    collect_rollouts_recurrent(agent, env)
    assert agent.buffer is not None
    layout = agent.policy.codec.layout
    for row, one in enumerate(envs):
        shown = [layout.pack(x) for x in one.shown]
        if not (final_is_next := mode == AutoresetMode.NEXT_STEP):
            # An episode's last observation is not among those that are acted on.
            last = one.length + np.arange(3) * (one.length + 1)
            shown = [x for t, x in enumerate(shown) if t not in last]
        stored = agent.buffer.obs[:, row].numpy()
        for t in range(12):
            np.testing.assert_array_equal(stored[t], shown[t].astype(stored.dtype))
        assert final_is_next or len(one.shown) > 12
    log_prob, value = replay(agent.policy, agent.buffer)
    active = agent.buffer.active
    torch.testing.assert_close(log_prob[active], agent.buffer.log_prob[active])
    torch.testing.assert_close(value[active], agent.buffer.value[active])
    before = weights(agent)
    assert agent.learn().updates > 0
    after = weights(agent)
    # Every part of the network is reached, convolutions included.
    for name, _ in agent.policy.named_parameters():
        assert not torch.equal(after[name], before[name]), name


def test_an_image_beside_numbers_costs_its_bytes() -> None:
    space = Dict(image=Box(0, 255, (64, 64, 3), np.uint8), place=VECTOR, heading=Discrete(4))
    layout = ObservationLayout(space)
    bytes_ = math.prod(layout.shape) * layout.dtype.itemsize
    assert bytes_ == 64 * 64 * 3 + 4 * (3 + 1)
    agent = agent_for(space, learn_step=8)
    collect_rollouts_recurrent(
        agent, SyncVectorEnv([lambda i=i: Shows(space, i) for i in range(2)])
    )  # type: ignore[misc]
    assert agent.buffer is not None
    assert agent.buffer.obs.nbytes == 8 * 2 * bytes_


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_vectors_in_processes_show_the_same(kind: Any) -> None:
    with_env = kind([lambda i=i: Shows(NESTED, i) for i in range(2)])  # type: ignore[misc]
    agent = agent_for(NESTED, learn_step=6)
    collect_rollouts_recurrent(agent, with_env)
    with_env.close()
    assert agent.buffer is not None
    layout = agent.policy.codec.layout
    for row in range(2):
        for t in range(4):
            expected = layout.pack(samples(NESTED, (), seed=1000 * row + t))
            np.testing.assert_array_equal(agent.buffer.obs[t, row], expected)


def changed(space: gym.Space[Any], path: tuple[Any, ...], value: Any) -> Any:
    """An observation whose part at ``path`` is replaced."""
    if not path:
        return value
    observation = samples(space, ())
    key, *rest = path
    part = changed(space[key], tuple(rest), value)
    if isinstance(observation, tuple):
        return tuple(part if i == key else x for i, x in enumerate(observation))
    return {**observation, key: part}


@pytest.mark.parametrize(
    ("space", "path", "value", "expected"),
    [
        (VECTOR, (), np.array([0, np.nan, 1], np.float32), "finite numbers, got .*nan"),
        (INDEX, (), 2, r"choices of Discrete\(4, start=-2\), got 2"),
        (INDEX, (), -3, r"choices of Discrete\(4, start=-2\), got -3"),
        (MultiDiscrete([2, 3]), (), np.array([0, 3]), r"choices of MultiDiscrete.*, got \[0, 3\]"),
        (NESTED, ("place",), np.array([np.inf, 0]), r"finite numbers, got \[inf, 0"),
        (NESTED, ("view", 1, "far"), 3, r"choices of Discrete\(3\), got 3"),
        (NESTED, ("choices",), np.array([[4, 0]]), r"choices of MultiDiscrete\(.*, got \[\[4"),
    ],
)
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("step", [3, 6, 8])
def test_a_bad_observation_ends_the_rollout_with_its_place(
    space: Any, path: Any, value: Any, expected: str, mode: AutoresetMode, step: int
) -> None:
    """In the middle of an episode, as its last one (6 of SAME_STEP), and as the very last."""
    one = changed(space, path, value)
    # A vector's step that only resets, before the last of these, is none to its environment.
    clock = step - (mode == AutoresetMode.NEXT_STEP and step > 6)
    makers = [lambda: Shows(space, 0), lambda: Shows(space, 2, {clock: one})]
    env = SyncVectorEnv(makers, autoreset_mode=mode)
    agent = agent_for(space, learn_step=8)
    before = weights(agent)
    what = "observation" if mode == AutoresetMode.NEXT_STEP or step != 6 else "final observation"
    at = step - 1 if what == "final observation" else step
    part = "".join(rf"\[{key!r}\]" for key in path)
    message = rf"(?s)^{what}{part}: expected {expected}.* from environment 1 at step {at} of this"
    with pytest.raises(ValueError, match=message):
        collect_rollouts_recurrent(agent, env)
    assert_same_weights(before, weights(agent))
    assert agent.collection.carries is None
    with pytest.raises(RuntimeError, match=r"^learn: expected a rollout collected"):
        agent.learn()
    collect_rollouts_recurrent(agent, env)  # from a fresh start, and it goes on


@pytest.mark.parametrize(
    ("space", "path", "value", "message"),
    [
        (INDEX, (), 7, r"^observation: expected integers in \[-2, 1\]"),
        (NESTED, ("place",), np.array([0, np.nan]), r"^observation\['place'\]: expected finite"),
        (NESTED, ("view", 1, "far"), 3, r"^observation\['view'\]\[1\]\['far'\]: expected integers"),
    ],
)
def test_a_bad_first_observation_is_named_at_once(
    space: Any, path: Any, value: Any, message: str
) -> None:
    one = changed(space, path, value)
    env = SyncVectorEnv([lambda: Shows(space, 0), lambda: Shows(space, 1, {0: one})])
    with pytest.raises(ValueError, match=message) as error:
        collect_rollouts_recurrent(agent_for(space), env)
    assert error.value.__notes__ == ["the first observation of environment 1"]
