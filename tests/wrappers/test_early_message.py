"""Tests of `recurrent_rl.wrappers.EarlyMessageWrapper`."""

import doctest
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from mpe2 import simple_speaker_listener_v4, simple_spread_v3
from pettingzoo import ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper

from recurrent_rl import IPPO, collect_rollouts_recurrent, make_multi_agent_vect_envs
from recurrent_rl.wrappers import MESSAGE_INDICES, EarlyMessageWrapper, early_message

SAID = list(MESSAGE_INDICES["simple_speaker_listener"]["listener_0"])


class Echo(ParallelEnv[str, Any, Any]):
    """Returns the test's own arrays in each step; ``absent`` are agents left out, by step."""

    metadata: dict[str, Any] = {"name": "echo"}  # noqa: RUF012

    def __init__(
        self, arrays: dict[str, np.ndarray], absent: dict[int, str] | None = None, **spaces: Any
    ) -> None:
        self.arrays, self.absent = arrays, absent or {}
        self.possible_agents = list(arrays)
        self.spaces = {
            agent: spaces.get(agent) or Box(-9, 9, array.shape, dtype=array.dtype.type)
            for agent, array in arrays.items()
        }

    def observation_space(self, agent: str) -> gym.Space[Any]:
        return self.spaces[agent]

    def action_space(self, agent: str) -> gym.Space[Any]:
        return Discrete(2)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.agents, self.time = self.possible_agents[:], 0
        return dict(self.arrays), {agent: {"options": options} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> Any:
        self.time += 1
        gone = self.absent.get(self.time)
        observations = {agent: array for agent, array in self.arrays.items() if agent != gone}
        flags = dict.fromkeys(self.agents, False)
        infos = {agent: {"time": self.time} for agent in self.agents}
        return observations, {agent: float(self.time) for agent in self.agents}, flags, flags, infos


def pair(**options: Any) -> Echo:
    """Two listeners that see [1, 2, 3], and one agent that cannot hear."""
    arrays = {agent: np.array([1, 2, 3], np.float32) for agent in ("a_0", "a_1", "deaf_0")}
    return Echo(arrays, **options)


class TestSpeakerListener:
    """simple_speaker_listener_v4, which needs no indices."""

    def test_table_names_the_message(self) -> None:
        env = simple_speaker_listener_v4.parallel_env()
        env.reset(seed=0)
        assert env.observation_space("listener_0").shape == (11,)
        world = env.unwrapped.world
        for step in range(6):
            seen = env.step({"speaker_0": step % 3, "listener_0": 1 + step % 4})[0]["listener_0"]
            listener = world.agents[1].state
            landmarks = [mark.state.p_pos - listener.p_pos for mark in world.landmarks]
            rest = np.concatenate([listener.p_vel, *landmarks])
            np.testing.assert_allclose(np.delete(seen, SAID), rest, rtol=1e-5)
            assert seen[SAID].tolist() == np.eye(3)[step % 3].tolist()

    @pytest.mark.parametrize("steps", [1, 3, 24, 40])
    def test_same_episodes_but_for_late_messages(self, steps: int) -> None:
        bare = simple_speaker_listener_v4.parallel_env()
        env = EarlyMessageWrapper(simple_speaker_listener_v4.parallel_env(), steps)
        for episode in range(3):  # the first steps of each are heard, not only of the first
            seed = 5 if episode == 0 else None
            expected, observations = bare.reset(seed=seed)[0], env.reset(seed=seed)[0]
            assert expected["listener_0"][SAID].tolist() == [0, 0, 0]
            assert all(np.array_equal(observations[name], expected[name]) for name in expected)
            for step in range(1, 26):
                actions = {"speaker_0": (step + episode) % 3, "listener_0": step % 5}
                expected, *rest = bare.step(actions)
                observations, *wrapped_rest = env.step(actions)
                assert wrapped_rest == rest
                assert list(observations) == list(expected) == ["speaker_0", "listener_0"]
                assert np.count_nonzero(expected["listener_0"][SAID]) == 1
                if step > steps:
                    expected["listener_0"][SAID] = 0
                for name, array in observations.items():
                    assert np.array_equal(array, expected[name])
                    assert array.dtype == expected[name].dtype
                    assert env.observation_space(name).contains(array)
            assert env.agents == bare.agents == []

    def test_found_although_metadata_names_another_environment(self) -> None:
        inner = simple_speaker_listener_v4.parallel_env()
        spread = simple_spread_v3.parallel_env()
        assert inner.metadata["name"] == "simple_spread_v3", "mpe2 no longer shares its metadata"
        assert EarlyMessageWrapper(inner).indices == {"listener_0": (8, 9, 10)}
        simple_speaker_listener_v4.parallel_env()
        assert spread.metadata["name"] == "simple_speaker_listener_v4"
        with pytest.raises(ValueError, match="got simple_spread;"):
            EarlyMessageWrapper(spread)

    def test_behaves_as_a_parallel_environment(self) -> None:
        inner = simple_speaker_listener_v4.parallel_env(render_mode="rgb_array")
        env = EarlyMessageWrapper(inner)
        assert isinstance(env, ParallelEnv)
        assert env.unwrapped is inner.unwrapped
        assert env.possible_agents == ["speaker_0", "listener_0"]
        assert env.render_mode == "rgb_array"
        for agent in env.possible_agents:
            assert env.observation_space(agent) is inner.observation_space(agent)
            assert env.action_space(agent) is inner.action_space(agent)
        env.reset(seed=0)
        assert env.agents == env.possible_agents
        assert env.render().shape == (700, 700, 3)
        env.close()

    def test_pickled_for_worker_processes(self) -> None:
        env = EarlyMessageWrapper(simple_speaker_listener_v4.parallel_env(), steps=1)
        again = pickle.loads(pickle.dumps(env))
        for each in (env, again):
            each.reset(seed=0)
            seen = [each.step({"speaker_0": 1, "listener_0": 0})[0]["listener_0"] for _ in "12"]
            assert [array[SAID].tolist() for array in seen] == [[0, 1, 0], [0, 0, 0]]


class TestIndices:
    def test_each_listener_has_its_own(self) -> None:
        env = EarlyMessageWrapper(pair(), steps=1, indices={"a_1": iter([2]), "a_0": [0, 1]})
        assert env.indices == {"a_1": (2,), "a_0": (0, 1)}
        env.reset()
        for step, heard in [(1, True), (2, False), (3, False)]:
            observations = env.step({})[0]
            assert list(observations) == ["a_0", "a_1", "deaf_0"]
            assert observations["a_0"].tolist() == ([1, 2, 3] if heard else [0, 0, 3]), step
            assert observations["a_1"].tolist() == ([1, 2, 3] if heard else [1, 2, 0]), step
            assert observations["deaf_0"].tolist() == [1, 2, 3]

    def test_override_the_table(self) -> None:
        env = EarlyMessageWrapper(
            simple_speaker_listener_v4.parallel_env(), 1, {"speaker_0": np.arange(3)}
        )
        env.reset(seed=0)
        for heard in (True, False):
            observations = env.step({"speaker_0": 1, "listener_0": 0})[0]
            assert observations["speaker_0"].any() == heard
            assert observations["listener_0"][SAID].tolist() == [0, 1, 0]

    def test_absent_agents_stay_absent(self) -> None:
        env = EarlyMessageWrapper(pair(absent={1: "a_0", 3: "a_0", 4: "a_1"}), 2, {"a_0": [1]})
        env.reset()
        seen = [env.step({})[0] for _ in range(5)]
        assert [list(observations) for observations in seen] == [
            ["a_1", "deaf_0"],
            ["a_0", "a_1", "deaf_0"],
            ["a_1", "deaf_0"],
            ["a_0", "deaf_0"],
            ["a_0", "a_1", "deaf_0"],
        ]
        # An agent that was not there to hear counts the environment's steps all the same.
        assert [seen[step]["a_0"].tolist() for step in (1, 3, 4)] == [[1, 2, 3]] + 2 * [[1, 0, 3]]

    def test_reset_passes_seed_and_options_on(self) -> None:
        seeds: list[Any] = []

        class Listening(BaseParallelWrapper):
            def reset(self, seed: int | None = None, options: Any = None) -> Any:
                seeds.append(seed)
                return super().reset(seed, options)

        env = EarlyMessageWrapper(Listening(pair()), indices={"a_0": [0]})
        assert env.reset(seed=7, options={"x": 1})[1]["a_0"] == {"options": {"x": 1}}
        env.reset()
        assert seeds == [7, None]


class TestSilent:
    def test_excused_from_the_first_step_that_nobody_hears(self) -> None:
        env = EarlyMessageWrapper(pair(), 2, {"a_0": [0]}, silent={"deaf_0": 1})
        _, infos = env.reset()
        excused = ["env_defined_actions" in infos["deaf_0"]]
        for _ in range(3):
            *_, infos = env.step({})
            excused.append("env_defined_actions" in infos["deaf_0"])
            assert infos["deaf_0"]["time"] == infos["a_0"]["time"]
            assert "env_defined_actions" not in infos["a_0"]
        # What it does upon observation 1 is heard in observation 2, the last to be heard.
        assert excused == [False, False, True, True]
        assert infos["deaf_0"]["env_defined_actions"].tolist() == [1]

    def test_environments_infos_are_not_modified(self) -> None:
        inner = pair()
        kept: list[dict[str, Any]] = []
        step = inner.step
        inner.step = lambda actions: kept.append((r := step(actions))[-1]) or r  # type: ignore
        env = EarlyMessageWrapper(inner, 1, {"a_0": [0]}, silent={"deaf_0": 1})
        env.reset()
        *_, infos = env.step({})
        assert kept[0]["deaf_0"] == {"time": 1}
        infos["deaf_0"]["env_defined_actions"][:] = 0
        *_, infos = env.step({})
        assert infos["deaf_0"]["env_defined_actions"].tolist() == [1]

    def test_learner_does_not_train_on_it(self) -> None:
        def make() -> Any:
            env = simple_speaker_listener_v4.parallel_env(max_cycles=5)
            return EarlyMessageWrapper(env, 2, silent={"speaker_0": 2})

        env = make_multi_agent_vect_envs(make, 2, should_async_vector=False)
        agent = IPPO(env.observation_spaces, env.action_spaces, seed=0, learn_step=10)
        collect_rollouts_recurrent(agent, env)
        buffer = agent.trainees["speaker"].buffer
        assert buffer is not None
        assert buffer.active[:, 0].tolist() == [True, True, False, False, False] * 2
        assert buffer.exists.all()
        assert (buffer.action[~buffer.active] == 2).all()
        assert agent.learn()["speaker"].updates > 0

    @pytest.mark.parametrize(
        ("silent", "error", "message"),
        [
            ([1], TypeError, r"silent: expected a mapping .*, got \[1\]"),
            ({"b_0": 1}, ValueError, r"silent: expected agents among .*, got 'b_0'"),
            ({"deaf_0": 2}, ValueError, r"silent\['deaf_0'\]: expected an action in Discrete\(2\)"),
        ],
    )
    def test_errors(self, silent: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            EarlyMessageWrapper(pair(), 2, {"a_0": [0]}, silent=silent)


class TestObservation:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0])
    def test_hidden_is_positive_zero_whatever_came(self, value: float) -> None:
        arrays = {"a_0": np.array([value, 5, value], np.float32)}
        env = EarlyMessageWrapper(Echo(arrays), 1, {"a_0": [0, 2]})
        env.reset()
        np.testing.assert_array_equal(env.step({})[0]["a_0"], arrays["a_0"])
        observation = env.step({})[0]["a_0"]
        assert observation.tolist() == [0, 5, 0]
        assert not np.any(np.signbit(observation))

    def test_environments_arrays_are_not_modified(self) -> None:
        inner = pair()
        for array in inner.arrays.values():
            array.flags.writeable = False
        env = EarlyMessageWrapper(inner, 1, {"a_0": [0], "a_1": [1]})
        env.reset()
        env.step({})
        first, second = env.step({})[0], env.step({})[0]
        for agent in ("a_0", "a_1"):
            assert inner.arrays[agent].tolist() == [1, 2, 3]
            assert not np.shares_memory(first[agent], inner.arrays[agent])
            assert not np.shares_memory(first[agent], second[agent])

    @pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
    def test_dtype_is_kept(self, dtype: str) -> None:
        space = Box(0, 9, (3,), dtype=np.dtype(dtype).type)
        env = EarlyMessageWrapper(Echo({"a_0": np.ones(3, dtype)}, a_0=space), 1, {"a_0": [1]})
        env.reset()
        env.step({})
        observation = env.step({})[0]["a_0"]
        assert observation.dtype == np.dtype(dtype)
        assert observation.tolist() == [1, 0, 1]


