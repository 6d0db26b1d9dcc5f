"""Tests of `recurrent_rl.functional`: returns, losses and statistics."""

import math
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.helpers import double
from torch import Tensor

from recurrent_rl.functional.losses import approximate_kl, policy_loss, value_loss
from recurrent_rl.functional.returns import gae, reverse_scan
from recurrent_rl.functional.statistics import explained_variance, masked_mean_std, normalize

NUMBERS = st.floats(-10, 10, width=32)


def numbers(*shape: int) -> st.SearchStrategy[Tensor]:
    return hnp.arrays(np.float64, shape, elements=NUMBERS).map(torch.from_numpy)


def bools(*shape: int) -> st.SearchStrategy[Tensor]:
    return hnp.arrays(bool, shape).map(torch.from_numpy)


# --- returns ----------------------------------------------------------------------------------


def column(*values: float) -> Tensor:
    """One row's values over time, [T, 1]."""
    return torch.tensor(values, dtype=torch.float64)[:, None]


def golden(
    reward: list[float],
    value: list[float],
    last_value: float,
    *,
    terminated: tuple[int, ...] = (),
    truncated: dict[int, float] | None = None,
    inactive: tuple[int, ...] = (),
) -> tuple[list[float], list[float]]:
    """Advantages and returns of one row, with gamma = lambda = 1/2 for sums in the head."""
    steps = len(reward)
    truncated = truncated or {}
    advantage, returns = gae(
        column(*reward),
        column(*value),
        torch.tensor([last_value], dtype=torch.float64),
        column(*(truncated.get(t, math.nan) for t in range(steps))),
        column(*(t in terminated for t in range(steps))).bool(),
        column(*(t in truncated for t in range(steps))).bool(),
        column(*(t not in inactive for t in range(steps))).bool(),
        gamma=0.5,
        gae_lambda=0.5,
    )
    assert advantage.shape == returns.shape == (steps, 1)
    return advantage[:, 0].tolist(), returns[:, 0].tolist()


# In all cases below delta = r + next / 2 - V and A = delta + A_next / 4 unless an end cuts it.


def test_gae_where_the_rollout_ends_inside_an_episode() -> None:
    # delta2 = 4 + 8/2 - 2 = 6    A2 = 6
    # delta1 = 2 + 2/2 - 4 = -1   A1 = -1 + 6/4 = 0.5
    # delta0 = 1 + 4/2 - 2 = 1    A0 = 1 + 0.5/4 = 1.125
    advantage, returns = golden([1, 2, 4], [2, 4, 2], 8)
    assert advantage == [1.125, 0.5, 6]
    assert returns == [3.125, 4.5, 8]


def test_gae_at_a_termination_inside() -> None:
    # Nothing follows step 1: neither V2 nor A2.
    # delta2 = 4 + 8/2 - 2 = 6    A2 = 6
    # delta1 = 2 - 4 = -2         A1 = -2
    # delta0 = 1 + 4/2 - 2 = 1    A0 = 1 - 2/4 = 0.5
    advantage, returns = golden([1, 2, 4], [2, 4, 2], 8, terminated=(1,))
    assert advantage == [0.5, -2, 6]
    assert returns == [2.5, 2, 8]


def test_gae_at_a_termination_at_the_end() -> None:
    # last_value belongs to the next episode.
    # A2 = 4 - 2 = 2    A1 = -1 + 2/4 = -0.5    A0 = 1 - 0.5/4 = 0.875
    advantage, _ = golden([1, 2, 4], [2, 4, 2], 8, terminated=(2,))
    assert advantage == [0.875, -0.5, 2]


def test_gae_at_a_truncation_inside() -> None:
    # Step 1 is followed by V(final observation) = 16, not by V2 of the next episode.
    # delta1 = 2 + 16/2 - 4 = 6   A1 = 6    A0 = 1 + 6/4 = 2.5
    advantage, returns = golden([1, 2, 4], [2, 4, 2], 8, truncated={1: 16})
    assert advantage == [2.5, 6, 6]
    assert returns == [4.5, 10, 8]


