"""Agents whose action spaces are unusual: whole numbers, other dtypes, odd bounds, one choice."""

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.vector import SyncVectorEnv
from support.agents import make_agent, make_team, prepare
from support.any_envs import AnyTeam, any_vector
from support.contract import behaviour
from support.evolving import assert_same

from recurrent_rl import (
    DQN,
    IPPO,
    MATD3,
    PPO,
    SAC,
    TD3,
    SyncMultiAgentVectorEnv,
    collect_rollouts_recurrent,
)
from recurrent_rl.algorithms.unroll import replay

SEEN = Box(-1, 1, (3,))
GREATEST = float(np.finfo(np.float32).max)
CLIPPED, SQUASHED = {"squash_output": False}, {"squash_output": None}
ACTIONS: dict[str, tuple[gym.Space[Any], dict[str, Any]]] = {
    "int8": (Box(-2, 2, (2,), np.int8), SQUASHED),
    "bytes": (Box(0, 255, (2, 2), np.uint8), CLIPPED),
    "int64": (Box(-(2**63), 2**63 - 1, (1,), np.int64), SQUASHED),
    "without bounds": (Box(-np.inf, np.inf, (2,), np.int32), SQUASHED),
    "whole sde": (Box(0, 5, (2,), np.int32), {"use_sde": True, **SQUASHED}),
    "whole by state": (Box(0, 5, (2,), np.int32), {"state_dependent_std": True, **CLIPPED}),
    "float32's greatest": (Box(-GREATEST, GREATEST, (2,)), SQUASHED),
    "float64's": (Box(-1e300, 1e300, (2,), np.float64), SQUASHED),
    "very wide": (Box(-1e17, 1e17, (1,)), SQUASHED),
    "one-sided": (Box(np.array([0, -np.inf]), np.array([np.inf, 1]), dtype=np.float64), SQUASHED),
    "one fixed": (Box(np.array([0.5, -1]), np.array([0.5, 1]), dtype=np.float64), SQUASHED),
    "one fixed, clipped": (Box(np.array([3, -1]), np.array([3, 1]), dtype=np.float32), CLIPPED),
    "one fixed, sde": (
        Box(np.array([3, -1]), np.array([3, 1]), dtype=np.int32),
        {"use_sde": True, **SQUASHED},
    ),
    "all fixed": (Box(1.0, 1.0, (2,)), SQUASHED),
    "short choice": (Discrete(3, start=2, dtype=np.int32), {}),
    "one choice": (Discrete(1), {}),
    "a component of one choice": (MultiDiscrete([1, 3], dtype=np.int16), {}),
}
every_space = pytest.mark.parametrize("name", ACTIONS)


def assert_sound(agent: PPO | IPPO, collect: Any) -> None:
    """Collection replays exactly, learning has no NaN, and so again."""
    trainers = list(agent.trainers.values())
    for _ in range(2):
        collect()
        prepare(agent)
        for trainer in trainers:
            assert trainer.buffer is not None
            log_prob, _ = replay(trainer.policy, trainer.buffer)
            active = trainer.buffer.active & trainer.buffer.exists
            torch.testing.assert_close(
                log_prob[active], trainer.buffer.log_prob[active], rtol=1e-4, atol=1e-3
            )
        learned = agent.learn()
        for one in learned.values() if isinstance(learned, dict) else (learned,):
            assert all(math.isfinite(x) for x in (one.policy_loss, one.entropy, one.grad_norm))


