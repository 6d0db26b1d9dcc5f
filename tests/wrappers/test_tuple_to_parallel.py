"""Tests of `recurrent_rl.wrappers.TupleToParallelWrapper` and of vectors of what it wraps."""

import pickle
import sys
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, Tuple
from pettingzoo import ParallelEnv

from recurrent_rl import (
    IPPO,
    MADDPG,
    SyncMultiAgentVectorEnv,
    TupleToParallelWrapper,
    collect_rollouts_recurrent,
    create_population,
    make_multi_agent_vect_envs,
    make_vect_envs,
    train_multi_agent_on_policy,
)
from recurrent_rl.wrappers import make_tuple_env

FORAGING = "Foraging-2s-8x8-2p-2f-coop-v3"
WAREHOUSE = "rware-tiny-2ag-v2"
SMALL = {"net_config": {"encoder_config": {"hidden_state_size": 8}}, "seed": 0}


class Sums(gym.Env[Any, Any]):
    """A walker and a chooser that see their sums of actions; the chooser's reward is ten times."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 3}  # noqa: RUF012

    def __init__(
        self, length: int = 3, change: Callable[[list[Any]], Any] = tuple, **spaces: Any
    ) -> None:
        """``change`` alters what step returns, if that is to be something odd."""
        self.observation_space = spaces.get("seen") or Tuple(
            (Box(-9, 9, (2,), np.float32), Box(0, 99, (1,), np.float32))
        )
        self.action_space = spaces.get("done") or Tuple((Box(-1, 1, (2,), np.float32), Discrete(4)))
        self.length, self.change, self.render_mode = length, change, spaces.get("render_mode")
        self.closed = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        self.first, self.second = self.np_random.normal(size=2).astype(np.float32), np.zeros(1)
        return self._seen(), {"options": options}

    def _seen(self) -> tuple[Any, Any]:
        return self.first.copy(), self.second.astype(np.float32)

    def step(self, action: Any) -> Any:
        self.time += 1
        self.taken = action
        self.first, self.second = self.first + action[0], self.second + action[1]
        rewards = [float(np.sum(action[0])), 10 * action[1]]
        info = {"is_success": self.time == self.length, "time": self.time}
        return self.change([self._seen(), rewards, False, self.time >= self.length, info])

    def render(self) -> Any:
        return f"frame {self.time}"

    def close(self) -> None:
        self.closed = True


class SumsOfGym(Sums):
    """Renders by an argument, as Gym's environments did."""

    def render(self, mode: str = "human") -> Any:  # type: ignore[override]
        return f"{mode} {self.time}"


def returns(place: int, value: Any) -> Callable[[list[Any]], Any]:
    """A change of what step returns, in one place."""
    return lambda parts: tuple(value if i == place else x for i, x in enumerate(parts))


def started(**options: Any) -> TupleToParallelWrapper:
    env = TupleToParallelWrapper(Sums(**options))
    env.reset(seed=0)
    return env


def act(walk: float = 0.5, choice: int = 3) -> dict[str, Any]:
    return {"agent_0": np.full(2, walk, np.float32), "agent_1": choice}


