"""Tests of `recurrent_rl.functional.returns`: advantages and returns."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.arrays import bools, numbers
from torch import Tensor

from recurrent_rl.functional.returns import gae, reverse_scan


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
