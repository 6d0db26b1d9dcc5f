"""Tests of `recurrent_rl.wrappers.MaskVelocityWrapper`."""

import copy
import doctest
import importlib.util
from typing import Any

import gymnasium as gym
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import given
from hypothesis import strategies as st

import recurrent_rl
from recurrent_rl.wrappers import VELOCITY_INDICES, MaskVelocityWrapper, mask_velocity

needs_box2d = pytest.mark.skipif(
    importlib.util.find_spec("Box2D") is None, reason="needs the extra box2d"
)
IDS = [
    "CartPole-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
    pytest.param("LunarLander-v3", marks=needs_box2d),
    pytest.param("LunarLanderContinuous-v3", marks=needs_box2d),
]


class Echo(gym.Env[Any, Any]):
    """Returns one and the same array, given by the test, as each observation."""

    def __init__(self, array: np.ndarray, space: gym.Space[Any] | None = None) -> None:
        self.array = array
        low, high = (0, 1) if array.dtype.kind in "bu" else (-100, 100)
        self.observation_space = space or Box(low, high, array.shape, dtype=array.dtype.type)
        self.action_space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return self.array, {}

    def step(self, action: Any) -> Any:
        return self.array, 0.0, False, False, {}


def simulated_velocities(env: gym.Env[Any, Any]) -> list[float]:
    """The velocities out of the simulator's own state, on the observation's scale."""
    sim: Any = env.unwrapped
    name = type(sim).__name__
    if name == "CartPoleEnv":
        return [sim.state[1], sim.state[3]]
    if name == "LunarLander":
        velocity, spin = sim.lander.linearVelocity, sim.lander.angularVelocity
        # 20 = 600 px / 30 px per m, 13.33 = 400 px / 30; 50 frames per second (lunar_lander.py).
        return [velocity.x * 10 / 50, velocity.y * (20 / 3) / 50, 20 * spin / 50]
    return [sim.state[1]]  # MountainCar: (position, velocity), Pendulum: (angle, angular velocity)


@pytest.mark.parametrize("env_id", IDS)
class TestKnownEnvironments:
    def test_table_names_the_simulators_velocities(self, env_id: str) -> None:
        env = gym.make(env_id)
        env.reset(seed=3)
        env.action_space.seed(3)
        for _ in range(8):
            observation = env.step(env.action_space.sample())[0]
            expected = simulated_velocities(env)
            assert np.all(np.asarray(expected) != 0)
            np.testing.assert_allclose(
                observation[list(VELOCITY_INDICES[env_id])], expected, rtol=1e-5
            )
        env.close()

    def test_same_trajectory_without_velocities(self, env_id: str) -> None:
        bare, masked = gym.make(env_id), MaskVelocityWrapper(gym.make(env_id))
        hidden = list(VELOCITY_INDICES[env_id])
        bare.action_space.seed(5)
        expected, observation = bare.reset(seed=5)[0], masked.reset(seed=5)[0]
        for _ in range(20):
            assert observation.dtype == expected.dtype
            assert observation.shape == expected.shape
            assert masked.observation_space.contains(observation)
            assert np.all(observation[hidden] == 0)
            seen = np.delete(np.arange(len(expected)), hidden)
            assert np.array_equal(observation[seen], expected[seen])

            action = bare.action_space.sample()
            expected, *rest = bare.step(action)
            assert np.any(expected[hidden] != 0)
            observation, *masked_rest = masked.step(action)
            assert masked_rest == rest
            if rest[1] or rest[2]:
                expected, observation = bare.reset()[0], masked.reset()[0]
        bare.close()
        masked.close()

    def test_masked_bounds_are_zero_and_others_kept(self, env_id: str) -> None:
        env = gym.make(env_id)
        before = copy.deepcopy(env.observation_space)
        masked = MaskVelocityWrapper(env)
        space, own = masked.observation_space, env.observation_space
        assert isinstance(space, Box)
        hidden = list(VELOCITY_INDICES[env_id])
        seen = np.delete(np.arange(space.shape[0]), hidden)
        for bound, own_bound in [(space.low, own.low), (space.high, own.high)]:
            assert np.all(bound[hidden] == 0)
            assert np.array_equal(bound[seen], own_bound[seen])
        assert (space.shape, space.dtype) == (own.shape, own.dtype)
        assert own == before, "the wrapped environment's space was modified"
        env.close()

    def test_rebuilt_from_spec(self, env_id: str) -> None:
        env = MaskVelocityWrapper(gym.make(env_id))
        assert env.spec is not None
        again = gym.make(env.spec)
        assert isinstance(again, MaskVelocityWrapper)
        assert again.indices == env.indices == VELOCITY_INDICES[env_id]
        assert again.observation_space == env.observation_space
        assert again.spec == env.spec
        assert np.array_equal(again.reset(seed=1)[0], env.reset(seed=1)[0])
        env.close()
        again.close()