class TestEpisode:
    """A hand-made environment with agents that differ."""

    def test_by_hand(self) -> None:
        inner = Sums()
        env = TupleToParallelWrapper(inner)
        assert isinstance(env, ParallelEnv)
        assert env.possible_agents == ["agent_0", "agent_1"]
        assert env.observation_space("agent_1") is inner.observation_space[1]
        assert env.action_space("agent_0") is inner.action_space[0]
        observations, infos = env.reset(seed=7, options={"a": 1})
        start = np.random.Generator(np.random.PCG64(7)).normal(size=2).astype(np.float32)
        assert observations["agent_0"].tolist() == start.tolist()
        assert observations["agent_1"].tolist() == [0]
        assert infos == {"agent_0": {"options": {"a": 1}}, "agent_1": {"options": {"a": 1}}}
        for time in (1, 2, 3):
            assert env.agents == env.possible_agents
            observations, rewards, terminations, truncations, infos = env.step(act())
            np.testing.assert_allclose(observations["agent_0"], start + time / 2, rtol=1e-6)
            assert observations["agent_1"].tolist() == [3 * time]
            assert rewards == {"agent_0": 1.0, "agent_1": 30.0}
            assert terminations == {"agent_0": False, "agent_1": False}
            assert truncations == dict.fromkeys(env.possible_agents, time == 3)
            said = {"is_success": time == 3, "time": time}
            assert infos == {"agent_0": said, "agent_1": said}
        assert env.agents == []
        assert isinstance(inner.taken, tuple)
        assert env.reset(seed=7)[0]["agent_0"].tolist() == start.tolist()

    def test_order_of_the_actions_is_the_agents(self) -> None:
        env = started()
        env.step(dict(reversed(act().items())))
        assert env.unwrapped.taken[1] == 3

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ((1, 2.5), [1, 2.5]),
            ([np.float64(1), np.float32(2.5)], [1, 2.5]),
            (np.array([1, 2.5], np.float32), [1, 2.5]),
            (4, [4, 4]),
            (np.array(4.0), [4, 4]),
            (np.float32(4), [4, 4]),
        ],
    )
    def test_rewards(self, given: Any, expected: list[float]) -> None:
        rewards = started(change=returns(1, given)).step(act())[1]
        assert list(rewards.values()) == expected
        assert {type(reward) for reward in rewards.values()} == {float}

    def test_observations_in_one_array(self) -> None:
        env = started(change=returns(0, np.arange(4.0).reshape(2, 2)))
        assert env.step(act())[0]["agent_1"].tolist() == [2, 3]

    def test_infos_are_each_agents_own_and_masks_are_split(self) -> None:
        masks = (None, np.array([1, 0, 0, 1]))
        info = {"action_mask": masks, "score": 5}
        infos = started(change=returns(4, info)).step(act())[-1]
        infos["agent_0"]["score"] = 6
        assert infos["agent_1"]["score"] == info["score"] == 5
        assert infos["agent_0"]["action_mask"] is None
        assert infos["agent_1"]["action_mask"] is masks[1]

    def test_attributes(self) -> None:
        inner = Sums(render_mode="rgb_array")
        env = TupleToParallelWrapper(gym.wrappers.TimeLimit(inner, 2))
        assert env.unwrapped is inner
        assert env.render_mode == "rgb_array"
        assert env.metadata == {"name": "Sums", "render_modes": ["rgb_array"], "render_fps": 3}
        assert str(env) == "Sums"
        env.reset()
        assert env.render() == "frame 0"
        with pytest.raises(NotImplementedError, match="state"):
            env.state()
        env.close()
        assert inner.closed
        assert TupleToParallelWrapper(SumsOfGym()).render_mode is None

    @pytest.mark.parametrize(("mode", "frame"), [("rgb_array", "rgb_array 0"), (None, "human 0")])
    def test_gyms_way_of_rendering(self, mode: str | None, frame: str) -> None:
        env = TupleToParallelWrapper(SumsOfGym(render_mode=mode))
        env.reset()
        assert env.render() == frame

    def test_pickled(self) -> None:
        env = pickle.loads(pickle.dumps(started()))
        assert env.step(act())[1] == {"agent_0": 1.0, "agent_1": 30.0}

    @pytest.mark.filterwarnings("ignore")  # the module of the tests warns when it is imported
    @pytest.mark.parametrize("env_id", [None, FORAGING, WAREHOUSE])
    def test_interface_of_pettingzoo(self, env_id: str | None) -> None:
        from pettingzoo.test import parallel_api_test

        env = make_tuple_env(env_id) if env_id else TupleToParallelWrapper(Sums())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            parallel_api_test(env, num_cycles=60)