def test_gae_at_a_truncation_at_the_end() -> None:
    # A2 = 4 + 16/2 - 2 = 10      A1 = -1 + 10/4 = 1.5    A0 = 1 + 1.5/4 = 1.375
    advantage, _ = golden([1, 2, 4], [2, 4, 2], 8, truncated={2: 16})
    assert advantage == [1.375, 1.5, 10]


@pytest.mark.parametrize("end", [1, 2])
def test_a_termination_wins_over_a_truncation_at_the_same_step(end: int) -> None:
    both = golden([1, 2, 4], [2, 4, 2], 8, terminated=(end,), truncated={end: 16})
    assert both == golden([1, 2, 4], [2, 4, 2], 8, terminated=(end,))


def test_gae_carries_what_is_earned_while_others_act_to_the_last_decision() -> None:
    # The row decides at steps 0 and 3; its value at steps 1 and 2 is never asked for.
    # delta3 = 8 + 8/2 - 2 = 10   A3 = 10, and step 3 hands (V, A) = (2, 10) back
    # step 2 hands back (4 + 2/2, 10/2) = (5, 5): discounted, but no lambda
    # step 1 hands back (2 + 5/2, 5/2) = (4.5, 2.5)
    # delta0 = 1 + 4.5/2 - 2 = 1.25   A0 = 1.25 + 2.5/4 = 1.875
    nan = math.nan
    advantage, returns = golden([1, 2, 4, 8], [2, nan, nan, 2], 8, inactive=(1, 2))
    assert advantage == [1.875, 0, 0, 10]
    assert returns == [3.875, 0, 0, 12]


def test_gae_where_others_end_the_episode() -> None:
    # Dead while others act on: the team's last reward, 4 at step 2, still reaches the decision at
    # step 0, and nothing of the next episode does.
    # step 2 hands back (4, 0)    step 1 hands back (2 + 4/2, 0) = (4, 0)
    # A0 = 1 + 4/2 - 2 = 1        A3 = 8 + 8/2 - 2 = 10
    nan = math.nan
    advantage, _ = golden(
        [1, 2, 4, 8], [2, nan, nan, 2], 8, inactive=(1, 2), terminated=(2,), truncated=None
    )
    assert advantage == [1, 0, 0, 10]


def test_gae_where_a_limit_cuts_while_others_act() -> None:
    # step 1 hands back (2 + 16/2, 0) = (10, 0)    A0 = 1 + 10/2 - 2 = 4
    advantage, _ = golden([1, 2, 4], [2, math.nan, 2], 8, inactive=(1,), truncated={1: 16})
    assert advantage == [4, 0, 6]


def test_gae_where_the_rollout_ends_while_others_act() -> None:
    # step 2 hands back (4 + 8/2, 0) = (8, 0)    step 1 hands back (2 + 8/2, 0) = (6, 0)
    # A0 = 1 + 6/2 - 2 = 2
    nan = math.nan
    advantage, _ = golden([1, 2, 4], [2, nan, nan], 8, inactive=(1, 2))
    assert advantage == [2, 0, 0]


def test_gae_of_the_junk_step_after_an_episode() -> None:
    # Next-step autoreset: step 2 only resets. Its row is inactive, its value (of the final
    # observation) is the bootstrap of the truncation before it, and nothing passes over it.
    # A1 = 2 + 16/2 - 4 = 6    A0 = 1 + 6/4 = 2.5    A3 = 8 + 8/2 - 2 = 10
    advantage, _ = golden([1, 2, 0, 8], [2, 4, 16, 2], 8, inactive=(2,), truncated={1: 16})
    assert advantage == [2.5, 6, 0, 10]


