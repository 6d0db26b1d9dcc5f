"""Cloning trains what acts and nothing else, for every agent; and a memory can be cloned."""

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from support.contract import CASES, Case, train
from support.demonstrated import ACTORS, recorded
from support.envs import Recall
from support.spaces_of import samples

from recurrent_rl import (
    DQN,
    PPO,
    SAC,
    TD3,
    CloningEpoch,
    Demonstrations,
    clone_behaviour,
    collect_rollouts_recurrent,
    make_vect_envs,
    record_demonstrations,
)
from recurrent_rl.algorithms.off_policy_agent import OffPolicyAgent
from recurrent_rl.imitation.losses import OUTMOST

EVERY = pytest.mark.parametrize("case", ACTORS.values(), ids=ACTORS.keys())


def copied(module: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(module: Any, before: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True)]


def optimisers(agent: Any) -> Any:
    data = copy.deepcopy(agent.to_checkpoint())
    if isinstance(agent, OffPolicyAgent):
        return data["learner"]["optimizers"]
    return {name: group["optimizer"] for name, group in data["groups"].items()}


def assert_equal(ours: Any, theirs: Any) -> None:
    if isinstance(ours, Mapping):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert_equal(ours[name], theirs[name])
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    else:
        assert ours == theirs


@EVERY
def test_what_acts_learns_and_nothing_else_changes(case: Case) -> None:
    expert, agent, env = case.agent(seed=5), case.trained(2), case.vector()
    shown = recorded(expert, case, 8)
    critics = [
        (critic, copied(critic))
        for group in agent.groups
        for critic in (
            [getattr(group.policy, "value_head", None)]
            + [t for t in group.policy.trunks if t is not group.policy.actor_trunk]
        )
        if critic is not None
    ]
    before, steps = optimisers(agent), agent.env_steps
    frozen = []
    for group in agent.groups:
        group.policy.actor_trunk.encoder.requires_grad_(False)
        frozen.append(copied(group.policy.actor_trunk.encoder))
    results = clone_behaviour(agent, shown, 4, lr=1e-2, held_out=0.2)
    for group, encoder in zip(agent.groups, frozen, strict=True):
        assert all(same(group.policy.actor_trunk.encoder, encoder))
        group.policy.requires_grad_(True)
    assert results.keys() == shown.keys()
    for result in results.values():
        assert result.epochs[-1].loss < result.epochs[0].loss
        assert result.held_out_steps > 0
    for critic, weights in critics:
        assert all(same(critic, weights))
    assert_equal(optimisers(agent), before)
    assert agent.env_steps == steps
    assert agent.collection.of(agent.groups) is None  # begins afresh, with the new memory
    if isinstance(agent, OffPolicyAgent):
        for _, target in agent.learner.targets():
            assert all(torch.equal(new, old) for new, old in target.pairs)
    train(agent, env, 1)


@pytest.mark.parametrize("name", ["ppo", "ippo", "sac"])
def test_a_clone_comes_from_the_seed_and_can_be_saved(name: str, tmp_path: Path) -> None:
    case = ACTORS[name]
    shown = recorded(case.agent(seed=5), case)
    agents = [case.agent(), case.agent()]
    for agent in agents:
        clone_behaviour(agent, shown, 2)
    agents[1].save_checkpoint(tmp_path / "agent.pt")
    agents[1] = case.kind.load(tmp_path / "agent.pt")
    for ours, theirs in zip(agents[0].groups, agents[1].groups, strict=True):
        assert all(same(ours.policy, copied(theirs.policy)))
        assert torch.equal(ours.generator.get_state(), theirs.generator.get_state())


# --- every space --------------------------------------------------------------------------------