class TestErrors:
    def test_spaces(self) -> None:
        two, one = Tuple((Discrete(2), Discrete(2))), Tuple((Discrete(2),))
        for spaces, error, message in (
            (
                {"seen": Discrete(2)},
                TypeError,
                r"^env.observation_space: .*Tuple.*got Discrete\(2\)",
            ),
            ({"done": Discrete(2)}, TypeError, r"^env.action_space: .*make_vect_envs"),
            ({"seen": two, "done": one}, ValueError, r"got 2 in the observation_space and 1 in"),
            ({"seen": Tuple(()), "done": Tuple(())}, ValueError, r"one or more, got 0"),
        ):
            env = Sums()
            env.observation_space = spaces.get("seen", env.observation_space)
            env.action_space = spaces.get("done", env.action_space)
            with pytest.raises(error, match=message):
                TupleToParallelWrapper(env)
        with pytest.raises(TypeError, match=r"^env: expected a gymnasium.Env, got int"):
            TupleToParallelWrapper(3)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                returns(0, (1, 2, 3)),
                r"^observations: expected one for each of 2 .*Sums, got 3 in a",
            ),
            (returns(0, {"a": 1}), r"^observations: .*got \{'a': 1\}; return a tuple"),
            (
                returns(1, [1, 2, 3]),
                r"^rewards: expected one number for each of 2 agents.*\[1, 2, 3",
            ),
            (returns(1, [[1], [2]]), r"^rewards: "),
            (returns(1, [[1], 2]), r"^rewards: "),
            (returns(1, [None, 2]), r"^rewards: .*got \[None, 2\]"),
            (returns(1, None), r"^rewards: .*got None"),
            (
                returns(2, [False, True]),
                r"^terminated: expected one flag .*return all\(terminated\)",
            ),
            (returns(3, None), r"^truncated: expected one flag"),
            (returns(4, [{}, {}]), r"^info: expected a dictionary from Sums, got \[\{\}, \{\}\]"),
            (returns(4, {"action_mask": (1,)}), r'^info\["action_mask"\]: .* 2 agents.*got 1 in a'),
            (lambda parts: tuple(parts[:4]), r"^step: .*got 4 values; Gymnasium has returned 5"),
            (lambda parts: None, r"^step: .*got NoneType"),
        ],
    )
    def test_what_step_returns(self, change: Callable[[list[Any]], Any], message: str) -> None:
        env = started(change=change)
        with pytest.raises(ValueError, match=message):
            env.step(act())

    def test_what_reset_returns(self) -> None:
        class Old(Sums):
            def reset(self, **options: Any) -> Any:
                return list(super().reset(**options)[0])

        with pytest.raises(ValueError, match=r"^reset: .*observations, info, got list"):
            TupleToParallelWrapper(Old()).reset()

    def test_actions(self) -> None:
        env = TupleToParallelWrapper(Sums(length=1))
        with pytest.raises(RuntimeError, match="call reset"):
            env.step(act())
        env.reset()
        with pytest.raises(
            ValueError, match=r"^actions: .*'agent_1'\], got those of \['agent_0'\]"
        ):
            env.step({"agent_0": 0})
        env.step(act())
        with pytest.raises(RuntimeError, match="call reset"):
            env.step(act())

    @pytest.mark.parametrize(
        "env_id",
        [
            "Foraging-8x8-2p-2f-v9",
            "simple_spread_v3",
            "mpe2/simple_spread_v3",
            "mpe2.simple spread",
        ],
    )
    def test_unknown_ids(self, env_id: str) -> None:
        with pytest.raises(ValueError, match=r"^env: expected the id of a Gymnasium") as caught:
            make_multi_agent_vect_envs(env_id, should_async_vector=False)
        assert "import what registers it" in str(caught.value)
        assert "simple_spread_v3.parallel_env" in str(caught.value)
        assert isinstance(caught.value.__cause__, gym.error.Error)

    @pytest.mark.parametrize(
        ("env_id", "package"), [("Foraging-1x1-v3", "lbforaging"), ("rware-none-v2", "rware")]
    )
    def test_missing_packages(
        self, env_id: str, package: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=rf"package {package}.*recurrent_rl\[gridworlds\]"):
            make_tuple_env(env_id)

    def test_one_agent(self) -> None:
        with pytest.raises(TypeError, match=r"Tuple.*got Box.*goes to make_vect_envs"):
            make_multi_agent_vect_envs("CartPole-v1", should_async_vector=False)
        with pytest.raises(TypeError, match=r"PettingZoo.*several agents have Tuple spaces"):
            SyncMultiAgentVectorEnv([lambda: gym.make("CartPole-v1")])
        with pytest.raises(TypeError, match=r"got TimeLimit.*lambda: Sums\("):
            make_multi_agent_vect_envs(gym.wrappers.TimeLimit(Sums(), 3))


