"""Tests of `recurrent_rl.acting.exploration`: how agents explore that learn off-policy."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from support.envs import scripted

from recurrent_rl import DDPG, DQN, MADDPG, SAC, TD3, collect_rollouts_recurrent
from recurrent_rl.acting.exploration import OffPolicyExplorer, OrnsteinUhlenbeck, epsilon_of_each

SEEN = gym.spaces.Box(-1.0, 1.0, (2,))
BOX = gym.spaces.Box(np.float32([-2, 0]), np.float32([1, 3]))
FLAT: dict[str, Any] = {"recurrent": False, "seed": 0}


def explorer(agent: Any, rows: int) -> Any:
    return agent.trainers[next(iter(agent.trainers))].explorer_of(rows)


# --- uniformly random actions at first ---------------------------------------------------------


def at_first(agent: Any, rows: int, mask: torch.Tensor | None = None) -> np.ndarray[Any, Any]:
    """Actions as the environment takes them."""
    made = explorer(agent, rows)
    made.at_first = True
    stored = made.instead(mask)
    return agent.policy.actions.to_env(stored)  # type: ignore[no-any-return]


def assert_uniform(values: np.ndarray[Any, Any], low: float, high: float) -> None:
    """By Kolmogorov's test at one in ten thousand, and both ends reached."""
    share = np.sort((values - low) / (high - low))
    place = (np.arange(len(share)) + 0.5) / len(share)
    assert np.abs(share - place).max() < 2.23 / math.sqrt(len(share))
    assert share[0] >= 0
    assert share[-1] <= 1


def assert_shares(counts: np.ndarray[Any, Any]) -> None:
    """Equal ones, within four and a half deviations of a binomial count."""
    total, expected = counts.sum(), counts.sum() / len(counts)
    deviation = math.sqrt(total * (1 / len(counts)) * (1 - 1 / len(counts)))
    assert np.abs(counts - expected).max() < 4.5 * deviation


@pytest.mark.parametrize("squash", [None, False])
@pytest.mark.parametrize("kind", [DDPG, SAC])
def test_first_box_actions_are_uniform_within_bounds(kind: Any, squash: bool | None) -> None:
    agent = kind(SEEN, BOX, squash_output=squash, **FLAT)
    actions = at_first(agent, 5000)
    for i, (low, high) in enumerate(zip(BOX.low, BOX.high, strict=True)):
        assert_uniform(actions[:, i], low, high)
    assert abs(np.corrcoef(actions.T)[0, 1]) < 4.5 / math.sqrt(5000)


@pytest.mark.parametrize("squash", [None, False])
def test_first_whole_numbers_are_uniform(squash: bool | None) -> None:
    space = gym.spaces.Box(-1, 3, (1,), np.int64)
    actions = at_first(TD3(SEEN, space, squash_output=squash, **FLAT), 5000)
    assert_shares(np.bincount(actions[:, 0] + 1, minlength=5))


def test_first_numbers_without_bounds_are_standard_normal() -> None:
    space = gym.spaces.Box(np.float32([-np.inf, 0]), np.float32([np.inf, 4]))
    actions = at_first(DDPG(SEEN, space, **FLAT), 5000)
    assert actions[:, 0].mean() == pytest.approx(0, abs=4.5 / math.sqrt(5000))
    assert actions[:, 0].std() == pytest.approx(1, abs=4.5 / math.sqrt(2 * 5000))
    assert_uniform(actions[:, 1], 0, 4)


@pytest.mark.parametrize("kind", [DQN, SAC, DDPG])
def test_first_choices_are_uniform_over_what_is_allowed(kind: Any) -> None:
    agent = kind(SEEN, gym.spaces.Discrete(4, start=3), **FLAT)
    mask = torch.tensor([True, False, True, True]).expand(6000, 4)
    actions = at_first(agent, 6000, mask)
    assert_shares(np.bincount(actions - 3, minlength=4)[[0, 2, 3]])
    assert (actions != 4).all()
    assert_shares(np.bincount(at_first(agent, 6000) - 3, minlength=4))


def test_first_components_and_bits_are_uniform() -> None:
    actions = at_first(DDPG(SEEN, gym.spaces.MultiDiscrete([2, 3]), **FLAT), 6000)
    assert_shares(np.bincount(actions @ [3, 1], minlength=6))
    bits = at_first(TD3(SEEN, gym.spaces.MultiBinary(2), **FLAT), 6000)
    assert_shares(np.bincount(bits @ [2, 1], minlength=4))