@every_space
@pytest.mark.parametrize("recurrent", [False, True])
def test_ppo_acts_within_the_space_learns_and_is_loaded(
    name: str, recurrent: bool, tmp_path: Path
) -> None:
    space, options = ACTIONS[name]
    env = any_vector(SEEN, space)  # checks that each action is in the space
    agent = make_agent(env, recurrent=recurrent, previous_action=True, ent_coef=0.01, **options)
    assert_sound(agent, lambda: collect_rollouts_recurrent(agent, env))
    agent.save_checkpoint(tmp_path / "agent.pt")
    loaded = PPO.load(tmp_path / "agent.pt")
    collect_rollouts_recurrent(loaded, env)
    observation = np.zeros((4, 3), np.float32)
    for deterministic in (True, False):
        outs = [
            one.get_action(
                observation, one.get_initial_hidden_state(4), deterministic=deterministic
            )
            for one in (agent, agent.clone())
        ]
        assert np.array_equal(outs[0].action, outs[1].action)
        assert outs[0].action.dtype == space.dtype
        for action in outs[0].action:
            assert space.contains(action)
        for numbers in (outs[0].log_prob, outs[0].entropy):
            assert np.isfinite(numbers).all()


@pytest.mark.parametrize(
    "name", [n for n in ACTIONS if n not in ("float32's greatest", "float64's", "int64")]
)
def test_teams_act_learn_and_take_actions_that_environments_define(name: str) -> None:
    space, options = ACTIONS[name]
    env = SyncMultiAgentVectorEnv([lambda i=i: AnyTeam(SEEN, space, i) for i in range(2)])
    agent = make_team(env, previous_action=True, ent_coef=0.01, learn_step=40, **options)
    assert_sound(agent, lambda: collect_rollouts_recurrent(agent, env))


def replays() -> list[tuple[Any, str]]:
    """What learns from a replay, with the spaces that it takes."""
    found: list[tuple[Any, str]] = []
    for name, (space, options) in ACTIONS.items():
        if isinstance(space, Box | Discrete):
            found.append((SAC if isinstance(space, Box) else DQN, name))
        if not {"use_sde", "state_dependent_std"} & options.keys():
            found.append((TD3, name))
            # In teams others' actions may be chosen by the environment, as great as they get.
            found += [(MATD3, name)] if name not in ("float32's greatest", "float64's") else []
    return found


@pytest.mark.parametrize(("kind", "name"), replays())
def test_what_learns_from_a_replay_acts_within_the_space(
    kind: Any, name: str, tmp_path: Path
) -> None:
    space, options = ACTIONS[name]
    shapes = {"encoder_config": {"hidden_state_size": 4, "hidden_size": [4], "max_seq_len": 4}}
    learning = {"memory_size": 100, "batch_size": 12, "learn_step": 12, "learning_starts": 8}
    env: Any  # checks that each action is in the space
    if kind is MATD3:
        env = SyncMultiAgentVectorEnv([lambda i=i: AnyTeam(SEEN, space, i) for i in range(3)])
        spaces = env.observation_spaces, env.action_spaces, env.possible_agents
    else:
        env, spaces = any_vector(SEEN, space), (SEEN, space)
    agent = kind(*spaces, shapes, seed=0, previous_action=True, **learning, **options)
    for _ in range(2):
        collect_rollouts_recurrent(agent, env, 8)
        learned = agent.learn()
        for one in learned.values() if kind is MATD3 else [learned]:
            assert one.updates > 0
            assert all(math.isfinite(x) for x in one.values.values())
    agent.save_checkpoint(tmp_path / "agent.pt")
    loaded = kind.load(tmp_path / "agent.pt")
    for deterministic in (True, False):
        ours, theirs = (behaviour(x, deterministic=deterministic) for x in (agent, loaded))
        assert_same(ours, theirs)
    collect_rollouts_recurrent(loaded, env, 8)


@pytest.mark.parametrize("space", [Discrete(4, dtype=np.int32), MultiDiscrete([2, 3], np.int8)])
def test_choices_of_other_bits_are_observed_and_loaded(space: Any, tmp_path: Path) -> None:
    env = any_vector(space, Discrete(2))
    agent = make_agent(env)
    collect_rollouts_recurrent(agent, env)
    agent.save_checkpoint(tmp_path / "agent.pt")
    loaded = PPO.load(tmp_path / "agent.pt")
    assert loaded.observation_space == space
    collect_rollouts_recurrent(loaded, env)