class TestIndices:
    def test_any_one_dimensional_box(self) -> None:
        env = MaskVelocityWrapper(gym.make("Acrobot-v1"), indices=[4, 5])
        assert env.indices == (4, 5)
        expected = gym.make("Acrobot-v1").reset(seed=0)[0]
        assert np.all(expected[4:] != 0)
        expected[4:] = 0
        assert np.array_equal(env.reset(seed=0)[0], expected)

    def test_override_the_table(self) -> None:
        env = MaskVelocityWrapper(gym.make("CartPole-v1"), indices=[0])
        observation = env.reset(seed=0)[0]
        assert observation[0] == 0
        assert np.all(observation[1:] != 0)

    def test_no_spec_is_needed(self) -> None:
        env = MaskVelocityWrapper(Echo(np.ones(3, np.float32)), indices=[1])
        assert env.spec is None
        assert env.reset()[0].tolist() == [1, 0, 1]
        assert env.step(0)[0].tolist() == [1, 0, 1]

    @pytest.mark.parametrize(
        "indices",
        [[2, 0], (2, 0), {0, 2}, np.array([2, 0], np.uint8), range(0, 3, 2), iter([2, 0])],
        ids=["list", "tuple", "set", "array", "range", "iterator"],
    )
    def test_any_iterable_of_integers(self, indices: Any) -> None:
        env = MaskVelocityWrapper(Echo(np.ones(3)), indices=indices)
        assert env.reset()[0].tolist() == [0, 1, 0]
        assert all(type(index) is int for index in env.indices)

    @pytest.mark.parametrize("via_json", [False, True])
    def test_rebuilt_from_spec(self, via_json: bool) -> None:
        indices = (index for index in np.array([5, 4]))  # read once, and not of type int
        env = MaskVelocityWrapper(gym.make("Acrobot-v1"), indices=indices)
        spec = env.spec
        assert spec is not None
        if via_json:
            spec = EnvSpec.from_json(spec.to_json())
        again = gym.make(spec)
        assert isinstance(again, MaskVelocityWrapper)
        assert again.indices == (5, 4)
        assert again.observation_space == env.observation_space
        assert np.array_equal(again.reset(seed=2)[0], env.reset(seed=2)[0])

    def test_wraps_again(self) -> None:
        env = MaskVelocityWrapper(MaskVelocityWrapper(gym.make("CartPole-v1")), indices=[2])
        assert np.flatnonzero(env.reset(seed=0)[0]).tolist() == [0]
        assert env.spec is not None
        assert np.flatnonzero(gym.make(env.spec).reset(seed=0)[0]).tolist() == [0]


class TestObservation:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0])
    @pytest.mark.parametrize("indices", [[1], [1, 3]])
    def test_masked_is_positive_zero_whatever_came(self, value: float, indices: list[int]) -> None:
        array = np.array([1, value, 2, value], np.float32)
        observation = MaskVelocityWrapper(Echo(array), indices=indices).step(0)[0]
        assert np.all(observation[indices] == 0)
        assert not np.any(np.signbit(observation[indices]))

    def test_unmasked_nan_is_not_hidden(self) -> None:
        array = np.array([np.nan, 1], np.float32)
        observation = MaskVelocityWrapper(Echo(array), indices=[1]).step(0)[0]
        assert np.isnan(observation[0])

    @pytest.mark.parametrize("indices", [[1], [0, 2]])
    def test_environments_array_is_not_shared(self, indices: list[int]) -> None:
        array = np.array([1, 2, 3], np.float32)
        array.flags.writeable = False  # nor does the wrapper need it to be writeable
        env = MaskVelocityWrapper(Echo(array), indices=indices)
        first, second = env.reset()[0], env.step(0)[0]
        assert array.tolist() == [1, 2, 3]
        assert not np.shares_memory(first, array)
        assert not np.shares_memory(first, second)
        first[:] = 7
        assert second.tolist() == env.step(0)[0].tolist() != first.tolist()

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8", "bool"])
    def test_dtype_is_kept(self, dtype: str) -> None:
        env = MaskVelocityWrapper(Echo(np.ones(4, dtype)), indices=[1, 2])
        observation = env.reset()[0]
        assert observation.dtype == env.observation_space.dtype == np.dtype(dtype)
        assert observation.tolist() == [1, 0, 0, 1]
        assert env.observation_space.contains(observation)

    @given(
        array=hnp.arrays(
            st.sampled_from([np.float32, np.float64]),
            st.integers(1, 12),
            elements=st.floats(width=32),
        ),
        data=st.data(),
    )
    def test_property_masked_zero_others_bit_for_bit(
        self, array: np.ndarray, data: st.DataObject
    ) -> None:
        size = len(array)
        indices = data.draw(st.lists(st.integers(0, size - 1), min_size=1, unique=True))
        space = Box(-np.inf, np.inf, (size,), dtype=array.dtype.type)
        env = MaskVelocityWrapper(Echo(array, space), indices=indices)
        before = array.tobytes()
        observation = env.step(0)[0]
        seen = [index for index in range(size) if index not in indices]
        assert observation[indices].tolist() == [0] * len(indices)
        assert observation[seen].tobytes() == array[seen].tobytes()
        assert array.tobytes() == before