def test_actions_are_random_until_learning_starts() -> None:
    """Those that are played and stored; then the policy's own, which here hardly deviates."""
    env = scripted(["50l", "50l"], action="box")
    spaces = env.single_observation_space, env.single_action_space
    agent = TD3(*spaces, learning_starts=60, batch_size=8, expl_noise=0.0, **FLAT)
    with torch.no_grad():
        for p in agent.policy.action_head.parameters():
            p.zero_()
    for _ in range(6):
        collect_rollouts_recurrent(agent, env, 10)  # 20 steps over both
    action = agent.memory.parts[""].action[:60].tanh()
    assert action[:30].abs().mean() == pytest.approx(0.5, abs=0.1)
    assert action[30:].abs().max() == 0


# --- epsilon -----------------------------------------------------------------------------------


def test_epsilon_falls_linearly_and_stays() -> None:
    agent = DQN(
        SEEN, gym.spaces.Discrete(3), epsilon_start=0.9, epsilon_end=0.1, epsilon_steps=200, **FLAT
    )
    found = []
    for _ in range(5):
        found.append(agent.policy.distribution.epsilon)
        agent.trainer.end_rollout(50)
    assert found == pytest.approx([0.9, 0.7, 0.5, 0.3, 0.1])
    agent.trainer.end_rollout(50)
    assert agent.policy.distribution.epsilon == pytest.approx(0.1)
    agent.reconfigure(epsilon_end=0.2)
    assert agent.policy.distribution.epsilon == pytest.approx(0.2)


def test_epsilons_of_environments() -> None:
    """``base ** (1 + 7 i / (E - 1))``, by hand."""
    found = epsilon_of_each(0.4, 8).tolist()
    assert found == pytest.approx([0.4**power for power in range(1, 9)])
    assert epsilon_of_each(0.4, 1).tolist() == pytest.approx([0.4])
    assert epsilon_of_each(0.0, 3).tolist() == [0, 0, 0]


def explored(agent: DQN, rows: int, steps: int) -> torch.Tensor:
    """How often each row explores."""
    made = explorer(agent, rows)
    return torch.stack([made.noise(steps - t)[:, 0] for t in range(steps)]).mean(0)


def test_environments_explore_by_their_own_epsilon() -> None:
    agent = DQN(SEEN, gym.spaces.Discrete(3), epsilon_per_env=True, epsilon_start=0.5, **FLAT)
    shares = explored(agent, 3, 4000)
    for share, p in zip(shares.tolist(), [0.5, 0.5**4.5, 0.5**8], strict=True):
        assert share == pytest.approx(p, abs=4.5 * math.sqrt(p * (1 - p) / 4000))
    agent.reconfigure(epsilon_start=0.2)
    assert explored(agent, 3, 4000)[0].item() == pytest.approx(0.2, abs=0.03)
    agent.reconfigure(epsilon_per_env=False, epsilon_start=1.0)
    assert explored(agent, 3, 100).tolist() == [1, 1, 1]


def test_all_explore_by_the_same_epsilon_otherwise() -> None:
    agent = DQN(SEEN, gym.spaces.Discrete(3), epsilon_start=0.3, **FLAT)
    for share in explored(agent, 3, 4000).tolist():
        assert share == pytest.approx(0.3, abs=4.5 * math.sqrt(0.3 * 0.7 / 4000))


# --- independent noise -------------------------------------------------------------------------


def test_independent_noise_is_normal_within_bounds() -> None:
    agent = TD3(SEEN, BOX, expl_noise=0.2, **FLAT)
    with torch.no_grad():
        for p in agent.policy.action_head.parameters():
            p.zero_()
    action = agent.get_action(np.zeros((6000, 2), np.float32)).action
    middle, half = (BOX.low + BOX.high) / 2, (BOX.high - BOX.low) / 2
    z = (action - middle) / half
    assert z.mean(0) == pytest.approx([0, 0], abs=4.5 * 0.2 / math.sqrt(6000))
    assert z.std(0) == pytest.approx([0.2, 0.2], abs=4.5 * 0.2 / math.sqrt(2 * 6000))
    agent.reconfigure(expl_noise=100.0)
    wide = agent.get_action(np.zeros((50, 2), np.float32)).action
    assert (wide >= BOX.low).all()
    assert (wide <= BOX.high).all()
    assert np.isclose(wide, BOX.low, atol=1e-4).any()