def test_an_agent_of_wide_choices_acts_where_they_are_short() -> None:
    agent = make_agent(any_vector(SEEN, Discrete(3)))
    collect_rollouts_recurrent(agent, any_vector(SEEN, Discrete(3, dtype=np.int8)))


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("options", [{}, {"use_sde": True}, {"state_dependent_std": True}], ids=str)
@pytest.mark.parametrize("squash", [False, True])
def test_a_new_policy_plays_every_whole_number_about_equally_often(
    options: dict[str, Any], squash: bool, recurrent: bool
) -> None:
    agent = PPO(
        SEEN,
        Box(0, 4, (1,), np.int32),
        seed=0,
        recurrent=recurrent,
        squash_output=squash,
        **options,
    )
    seen = np.random.default_rng(0).uniform(-1, 1, (4000, 3)).astype(np.float32)
    out = agent.get_action(seen, agent.get_initial_hidden_state(4000))
    shares = np.bincount(out.action[:, 0], minlength=5) / 4000
    assert ((shares > 0.14) & (shares < 0.27)).all()


class Pays(gym.Env[Any, Any]):
    """Pays the action, for ten steps."""

    observation_space = Box(-1, 1, (1,))

    def __init__(self, space: Box) -> None:
        self.action_space = space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.left = 10
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.left -= 1
        return np.zeros(1, np.float32), float(action[0]), self.left == 0, False, {}


@pytest.mark.parametrize(
    ("options", "sign"), [({}, -1), ({}, 1), (CLIPPED, -1), ({"use_sde": True}, 1)], ids=str
)
def test_the_highest_of_whole_numbers_is_found(options: dict[str, Any], sign: int) -> None:
    # The best possible return, which needs the outmost value in each of ten steps.
    space = Box(-2, 2, (1,), np.int32)

    class Signed(Pays):
        def step(self, action: Any) -> Any:
            return super().step(sign * action)

    env = SyncVectorEnv([lambda: Signed(space) for _ in range(8)], autoreset_mode="SameStep")
    agent = PPO(
        env.single_observation_space,
        space,
        seed=0,
        recurrent=False,
        learn_step=64,
        lr=1e-2,
        **options,
    )
    for _ in range(15):
        collect_rollouts_recurrent(agent, env)
        agent.learn()
    assert agent.test(env, loop=1) == 20


@pytest.mark.parametrize("deviation", [{}, {"state_dependent_std": True}, {"use_sde": True}])
@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("cell", [None, "lstm", "gru"])
def test_ratios_are_one_at_the_smallest_deviation(
    deviation: dict[str, Any], squash: bool, cell: str | None
) -> None:
    # Without a bound a log-probability was off by 0.02, or by millions for a deviation of its own.
    env = any_vector(SEEN, Box(-2, 1, (2,)))
    memory = {"recurrent": False} if cell is None else {"cell": cell}
    agent = make_agent(env, squash_output=squash, learn_step=60, **memory, **deviation)
    head = agent.policy.action_head
    with torch.no_grad():
        if "state_dependent_std" in deviation:
            head.layers[-1].bias[2:] = -1e3
        else:
            head.distribution.log_std.fill_(-8.0)
    collect_rollouts_recurrent(agent, env)
    prepare(agent)
    assert agent.buffer is not None
    log_prob, _ = replay(agent.policy, agent.buffer)
    active = agent.buffer.active
    off = (log_prob - agent.buffer.log_prob)[active].abs().max()
    assert off < 1e-3


def test_entropy_is_the_squashed_actions_everywhere() -> None:
    env = any_vector(SEEN, Box(-1, 1, (1,)))
    agent = make_agent(env, squash_output=True, recurrent=False, lr=1e-9, ent_coef=0.0)
    with torch.no_grad():
        for parameter in agent.policy.action_head.parameters():
            parameter.zero_()
        agent.policy.action_head.distribution.log_std.fill_(2.0)
    out = agent.get_action(np.zeros((2, 3), np.float32))
    assert out.entropy == pytest.approx([-7.08] * 2, abs=0.01)
    collect_rollouts_recurrent(agent, env)
    assert agent.learn().entropy == pytest.approx(-7.08, abs=0.01)
