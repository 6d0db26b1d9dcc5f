"""Observations of any space on their way from environments through collection to learning."""

import functools
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
from pettingzoo import ParallelEnv
from support.agents import LEARNING, assert_same_weights, network, weights
from support.pairs import pairwise
from support.spaces_of import NESTED, nested_samples, row_of, samples

from recurrent_rl import IPPO, PPO, SyncMultiAgentVectorEnv, collect_rollouts_recurrent
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


class Ends(Shows):
    """Terminates, or is cut, or both, by the clock; its Dict has masks inside if it is to."""

    def __init__(self, space: gym.Space[Any], index: int, ends: str, masked: bool) -> None:
        super().__init__(space, index)
        self.ends, self.masked, self.length = ends, masked, 3 + index
        if masked:
            parts = {"observation": space, "action_mask": Box(0, 1, (2,), np.int8)}
            self.observation_space = Dict(parts)
            self.inner = space

    def _observation(self) -> Any:
        if not self.masked:
            return super()._observation()
        observation = samples(self.inner, (), seed=1000 * self.index + self.clock)
        mask = np.array([self.clock % 2, 1], np.int8)
        return {"observation": observation, "action_mask": mask}

    def step(self, action: Any) -> Any:
        observation, reward, _, ended, info = super().step(action)
        terminated, truncated = (ended and end in self.ends for end in "tl")
        return observation, reward, terminated, truncated, info


@pytest.mark.parametrize(
    ("space", "mode", "ends", "masked"),
    pairwise([*SPACES, VECTOR, INDEX], AutoresetMode, ["t", "l", "tl"], [False, True]),
    ids=str,
)
def test_episodes_of_any_space_end_in_any_way(
    space: gym.Space[Any], mode: AutoresetMode, ends: str, masked: bool
) -> None:
    env = SyncVectorEnv(
        [lambda i=i: Ends(space, i, ends, masked) for i in range(2)],  # type: ignore[misc]
        autoreset_mode=mode,
    )
    agent = agent_for(env.single_observation_space, learn_step=9)
    stats = collect_rollouts_recurrent(agent, env)
    assert len(stats.returns) >= 4
    buffer = agent.buffer
    assert buffer is not None
    ended = {"t": buffer.terminated, "l": buffer.truncated}
    assert all(bool(ended[end].any()) == (end in ends) for end in "tl")
    log_prob, value = replay(agent.policy, buffer)
    active = buffer.active
    torch.testing.assert_close(log_prob[active], buffer.log_prob[active])
    torch.testing.assert_close(value[active], buffer.value[active])
    assert agent.learn().updates > 0
    agent.test(env, loop=1)


@pytest.mark.parametrize("bad", [np.nan, 1e39])
@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_bad_observation_while_testing_is_named_with_its_place(
    mode: AutoresetMode, bad: float
) -> None:
    space = Dict(x=Box(-9, 9, (2,), np.float64), n=Discrete(2))
    one = {"x": np.array([0, bad]), "n": 0}
    env = SyncVectorEnv([lambda: Shows(space, 0), lambda: Shows(space, 2, {2: one})])
    message = r"^observation\['x'\]: expected finite .* in environment 1 at step 2 of the episode"
    with pytest.raises(ValueError, match=message):
        agent_for(space).test(env)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_float64_beyond_float32_ends_a_rollout(mode: AutoresetMode) -> None:
    space = Box(-np.inf, np.inf, (2,), np.float64)
    one = np.array([0, -1e300])
    makers = [lambda: Shows(space, 0), lambda: Shows(space, 2, {3: one})]
    agent = agent_for(space, learn_step=8, normalize_obs=True)
    message = r"^observation: expected finite numbers, got .*inf.* from environment 1 at step 3"
    with pytest.raises(ValueError, match=message):
        collect_rollouts_recurrent(agent, SyncVectorEnv(makers, autoreset_mode=mode))


def test_the_first_rollout_shows_distinct_observations_as_distinct() -> None:
    """Before there are statistics, with ratio one all the same."""
    space = Box(-1000, 1000, (1,))

    class Far(Shows):
        def _observation(self) -> Any:
            return np.array([50 + 25 * (self.clock % 8) + self.index], np.float32)

    env = SyncVectorEnv([lambda i=i: Far(space, i) for i in range(2)])  # type: ignore[misc]
    agent = agent_for(space, learn_step=8, normalize_obs=True)
    for _ in range(2):
        collect_rollouts_recurrent(agent, env)
        assert agent.buffer is not None
        seen = agent.policy.preprocessor(agent.buffer.obs).vector
        assert len(seen.unique()) == len(agent.buffer.obs.unique())
        log_prob, _ = replay(agent.policy, agent.buffer)
        active = agent.buffer.active
        torch.testing.assert_close(log_prob[active], agent.buffer.log_prob[active])
        agent.learn()


class ShowsTeam(ParallelEnv[str, Any, Any]):
    """Two agents, who see what a function says: agent's number, time."""

    metadata = {"name": "shows_team"}  # noqa: RUF012 - PettingZoo's way

    def __init__(self, space: gym.Space[Any], show: Any) -> None:
        self.space, self.show, self.possible_agents = space, show, ["a_0", "a_1"]

    def observation_space(self, agent: str) -> gym.Space[Any]:
        return self.space

    def action_space(self, agent: str) -> gym.Space[Any]:
        return Discrete(2)

    def _seen(self) -> Any:
        infos: dict[str, Any] = {agent: {} for agent in self.agents}
        return {agent: self.show(i, self.time) for i, agent in enumerate(self.agents)}, infos

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.time, self.agents = 0, list(self.possible_agents)
        return self._seen()

    def step(self, actions: Any) -> Any:
        self.time += 1
        no, nothing = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, 0.0)
        seen, infos = self._seen()
        return seen, nothing, no, no, infos


@pytest.mark.parametrize(
    ("space", "bad", "message"),
    [
        (Box(-128, 127, (2,), np.int8), [0, 200], r"whole numbers in \[-128, 127\].* to 200"),
        (Box(0, 65535, (2, 2), np.uint16), np.full((2, 2), 70000), r"whole .* to 70000"),
        (Box(0, 255, (2,), np.uint8), [0, 256], r"whole numbers in \[0, 255\].* to 256"),
        (Box(0, 1, (2,), np.uint8), np.array([0, 255], np.uint8), r"numbers in \[0, 1\]"),
        (Box(-1, 1, (2,)), np.array([0, 1e39]), r"finite numbers, got \["),
        (Box(-1, 1, (2,), np.float64), np.array([0, 1e39]), r"finite numbers, got \["),
    ],
    ids=str,
)
@pytest.mark.parametrize("test", [False, True])
def test_what_an_agent_of_a_team_cannot_see_is_an_error(
    space: Any, bad: Any, message: str, test: bool
) -> None:
    good = np.zeros(space.shape, space.dtype)
    env = SyncMultiAgentVectorEnv(
        [
            lambda: ShowsTeam(space, lambda i, t: good),
            lambda: ShowsTeam(space, lambda i, t: bad if (i, t) == (1, 2) else good),
        ]
    )
    team = IPPO(env.observation_spaces, env.action_spaces, learn_step=4, seed=0)
    play = functools.partial(team.test, max_steps=4)
    if not test:
        play = functools.partial(collect_rollouts_recurrent, team)
    with pytest.raises(ValueError, match=rf"^observation: expected {message}") as error:
        play(env)
    told = " ".join([str(error.value), *getattr(error.value, "__notes__", [])])
    assert "agent 'a_1' in environment 1" in told
    if not test or "whole" not in message:
        assert "at step" in told
