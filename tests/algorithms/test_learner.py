"""Tests of `recurrent_rl.algorithms.learner`, and of when and upon what agents learn."""

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from support.envs import scripted

from recurrent_rl import (
    DDPG,
    DQN,
    PPO,
    SAC,
    TD3,
    SequenceReplayBuffer,
    collect_rollouts_recurrent,
)
from recurrent_rl.algorithms.learner import Learner

NET = {"encoder_config": {"hidden_size": [6], "hidden_state_size": 4, "max_seq_len": 4}}
SMALL: dict[str, Any] = {"net_config": NET, "seed": 0, "batch_size": 8, "learning_starts": 0}


def agent_in(kind: Any = TD3, **options: Any) -> tuple[Any, Any]:
    """An agent, and two environments for it."""
    action = "discrete" if kind is DQN else "box"
    env = scripted(["9t 5l", "4l 7t"], action=action)
    spaces = env.single_observation_space, env.single_action_space
    return kind(*spaces, **{**SMALL, **options}), env


def everything(agent: Any) -> list[torch.Tensor]:
    found = [x.clone() for x in agent.policy.state_dict().values()]
    for _, target in agent.learner.targets():
        found += [x.clone() for x in target.to_data()]
    return found


# --- when there is something to do -------------------------------------------------------------


def test_nothing_is_done_before_anything_is_due() -> None:
    """As training loops that learn after each step need it."""
    agent, env = agent_in(learning_starts=100, learn_step=4)
    for _ in range(3):
        before = everything(agent)
        found = agent.learn()
        assert found.updates == 0
        assert found.values == {}
        assert math.isnan(found.critic_loss)
        assert found.to_dict() == {"updates": 0.0}
        assert all(map(torch.equal, before, everything(agent)))
        collect_rollouts_recurrent(agent, env, 10)


@pytest.mark.parametrize(
    ("learn_step", "gradient_steps", "expected"), [(1, 1, 20), (4, 1, 5), (8, 3, 6), (3, 2, 12)]
)
def test_updates_for_steps(learn_step: int, gradient_steps: int, expected: int) -> None:
    """Of 20 steps behind the first 10; what is left over counts in the next call."""
    agent, env = agent_in(
        learning_starts=10, learn_step=learn_step, gradient_steps=gradient_steps, batch_size=4
    )
    collect_rollouts_recurrent(agent, env, 15)
    assert agent.learn().updates == expected == agent.learner.updates
    assert agent.learn().updates == 0
    collect_rollouts_recurrent(agent, env, 12)
    agent.learn()
    assert agent.learner.updates == (20 + 24) // learn_step * gradient_steps


def test_a_sample_is_worth_one_update() -> None:
    agent, env = agent_in()
    collect_rollouts_recurrent(agent, env, 10)
    windows = agent.memory.sample(3, torch.Generator().manual_seed(0))
    found = agent.learn(windows)
    assert found.updates == 1
    assert np.isfinite(found.critic_loss)
    assert agent.learn().updates == 20  # what was due still is


def test_learning_from_a_memory_of_somebody_else() -> None:
    agent, env = agent_in()
    other, _ = agent_in(seed=5)
    collect_rollouts_recurrent(agent, env, 10)
    collect_rollouts_recurrent(other, env, 10)
    before = everything(agent)
    assert agent.learn(other.memory).updates == 20
    assert not all(map(torch.equal, before, everything(agent)))


# --- bad input, upon which nothing is lost -----------------------------------------------------


def test_fewer_steps_than_a_batch_are_refused_and_stay_due() -> None:
    agent, env = agent_in(batch_size=64)
    collect_rollouts_recurrent(agent, env, 10)
    with pytest.raises(RuntimeError, match="at least batch_size = 64 steps in the memory, got 20"):
        agent.learn()
    assert agent.learner.updates == 0
    collect_rollouts_recurrent(agent, env, 30)
    assert agent.learn().updates == 80


@pytest.mark.parametrize("kind", [DQN, DDPG, SAC])
def test_a_reward_out_of_range_leaves_all_as_it_was(kind: Any) -> None:
    agent, env = agent_in(kind)
    collect_rollouts_recurrent(agent, env, 10)
    reward = agent.memory.parts[""].reward
    kept = reward.clone()
    reward.fill_(torch.nan)
    before = everything(agent)
    with pytest.raises(FloatingPointError, match="expected a finite gradient"):
        agent.learn()
    assert all(map(torch.equal, before, everything(agent)))
    assert agent.learner.updates == 0
    reward.copy_(kept)
    assert agent.learn().updates == 20
    assert all(bool(x.isfinite().all()) for x in everything(agent))