NESTED = Dict({"image": Box(0, 255, (12, 12, 1), np.uint8), "code": MultiDiscrete([2, 3])})
SPACES: dict[str, tuple[type, Any, Any, dict[str, Any]]] = {
    "choices of an image": (PPO, NESTED, Discrete(4, start=-1), {}),
    "masked choices": (PPO, Box(-1, 1, (3,)), MultiDiscrete([2, 3], start=[1, 0]), {"masked": 1}),
    "bits": (PPO, Discrete(5), MultiBinary(3), {}),
    "squashed": (PPO, Box(-1, 1, (3,)), Box(-2, np.array([1, 4], np.float32)), {}),
    "clipped": (PPO, Box(-1, 1, (3,)), Box(-2, 2, (2,)), {"squash_output": False}),
    "whole numbers": (PPO, Box(-1, 1, (3,)), Box(0, 4, (2,), np.int64), {}),
    "deviation of states": (SAC, Box(-1, 1, (3,)), Box(-2, 2, (2,)), {}),
    "one action": (TD3, NESTED, Box(-2, np.array([1, 4], np.float32)), {}),
    "unbounded": (TD3, Box(-1, 1, (3,)), Box(-np.inf, np.inf, (1,)), {}),
    "choices of a critic's": (TD3, Box(-1, 1, (3,)), Discrete(3), {}),
}


@pytest.mark.parametrize("name", SPACES)
def test_a_constant_habit_is_learned_in_every_space(name: str) -> None:
    """One action whatever is seen, with a little noise where it is a number."""
    kind, seen, done, options = SPACES[name]
    options = dict(options)
    masked = bool(options.pop("masked", False))
    habit = samples(done, (), 3)
    random = np.random.default_rng(0)
    wobbles = isinstance(done, Box) and done.dtype.kind == "f"
    if isinstance(done, Box):
        low, high = (bound.clip(-2, 6) for bound in (done.low, done.high))
        habit = (0.75 * low + 0.25 * high).astype(done.dtype)
    shown = Demonstrations(seen, done)
    for i in range(12):
        actions = np.stack([habit] * 6)
        if wobbles:
            actions = (actions + 0.01 * random.normal(size=actions.shape)).astype(done.dtype)
            actions = actions.clip(done.low, done.high)
        masks = np.ones((6, 5), bool) if masked else None
        shown.add(samples(seen, (6,), i), actions, action_masks=masks)
    net = {"encoder_config": {"hidden_state_size": 8}, "head_config": {"hidden_size": [16]}}
    agent = kind(seen, done, net, seed=0, **options)
    result = clone_behaviour(agent, shown, 40, lr=3e-2, batch_size=32)
    last = result.epochs[-1]
    if isinstance(done, Box):
        assert math.isnan(last.accuracy)
        assert last.error < 0.2
    else:
        assert math.isnan(last.error)
        assert last.accuracy == 1
    state = agent.get_initial_hidden_state()
    out = agent.get_action(samples(seen, (), 99), state, deterministic=True)
    np.testing.assert_allclose(np.asarray(out.action, float), np.asarray(habit, float), atol=0.3)


def test_actions_at_the_bounds_do_not_count_for_all() -> None:
    """At the bound itself a squashed action's density is infinite."""
    agent = PPO(Box(-1, 1, (1,)), Box(-2, 2, (1,)), seed=0)
    losses = []
    for bound in (2.0, 2 * OUTMOST):
        shown = Demonstrations(agent.observation_space, agent.action_space)
        shown.add(np.zeros((4, 1)), np.full((4, 1), bound))
        losses.append(clone_behaviour(copy.deepcopy(agent), shown, 1, held_out=0).epochs[0].loss)
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


# --- weights, statistics, options ---------------------------------------------------------------


def two_habits(weights: tuple[float, float], episodes: int = 10) -> Demonstrations:
    """Half of the episodes do one thing, half the other."""
    shown = Demonstrations(Box(-1, 1, (2,)), Discrete(2))
    for i in range(episodes):
        shown.add(np.ones((5, 2)), np.full(5, i % 2), weights=weights[i % 2])
    return shown


def probability(agent: Any) -> float:
    """Of the second action."""
    out = agent.get_action(np.ones(2), agent.get_initial_hidden_state())
    chosen = float(np.exp(out.log_prob))
    return chosen if out.action == 1 else 1 - chosen


@pytest.mark.parametrize(
    ("weights", "expected"), [((1, 1), 0.5), ((1, 3), 0.75), ((1e-6, 3e-6), 0.75), ((0, 2), 1.0)]
)
def test_weights_count_by_their_ratio(weights: tuple[float, float], expected: float) -> None:
    agent = PPO(Box(-1, 1, (2,)), Discrete(2), recurrent=False, seed=0)
    clone_behaviour(agent, two_habits(weights), 60, held_out=0, batch_size=50, lr=1e-2)
    assert probability(agent) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("weight", [1, 20])