class TestHiddenValues:
    def test_are_what_was_masked_last(self) -> None:
        env = MaskVelocityWrapper(gym.make("CartPole-v1"))
        with pytest.raises(RuntimeError, match=r"expected an observation before; call reset\(\)"):
            _ = env.hidden_values
        env.reset(seed=0)
        state = np.asarray(env.unwrapped.state, np.float32)  # type: ignore[attr-defined]
        assert env.hidden_values.tolist() == state[[1, 3]].tolist()
        env.hidden_values[:] = 7  # a copy
        env.step(1)
        state = np.asarray(env.unwrapped.state, np.float32)  # type: ignore[attr-defined]
        assert env.hidden_values.tolist() == state[[1, 3]].tolist()


class TestSpace:
    def test_random_state_is_untouched(self) -> None:
        env = gym.make("CartPole-v1")
        env.observation_space.seed(11)
        env.action_space.seed(11)
        spaces = (env.observation_space, env.action_space)
        before = [copy.deepcopy(space.np_random.bit_generator.state) for space in spaces]
        masked = MaskVelocityWrapper(env)
        masked.reset(seed=0)
        masked.step(0)
        assert [space.np_random.bit_generator.state for space in spaces] == before

    def test_no_generator_is_created(self) -> None:
        env = gym.make("CartPole-v1")
        masked = MaskVelocityWrapper(env)
        masked.reset(seed=0)
        assert env.observation_space._np_random is None
        assert masked.observation_space._np_random is None

    def test_samples_are_masked_observations(self) -> None:
        masked = MaskVelocityWrapper(gym.make("CartPole-v1"))
        masked.observation_space.seed(0)
        sample = masked.observation_space.sample()
        assert masked.observation_space.contains(sample)
        assert np.all(sample[[1, 3]] == 0)

    def test_true_velocity_is_outside(self) -> None:
        masked = MaskVelocityWrapper(gym.make("Pendulum-v1"))
        assert not masked.observation_space.contains(np.array([1, 0, 0.5], np.float32))

    def test_bounds_that_exclude_zero(self) -> None:
        env = Echo(np.full(2, 1.5, np.float32), Box(1, 2, (2,)))
        space = MaskVelocityWrapper(env, indices=[0]).observation_space
        assert isinstance(space, Box)
        assert (space.low.tolist(), space.high.tolist()) == ([0, 1], [0, 2])
        assert (env.observation_space.low.tolist(), env.observation_space.high.tolist()) == (
            [1, 1],
            [2, 2],
        )

    def test_boundedness_of_integers_is_kept(self) -> None:
        env = Echo(np.ones(3, np.int64), Box(-np.inf, np.inf, (3,), dtype=np.int64))
        space = MaskVelocityWrapper(env, indices=[1]).observation_space
        assert isinstance(space, Box)
        assert space.bounded_below.tolist() == space.bounded_above.tolist() == [False, True, False]
        space.seed(0)
        assert space.contains(space.sample())
        assert not env.observation_space.bounded_below.any()


@pytest.mark.parametrize("vector_class", [SyncVectorEnv, AsyncVectorEnv])
class TestVectorEnvironments:
    @pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
    def test_same_trajectories_without_velocities(
        self, vector_class: Any, mode: AutoresetMode
    ) -> None:
        def make() -> gym.Env[Any, Any]:
            return gym.make("CartPole-v1")

        bare = SyncVectorEnv([make] * 3, autoreset_mode=mode)
        masked = vector_class([lambda: MaskVelocityWrapper(make())] * 3, autoreset_mode=mode)
        try:
            assert masked.single_observation_space.high[[1, 3]].tolist() == [0, 0]
            bare.action_space.seed(0)
            expected, observation = bare.reset(seed=0)[0], masked.reset(seed=0)[0]
            ended = 0
            for _ in range(60):  # random CartPole episodes last about 20 steps
                expected = expected.copy()
                expected[:, [1, 3]] = 0
                assert np.array_equal(observation, expected)
                action = bare.action_space.sample()
                expected, _, terminated, truncated, info = bare.step(action)
                observation, *_, masked_info = masked.step(action)
                done = terminated | truncated
                ended += done.sum()
                if mode == AutoresetMode.SAME_STEP and done.any():
                    for row in np.flatnonzero(done):
                        final = info["final_obs"][row].copy()
                        assert np.all(final[[1, 3]] != 0)
                        final[[1, 3]] = 0
                        assert np.array_equal(masked_info["final_obs"][row], final)
            assert ended >= 3
        finally:
            bare.close()
            masked.close()

    def test_make_vec(self, vector_class: Any) -> None:
        mode = "sync" if vector_class is SyncVectorEnv else "async"
        envs = gym.make_vec(
            "Pendulum-v1", 2, vectorization_mode=mode, wrappers=[MaskVelocityWrapper]
        )
        try:
            assert type(envs) is vector_class
            observation = envs.reset(seed=0)[0]
            assert observation[:, 2].tolist() == [0, 0]
            assert np.all(observation[:, :2] != 0)
        finally:
            envs.close()