def slow_gae(
    reward: Tensor,
    value: Tensor,
    last_value: Tensor,
    bootstrap: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    active: Tensor,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """The words of design.md, semantics 1, step by step in Python floats."""
    advantage, returns = torch.zeros_like(value), torch.zeros_like(value)
    for n in range(value.shape[1]):
        next_value, next_advantage = float(last_value[n]), 0.0
        for t in reversed(range(value.shape[0])):
            r, v, cont = float(reward[t, n]), float(value[t, n]), True
            boot = next_value
            if truncated[t, n]:
                boot, cont = float(bootstrap[t, n]), False
            if terminated[t, n]:
                boot, cont = 0.0, False
            following = next_advantage if cont else 0.0
            if active[t, n]:
                next_advantage = r + gamma * boot - v + gamma * gae_lambda * following
                next_value = v
                advantage[t, n], returns[t, n] = next_advantage, next_advantage + v
            else:
                next_value, next_advantage = r + gamma * boot, gamma * following
    return advantage, returns


@st.composite
def rollouts(draw: st.DrawFn) -> dict[str, Any]:
    """Any arguments of ``gae``."""
    steps, rows = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    # Ends are drawn twice to make them rarer: most episodes should be longer than a step.
    terminated, truncated = (draw(bools(steps, rows)) & draw(bools(steps, rows)) for _ in range(2))
    return {
        "reward": draw(numbers(steps, rows)),
        "value": draw(numbers(steps, rows)),
        "last_value": draw(numbers(rows)),
        "bootstrap": draw(numbers(steps, rows)),
        "terminated": terminated,
        "truncated": truncated,
        "active": draw(bools(steps, rows)),
        "gamma": draw(st.floats(0, 1)),
        "gae_lambda": draw(st.floats(0, 1)),
    }


@given(rollouts())
def test_gae_is_the_recursion_of_the_design(rollout: dict[str, Any]) -> None:
    for ours, slow in zip(gae(**rollout), slow_gae(**rollout), strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-9, atol=1e-9)


@given(rollouts())
def test_lambda_counts_decisions(rollout: dict[str, Any]) -> None:
    """Advantages computed forwards, from one decision to the next, as in a semi-Markov process."""
    r = {k: v for k, v in rollout.items() if isinstance(v, Tensor)}
    gamma, lam = rollout["gamma"], rollout["gae_lambda"]
    steps, rows = r["value"].shape

    def forward(n: int, t: int) -> float:
        earned, discount = 0.0, 1.0
        for u in range(t, steps):
            earned += discount * float(r["reward"][u, n])
            discount *= gamma
            if r["terminated"][u, n]:
                return earned - float(r["value"][t, n])
            if r["truncated"][u, n]:
                return earned + discount * float(r["bootstrap"][u, n]) - float(r["value"][t, n])
            if u + 1 < steps and r["active"][u + 1, n]:
                delta = earned + discount * float(r["value"][u + 1, n]) - float(r["value"][t, n])
                return delta + discount * lam * forward(n, u + 1)
        return earned + discount * float(r["last_value"][n]) - float(r["value"][t, n])

    expected = torch.zeros(steps, rows, dtype=torch.float64)
    for t, n in r["active"].nonzero().tolist():
        expected[t, n] = forward(n, t)
    torch.testing.assert_close(gae(**rollout)[0], expected, rtol=1e-9, atol=1e-9)


@given(rollouts(), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_garbage_where_nothing_is_read_changes_no_bit_of_the_returns(
    rollout: dict[str, Any], garbage: float
) -> None:
    clean = gae(**rollout)
    spoiled = {k: v.clone() if isinstance(v, Tensor) else v for k, v in rollout.items()}
    spoiled["value"][~spoiled["active"]] = garbage
    spoiled["bootstrap"][~spoiled["truncated"] | spoiled["terminated"]] = garbage
    for a, b in zip(gae(**spoiled), clean, strict=True):
        assert torch.equal(a, b)
        assert torch.isfinite(a).all()


@given(rollouts())
def test_lambda_one_gives_discounted_sums_and_lambda_zero_one_step_errors(
    rollout: dict[str, Any],
) -> None:
    rollout |= {"gamma": 0.5, "active": torch.ones_like(rollout["active"])}
    reward, end = rollout["reward"], rollout["terminated"] | rollout["truncated"]
    boot = torch.where(rollout["terminated"], 0, rollout["bootstrap"])
    total, sums = rollout["last_value"].clone(), []
    for t in reversed(range(len(reward))):
        total = reward[t] + 0.5 * torch.where(end[t], boot[t], total)
        sums.insert(0, total)
    _, returns = gae(**{**rollout, "gae_lambda": 1.0})
    torch.testing.assert_close(returns, torch.stack(sums), rtol=1e-9, atol=1e-9)

    following = torch.cat((rollout["value"][1:], rollout["last_value"][None]))
    _, returns = gae(**{**rollout, "gae_lambda": 0.0})
    expected = reward + 0.5 * torch.where(end, boot, following)
    torch.testing.assert_close(returns, expected, rtol=1e-9, atol=1e-9)


@given(rollouts())
def test_one_rows_data_never_reach_another_row(rollout: dict[str, Any]) -> None:
    together = gae(**rollout)
    for n in range(rollout["value"].shape[1]):
        alone = {
            k: v[..., [n]] if isinstance(v, Tensor) else v for k, v in rollout.items()
        }  # [T, N] -> [T, 1], [N] -> [1]
        for a, b in zip(gae(**alone), together, strict=True):
            assert torch.equal(a, b[:, [n]])


@given(st.data())
def test_reverse_scan_solves_its_recurrence(data: st.DataObject) -> None:
    steps, rows = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    offset, factor = data.draw(numbers(steps, rows)), data.draw(numbers(steps, rows)) / 10
    init = data.draw(numbers(rows))
    y = reverse_scan(offset, factor, init)
    following = torch.cat((y[1:], init[None]))
    torch.testing.assert_close(y, offset + factor * following, rtol=1e-12, atol=1e-12)


# --- losses -----------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.floats(0, 10), NUMBERS), min_size=1, max_size=8),
    st.floats(0.01, 2, exclude_min=True),
)
def test_policy_loss_is_the_clipped_surrogate(
    pairs: list[tuple[float, float]], clip_coef: float
) -> None:
    ratio, advantage = torch.tensor(pairs, dtype=torch.float64).T
    clipped = ratio.clamp(1 - clip_coef, 1 + clip_coef)
    textbook = -torch.minimum(ratio * advantage, clipped * advantage)
    torch.testing.assert_close(
        policy_loss(ratio, advantage, clip_coef), textbook, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.1, 2.0, -2.2, -2.0),
        (1.5, 2.0, -2.4, 0.0),  # clipped: no reason to go further
        (0.5, 2.0, -1.0, -2.0),  # worse than the bound: pulled back
        (0.5, -2.0, 1.6, 0.0),
        (1.5, -2.0, 3.0, 2.0),
        (1.5, 0.0, 0.0, 0.0),
    ],
)
def test_policy_loss_and_its_slope_by_hand(
    ratio: float, advantage: float, loss: float, slope: float
) -> None:
    r = torch.tensor([ratio], requires_grad=True)
    term = policy_loss(r, torch.tensor([advantage]), 0.2)
    term.sum().backward()
    assert term.tolist() == pytest.approx([loss])
    assert r.grad is not None
    assert r.grad.tolist() == pytest.approx([slope])


