"""Tests of `recurrent_rl.envs.envpool_vector`: EnvPool does what Gymnasium's vectors promise."""

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from support.agents import assert_ratio_one
from support.training_runs import NETWORK

from recurrent_rl import (
    PPO,
    MaskVelocityVectorWrapper,
    MaskVelocityWrapper,
    collect_rollouts_recurrent,
    make_vect_envs,
)
from recurrent_rl.envs.envpool_vector import EnvPoolVectorEnv
from recurrent_rl.evolution.pools import builder_of

pytest.importorskip("envpool", reason="the extra envpool is not installed")


def pool(env_name: str = "CartPole-v1", num_envs: int = 3, **options: Any) -> EnvPoolVectorEnv:
    env: Any = make_vect_envs(env_name, num_envs, backend="envpool", **options)
    return env  # type: ignore[no-any-return]


def played(env: Any, seed: Any, steps: int = 30) -> np.ndarray:
    """What is seen in some steps of the same actions, [steps + 1, E, ...]."""
    seen = [env.reset(seed=seed)[0]]
    return np.stack(seen + [env.step(np.arange(len(seen[0])) % 2)[0] for _ in range(steps)])


def test_seeds_decide_what_happens_as_in_gymnasiums_vectors() -> None:
    env = pool(num_threads=2)
    first = played(env, 3)
    assert np.array_equal(played(env, 3), first)
    assert np.array_equal(played(pool(num_threads=1), np.int64(3)), first)
    assert np.array_equal(played(env, 4)[0, :2], first[0, 1:])  # each environment's is one more
    listed = played(env, [5, None, 3])[0]
    assert np.array_equal(listed[2], first[0, 0])
    assert np.array_equal(played(env, 2**31 - 1)[0, 1], played(env, 0)[0, 0])  # it begins again
    unseeded = [played(env, None), played(env, None), played(pool(), None)]
    assert len({each[0].tobytes() for each in unseeded}) == 3


def test_a_test_is_repeatable_in_envpool_and_an_agent_fits_gymnasiums_own() -> None:
    env = MaskVelocityVectorWrapper(pool(max_episode_steps=20))
    agent = PPO(env.single_observation_space, env.single_action_space, NETWORK, seed=0)
    assert agent.test(env, seed=1) == agent.test(env, seed=1)
    assert 1 < agent.test(MaskVelocityWrapper(gym.make("CartPole-v1")), seed=1) < 500


def test_memory_is_exact_where_episodes_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """EnvPool's own count of steps tells where its episodes begin and are cut."""
    env = MaskVelocityVectorWrapper(pool("Pendulum-v1", 4, max_episode_steps=5))
    counts: list[np.ndarray] = []
    inner: Any = env.env
    monkeypatch.setattr(inner, "_build", lambda seeds: None)
    inner._pool = _Watched(inner._pool, counts)
    agent = PPO(
        env.single_observation_space,
        env.single_action_space,
        NETWORK,
        learn_step=20,
        max_seq_len=4,
        previous_action=True,
        previous_reward=True,
    )
    stats = collect_rollouts_recurrent(agent, env)
    buffer = agent.buffer
    assert buffer is not None
    elapsed = np.stack(counts)  # [T, E], behind each step
    before = np.concatenate([np.zeros((1, 4)), elapsed[:-1]])
    assert np.array_equal(buffer.start.numpy(), before == 0)
    assert np.array_equal(buffer.active.numpy(), elapsed != 0)
    assert np.array_equal(buffer.truncated.numpy(), elapsed == 5)
    assert not buffer.terminated.any()
    assert not buffer.obs[..., 2].any()
    assert stats.lengths == [5] * 12
    assert stats.infos == {}
    assert_ratio_one(agent)


class _Watched:
    """A pool that is asked for its counts of steps."""

    def __init__(self, inner: Any, counts: list[np.ndarray]) -> None:
        self.inner, self.counts = inner, counts

    def reset(self) -> Any:
        return self.inner.reset()

    def step(self, actions: Any) -> Any:
        result = self.inner.step(actions)
        self.counts.append(result[-1]["elapsed_step"].copy())
        return result


def test_it_can_be_built_again() -> None:
    env = pool(max_episode_steps=7)
    again = builder_of(env)()
    assert (type(again), again.num_envs, again.options) == (type(env), 3, {"max_episode_steps": 7})
    env.close()
    env.close()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"env_name": "Pendulum-v2"}, ValueError, "env_name: .* got 'Pendulum-v2'; did you mean"),
        ({"env_name": gym.spec("CartPole-v1")}, TypeError, "env_name: expected an id of EnvPool's"),
        ({"seed": 3}, ValueError, r"seed: expected to be left out .* env\.reset\(seed="),
        ({"batch_size": 2}, ValueError, "batch_size: expected to be left out .* stepped together"),
        ({"max_num_players": 2}, ValueError, "max_num_players: .* one agent plays"),
        ({"color": 3}, TypeError, r"EnvPool refuses {'color': 3}: .*'color'"),
        ({"num_threads": -1}, ValueError, r"num_threads: expected a number in \[0, 1024\]"),
        ({"max_episode_steps": 0}, ValueError, r"max_episode_steps: expected a number in \[1, "),
        ({"timeout": 3}, ValueError, "timeout: expected None with backend='envpool'"),
        ({"should_async_vector": False}, ValueError, "should_async_vector: .* num_threads=1"),
        ({"env_name": None, "make_env": pool}, ValueError, "make_env: expected env_name with"),
        ({"backend": "brax"}, ValueError, r"backend: expected one of \['gymnasium', 'envpool'\]"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, dict) else None,
)
def test_what_makes_no_sense_is_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_vect_envs(**{"env_name": "CartPole-v1", "backend": "envpool", **options})


def test_resets_take_no_options_and_as_many_seeds() -> None:
    env = pool()
    with pytest.raises(ValueError, match=r"options: expected none .* got {'reset_mask'"):
        env.reset(options={"reset_mask": np.ones(3, bool)})
    with pytest.raises(ValueError, match=r"seed: expected one number, .* each of 3 .* got 2"):
        env.reset(seed=[1, 2])


def test_without_envpool_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ImportError, match=r"backend='envpool': .*'recurrent_rl\[envpool\]'"):
        pool()