class TestErrors:
    def test_unknown_environment(self) -> None:
        with pytest.raises(
            ValueError,
            match=r"one of simple_speaker_listener, got .*test_early_message; .*indices=",
        ):
            EarlyMessageWrapper(pair())

    def test_observation_rearranged_below(self) -> None:
        class Shorter(BaseParallelWrapper):
            def observation_space(self, agent: str) -> gym.Space[Any]:
                return Box(-1, 1, (9,))

        env = Shorter(simple_speaker_listener_v4.parallel_env())
        with pytest.raises(
            ValueError,
            match=r"'listener_0'\): expected shape \(11,\).*got \(9,\).*before.*indices=",
        ):
            EarlyMessageWrapper(env)
        assert EarlyMessageWrapper(env, indices={"listener_0": [8]}).indices == {"listener_0": (8,)}

    @pytest.mark.parametrize("steps", [0, -3])
    def test_too_few_steps(self, steps: int) -> None:
        with pytest.raises(ValueError, match=rf"^steps: expected at least 1, got {steps}; "):
            EarlyMessageWrapper(pair(), steps, {"a_0": [0]})

    @pytest.mark.parametrize("steps", [2.0, "3", None, True])
    def test_steps_that_are_no_integer(self, steps: Any) -> None:
        with pytest.raises(TypeError, match=rf"^steps: expected an integer, got {steps!r} \("):
            EarlyMessageWrapper(pair(), steps, {"a_0": [0]})

    @pytest.mark.parametrize(
        ("indices", "error", "message"),
        [
            ([8, 9], TypeError, r"indices: expected a mapping .*, got \[8, 9\] \(list\); .*'a_0':"),
            ({}, ValueError, r"indices: expected at least one listening agent, got none; .*None"),
            ({"b_0": [0]}, ValueError, r"indices: expected agents among \['a_0', .*got \['b_0'\]"),
            ({"a_0": [3]}, ValueError, r"indices\['a_0'\]: .*in \[0, 3\).*, got \[3\]; "),
            ({"a_0": [-1]}, ValueError, r"indices\['a_0'\]: .*in \[0, 3\).*, got \[-1\]; "),
            ({"a_0": [0], "a_1": [1, 1]}, ValueError, r"indices\['a_1'\]: .*once, got \[1\] more"),
            ({"a_0": []}, ValueError, r"indices\['a_0'\]: expected at least one coordinate"),
            ({"a_0": 2}, TypeError, r"indices\['a_0'\]: .*got 2 \(int\); .*indices\['a_0'\]=\[2\]"),
            ({"a_0": [1.0]}, TypeError, r"indices\['a_0'\]: expected integers, got 1\.0 \(float"),
            ({"a_0": [True]}, TypeError, r"indices\['a_0'\]: expected integers, got True \(bool"),
        ],
        ids=str,
    )
    def test_bad_indices(self, indices: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match="^" + message):
            EarlyMessageWrapper(pair(), indices=indices)

    @pytest.mark.parametrize(
        ("space", "error", "message"),
        [
            (Box(0, 1, (2, 3)), ValueError, r"a one-dimensional Box, got Box\(.*\(2, 3\)"),
            (Discrete(4), TypeError, r"a one-dimensional Box, got Discrete\(4\)"),
            (Dict(x=Box(0, 1, (2,))), TypeError, r"a one-dimensional Box, got Dict\("),
            (Box(np.float32([0, 1]), np.float32([1, 2])), ValueError, r"include 0.* at \[1\]"),
        ],
        ids=str,
    )
    def test_bad_space(self, space: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=r"^observation_space\('a_0'\): expected .*" + message):
            EarlyMessageWrapper(pair(a_0=space), indices={"a_0": [0, 1]})

    def test_one_agent_after_the_other(self) -> None:
        env: Any = simple_speaker_listener_v4.env()
        with pytest.raises(
            TypeError, match=r"^env: expected a pettingzoo\.ParallelEnv.*aec_to_parallel\(env\)"
        ):
            EarlyMessageWrapper(env)

    def test_gymnasium_environment(self) -> None:
        env: Any = gym.make("CartPole-v1")
        with pytest.raises(TypeError, match=r"^env: expected a pettingzoo\.ParallelEnv, got .*;"):
            EarlyMessageWrapper(env)


class TestPackage:
    def test_docstring_examples_run(self) -> None:
        failed, attempted = doctest.testmod(early_message)
        assert failed == 0
        assert attempted >= 7

    def test_table_cannot_be_changed(self) -> None:
        table: Any = MESSAGE_INDICES
        with pytest.raises(TypeError):
            table["simple_speaker_listener"]["listener_0"] = (0,)

    def test_old_name(self) -> None:
        from wrappers import MESSAGE_INDICES as OLD_INDICES
        from wrappers import EarlyMessageWrapper as OldWrapper

        assert OldWrapper is EarlyMessageWrapper
        assert OLD_INDICES is MESSAGE_INDICES
