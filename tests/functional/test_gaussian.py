"""Tests of `recurrent_rl.functional.gaussian`: expectations under a Gaussian."""

import math

import pytest
import torch
from support.helpers import double

from recurrent_rl.functional.gaussian import expected_log_cosh


def by_integration(mean: float, std: float) -> float:
    """A sum over 200,000 points of 10 deviations to both sides."""
    x = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    u = (mean + std * x).abs()
    log_cosh = u + torch.log1p((-2 * u).exp()) - math.log(2)
    density = (-0.5 * x.square()).exp() / math.sqrt(2 * math.pi)
    return float(torch.trapezoid(log_cosh * density, x))


@double()
@pytest.mark.parametrize("mean", [0.0, 0.3, -1.0, 4.0, 50.0])
@pytest.mark.parametrize("std", [1e-3, 0.1, 1.0, math.e, math.e**2, 20.0])
def test_log_cosh_equals_an_integral(mean: float, std: float) -> None:
    got = expected_log_cosh(torch.tensor([mean]), torch.tensor([std]))
    assert float(got) == pytest.approx(by_integration(mean, std), abs=1e-5)


@double()
@pytest.mark.parametrize("std", [0.05, 1.0, 8.0])
def test_gradients_are_those_of_the_integral(std: float) -> None:
    mean, deviation = torch.tensor([0.7], requires_grad=True), torch.tensor([std])
    deviation.requires_grad_()
    expected_log_cosh(mean, deviation).sum().backward()
    step = 1e-4
    by_mean = (by_integration(0.7 + step, std) - by_integration(0.7 - step, std)) / (2 * step)
    by_std = (by_integration(0.7, std + step) - by_integration(0.7, std - step)) / (2 * step)
    assert mean.grad is not None
    assert deviation.grad is not None
    assert float(mean.grad) == pytest.approx(by_mean, abs=1e-4)
    assert float(deviation.grad) == pytest.approx(by_std, abs=1e-4)


@double()
@pytest.mark.parametrize("shape", [(3,), (4, 3)])
def test_a_deviation_for_all_rows_gets_the_sum_of_their_gradients(shape: tuple[int, ...]) -> None:
    mean = torch.randn(4, 3, requires_grad=True)
    std = (0.3 + torch.rand(shape)).requires_grad_()
    assert torch.autograd.gradcheck(expected_log_cosh, (mean, std))
    value = expected_log_cosh(mean, std)
    with torch.no_grad():
        assert torch.equal(expected_log_cosh(mean, std), value)


def test_large_numbers_stay_finite_in_single_precision() -> None:
    mean = torch.tensor([1e4, -1e6, 0.0], requires_grad=True)
    value = expected_log_cosh(mean, torch.tensor([1e-3, 1e3, 1e8]))
    value.sum().backward()
    assert value[:2].tolist() == pytest.approx([1e4, 1e6], rel=1e-4)  # |u| - log 2
    assert mean.grad is not None
    assert mean.grad.tolist() == pytest.approx([1, -1, 0])
