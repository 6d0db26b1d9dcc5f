"""Tests of `recurrent_rl.acting.evaluate`, and of what testing does to collecting."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from support.agents import make_agent
from support.envs import NAN_REWARD, Scripted, scripted
from support.multi_envs import OneAgent

from recurrent_rl import (
    IPPO,
    PPO,
    AsyncMultiAgentVectorEnv,
    SyncMultiAgentVectorEnv,
    collect_rollouts_recurrent,
)
from recurrent_rl.acting.carry import AGAIN_AND_AGAIN
from recurrent_rl.acting.player import Turn
from recurrent_rl.acting.spectator import Spectator
from recurrent_rl.envs.rows import Observed

SAME = AutoresetMode.SAME_STEP


def ippo_for(env: Any) -> IPPO:
    return IPPO(env.observation_spaces, env.action_spaces, env.possible_agents, seed=0)


class TestRewards:
    def test_one_agent(self) -> None:
        agent = make_agent(scripted(["9t"]))
        poisoned = Scripted("9t", poison={3: NAN_REWARD})
        with pytest.raises(ValueError, match=r"reward: .* got nan from environment 0 at step 2"):
            agent.test(poisoned, loop=1)
        assert agent.fitness == []

    def test_several_agents(self) -> None:
        def build(poison: Any) -> Any:
            return OneAgent(Scripted("9t", poison=poison))

        env = SyncMultiAgentVectorEnv([lambda: build({}), lambda: build({3: NAN_REWARD})])
        agent = ippo_for(env)
        with pytest.raises(ValueError, match=r"got nan from agent .* in environment 1 at step 2"):
            agent.test(env, loop=1)
        assert agent.fitness == []

    def test_after_the_end_of_an_episode_they_mean_nothing(self) -> None:
        env = scripted(["2t 30t", "9t"], poisons={0: {5: NAN_REWARD}})
        assert np.isfinite(make_agent(env).test(env, loop=1))


USES: list[Callable[[Any], Any]] = [
    lambda env: env.reset(),
    lambda env: env.step(np.array([1, 1])),
    lambda env: env.envs[1].reset(),
    lambda env: env.envs[0].step(1),
    lambda env: env.envs[0].unwrapped.step(1),
    lambda env: gym.wrappers.vector.RecordEpisodeStatistics(env).reset(),
    lambda env: gym.wrappers.TransformReward(env.envs[1], lambda r: r).step(1),
    lambda env: env.call("reset"),
]


class TestSomebodyElsesUse:
    @pytest.mark.parametrize("use", USES)
    @pytest.mark.parametrize("mode", list(AutoresetMode))
    def test_starts_afresh(self, use: Callable[[Any], Any], mode: AutoresetMode) -> None:
        env = scripted(["30t", "30t"], mode)
        agent = make_agent(env)
        for expected in (True, False):
            collect_rollouts_recurrent(agent, env, 3)
            assert agent.buffer is not None
            assert bool(agent.buffer.start[0].all()) == expected
        use(env)
        collect_rollouts_recurrent(agent, env, 3)
        assert agent.buffer.start[0].all()
        collect_rollouts_recurrent(agent, env, 3)
        assert not agent.buffer.start[0].any()
        use(env)
        collect_rollouts_recurrent(agent, env, 3, reset=False)
        assert not agent.buffer.start[0].any()

    @pytest.mark.parametrize("through", ["vector", "member"])
    def test_teams(self, through: str) -> None:
        env = SyncMultiAgentVectorEnv([lambda: OneAgent(Scripted("30t"))] * 2)
        agent = ippo_for(env)
        (trainer,) = agent.trainees.values()
        starts = []
        for _ in range(3):
            collect_rollouts_recurrent(agent, env, 3)
            assert trainer.buffer is not None
            starts.append(bool(trainer.buffer.start[0].all()))
            if len(starts) == 2:
                (env if through == "vector" else env.envs[1]).reset()
        assert starts == [True, False, True]

    @pytest.mark.parametrize("tested", ["vector", "member"])
    def test_episodes_thrown_away_again_and_again(self, tested: str) -> None:
        env = scripted(["6t", "6t"])
        agent = make_agent(env, learn_step=5)

        def iterate() -> None:
            collect_rollouts_recurrent(agent, env)
            agent.test(env if tested == "vector" else env.envs[0], loop=1)

        for _ in range(AGAIN_AND_AGAIN):  # so often may be chance
            iterate()
        with pytest.warns(UserWarning, match="behind an episode's first 5 steps is ever trained"):
            iterate()
        iterate()  # said once

    def test_episodes_that_end_or_were_given_up_on_purpose(self) -> None:
        env = scripted(["6t", "6t"])
        agent = make_agent(env)
        for steps, reset in ((7, None), (5, True)):
            for _ in range(AGAIN_AND_AGAIN + 2):
                collect_rollouts_recurrent(agent, env, steps, reset=reset)
                agent.test(env, loop=1)


class Drawn(gym.Env[Any, Any]):
    """Begins each episode with a random observation."""

    observation_space = gym.spaces.Box(0, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x = self.np_random.random(1).astype(np.float32)
        return self.x.copy(), {}

    def step(self, action: Any) -> Any:
        return self.x.copy(), 0.0, True, False, {}


def test_after_a_seeded_test_an_agent_without_a_seed_sees_other_starts() -> None:
    env = SyncVectorEnv([Drawn], autoreset_mode=SAME)
    agent = PPO(env.single_observation_space, env.single_action_space)
    seen = []
    for _ in range(3):
        agent.test(env, loop=1, seed=7)
        collect_rollouts_recurrent(agent, env, 3)
        assert agent.buffer is not None
        seen += agent.buffer.obs.flatten().tolist()
    assert len(set(seen)) == len(seen)


def test_one_object_for_all_places() -> None:
    one = Scripted("3t")
    for makers in ([lambda: one] * 2, [lambda: gym.wrappers.TimeLimit(one, 9)] * 2):
        env = SyncVectorEnv(makers, autoreset_mode=SAME)
        agent = make_agent(scripted(["3t"]))
        with pytest.raises(ValueError, match="one object for several"):
            collect_rollouts_recurrent(agent, env, 3)
        with pytest.raises(ValueError, match="one object for several"):
            agent.test(env)


def test_a_single_environment_stays_open() -> None:
    class Closing(Scripted):
        closed = False

        def close(self) -> None:
            self.closed = True

    env = Closing("3t")
    make_agent(scripted(["3t"])).test(env)
    assert not env.closed


class Levels(gym.Env):
    """One level after the other, of one to three steps; the return is the level's number."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, first: int = 0, masked: bool = False) -> None:
        self.level, self.resets, self.masked = first - 1, 0, masked
        self.seeds: list[int | None] = []
        if masked:
            self.action_masks = lambda: np.array([1, 1 - self.over])

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.level, self.resets, self.time, self.over = self.level + 1, self.resets + 1, 0, False
        self.seeds.append(seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        assert not self.over, "stepped behind the end"
        self.time += 1
        self.over = self.time > self.level % 3
        # In a final state some show what is outside their space.
        seen = np.full(1, np.nan if self.over else 0, np.float32)
        return seen, self.level * float(self.over), self.over, False, {}


class TestOneResetForEachEpisode:
    @pytest.mark.parametrize("seed", [None, 3])
    @pytest.mark.parametrize("masked", [False, True])
    def test_a_single_environment(self, seed: int | None, masked: bool) -> None:
        env = Levels(masked=masked)
        agent = PPO(env.observation_space, env.action_space, seed=0)
        assert agent.evaluate(env, 10, seed=seed).tolist() == list(range(10))
        assert env.resets == 10
        assert (len(set(env.seeds)) == 10) == (seed is not None)
        agent.test(env, loop=3)
        assert env.resets == 13

    @pytest.mark.parametrize("seed", [None, 3])
    @pytest.mark.parametrize("wrapped", [False, True])
    @pytest.mark.parametrize("mode", list(AutoresetMode))
    def test_vectors(self, mode: AutoresetMode, wrapped: bool, seed: int | None) -> None:
        # What a NEXT_STEP vector shows at an episode's end, the policy sees.
        kind = FiniteLevels if mode is AutoresetMode.NEXT_STEP else Levels
        members = [kind(10 * i, masked=True) for i in range(3)]
        env: Any = SyncVectorEnv([lambda e=e: e for e in members], autoreset_mode=mode)  # type: ignore[misc]
        agent = PPO(env.single_observation_space, env.single_action_space, seed=0)
        played = agent.evaluate(
            gym.wrappers.vector.RecordEpisodeStatistics(env) if wrapped else env, 8, seed=seed
        )
        assert played.tolist() == [0, 10, 20, 1, 11, 21, 2, 12, 22]
        assert [member.resets for member in members] == [3, 3, 3]
        assert env.envs == members

    def test_cut_off(self) -> None:
        env = Levels(2)
        agent = PPO(env.observation_space, env.action_space, seed=0)
        assert agent.evaluate(env, 3, max_steps=1).tolist() == [0, 3, 0]
        assert env.resets == 3

    @pytest.mark.parametrize("workers", [False, True])
    def test_teams(self, workers: bool) -> None:
        kind: Any = AsyncMultiAgentVectorEnv if workers else SyncMultiAgentVectorEnv
        env = kind([lambda: OneAgent(FiniteLevels()), lambda: OneAgent(FiniteLevels(10))])
        try:
            agent = ippo_for(env)
            (returns,) = agent.evaluate(env, 6).values()
            assert returns.tolist() == [0, 10, 1, 11, 2, 12]
            # Collecting begins the next levels, and goes from one to the other by itself.
            collect_rollouts_recurrent(agent, env, 40)
            (trainer,) = agent.trainees.values()
            assert trainer.buffer is not None
            assert trainer.buffer.terminated.sum(0).min() > 10
        finally:
            env.close()

    def test_a_single_team(self) -> None:
        levels = FiniteLevels()
        env = OneAgent(levels)
        agent = ippo_for(SyncMultiAgentVectorEnv([lambda: OneAgent(FiniteLevels())]))
        (returns,) = agent.evaluate(env, 5).values()
        assert returns.tolist() == [0, 1, 2, 3, 4]
        assert levels.resets == 5


class FiniteLevels(Levels):
    def step(self, action: Any) -> Any:
        seen, *others = super().step(action)
        return np.zeros_like(seen), *others


class Log(Spectator):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self) -> None:
        self.told.append("begin")

    def act(self, group: int, seen: Observed, turn: Turn) -> None:
        self.told.append((group, seen.observation[:, 0].tolist(), turn))

    def stepped(self) -> None:
        self.told.append("stepped")


