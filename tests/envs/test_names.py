"""Tests of `recurrent_rl.envs.names`: what is said of an environment in messages and logs."""

import gymnasium as gym
import pytest
from mpe2 import simple_spread_v3
from support.envs import Scripted

from recurrent_rl import MaskVelocityWrapper, make_multi_agent_vect_envs, make_vect_envs
from recurrent_rl.envs.names import env_name


def masked() -> gym.Env:
    return MaskVelocityWrapper(gym.make("Pendulum-v1"))


def test_one_environment() -> None:
    assert env_name(masked()) == "Pendulum-v1"
    assert env_name(Scripted("3t")) == "Scripted"
    assert env_name(simple_spread_v3.parallel_env()) == "simple_spread_v3"


@pytest.mark.parametrize("processes", [False, True])
def test_vectors_are_called_as_what_is_in_them(processes: bool) -> None:
    one = make_vect_envs(make_env=masked, should_async_vector=processes)
    many = make_multi_agent_vect_envs(simple_spread_v3.parallel_env, should_async_vector=processes)
    names = [env_name(one), env_name(gym.wrappers.vector.RecordEpisodeStatistics(one))]
    names.append(env_name(many))
    one.close()
    many.close()
    assert names == ["Pendulum-v1", "Pendulum-v1", "simple_spread_v3"]


def test_gymnasiums_own_vectors() -> None:
    assert env_name(gym.make_vec("CartPole-v1", 1)) == "CartPole-v1"