# --- Ornstein and Uhlenbeck ----------------------------------------------------------------------


def drifting(rows: int, **options: Any) -> OrnsteinUhlenbeck:
    made = explorer(DDPG(SEEN, BOX, **{**FLAT, **options}), rows)
    assert isinstance(made, OrnsteinUhlenbeck)
    return made


def test_who_drifts() -> None:
    assert type(explorer(DDPG(SEEN, BOX, **FLAT), 2)) is OrnsteinUhlenbeck
    assert type(explorer(DDPG(SEEN, BOX, o_u_noise=False, **FLAT), 2)) is OffPolicyExplorer
    assert type(explorer(TD3(SEEN, BOX, **FLAT), 2)) is OffPolicyExplorer
    assert type(explorer(DDPG(SEEN, gym.spaces.Discrete(2), **FLAT), 2)) is OffPolicyExplorer


def test_drifting_noise_has_the_variance_and_correlation_of_the_equation() -> None:
    """An AR(1) process of factor a = 1 - theta dt, by its formulas.

    Begun at zero, after k steps: mean (1 - a^k) mu, variance sigma^2 dt (1 - a^2k) / (1 - a^2), and
    correlation a^j over the next j.
    """
    theta, dt, sigma, mean, rows = 2.0, 0.05, 0.3, 0.4, 4000
    made = drifting(rows, theta=theta, dt=dt, expl_noise=sigma, mean_noise=mean)
    found = torch.stack([made.noise(1) for _ in range(60)])[..., 0].double()
    a = 1 - theta * dt
    for k in (1, 2, 10, 60):
        variance = sigma**2 * dt * (1 - a ** (2 * k)) / (1 - a**2)
        x = found[k - 1]
        error = 4.5 * math.sqrt(variance / rows)
        assert x.mean().item() == pytest.approx((1 - a**k) * mean, abs=error), k
        assert x.var().item() == pytest.approx(variance, rel=4.5 * math.sqrt(2 / rows)), k
    for j in (1, 5):
        pair = torch.stack((found[59 - j], found[59]))
        # The deviation of a correlation r is (1 - r^2) / sqrt(rows).
        error = 4.5 * (1 - a ** (2 * j)) / math.sqrt(rows)
        assert torch.corrcoef(pair)[0, 1].item() == pytest.approx(a**j, abs=error), j


def test_drifting_noise_begins_at_zero_with_each_life() -> None:
    made = drifting(4)
    for _ in range(3):
        made.noise(1)
    before = made.state.clone()
    made.begin(np.array([False, True, False, True]))
    assert (made.state[[1, 3]] == 0).all()
    assert torch.equal(made.state[[0, 2]], before[[0, 2]])
    assert (before != 0).all()


def test_drifting_noise_is_reset_by_environment() -> None:
    team = MADDPG(
        {"a_0": SEEN, "a_1": SEEN, "b_0": SEEN}, {"a_0": BOX, "a_1": BOX, "b_0": BOX}, **FLAT
    )
    team.reset_action_noise([0])  # before there is any
    made = {
        name: trainer.explorer_of(3 * trainer.group.size) for name, trainer in team.trainers.items()
    }
    for each in made.values():
        each.noise(1)
    team.reset_action_noise(np.array([0, 2]))
    assert [bool((row != 0).all()) for row in made["a"].state] == [False] * 2 + [True] * 2 + [
        False
    ] * 2
    assert [bool((row != 0).all()) for row in made["b"].state] == [False, True, False]
    assert (made["a"].state[[0, 1, 4, 5]] == 0).all()
    with pytest.raises(IndexError):
        team.reset_action_noise([3])


def test_a_collection_lets_the_noise_drift_and_begin_anew() -> None:
    env = scripted(["3t 4l"], action="box")
    spaces = env.single_observation_space, env.single_action_space
    agent = DDPG(*spaces, learning_starts=0, theta=0.0, dt=1.0, expl_noise=0.05, **FLAT)
    with torch.no_grad():
        for p in agent.policy.action_head.parameters():
            p.zero_()
    collect_rollouts_recurrent(agent, env, 8)
    part = agent.memory.parts[""]
    noise = part.action[:, 0].tanh()
    # With theta = 0 it is a sum of normal steps, which begins anew behind each end; the place
    # behind the fourth step of the second life has but its last observation.
    steps = noise.diff(dim=0)
    assert part.start[:8, 0].tolist() == [True, False, False, True, False, False, False, False]
    assert part.final[7, 0]
    assert (steps[:2].abs() < 0.3).all()
    assert (noise[[0, 3]].abs() < 0.3).all()
    assert (noise[:7] != 0).all()


