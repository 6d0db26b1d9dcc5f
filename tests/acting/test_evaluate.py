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

from recurrent_rl import IPPO, PPO, SyncMultiAgentVectorEnv, collect_rollouts_recurrent

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
