"""Tests of `recurrent_rl.recurrent.scan`: a loop in double precision tells what is right."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.helpers import SEEDS, double
from support.pairs import examples
from support.recurrence import CELLS, Cell, make_core, random_states
from torch import Tensor

from recurrent_rl.recurrent import scan
from recurrent_rl.recurrent.scan import backward_flow, forward_states

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


def loop(decay: Tensor, inputs: Tensor, first: Tensor) -> Tensor:
    states = [first]
    for t in range(len(inputs)):
        states.append(decay[min(t, len(decay) - 1)] * states[-1] + inputs[t])
    return torch.stack(states)


def flow_loop(decay: Tensor, grad: Tensor) -> Tensor:
    flow = [grad[-1]]
    for t in reversed(range(len(grad) - 1)):
        flow.insert(0, grad[t] + decay[min(t + 1, len(decay) - 1)] * flow[0])
    return torch.stack(flow)


LENGTHS = st.integers(1, 70)
KINDS = st.sampled_from([torch.float64, torch.complex128])


@settings(max_examples=examples(60))
@given(LENGTHS, KINDS, st.booleans(), st.sampled_from([0, 8, 2048]), SEEDS)
def test_states_and_flow_equal_a_loop(
    steps: int, dtype: torch.dtype, constant: bool, many: int, seed: int
) -> None:
    """Decays of any size, of each step or of all, real and complex, paired or one by one."""
    torch.manual_seed(seed)
    decay = torch.randn(1 if constant else steps, 2, 3, dtype=dtype)
    decay = decay / decay.abs().clamp_min(1)
    inputs, first = torch.randn(steps, 2, 3, dtype=dtype), torch.randn(2, 3, dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "MANY", many)
        patch.setattr(scan, "FEW", 1 + seed % 4)
        states, flow = forward_states(decay, inputs, first), backward_flow(decay, inputs)
    torch.testing.assert_close(states, loop(decay, inputs, first))
    torch.testing.assert_close(flow, flow_loop(decay, inputs))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kept", [0.0, 1e-30, 1e-3, 0.5, 1 - 1e-6, 1.0])
def test_single_precision_over_thousands_of_steps(kept: float, device: str) -> None:
    """Nothing overflows or vanishes that should not: errors stay at those of rounding."""
    torch.manual_seed(0)
    decay = torch.full((4001, 2, 3), kept) * torch.rand(4001, 2, 3).clamp(0.999)
    inputs, first = torch.randn(4001, 2, 3), torch.randn(2, 3)
    right = loop(decay.double(), inputs.double(), first.double())
    ours = forward_states(*(x.to(device) for x in (decay, inputs, first)))
    assert ours.device.type == device
    expected = flow_loop(decay.double(), inputs.double())
    flow = backward_flow(decay.to(device), inputs.to(device))
    # Products of a thousand equal decays have as many equal roundings: 1e-5 rather than 1e-6.
    for found, exact in ((ours, right), (flow, expected)):
        assert (found.cpu() - exact).abs().max() <= 1e-5 * exact.abs().max()


@double()
@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_by_finite_differences(cell: Cell, steps: int) -> None:
    """Of outputs and last states, by inputs, first states and parameters."""
    core = make_core(cell, 1, inputs=2)
    x, state = torch.randn(steps, 2, 2, requires_grad=True), random_states(core, 2)
    parameters = list(core.parameters())

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        y, after = core(tensors[0], tensors[1 : 1 + len(state)])
        return y, *after

    assert torch.autograd.gradcheck(run, (x, *state, *parameters), fast_mode=True)
    # Of the last states alone, as for burn-in that is trained through.
    after = core(x, state)[1]
    assert torch.autograd.grad(after[0].sum(), x)[0].abs().sum() > 0


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_may_be_asked_for_twice_and_of_some(cell: Cell) -> None:
    core = make_core(cell, 2, 1)
    x, state = torch.randn(9, 2, 3), core.initial_state(2)
    y, _ = core(x, state)
    parameters = list(core.parameters())
    score = (y * torch.randn_like(y)).sum()
    first = torch.autograd.grad(score, parameters, retain_graph=True, allow_unused=True)
    again = torch.autograd.grad(score, parameters, allow_unused=True)
    for a, b in zip(first, again, strict=True):
        assert a is b is None or torch.equal(a, b)
    core.requires_grad_(False)
    x.requires_grad_()
    y, _ = core(x, state)
    assert torch.autograd.grad(y.sum(), x)[0].abs().sum() > 0


def test_outputs_that_are_written_to_are_noticed() -> None:
    """Rather than giving wrong gradients."""
    core = make_core("mingru", 1)
    y, _ = core(torch.randn(9, 2, 3), core.initial_state(2))
    with pytest.raises(RuntimeError, match="modified inplace"):
        y.mul_(2)
