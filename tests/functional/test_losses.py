"""Tests of `recurrent_rl.functional.losses`: of policies and of values, and divergence."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.arrays import NUMBERS, numbers

from recurrent_rl.functional.losses import approximate_kl, policy_loss, value_loss


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
