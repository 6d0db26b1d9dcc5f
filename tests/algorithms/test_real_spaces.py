"""Real problems whose observations are no vectors, with their tuned settings."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from benchmarks.learning import build, chance, play, score, vector
from recurrent_rl import IPPO, PPO, collect_rollouts_recurrent, load_tuned
from recurrent_rl.algorithms.unroll import replay
from recurrent_rl.tuned import ON_POLICY, TUNED

NEEDS = {
    "MiniGrid-MemoryS7-v0": "minigrid",
    "LunarLander-v3": "Box2D",
    "connect_four_v3": "pygame",
    "simple": "mpe2",
}


def needed(env_id: str) -> None:
    """Skip where what an environment needs is not installed."""
    for prefix, package in NEEDS.items():
        if env_id.startswith(prefix):
            pytest.importorskip(package)


@pytest.mark.parametrize(("env_id", "algo"), [each for each in TUNED if each[1] in ON_POLICY])
def test_tuned_settings_fit_their_environments(env_id: str, algo: str) -> None:
    """Ratio one before the first update, finite losses behind it."""
    needed(env_id)
    env = vector(env_id, 2)
    agent = build(load_tuned(env_id, algo), env, seed=0)
    stats = collect_rollouts_recurrent(agent, env, n_steps=40)
    assert stats.steps == 80
    for trainer in agent.trainers.values():
        buffer = trainer.buffer
        assert buffer is not None
        active = buffer.active & buffer.exists
        log_prob, value = replay(trainer.policy, buffer)
        for ours, theirs in ((log_prob, buffer.log_prob), (value, buffer.value)):
            torch.testing.assert_close(ours[active], theirs[active], rtol=1e-4, atol=1e-4)
        assert trainer.learn().updates > 0
    env.close()


@pytest.mark.parametrize(("env_id", "algo"), [each for each in TUNED if each[1] not in ON_POLICY])
def test_settings_tuned_for_a_replay_fit_their_environments(env_id: str, algo: str) -> None:
    """Updates of finite losses, of a batch that is smaller than the tuned one."""
    needed(env_id)
    continuous = algo in ("MADDPG", "MATD3")
    env = vector(env_id, 2, continuous=continuous)
    agent = build(load_tuned(env_id, algo), env, seed=0)
    agent.reconfigure(learning_starts=60, batch_size=60, learn_step=40)
    collect_rollouts_recurrent(agent, env, n_steps=50)
    learned = agent.learn()
    for diagnostics in learned.values() if isinstance(learned, dict) else [learned]:
        assert diagnostics.updates > 0
        assert np.isfinite(list(diagnostics.to_dict().values())).all()
    env.close()


def test_what_a_grid_world_shows() -> None:
    pytest.importorskip("minigrid")
    env = vector("MiniGrid-MemoryS7-v0", 1)
    agent = build(load_tuned("MiniGrid-MemoryS7-v0"), env, seed=0)
    assert isinstance(agent, PPO)
    # Seven by seven cells, of twenty bits each: the two equal axes are height and width.
    assert agent.policy.codec.image_shapes == [(20, 7, 7)]
    assert agent.policy.codec.features == 4
    with pytest.raises(TypeError, match=r"observation_space\['mission'\]: expected .*Filter"):
        PPO(gym.make("MiniGrid-MemoryS7-v0").observation_space, env.single_action_space)
    env.close()


def test_connect_four_beats_chance() -> None:
    """Allowed moves only, and better ones than chance after 4,000 turns."""
    pytest.importorskip("pygame")
    env = vector("connect_four_v3", 16)
    agent: Any = build(load_tuned("connect_four_v3"), env, seed=0)
    assert isinstance(agent, IPPO)
    while agent.env_steps < 4_000:
        collect_rollouts_recurrent(agent, env)
        buffer = agent.trainers["player"].buffer
        # Its own turns only; the other's board is not looked at.
        active = buffer.active & buffer.exists
        assert buffer.action_mask[active].gather(-1, buffer.action[active][:, None]).all()
        agent.learn()
    # Chance against chance wins half of the games, and 100 of them deviate by 5; seeds 0, 1 and 2
    # won 96, 86 and 81 of them.
    assert score("connect_four_v3", play(agent, chance, 100, seed=1)) > 70
    env.close()
