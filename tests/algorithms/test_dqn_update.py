"""Tests of `recurrent_rl.algorithms.dqn_update`."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from support import slow_updates
from support.helpers import SEEDS, double
from support.pairs import examples
from support.replaying import random_windows, randomise, scramble, spoiled
from torch import Tensor

from recurrent_rl import DQN
from recurrent_rl.buffers.replay import Windows

BOX, CHOICES = gym.spaces.Box(-10.0, 10.0, (3,)), gym.spaces.Discrete(4, start=2)

# Each is a value of ``variant`` below.
VARIANTS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "feed-forward": {"recurrent": False, "previous_reward": True},
    "gru-dueling-3-step": {"cell": "gru", "num_layers": 2, "dueling": True, "n_step": 3},
    "not-double": {"double": False, "huber": None, "n_step": 2, "previous_action": True},
    "r2d2": {"rescale": True, "dueling": True, "huber": None, "n_step": 2, "priority_mix": 0.9},
    "flat-n-step": {"recurrent": False, "n_step": 3, "huber": 0.3, "reward_scale": 2.0},
    "own-step-size": {"lr_encoder": 1e-4, "gamma": 0.7},
}


def make(variant: str = "lstm", seed: int = 0, **options: Any) -> DQN:
    options = {**VARIANTS[variant], **options}
    names = ("cell", "num_layers")
    encoder = {name: options.pop(name) for name in names if name in options}
    encoder |= {"hidden_size": [5], "hidden_state_size": 4}
    net = {"encoder_config": encoder, "head_config": {"hidden_size": [6]}}
    agent = DQN(BOX, CHOICES, net, seed=seed, **options)
    scramble(agent, seed)
    return agent


def sample(agent: DQN, seed: int, **options: Any) -> Windows:
    if not agent.policy.memory:
        options = {"burn_in": 0, "length": 1, "windows": 9, **options}
    return random_windows(agent, seed, **options)


def update(agent: DQN, windows: Windows) -> tuple[dict[str, Tensor], Tensor]:
    records, order = agent.learner.update(windows)
    return records[""], order


def state(agent: DQN) -> dict[str, Tensor]:
    found = {name: x.clone() for name, x in agent.policy.state_dict().items()}
    for i, x in enumerate(agent.learner.target.to_data()):
        found[f"target {i}"] = x.clone()
    return found


# --- against plain loops -----------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=examples(4))
@given(seed=SEEDS)
@double()
def test_loss_gradient_and_priorities_are_those_of_plain_loops(
    variant: str, masked: bool, seed: int
) -> None:
    agent = make(variant, seed % 1000)
    windows = sample(agent, seed, masked=masked)
    (group,) = windows.groups.values()
    config = agent.config
    if not slow_updates.decisions(group, windows.burn_in, windows.length, 1.0, config.n_step):
        return
    expected = slow_updates.dqn(agent, windows)
    record, order = update(agent, windows)
    torch.testing.assert_close(record["loss"], expected.loss.detach(), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(
        order.double(), torch.tensor(expected.priorities), rtol=1e-6, atol=1e-8
    )
    found = slow_updates.taken_gradients(agent.policy.trunk, agent.policy.q_head)
    for name, grad in expected.gradients.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize("variant", ["lstm", "feed-forward", "r2d2"])
def test_what_is_not_there_changes_no_bit(variant: str) -> None:
    found = []
    for nonsense in (None, 1, 2):
        agent = make(variant)
        windows = sample(agent, 3, masked=True, windows=12)
        windows = windows if nonsense is None else spoiled(windows, nonsense)
        record, order = update(agent, windows)
        found.append([*state(agent).values(), *record.values(), order])
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def test_a_forbidden_action_is_never_the_best() -> None:
    """However much it seems worth, to whichever network."""
    losses = []
    for worth in (0.0, 1e4):
        agent = make("flat-n-step", huber=None, double=False)
        windows = sample(agent, 1, masked=True)
        (group,) = windows.groups.values()
        assert group.action_mask is not None
        group.action_mask[..., 1:] = True
        group.action_mask[..., 0] = False
        group.action.clamp_(min=1)
        with torch.no_grad():
            agent.learner.target.module[1].layers[-1].bias[0] += worth
            agent.policy.q_head.layers[-1].bias[0] += worth
        losses.append(update(agent, windows)[0]["loss"])
    assert losses[0] == losses[1]


def test_where_nothing_is_allowed_all_count() -> None:
    """As in the last states of some environments, which say that there is nothing to do."""
    losses = []
    for everything in (False, True):
        agent = make("lstm")
        windows = sample(agent, 1, masked=True)
        (group,) = windows.groups.values()
        assert group.action_mask is not None
        group.action_mask[:] = everything
        losses.append(update(agent, windows)[0]["loss"])
    assert losses[0] == losses[1]


# --- what moves, and what does not -----------------------------------------------------------


@pytest.mark.parametrize(("tau", "every"), [(1.0, 1), (0.25, 1), (1.0, 3), (0.25, 2)])
def test_the_target_moves_as_configured(tau: float, every: int) -> None:
    agent = make("lstm", tau=tau, target_update=every)
    both = torch.nn.ModuleList([agent.policy.trunk, agent.policy.q_head])
    expected = [x.clone() for x in agent.learner.target.module.parameters()]
    for i in range(1, 7):
        update(agent, sample(agent, i, windows=6))
        if i % every == 0:
            pairs = zip(expected, both.parameters(), strict=True)
            expected = [old + tau * (new.detach() - old) for old, new in pairs]
        for ours, theirs in zip(agent.learner.target.module.parameters(), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert agent.learner.updates == 6


def test_the_target_has_no_gradients_and_shares_what_stands_in_front() -> None:
    agent = make("lstm", normalize_obs=True)
    target = agent.learner.target.module
    assert not any(p.requires_grad for p in target.parameters())
    assert target[0].preprocessor is agent.policy.preprocessor
    update(agent, sample(agent, 0))
    assert all(p.grad is None for p in target.parameters())


def test_where_nothing_is_known_nothing_happens() -> None:
    agent = make("lstm", target_update=1)
    windows = sample(agent, 0)
    (group,) = windows.groups.values()
    group.active[:] = False
    before = state(agent)
    record, order = update(agent, windows)
    assert record == {}
    assert agent.learner.updates == 0
    assert all(torch.equal(x, before[name]) for name, x in state(agent).items())
    assert order.tolist() == pytest.approx([1e-6] * 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_leaves_all_as_it_was(bad: float) -> None:
    agent = make("lstm")  # Huber: the gradient of an infinite error is finite
    update(agent, sample(agent, 0))
    before, adam = state(agent), repr(agent.learner.to_data())
    windows = sample(agent, 1)
    (group,) = windows.groups.values()
    group.reward[:] = bad
    with pytest.raises(FloatingPointError, match="Lower lr or reward_scale"):
        update(agent, windows)
    assert all(torch.equal(x, before[name]) for name, x in state(agent).items())
    assert repr(agent.learner.to_data()) == adam
    record, _ = update(agent, sample(agent, 1))
    assert torch.isfinite(record["loss"])


@pytest.mark.parametrize("options", [{}, {"lr_encoder": 1e-2}])
@pytest.mark.parametrize("part", ["trunk", "q_head"])
def test_frozen_parts_stay(part: str, options: dict[str, Any]) -> None:
    """In spite of the momentum that they have, and also where a step size is all theirs."""
    agent = make("lstm", **options)
    update(agent, sample(agent, 0))
    frozen = getattr(agent.policy, part).requires_grad_(False)
    assert agent.learner.join()
    before = state(agent)
    update(agent, sample(agent, 1))
    moved = {n for n, x in state(agent).items() if not torch.equal(x, before[n])}
    held = {id(p) for p in frozen.parameters()}
    for name, p in agent.policy.named_parameters():
        assert (name in moved) == (id(p) not in held), name


def test_step_sizes_of_encoder_and_head() -> None:
    agent = make("lstm", lr=1e-2, lr_encoder=1e-4, max_grad_norm=None)
    before = state(agent)
    update(agent, sample(agent, 0))
    for name, p in agent.policy.named_parameters():
        # Adam's first step is its step size for every parameter with a gradient to speak of.
        most = (p.detach() - before[name]).abs().max().item()
        assert most == pytest.approx(1e-2 if name.startswith("q_head") else 1e-4, rel=0.02), name


def test_gradients_are_scaled_down_together() -> None:
    agent = make("own-step-size", max_grad_norm=1e-3)
    record, _ = update(agent, sample(agent, 0))
    grads = torch.cat([p.grad.flatten() for p in agent.policy.parameters() if p.grad is not None])
    assert grads.norm().item() == pytest.approx(1e-3, rel=1e-4)
    assert record["grad_norm"] > 1e-2


def test_weights_in_other_tensors_are_learned_and_followed() -> None:
    agent = make("lstm", tau=1.0)
    weights = {name: x.clone() for name, x in agent.policy.state_dict().items()}
    agent.policy.load_state_dict(weights, assign=True)
    assert agent.learner.join()
    update(agent, sample(agent, 0))
    both = torch.nn.ModuleList([agent.policy.trunk, agent.policy.q_head])
    for new, old in zip(both.parameters(), agent.learner.target.module.parameters(), strict=True):
        assert torch.equal(new, old)
    name = "q_head.layers.0.weight"
    assert not torch.equal(agent.policy.state_dict()[name], weights[name])


def test_a_module_that_nothing_trains_is_refused() -> None:
    agent = make("lstm")
    agent.policy.q_head = type(agent.policy.q_head)(
        agent.policy.trunk.outputs, 4, agent.net_config.head_config, False
    )
    with pytest.raises(RuntimeError, match="expected the trunks and heads that it was built with"):
        agent.learner.join()


# --- what get_action says ----------------------------------------------------------------------


@pytest.mark.parametrize("rescale", [False, True])
def test_value_log_prob_and_entropy_of_actions(rescale: bool) -> None:
    agent = make("feed-forward", rescale=rescale, previous_reward=False)
    agent.policy.distribution.epsilon = 0.4
    obs = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    mask = np.tile([True, True, False, True], (50, 1))
    action, log_prob, entropy, value, _ = agent.get_action(obs, action_mask=mask)
    with torch.no_grad():
        trunk = agent.policy.trunk
        q = agent.policy.q_head(trunk(trunk.inputs(torch.from_numpy(obs)), None, ())[0]).numpy()
    if rescale:
        q = np.vectorize(slow_updates.stretched)(q)
    best = np.where(mask, q, -np.inf).argmax(1)
    assert len(set(best)) > 1
    # With probability 0.4 one of three.
    chosen = action - 2  # counted from the space's start
    p = np.where(chosen == best, 0.6 + 0.4 / 3, 0.4 / 3)
    np.testing.assert_allclose(log_prob, np.log(p), rtol=1e-5)
    each = np.array([0.6 + 0.4 / 3, 0.4 / 3, 0.4 / 3])
    np.testing.assert_allclose(entropy, -(each * np.log(each)).sum(), rtol=1e-5)
    np.testing.assert_allclose(value, q[np.arange(50), chosen], rtol=1e-5, atol=1e-6)
    sure = agent.get_action(obs, action_mask=mask, deterministic=True)
    np.testing.assert_array_equal(sure.action - 2, best)


# --- bad input --------------------------------------------------------------------------------


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expected Discrete.*for Box .* SAC, TD3, DDPG and PPO"):
        DQN(BOX, BOX)
    with pytest.raises(TypeError, match="for MultiDiscrete and MultiBinary PPO, TD3 and DDPG"):
        DQN(BOX, gym.spaces.MultiDiscrete([2, 3]))
    with pytest.raises(ValueError, match=r"epsilon_start: expected less than 1"):
        DQN(BOX, CHOICES, epsilon_per_env=True)
    with pytest.raises(ValueError, match=r"share_encoders: expected True"):
        DQN(BOX, CHOICES, share_encoders=False)
    with pytest.raises(ValueError, match=r"critic_network: expected None"):
        DQN(BOX, CHOICES, critic_network=torch.nn.Linear(3, 4))


def test_there_is_one_network() -> None:
    agent = make("lstm")
    assert len(agent.policy.trunks) == 1
    assert len(agent.get_initial_hidden_state().tensors) == 2  # an LSTM's h and c


@double()
def test_randomised_weights_are_of_the_default_dtype() -> None:
    """Otherwise the comparisons above would be of float32."""
    agent = make("lstm")
    randomise(agent.policy, 1)
    assert {p.dtype for p in agent.policy.parameters()} == {torch.float64}
    record, _ = update(agent, sample(agent, 0))
    assert record["loss"].dtype == torch.float64