def test_drifting_noise_is_saved_and_begins_anew_elsewhere() -> None:
    agent = DDPG(SEEN, BOX, **FLAT)
    explorer(agent, 4).noise(1)
    data = agent.to_checkpoint()
    same, other = DDPG.from_checkpoint(data), DDPG.from_checkpoint(data)
    assert torch.equal(explorer(same, 4).state, explorer(agent, 4).state)
    assert (explorer(other, 3).state == 0).all()
    assert explorer(other, 3).noise(1).shape == (3, 2)


# --- noise that is held --------------------------------------------------------------------------


def test_noise_is_held_over_collections_of_single_steps() -> None:
    """State-dependent exploration is smooth in time, though off-policy agents collect step by step.

    And what is left of it is saved.
    """
    agent = SAC(SEEN, BOX, use_sde=True, state_dependent_std=False, sde_sample_freq=5, **FLAT)
    drawn = [explorer(agent, 2).noise(1) for _ in range(13)]
    same = [torch.equal(a, b) for a, b in zip(drawn[1:], drawn[:-1], strict=True)]
    assert same == [(t % 5) != 0 for t in range(1, 13)]
    again = SAC.from_checkpoint(agent.to_checkpoint())
    for _ in range(4):
        assert torch.equal(explorer(again, 2).noise(1), explorer(agent, 2).noise(1))


def test_noise_of_a_collection_that_broke_off_is_forgotten() -> None:
    made = explorer(SAC(SEEN, BOX, **FLAT), 2)
    first = made.noise(10)
    assert len(made._noise) == 9
    made.restart()
    assert made._noise == []
    assert first.shape == (2, 2)


# --- drifting noise in a loop of one's own ----------------------------------------------------


def test_get_action_drifts_and_is_reset() -> None:
    agent = DDPG(SEEN, BOX, theta=0.0, dt=1.0, expl_noise=0.01, **FLAT)
    with torch.no_grad():
        for p in agent.policy.action_head.parameters():
            p.zero_()
    obs, middle = np.zeros((3, 2), np.float32), (BOX.low + BOX.high) / 2
    half = (BOX.high - BOX.low) / 2
    found = [(agent.get_action(obs).action - middle) / half for _ in range(400)]
    # With theta = 0 a sum of normal steps of 0.01.
    steps = np.diff(np.stack(found), axis=0)
    assert steps.std() == pytest.approx(0.01, rel=0.1)
    assert np.stack(found).std(0).max() > 0.05
    agent.reset_action_noise([1])
    state = agent.trainer.drifting.state
    assert (state[1] == 0).all()
    assert (state[[0, 2]] != 0).all()
    before = state.clone()
    sure = agent.get_action(obs, deterministic=True).action
    np.testing.assert_allclose(sure, np.broadcast_to(middle, (3, 2)), atol=1e-6)
    assert torch.equal(state, before)
    assert agent.get_action(obs[:2]).action.shape == (2, 2)  # of other environments


def test_each_agents_noise_drifts_by_itself() -> None:
    spaces = {"a_0": SEEN, "a_1": SEEN}, {"a_0": BOX, "a_1": BOX}
    team = MADDPG(*spaces, theta=0.0, dt=1.0, **FLAT)
    obs = {agent: np.zeros((2, 2), np.float32) for agent in spaces[0]}
    team.get_action(obs)
    made = team.trainers["a"].drifting
    before = made.state.clone()
    team.get_action({"a_1": obs["a_1"]})
    assert made is team.trainers["a"].drifting
    assert torch.equal(made.state[[0, 2]], before[[0, 2]])  # agent 0 of both environments
    assert (made.state[[1, 3]] != before[[1, 3]]).all()
    infos = {"a_0": {"start": np.array([False, True])}}
    before = made.state.clone()
    made._parameters = lambda: (0.0, 0.0, 0.0, 1.0)
    team.get_action(obs, infos=infos)
    assert (made.state[2] == 0).all()
    assert torch.equal(made.state[[0, 1, 3]], before[[0, 1, 3]])
