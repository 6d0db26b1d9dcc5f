"""Tests of `recurrent_rl.recurrent.lstm_layer`: what PyTorch's LSTM gives, and its gradients."""

import math
from unittest import mock

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.compiled import needs_compiler
from support.helpers import SEEDS
from support.pairs import examples
from torch import Tensor, nn

from recurrent_rl.recurrent import gated
from recurrent_rl.recurrent.gated import LSTM

pytestmark = needs_compiler


def run(cell: LSTM, x: Tensor, first: tuple[Tensor, Tensor], weights: list[Tensor]) -> list[Tensor]:
    """Outputs, last states and all gradients of their weighted sum."""
    given = [t.detach().clone().requires_grad_() for t in (x, *first)]
    output, last = cell(given[0], given[1:])
    score = sum((w * y).sum() for w, y in zip(weights, (output, *last), strict=True))
    assert isinstance(score, Tensor)
    found = [output, *last, *torch.autograd.grad(score, [*given, *cell.parameters()])]
    return [t.detach() for t in found]


# Units and rows on both sides of what vectors and blocks of rows hold.
@settings(max_examples=examples(40))
@given(st.tuples(*[st.integers(1, 9)] * 2, *[st.integers(1, 40)] * 2), st.integers(1, 3), SEEDS)
@example((128, 2, 3, 64), 1, 0)
@example((3, 7, 70, 131), 1, 0)
def test_same_as_pytorchs_in_double_precision(
    sizes: tuple[int, int, int, int], layers: int, seed: int
) -> None:
    steps, rows, inputs, units = sizes
    torch.manual_seed(seed)
    cell = LSTM(inputs, units, layers)
    cell.compiled = True
    with torch.no_grad():
        for p in cell.parameters():
            p.copy_(torch.randn_like(p) / math.sqrt(units))
    # Rows first in memory, as what is gathered may be.
    x = torch.randn(rows, steps, inputs).transpose(0, 1)
    first = (torch.randn(layers, rows, units), torch.randn(layers, rows, units))
    weights = [torch.randn(steps, rows, units), *(torch.randn_like(s) for s in first)]
    with mock.patch.object(torch, "lstm", side_effect=AssertionError):
        ours = run(cell, x, first, weights)
    cell.double()
    theirs = run(
        cell, x.double(), (first[0].double(), first[1].double()), [w.double() for w in weights]
    )
    for a, b in zip(ours, theirs, strict=True):
        assert float((a.double() - b).norm()) <= 3e-6 * float(b.norm()) + 1e-6


def test_no_rows_at_all_give_nothing() -> None:
    cell = LSTM(3, 4)
    cell.compiled = True
    output, (h, c) = cell(torch.zeros(5, 0, 3), [torch.zeros(1, 0, 4)] * 2)
    assert [output.shape, h.shape, c.shape] == [(5, 0, 4), (1, 0, 4), (1, 0, 4)]
    (output.sum() + c.sum()).backward()
    assert cell.weight_hh_l0.grad is not None
    assert not cell.weight_hh_l0.grad.any()


def test_a_graph_that_is_kept_gives_the_same_gradient_again() -> None:
    torch.manual_seed(0)
    cell = LSTM(3, 5)
    cell.compiled = True
    output, (_, c) = cell(torch.randn(4, 2, 3), [torch.randn(1, 2, 5)] * 2)
    parameters = list(cell.parameters())
    for score in (output.sum(), c.sum()):
        once, again = (torch.autograd.grad(score, parameters, retain_graph=True) for _ in range(2))
        torch.testing.assert_close(once, again, rtol=0, atol=0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["input", "h", "c", "weight"])
def test_what_is_not_finite_is_where_pytorch_has_it(value: float, where: str) -> None:
    """Or no number at all would say that something is wrong."""
    torch.manual_seed(0)
    cell = LSTM(3, 20)
    x, first = torch.randn(4, 2, 3), (torch.randn(1, 2, 20), torch.randn(1, 2, 20))
    target = {"input": x, "h": first[0], "c": first[1], "weight": cell.weight_hh_l0.data}[where]
    target.view(-1)[1] = value
    found = []
    for compiled in (False, True):
        cell.compiled = compiled
        output, (h, c) = cell(x, first)
        found.append([output, h, c])
    for theirs, ours in zip(*found, strict=True):
        assert torch.equal(theirs.isnan(), ours.isnan())
        torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_pytorchs_own_is_used_where_kernels_are_not_asked_for_or_know_nothing_of_it() -> None:
    cell, x, first = LSTM(3, 4), torch.randn(5, 2, 3), [torch.zeros(1, 2, 4)] * 2
    with mock.patch.object(gated, "lstm_layer", side_effect=AssertionError):
        cell(x, first)
        cell.compiled = True
        with pytest.raises(AssertionError):
            cell(x, first)
        with torch.no_grad():
            cell(x, first)
        with torch.autocast("cpu", torch.bfloat16):
            cell(x, first)
        with mock.patch.object(torch.compiler, "is_compiling", return_value=True):
            cell(x, first)
        with mock.patch.object(torch.jit, "is_tracing", return_value=True):
            cell(x, first)
        with pytest.raises(RuntimeError, match="type"):  # PyTorch's word: it would be misread
            cell(x, [s.double() for s in first])
        nn.LSTM.double(cell)
        cell(x.double(), [s.double() for s in first])
