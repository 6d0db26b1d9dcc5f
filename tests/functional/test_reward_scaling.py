"""Tests of `recurrent_rl.functional.reward_scaling`: bounds of rewards."""

import math

import pytest

from recurrent_rl.functional.reward_scaling import greatest_factor, has_varied


@pytest.mark.parametrize(
    ("mean", "deviation", "varied"),
    [(0, 0, False), (5, 0, False), (1000, 1e-4, False), (1000, 1e-2, True), (0, 1e-9, True)],
)
def test_what_rounding_makes_is_no_variation(mean: float, deviation: float, varied: bool) -> None:
    assert has_varied(mean, deviation**2) is varied


def test_a_steady_reward_becomes_five_at_most() -> None:
    assert greatest_factor(20.0, 0.0, 0.0) * 20 == pytest.approx(5)
    # A reward of 1 each step: discounted returns of 1 / (1 - gamma).
    assert greatest_factor(100.0, 0.0, 0.99) * 1 == pytest.approx(5)
    assert greatest_factor(100.0, 5.0, 1.0) == math.inf
    assert greatest_factor(0.0, 0.0, 0.9) == math.inf
