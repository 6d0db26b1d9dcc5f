"""Expectations under a Gaussian that have no closed form of their own."""

import math

import torch
from torch import Tensor

# A logistic variable of scale 1/2 as a mixture of four Gaussians: weights and variances. Fitted so
# that log cosh, its twofold integral, is nowhere further off than 5e-6.
_WEIGHTS = (0.13643261, 0.49276039, 0.32971638, 0.04109062)
_VARIANCES = (0.25444837, 0.55858172, 1.22301992, 2.65860525)


def expected_log_cosh(mean: Tensor, std: Tensor) -> Tensor:
    """E log cosh u of a Gaussian u, within 1e-5 for every mean and deviation.

    ``log cosh u + log 2 = E|u + l|`` with a logistic l of scale 1/2, as both sides have the second
    derivative sech^2 u and the same asymptotes. With l as a mixture of Gaussians of variances
    ``c_i^2`` the expectation is that of absolute values of Gaussians, ``sum_i w_i E|m + t_i x|``,
    where ``t_i^2 = s^2 + c_i^2``, x is standard normal, and
    ``E|m + t x| = t sqrt(2 / pi) exp(-m^2 / (2 t^2)) + m erf(m / (t sqrt 2))``.

    Source of the mixture's idea: Monahan & Stefanski 1992, "Normal Scale Mixture Approximations to
    F*(z) and Computation of the Logistic-Normal Integral". A quadrature over u would take tens of
    nodes for the deviations that saturate a tanh; this is exact where it matters most.

    Args:
        mean: m, [...].
        std: s, > 0, broadcast with it.

    Returns:
        [...], with the gradients of the mixture.

    """
    weights, variances = mean.new_tensor(_WEIGHTS), mean.new_tensor(_VARIANCES)
    spread = (std.square().unsqueeze(-1) + variances).mul(2).sqrt()  # t sqrt 2, [..., 4]
    m = mean.unsqueeze(-1)
    ratio = m / spread
    absolute = spread * (-ratio.square()).exp() * (1 / math.sqrt(math.pi)) + m * torch.erf(ratio)
    return absolute @ weights - math.log(2)