def test_an_entropy_bonus_keeps_doubts(weight: float) -> None:
    """As many as beside weights of 1: only their ratios count."""
    found = []
    for ent_coef in (0.0, 0.5):
        agent = PPO(Box(-1, 1, (2,)), Discrete(2), recurrent=False, seed=0)
        options: dict[str, Any] = {"ent_coef": ent_coef, "held_out": 0, "lr": 1e-2}
        clone_behaviour(agent, two_habits((0, weight)), 40, batch_size=25, **options)
        found.append(probability(agent))
    assert found[0] > 0.98
    # log(p / (1 - p)) is where the slopes of both are equal: 1 / p = 0.5 logit(p).
    assert found[1] == pytest.approx(0.9, abs=0.05)


def test_statistics_take_the_training_episodes_in_once() -> None:
    shown = Demonstrations(Box(-9, 9, (1,)), Discrete(2))
    for value in (1.0, 2.0, 3.0, 4.0):
        shown.add(np.full((5, 1), value), np.zeros(5))
    agent = PPO(Box(-9, 9, (1,)), Discrete(2), normalize_obs=True, seed=0)
    clone_behaviour(agent, shown, 3, held_out=0)
    norm = agent.policy.preprocessor.norm
    assert norm is not None
    assert norm.count == 20
    assert norm.mean.item() == pytest.approx(2.5)


def test_patience_ends_and_goes_back_to_the_best_weights() -> None:
    shown = two_habits((1, 1))  # nothing can be learned beyond one half
    agent = PPO(Box(-1, 1, (2,)), Discrete(2), recurrent=False, seed=0)
    weights: list[list[torch.Tensor]] = []
    result = clone_behaviour(
        agent,
        shown,
        50,
        patience=3,
        lr=0.1,
        on_epoch=lambda _: weights.append(copied(agent.policy)),
    )
    assert result.stopped_by == "patience"
    assert len(result.epochs) == result.best.number + 3
    assert result.best.held_out_loss == min(epoch.held_out_loss for epoch in result.epochs)
    assert all(same(agent.policy, weights[result.best.number - 1]))


def test_a_callback_may_stop() -> None:
    def after(epoch: CloningEpoch) -> None:
        if epoch.number == 2:
            epoch.stop()

    agent = PPO(Box(-1, 1, (2,)), Discrete(2), recurrent=False, seed=0)
    result = clone_behaviour(agent, two_habits((1, 1)), 9, on_epoch=after)
    assert (result.stopped_by, len(result.epochs)) == ("on_epoch", 2)
    assert result.steps + result.held_out_steps == 50


# --- what cannot be -----------------------------------------------------------------------------