@given(st.data())
def test_value_loss_is_half_the_squared_error(data: st.DataObject) -> None:
    value, returns, old = (data.draw(numbers(5)) for _ in range(3))
    torch.testing.assert_close(value_loss(value, returns, old), 0.5 * (value - returns) ** 2)


@pytest.mark.parametrize(
    ("value", "returns", "loss", "slope"),
    [
        (1.2, 2.0, 0.32, -0.8),  # within the range: the plain error
        (1.8, 2.0, 0.125, 0.0),  # moved too far towards the target: held at 1.5
        (0.0, 2.0, 2.0, -2.0),  # moved away from it: the plain error is worse
        (3.0, 2.0, 0.5, 1.0),  # past it: the plain error is worse than that of 1.5
    ],
)
def test_clipped_value_loss_by_hand(
    value: float, returns: float, loss: float, slope: float
) -> None:
    v = torch.tensor([value], requires_grad=True)
    term = value_loss(v, torch.tensor([returns]), torch.tensor([1.0]), clip_vf_coef=0.5)
    term.sum().backward()
    assert term.tolist() == pytest.approx([loss])
    assert v.grad is not None
    assert v.grad.tolist() == pytest.approx([slope])


@given(st.data(), st.floats(0.01, 5))
def test_clipped_value_loss_is_the_larger_of_both_errors(data: st.DataObject, eps: float) -> None:
    value, returns, old = (data.draw(numbers(5)) for _ in range(3))
    near = torch.minimum(torch.maximum(value, old - eps), old + eps)
    larger = torch.maximum((value - returns) ** 2, (near - returns) ** 2)
    torch.testing.assert_close(value_loss(value, returns, old, eps), 0.5 * larger)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8))