def test_rollouts_and_replays_are_told_apart() -> None:
    agent, env = agent_in()
    on_policy = PPO(env.single_observation_space, env.single_action_space, seed=0)
    collect_rollouts_recurrent(on_policy, env, 8)
    collect_rollouts_recurrent(agent, env, 10)
    with pytest.raises(TypeError, match="expected a SequenceReplayBuffer to sample from"):
        agent.learn(on_policy.trainer.buffer)
    with pytest.raises(TypeError):
        on_policy.learn(agent.memory)
    on_policy.learn()
    assert agent.learn().updates == 20


def test_an_empty_memory_is_refused() -> None:
    agent, env = agent_in()
    collect_rollouts_recurrent(agent, env, 10)
    with pytest.raises(RuntimeError, match="got 0; collect more first"):
        agent.learn(SequenceReplayBuffer(100))
    assert agent.learn().updates == 20


@pytest.mark.parametrize("kind", [DQN, TD3, SAC])
def test_nothing_to_train_is_an_error(kind: Any) -> None:
    agent, env = agent_in(kind, **({"ent_coef": 0.1} if kind is SAC else {}))
    collect_rollouts_recurrent(agent, env, 10)
    agent.policy.requires_grad_(False)
    if kind is not DQN:
        agent.critic.requires_grad_(False)
    with pytest.raises(RuntimeError, match="all are frozen"):
        agent.learn()
    agent.policy.requires_grad_(True)
    assert agent.learn().updates == 20


def _transpose(agent: Any) -> None:
    """Give a weight other strides, with the same values in the same memory."""
    weight = next(p for p in agent.policy.parameters() if p.ndim == 2)
    weight.data = weight.data.t().contiguous().t()


CHANGES: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda agent: None,
    "gradients dropped": lambda agent: agent.policy.zero_grad(set_to_none=True),
    "moved": lambda agent: [setattr(p, "data", p.data.clone()) for p in agent.policy.parameters()],
    "loaded": lambda agent: agent.policy.load_state_dict(
        {name: x.clone() for name, x in agent.policy.state_dict().items()}, assign=True
    ),
    "transposed": _transpose,
    "frozen": lambda agent: agent.policy.trunks[0].requires_grad_(False),
}


@pytest.mark.parametrize("kind", [DQN, TD3, SAC])
@pytest.mark.parametrize("change", CHANGES)
def test_what_was_done_to_weights_is_noticed(kind: Any, change: str) -> None:
    """A look at what has changed, and preparing anew whatever it finds, come to the same."""
    ended = []
    for looks in (True, False):
        agent, env = agent_in(kind, learn_step=8, normalize_obs=True)
        for i in range(4):
            collect_rollouts_recurrent(agent, env, 8)
            if i == 2:
                CHANGES[change](agent)
            if not looks:
                agent.learner._joined = None
            assert agent.learn().updates > 0
        ended.append(everything(agent))
    assert all(map(torch.equal, *ended))


def test_nothing_is_prepared_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, env = agent_in(SAC)
    prepared: list[Learner] = []

    def prepare(self: Learner) -> bool:
        prepared.append(self)
        return Learner._prepare(self)

    monkeypatch.setattr(type(agent.learner), "_prepare", prepare)
    for _ in range(3):
        collect_rollouts_recurrent(agent, env, 8)
        agent.learn()
    assert len(prepared) == 1


def test_learning_in_inference_mode_is_refused() -> None:
    agent, env = agent_in()
    collect_rollouts_recurrent(agent, env, 10)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"outside of torch\.inference"):
        agent.learn()
    with torch.no_grad():
        assert agent.learn().updates == 20


# --- saving ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [(DQN, {"target_update": 3}), (TD3, {}), (SAC, {}), (SAC, {"ent_coef": 0.2})],
)
def test_what_was_saved_goes_on_alike(kind: Any, options: dict[str, Any]) -> None:
    """Targets, moments, counters and the temperature, of frozen parts too."""
    agent, env = agent_in(kind, **options)
    collect_rollouts_recurrent(agent, env, 20)
    agent.learn()
    agent.policy.trunks[0].requires_grad_(False)
    windows = [agent.memory.sample(3, torch.Generator().manual_seed(i)) for i in range(4)]
    agent.learn(windows[0])
    again = kind.from_checkpoint(agent.to_checkpoint())
    for sample in windows:
        for each in (agent, again):
            each.learn(sample)
    assert agent.learner.updates == again.learner.updates
    assert all(map(torch.equal, everything(agent), everything(again)))
    if kind is SAC:
        assert agent.learner.alpha == again.learner.alpha


def test_spaces_are_gymnasiums() -> None:
    with pytest.raises(TypeError, match="expected a gymnasium space"):
        TD3("a space", gym.spaces.Box(-1, 1, (1,)))  # type: ignore[arg-type]