class TestSpectators:
    def test_see_every_step_of_every_episode(self) -> None:
        env, log = Scripted("3t 2l"), Log()
        agent = make_agent(scripted(["9t"]))
        agent.evaluate(env, 2, watch=log)
        words = [word if isinstance(word, str) else "act" for word in log.told]
        assert words == ["begin", *["act", "stepped"] * 3, "begin", *["act", "stepped"] * 2]
        turns = [word for word in log.told if not isinstance(word, str)]
        expected = [np.sin(1 + 1.3 * e + 0.5 * t) for e, n in ((0, 3), (1, 2)) for t in range(n)]
        assert [group for group, _, _ in turns] == [0] * 5
        assert [seen[0] for _, seen, _ in turns] == pytest.approx(expected)
        assert not turns[3][2].before.tensors[0].any()  # a new life
        assert turns[4][2].before.tensors[0].equal(turns[3][2].acted.state.tensors[0])

    def test_change_nothing(self) -> None:
        agent = make_agent(scripted(["9t"]))
        plain = agent.evaluate(Scripted("3t 2l"), 2, seed=0)
        assert agent.evaluate(Scripted("3t 2l"), 2, seed=0, watch=Log()).tolist() == plain.tolist()

    def test_see_groups_by_number(self) -> None:
        env, log = SyncMultiAgentVectorEnv([lambda: OneAgent(Scripted("2t"))]), Log()
        ippo_for(env).evaluate(env, 1, watch=log)
        assert [word[0] for word in log.told if not isinstance(word, str)] == [0, 0]

    def test_are_of_one_kind(self) -> None:
        agent = make_agent(scripted(["9t"]))
        with pytest.raises(TypeError, match="watch: expected an object of a subclass of Spectator"):
            agent.evaluate(Scripted("3t"), 1, watch=print)  # type: ignore[arg-type]
