"""Tests of `recurrent_rl.envs.usage`: marks on the innermost environments."""

import copy
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from support.envs import Scripted, scripted
from support.multi_envs import OneAgent, ScriptedParallel

from recurrent_rl import AsyncMultiAgentVectorEnv, SyncMultiAgentVectorEnv
from recurrent_rl.envs.usage import innermost, is_marked, mark


def vector_of(*envs: Any) -> SyncVectorEnv:
    """A vector of environments that exist already."""
    return SyncVectorEnv([lambda env=env: env for env in envs])  # type: ignore[misc]


def wrapped(env: Any) -> Any:
    """An environment in two wrappers."""
    return gym.wrappers.TransformReward(gym.wrappers.TimeLimit(env, 9), lambda reward: reward)


class TestInnermost:
    def test_a_single_environment(self) -> None:
        env = Scripted("3t")
        assert innermost(env) == [env]
        assert innermost(wrapped(env)) == [env]

    def test_a_vector(self) -> None:
        a, b = Scripted("3t"), Scripted("4t")
        env = vector_of(wrapped(a), b)
        for each in (env, gym.wrappers.vector.RecordEpisodeStatistics(env)):
            assert innermost(each) == [a, b]

    def test_a_vector_of_teams(self) -> None:
        a, b = (OneAgent(Scripted("3t")) for _ in range(2))
        assert innermost(SyncMultiAgentVectorEnv([lambda: a, lambda: b])) == [a, b]
        assert innermost(a) == [a]

    def test_a_vector_that_keeps_its_environments_to_itself(self) -> None:
        entry = gym.make_vec("CartPole-v1", 3, vectorization_mode="vector_entry_point")
        assert innermost(entry) == [entry.unwrapped]
        env = scripted(["3t", "4t"], kind=AsyncVectorEnv)
        try:
            assert innermost(gym.wrappers.vector.RecordEpisodeStatistics(env)) == [env]
        finally:
            env.close()
        play = {"bob_0": [(0, 3, "t")]}
        with AsyncMultiAgentVectorEnv([lambda: ScriptedParallel([play])] * 2) as teams:
            assert innermost(teams) == [teams]


class TestMarks:
    def test_nobody_has_used_it(self) -> None:
        env = scripted(["3t", "4t"])
        assert not is_marked(env, object())
        mark(env, None)
        assert not is_marked(env, object())

    def test_the_last_user_and_no_other(self) -> None:
        env = scripted(["3t", "4t"])
        one, other = object(), object()
        mark(env, one)
        assert is_marked(env, one)
        assert not is_marked(env, other)
        mark(env, other)
        assert not is_marked(env, one)
        assert is_marked(env, other)
        mark(env, None)
        assert not is_marked(env, other)

    def test_wrappers_of_a_vector_are_one_with_it(self) -> None:
        env, user = scripted(["3t", "4t"]), object()
        mark(gym.wrappers.vector.RecordEpisodeStatistics(env), user)
        assert is_marked(env, user)
        mark(gym.wrappers.vector.RecordEpisodeStatistics(env), None)
        assert not is_marked(env, user)

    def test_another_vector_of_the_same_environments_is_another(self) -> None:
        """It does not know which of them the first was about to reset."""
        env, user = scripted(["3t", "4t"]), object()
        mark(env, user)
        other = vector_of(*(wrapped(each) for each in env.envs))
        assert not is_marked(other, user)
        mark(other, None)
        assert not is_marked(env, user)

    @pytest.mark.parametrize("used", [0, 1])
    def test_one_of_them_used_by_somebody_else(self, used: int) -> None:
        env, user = scripted(["3t", "4t"]), object()
        mark(env, user)
        mark(wrapped(env.envs[used]), None)
        assert not is_marked(env, user)
        mark(env, user)
        mark(env.envs[used], object())
        assert not is_marked(env, user)

    @pytest.mark.parametrize("order", [[1, 0], [0], [1], [0, 0], [0, 1, 2]], ids=str)
    def test_not_all_of_them_in_this_order(self, order: list[int]) -> None:
        env, user = scripted(["3t", "4t"]), object()
        mark(env, user)
        singles = [*env.envs, Scripted("5t")]
        assert not is_marked(vector_of(*(singles[i] for i in order)), user)
        assert is_marked(env, user)

    def test_copies_are_other_environments_used_by_nobody(self) -> None:
        env, user = scripted(["3t", "4t"]), object()
        mark(env, user)
        other = copy.deepcopy(env)
        assert not is_marked(other, user)
        mark(other, None)
        assert is_marked(env, user)