class TestErrors:
    def test_unknown_id(self) -> None:
        with pytest.raises(ValueError, match=r"'Acrobot-v1'.*indices=") as error:
            MaskVelocityWrapper(gym.make("Acrobot-v1"))
        for env_id in VELOCITY_INDICES:
            assert env_id in str(error.value)

    def test_no_spec(self) -> None:
        with pytest.raises(ValueError, match=r"without a spec.*indices=") as error:
            MaskVelocityWrapper(Echo(np.ones(3)))
        assert "Pendulum-v1" in str(error.value)

    def test_observation_rearranged_below(self) -> None:
        env = gym.wrappers.TimeAwareObservation(gym.make("CartPole-v1"))
        with pytest.raises(
            ValueError, match=r"\(4,\) as CartPole-v1 defines it, got \(5,\).*before.*indices="
        ):
            MaskVelocityWrapper(env)
        assert MaskVelocityWrapper(env, indices=[1, 3]).reset(seed=0)[0][[1, 3]].tolist() == [0, 0]

    @pytest.mark.parametrize(
        ("indices", "error", "message"),
        [
            ([3], ValueError, r"expected integers in \[0, 3\).*got \[3\]"),
            ([0, -1], ValueError, r"expected integers in \[0, 3\).*got \[-1\].*negative"),
            ([1, 0, 1], ValueError, r"each coordinate once, got \[1\].*in \[1, 0, 1\]"),
            ([], ValueError, r"at least one coordinate, got none"),
            ([1.0], TypeError, r"expected integers, got 1\.0 \(float\)"),
            ("1", TypeError, r"expected integers, got '1' \(str\)"),
            ([None], TypeError, r"expected integers, got None"),
            ([True, False, True], TypeError, r"got True \(bool\).*np\.flatnonzero"),
            (np.array([False, True, True]), TypeError, r"got .*False.* \(bool.*np\.flatnonzero"),
            (np.array([[0], [1]]), TypeError, r"expected integers, got array"),
            (2, TypeError, r"iterable of integers, got 2 \(int\).*indices=\[2\]"),
        ],
        ids=str,
    )
    def test_bad_indices(self, indices: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=r"^indices: .*" + message):
            MaskVelocityWrapper(gym.make("Pendulum-v1"), indices=indices)

    @pytest.mark.parametrize(
        ("space", "error", "message"),
        [
            (Box(0, 1, (2, 3)), ValueError, r"got shape \(2, 3\)"),
            (Box(0, 1, ()), ValueError, r"got shape \(\)"),
            (Discrete(4), TypeError, r"got Discrete\(4\)"),
            (Dict(a=Box(0, 1, (2,))), TypeError, r"got Dict\("),
        ],
        ids=str,
    )
    def test_bad_space(self, space: Any, error: type[Exception], message: str) -> None:
        env = Echo(np.ones(3), space)
        with pytest.raises(
            error, match=r"^observation_space: expected a one-dimensional Box, " + message
        ):
            MaskVelocityWrapper(env, indices=[0])

    def test_vector_environment(self) -> None:
        envs: Any = gym.make_vec("CartPole-v1", 2, vectorization_mode="sync")
        with pytest.raises(TypeError, match=r"env: expected a gymnasium\.Env.*make_vec\("):
            MaskVelocityWrapper(envs)
        envs.close()


class TestPackage:
    def test_docstring_example_runs(self) -> None:
        failed, attempted = doctest.testmod(mask_velocity)
        assert failed == 0
        assert attempted >= 8

    def test_table_cannot_be_changed(self) -> None:
        table: Any = VELOCITY_INDICES
        with pytest.raises(TypeError):
            table["CartPole-v1"] = (0,)

    def test_reexported(self) -> None:
        assert recurrent_rl.MaskVelocityWrapper is MaskVelocityWrapper

    def test_old_name(self) -> None:
        from wrappers import VELOCITY_INDICES as OLD_INDICES
        from wrappers import MaskVelocityWrapper as OldWrapper

        assert OldWrapper is MaskVelocityWrapper
        assert OLD_INDICES is VELOCITY_INDICES
