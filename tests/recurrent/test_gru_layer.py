"""Tests of `recurrent_rl.recurrent.gru_layer`: what PyTorch's own GRU gives, and its gradients."""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.helpers import SEEDS
from support.pairs import examples
from torch import Tensor, nn

from recurrent_rl.recurrent import gated
from recurrent_rl.recurrent.gated import GRU


def both(cell: GRU, x: Tensor, first: Tensor, weights: tuple[Tensor, Tensor]) -> list[list[Tensor]]:
    """Outputs, last states and all gradients of a weighted sum: this package's, and PyTorch's."""
    results = []
    for forward in (lambda: cell(x, [first]), lambda: nn.GRU.forward(cell, x, first)):
        output, last = forward()
        last = last[0] if isinstance(last, tuple) else last
        score = (output * weights[0]).sum() + (last * weights[1]).sum()
        results.append([output, last, *torch.autograd.grad(score, [x, first, *cell.parameters()])])
    return results


@settings(max_examples=examples(40))
@given(
    st.tuples(*[st.integers(1, 6)] * 4),
    st.integers(1, 3),
    st.sampled_from([torch.float32, torch.float64]),
    SEEDS,
)
def test_same_as_pytorchs(
    sizes: tuple[int, int, int, int], layers: int, dtype: torch.dtype, seed: int
) -> None:
    steps, rows, inputs, units = sizes
    torch.manual_seed(seed)
    cell = GRU(inputs, units, layers).to(dtype)
    with torch.no_grad():
        for p in cell.parameters():
            p.copy_(torch.randn_like(p))
    # Rows first in memory, as what is gathered may be.
    x = torch.randn(rows, steps, inputs, dtype=dtype).transpose(0, 1).requires_grad_()
    first = torch.randn(layers, rows, units, dtype=dtype, requires_grad=True)
    weights = torch.randn(steps, rows, units, dtype=dtype), torch.randn_like(first)
    tolerance = 2e-5 if dtype is torch.float32 else 1e-12
    for ours, theirs in zip(*both(cell, x, first, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rows", [1, 2, 16, 32])
def test_rounding_at_the_sizes_that_are_trained(rows: int) -> None:
    """Sums over 128 steps, in one order and the other, are as near to double precision."""
    torch.manual_seed(0)
    cell = GRU(64, 64, 1)
    x, first = torch.randn(128, rows, 64), torch.zeros(1, rows, 64)
    weights = torch.randn(128, rows, 64), torch.zeros_like(first)
    ours, theirs = both(cell, x.requires_grad_(), first.requires_grad_(), weights)
    cell.double()
    x, first = (t.detach().double().requires_grad_() for t in (x, first))
    _, right = both(cell, x, first, (weights[0].double(), weights[1].double()))
    for a, b, exact in zip(ours, theirs, right, strict=True):
        errors = [((y.double() - exact).norm() / exact.norm()).item() for y in (a, b)]
        assert max(errors) < 1e-6


def test_pytorchs_own_is_used_where_it_is_faster_or_rounds_otherwise() -> None:
    cell, x, first = GRU(3, 4), torch.randn(5, 2, 3), torch.zeros(1, 2, 4)
    with mock.patch.object(gated, "gru_layer", side_effect=AssertionError):
        with pytest.raises(AssertionError):
            cell(x, [first])
        with torch.autocast("cpu", torch.bfloat16):
            assert cell(x, [first])[0].shape == (5, 2, 4)
        with mock.patch.object(torch.compiler, "is_compiling", return_value=True):
            assert cell(x, [first])[0].shape == (5, 2, 4)
        assert cell.to("meta")(x.to("meta"), [first.to("meta")])[0].shape == (5, 2, 4)