def test_approximate_kl_is_not_negative(log_ratios: list[float]) -> None:
    log_ratio = torch.tensor(log_ratios, dtype=torch.float64)
    # In exact arithmetic exp(x) - 1 - x >= 0; rounding exp(x) to 16 digits leaves this much.
    assert (approximate_kl(log_ratio.exp(), log_ratio) >= -1e-15).all()


def test_approximate_kl_estimates_the_divergence() -> None:
    # KL(p || q) of p = (1/4, 3/4), q = (1/2, 1/2), the estimator's mean taken under p.
    p, q = torch.tensor([0.25, 0.75]), torch.tensor([0.5, 0.5])
    samples = torch.tensor([0, 1, 1, 1])
    log_ratio = (q / p).log()[samples]
    expected = float((p * (p / q).log()).sum())
    assert float(approximate_kl(log_ratio.exp(), log_ratio).mean()) == pytest.approx(expected)
    assert approximate_kl(torch.ones(3), torch.zeros(3)).tolist() == [0, 0, 0]


# --- statistics -------------------------------------------------------------------------------


@given(st.data())
def test_normalize_standardises_the_chosen_and_reads_nothing_else(data: st.DataObject) -> None:
    shape = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3))
    x, mask = data.draw(numbers(*shape)), data.draw(bools(*shape))
    chosen = x[mask].numpy()
    mean, std = masked_mean_std(x, mask)
    if len(chosen):
        assert float(mean) == pytest.approx(chosen.mean(), rel=1e-9, abs=1e-9)
        assert float(std) == pytest.approx(chosen.std(), rel=1e-7, abs=1e-9)
    else:
        assert (float(mean), float(std)) == (0, 0)

    y = normalize(x, mask)
    assert (y[~mask] == 0).all()
    if len(chosen) and chosen.std() > 1e-3:
        assert float(y[mask].mean()) == pytest.approx(0, abs=1e-6)
        assert float(y[mask].std(unbiased=False)) == pytest.approx(1, abs=1e-4)
    garbage = torch.where(mask, x, torch.nan)
    assert torch.equal(normalize(garbage, mask), y)


@given(st.floats(-1e6, 1e6, width=32), st.integers(1, 1000))
def test_normalize_makes_equal_elements_zero(value: float, count: int) -> None:
    # One active step, or a rollout without surprises: the rounding of the mean must not be blown
    # up to advantages of +-1.
    x = torch.full((count + 1,), value)
    mask = torch.arange(count + 1) < count
    assert (normalize(x, mask) == 0).all()
    assert masked_mean_std(x, mask)[1] == 0


def test_normalize_without_any_element_is_all_zeros() -> None:
    assert torch.equal(
        normalize(torch.full((2, 2), torch.nan), torch.zeros(2, 2, dtype=torch.bool)),
        torch.zeros(2, 2),
    )


@double()
def test_explained_variance() -> None:
    target = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert explained_variance(target, target) == 1
    assert explained_variance(torch.full((4,), 7.0), target) == pytest.approx(0)
    assert explained_variance(target + 5, target) == pytest.approx(1)  # blind to an offset
    assert explained_variance(-target, target) == pytest.approx(-3)
    # Var[target] = 3.5, the errors (0, 0, 0, 4) have variance 3.
    assert explained_variance(torch.tensor([1.0, 2, 3, 2]), target) == pytest.approx(1 - 3 / 3.5)


@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_explained_variance_of_what_does_not_vary_is_nan(count: int) -> None:
    # 3.3 has no exact mean in float32: a variance of rounding errors is none either.
    assert math.isnan(explained_variance(torch.arange(count) * 1.0, torch.full((count,), 3.3)))


@settings(max_examples=20)
@given(st.data())
def test_explained_variance_is_at_most_one(data: st.DataObject) -> None:
    prediction, target = data.draw(numbers(6)), data.draw(numbers(6))
    share = explained_variance(prediction, target)
    assert math.isnan(share) or share <= 1