class TestRefusals:
    shown = two_habits((1, 1))
    spaces: ClassVar[tuple[Any, Any]] = (Box(-1, 1, (2,)), Discrete(2))

    def refused(
        self, error: type[Exception], match: str, agent: Any = None, **options: Any
    ) -> None:
        agent = PPO(*self.spaces, seed=0) if agent is None else agent
        given = options.pop("shown", self.shown)
        with pytest.raises(error, match=match):
            clone_behaviour(agent, given, 1, **options)

    def test_values_are_no_policy(self) -> None:
        self.refused(TypeError, "^agent: expected one with a policy", DQN(*self.spaces))

    def test_other_spaces(self) -> None:
        other = Demonstrations(Box(-1, 1, (3,)), Discrete(2))
        other.add(np.zeros((2, 3)), [0, 1])
        self.refused(ValueError, "^demonstrations: expected the agent's observation", shown=other)

    def test_none_of_any_kind(self) -> None:
        self.refused(ValueError, "at least one episode", shown=Demonstrations(*self.spaces))
        self.refused(ValueError, "a weight above 0", shown=two_habits((0, 0)))
        self.refused(TypeError, "^demonstrations: expected Demonstrations", shown=[1])
        self.refused(TypeError, "^agent: expected an agent", agent="ppo")

    def test_one_episode_has_none_to_hold_out(self) -> None:
        self.refused(ValueError, "^held_out: expected 0", shown=two_habits((1, 1), episodes=1))

    def test_what_the_policy_sees_beside_observations(self) -> None:
        agent = PPO(*self.spaces, previous_reward=True)
        self.refused(ValueError, r"episodes\[0\]: expected rewards", agent)
        case = CASES["ippo"]
        team, shown = case.agent(), recorded(case.agent(), case)
        stranger = shown["bob"].episodes[0]
        object.__setattr__(stranger, "agent", None)
        self.refused(ValueError, r"\['bob'\].episodes\[0\]: expected one", team, shown=shown)

    def test_groups(self) -> None:
        team = CASES["ippo"].agent()
        self.refused(ValueError, "a dictionary by group", team)
        self.refused(ValueError, "has no group 'bobb'; did you mean 'bob'", team, shown={"bobb": 1})

    def test_all_is_frozen(self) -> None:
        agent = PPO(*self.spaces)
        agent.policy.requires_grad_(False)
        self.refused(RuntimeError, "all are frozen", agent)

    def test_a_rollout_that_waits(self) -> None:
        case = CASES["ppo-feed-forward"]
        agent = case.agent()
        shown = recorded(agent, case)
        collect_rollouts_recurrent(agent, case.vector())
        self.refused(RuntimeError, "waits to be learned from", agent, shown=shown)

    def test_options(self) -> None:
        self.refused(ValueError, "lr: expected a number in", lr=0)
        self.refused(ValueError, "patience: expected None", patience=2, held_out=0)
        case = CASES["ddpg"]
        agent = case.agent()
        self.refused(
            ValueError, "^ent_coef: expected 0", agent, shown=recorded(agent, case), ent_coef=1
        )


# --- memory -------------------------------------------------------------------------------------


class Oracle:
    """Remembers the bit that ``Recall`` shows, and says it when it is asked."""

    def reset(self) -> None:
        self.bit: int | None = None

    def __call__(self, observation: Any) -> int:
        if self.bit is None:
            self.bit = int(observation[0] > 0)
        return self.bit if observation[1] else 0


@pytest.mark.parametrize(("cell", "length"), [("lstm", 8), ("gru", 3), (None, 8)])
def test_a_memory_is_cloned_and_goes_on_learning(cell: str | None, length: int) -> None:
    """The bit is shown once: without memory it is right half the time, with it always.

    Sequences of 3 steps end before it is asked for, so that the next begins with what is carried.
    """
    shown = record_demonstrations(Recall(4), Oracle(), 150, seed=0)
    assert shown.returns.mean() == 1
    encoder = {"hidden_size": [], "hidden_state_size": 16, "cell": cell or "lstm"}
    env = make_vect_envs(make_env=lambda: Recall(4), num_envs=16, should_async_vector=False)
    net: Any = {"encoder_config": encoder, "head_config": {"hidden_size": [16]}}
    agent = PPO(
        *(env.single_observation_space, env.single_action_space, net),
        recurrent=cell is not None,
        max_seq_len=length,
        learn_step=64,
        lr=1e-3,
        seed=0,
    )
    result = clone_behaviour(agent, shown, 25, lr=1e-2)
    score = float(agent.evaluate(env, 256, seed=1).mean())
    if cell is None:
        assert score < 0.65
        return
    assert result.epochs[-1].accuracy == score == 1
    # A critic that knows nothing as yet must not undo it: it learns alone at first.
    agent.policy.actor_trunk.requires_grad_(False)
    agent.policy.action_head.requires_grad_(False)
    for rollout in range(8):
        if rollout == 4:
            agent.policy.requires_grad_(True)
        collect_rollouts_recurrent(agent, env)
        agent.learn()
    assert agent.evaluate(env, 256, seed=1).mean() > 0.98


def test_a_gymnasium_environment_is_what_users_have() -> None:
    def lean(observation: Any) -> int:
        return int(observation[2] + observation[3] > 0)

    shown = record_demonstrations(gym.make("CartPole-v1"), lean, 5, seed=0)
    agent = PPO(shown.observation_space, shown.action_space, recurrent=False, seed=0)
    result = clone_behaviour(agent, shown, 20, lr=1e-2)
    assert result.best.accuracy > 0.9
    assert agent.evaluate(gym.make("CartPole-v1"), 5, seed=3).mean() > 150