class TestVectors:
    def test_own_function(self) -> None:
        with make_multi_agent_vect_envs(Sums, 2, should_async_vector=False, length=2) as env:
            first, _ = env.reset(seed=[7, 8])
            actions = {"agent_0": np.full((2, 2), 0.5, np.float32), "agent_1": np.array([3, 1])}
            env.step(actions)
            _, rewards, terminations, truncations, infos = env.step(actions)
            assert rewards["agent_1"].tolist() == [30, 10]
            assert truncations["agent_0"].all()
            assert not terminations["agent_0"].any()
            final = infos["agent_0"]["final_obs"]
            np.testing.assert_allclose(final, first["agent_0"] + 1, rtol=1e-6)

    def test_one_object_for_several(self) -> None:
        only = Sums()
        with pytest.raises(ValueError, match=r"got one Sums object for several"):
            make_multi_agent_vect_envs(lambda: only, 2, should_async_vector=False)

    def test_tuples_of_one_agent_stay_what_they_are(self) -> None:
        """A Gymnasium vector takes Tuple observations for those of its one agent."""
        one = Tuple((Discrete(2), Discrete(2)))
        env = make_vect_envs(make_env=lambda: Sums(seen=one), num_envs=1, should_async_vector=False)
        assert env.single_observation_space == one
        env.close()

    @pytest.mark.parametrize(
        ("env_id", "options", "workers"),
        [
            # A fresh process, which must import the package by itself.
            (FORAGING, {}, {"context": "spawn", "num_workers": 1}),
            (WAREHOUSE, {"max_steps": 15, "msg_bits": 1}, {}),
        ],
    )
    def test_workers_do_the_same(
        self, env_id: str, options: dict[str, Any], workers: dict[str, Any]
    ) -> None:
        """Beyond the end of an episode, and with MultiDiscrete actions."""
        here = make_multi_agent_vect_envs(env_id, 2, should_async_vector=False, **options)
        there = make_multi_agent_vect_envs(env_id, 2, **workers, **options)
        with here, there:
            rng = np.random.default_rng(0)
            seen = here.reset(seed=3), there.reset(seed=3)
            ends = 0
            for _ in range(60):
                actions = {}
                for agent, space in here.action_spaces.items():
                    sizes = getattr(space, "nvec", getattr(space, "n", None))
                    shape = (2, *getattr(space, "shape", ()))
                    actions[agent] = rng.integers(sizes, size=shape)
                for one, other in zip(*seen, strict=True):
                    np.testing.assert_equal(one, other)
                seen = here.step(actions), there.step(actions)
                ends += int(seen[0][2]["agent_0"].sum())
            assert ends >= 2

    def test_time_limits(self) -> None:
        """The environments' own terminate, Gymnasium's truncate."""
        for env_id, options, truncates in (
            (WAREHOUSE, {"max_steps": 2}, False),
            (WAREHOUSE, {"max_steps": None, "max_episode_steps": 2}, True),
            (FORAGING, {"max_episode_steps": 2}, True),
        ):
            env = make_tuple_env(env_id, **options)
            env.reset(seed=0)
            env.step({"agent_0": 0, "agent_1": 0})
            _, _, terminations, truncations, _ = env.step({"agent_0": 0, "agent_1": 0})
            assert set(terminations.values()) == {not truncates}
            assert set(truncations.values()) == {truncates}

    def test_images_are_registered_when_asked_for(self) -> None:
        env = make_tuple_env("rware-img-tiny-2ag-v2")
        assert env.reset(seed=0)[0]["agent_1"].shape == (5, 3, 3)

    def test_package_in_the_id(self) -> None:
        env = make_tuple_env("lbforaging:Foraging-5x5-3p-1f-v3")
        assert env.possible_agents == ["agent_0", "agent_1", "agent_2"]


@pytest.mark.parametrize("env_id", [FORAGING, WAREHOUSE])
class TestLearning:
    def test_ippo(self, env_id: str) -> None:
        with make_multi_agent_vect_envs(env_id, 2, should_async_vector=False) as env:
            team = IPPO(env.observation_spaces, env.action_spaces, env.possible_agents, **SMALL)
            stats = collect_rollouts_recurrent(team, env, n_steps=60)
            assert stats.steps == 120
            assert [d.updates > 0 for d in team.learn().values()] == [True]
            assert np.isfinite(team.test(env, max_steps=10, loop=1))

    def test_maddpg(self, env_id: str) -> None:
        with make_multi_agent_vect_envs(env_id, 2, should_async_vector=False) as env:
            options = {"learning_starts": 30, "batch_size": 20, "learn_step": 10}
            team = MADDPG(env.observation_spaces, env.action_spaces, None, **options, **SMALL)
            before = [p.clone() for p in next(iter(team.trainers.values())).policy.parameters()]
            collect_rollouts_recurrent(team, env, n_steps=40)
            team.learn()
            after = list(next(iter(team.trainers.values())).policy.parameters())
            assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))

    def test_training_function(self, env_id: str) -> None:
        with make_multi_agent_vect_envs(env_id, 2, should_async_vector=False) as env:
            spaces = env.observation_spaces, env.action_spaces
            team = create_population(
                "IPPO", *spaces, SMALL["net_config"], {"LEARN_STEP": 20}, population_size=1
            )
            trained, fitnesses = train_multi_agent_on_policy(
                env, env_id, "IPPO", team, max_steps=80, evo_steps=80, eval_steps=5
            )
            assert trained[0].env_steps >= 80
            assert np.isfinite(fitnesses).all()
