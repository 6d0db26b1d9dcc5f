"""Tests of `recurrent_rl.recurrent.core`: steps, whole sequences, and rollouts with resets."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.helpers import Flags, cuttings, double, flags, make_flags
from support.pairs import examples
from support.recurrence import (
    CELLS,
    CORES,
    Cell,
    Kind,
    make_core,
    random_states,
    step_loop,
    unroll,
)
from torch import Tensor

from recurrent_rl.recurrent.core import RecurrentCore
from recurrent_rl.recurrent.sequences import cut_sequences

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


@double()
@pytest.mark.parametrize("residual", [0, 1, 2])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_stepping_equals_the_whole_sequence_kernel(cell: Cell, layers: int, residual: int) -> None:
    core = make_core(cell, layers, residual)
    every = layers + residual
    assert core.shapes == [(every, 4)] * core.rnn.states
    assert [s.shape for s in core.initial_state(5)] == [(every, 5, 4)] * len(core.shapes)
    x, state = torch.randn(6, 5, 3), random_states(core, 5)
    never, always = torch.zeros(6, 5, dtype=torch.bool), torch.ones(6, 5, dtype=torch.bool)
    y, final, _ = step_loop(core, x, state, never, always)
    ours, after = core(x, state)
    torch.testing.assert_close(ours, y)
    for a, b in zip(after, final, strict=True):
        torch.testing.assert_close(a, b)


@double()
@pytest.mark.parametrize("cell", CELLS)
def test_residual_layers_add_to_what_they_read(cell: Cell) -> None:
    """Wu et al. 2016, sec. 3.1, written out with PyTorch's own layers, a state for each."""
    core = make_core(cell, 2, 2)
    x, state = torch.randn(6, 5, 3), random_states(core, 5)

    def run(rnn: Any, y: Tensor, layers: slice) -> Tensor:
        # PyTorch's own way to run it, not that of our cells.
        parts = tuple(s[layers].contiguous() for s in state)
        if cell == "lstm":
            return torch.nn.LSTM.forward(rnn, y, parts)[0]
        if cell == "gru":
            return torch.nn.GRU.forward(rnn, y, parts[0])[0]
        return rnn(y, parts)[0]  # PyTorch has none

    y = run(core.rnn, x, slice(0, 2))
    for k, rnn in enumerate(core.added, start=2):
        y = y + run(rnn, y, slice(k, k + 1))
    output, after = core(x, state)
    torch.testing.assert_close(output, y)
    # The state is what a layer gives, not what is passed on.
    assert not torch.allclose(after[0][-1], output[-1])


@pytest.mark.parametrize("cell", CELLS)
def test_fresh_residual_layers_are_the_identity(cell: Cell) -> None:
    core, plain = make_core(cell, 2, 2), make_core(cell, 2)
    core.start_as_identity()
    plain.rnn.load_state_dict(core.rnn.state_dict())
    x, begin = torch.randn(50, 5, 3), plain.initial_state(5)
    y, after = plain(x, begin)
    ours, ours_after = core(x, core.initial_state(5))
    assert torch.equal(ours, y)
    for s, theirs in zip(ours_after, after, strict=True):
        assert torch.equal(s[:2], theirs)
        assert cell == "lru" or (s[2:] == 0).all()  # its states are there, but nobody reads them
    state = core.initial_state(5)
    stepped = []
    for t in range(50):
        output, state = core.step(x[t], state)
        stepped.append(output)
    torch.testing.assert_close(torch.stack(stepped), y)
    assert cell == "lru" or all((s[2:] == 0).all() for s in state)
    for p, theirs in zip(core.rnn.parameters(), plain.rnn.parameters(), strict=True):
        assert torch.equal(p, theirs)


@pytest.mark.parametrize("cell", ["lstm", "gru", "mingru"])
def test_gradients_reach_the_candidates_of_fresh_residual_layers(cell: Cell) -> None:
    core = make_core(cell, 1, 2)
    core.start_as_identity()
    gates, candidate = (3, 2) if cell == "gru" else (4, 2) if cell == "lstm" else (2, 0)
    for rnn in core.added:
        for name, p in rnn.named_parameters():
            assert (p.chunk(gates)[candidate] == 0).all()
            others = [gate for i, gate in enumerate(p.chunk(gates)) if i != candidate]
            assert all((gate != 0).all() for gate in others), name
    output, _ = core(torch.randn(6, 5, 3), core.initial_state(5))
    (output * torch.randn_like(output)).sum().backward()
    for rnn in core.added:
        for name, p in rnn.named_parameters():
            if name != "weight_hh_l0":  # whose units are zero
                assert p.grad is not None
                assert (p.grad.chunk(gates)[candidate] != 0).all(), name


# --- rollouts ---------------------------------------------------------------------------------


def same_with_gradients(
    core: RecurrentCore, inputs: list[Tensor], ours: list[Tensor], reference: list[Tensor]
) -> None:
    """Outputs and final states, and gradients of a random functional of both."""
    results = []
    for tensors in (ours, reference):
        torch.manual_seed(5)
        score = torch.stack([(x * torch.randn_like(x)).sum() for x in tensors]).sum()
        wanted = [*core.parameters(), *inputs]
        grads = torch.autograd.grad(score, wanted, allow_unused=True, retain_graph=True)
        grads = [
            torch.zeros_like(p) if g is None else g for p, g in zip(wanted, grads, strict=True)
        ]
        results.append([*tensors, *grads])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@settings(max_examples=examples(30))
@given(flags(), CORES, st.integers(0, 100))
@double()
def test_unroll_equals_a_plain_step_loop(f: Flags, kind: Kind, seed: int) -> None:
    """Outputs, final state and all gradients, for any resets and any absences."""
    core = make_core(*kind, seed=seed)
    steps, rows = f.shape
    x = torch.randn(steps, rows, 3, requires_grad=True)
    state = random_states(core, rows)
    y, final, _ = step_loop(core, x, state, f.start, f.exists)
    ours, after = unroll(core, x, state, f.start, f.exists)
    same_with_gradients(core, [x, *state], [ours, *after], [y, *final])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("cell", CELLS)
def test_unroll_on_long_rollouts_and_other_devices(cell: Cell, device: str) -> None:
    f = make_flags(50, 6, reset=0.1, absent=0.1)
    core = make_core(cell, 2, 1)
    x, state = torch.randn(50, 6, 3), [s.detach() for s in random_states(core, 6)]
    y, final, _ = step_loop(core, x, state, f.start, f.exists)
    core.to(device)
    ours, after = unroll(
        core, x.to(device), [s.to(device) for s in state], f.start.to(device), f.exists.to(device)
    )
    assert ours.device.type == device
    torch.testing.assert_close(ours.cpu(), y, rtol=1e-4, atol=1e-5)
    for a, b in zip(after, final, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-5)


@double()
@pytest.mark.parametrize("cell", CELLS)
def test_unroll_takes_every_step_as_real_unless_told(cell: Cell) -> None:
    f = make_flags(9, 3)
    core = make_core(cell, 1)
    x, state = torch.randn(9, 3, 3), random_states(core, 3)
    y, final, _ = step_loop(core, x, state, f.start, torch.ones_like(f.start))
    ours, after = unroll(core, x, state, f.start)
    torch.testing.assert_close(ours, y)
    torch.testing.assert_close(after[0], final[0])


@double()
def test_unroll_of_rows_that_never_exist_leaves_the_state_or_resets_it() -> None:
    core = make_core("lstm", 2, 1)
    x, state = torch.full((4, 2, 3), torch.nan), random_states(core, 2)
    start, absent = torch.zeros(4, 2, dtype=torch.bool), torch.zeros(4, 2, dtype=torch.bool)
    start[2, 1] = True
    output, final = unroll(core, x, state, start, absent)
    assert (output == 0).all()
    for before, after in zip(state, final, strict=True):
        assert torch.equal(after[:, 0], before[:, 0])
        assert (after[:, 1] == 0).all()


@settings(max_examples=examples(20))
@given(flags(), CORES)
@double()
def test_garbage_in_absent_steps_changes_no_bit_of_an_unroll(f: Flags, kind: Kind) -> None:
    core = make_core(*kind)
    steps, rows = f.shape
    x, state = torch.randn(steps, rows, 3), random_states(core, rows)
    results = []
    for absent in (0.0, torch.nan):
        inputs = torch.where(f.exists[..., None], x, absent).requires_grad_()
        output, final = unroll(core, inputs, state, f.start, f.exists)
        score = output.square().sum() + sum(s.square().sum() for s in final)
        wanted = [inputs, *core.parameters()]
        grads = torch.autograd.grad(score, wanted, allow_unused=True)
        results.append([output, *final, *(g for g in grads if g is not None)])
    for clean, spoiled in zip(*results, strict=True):
        assert torch.equal(clean, spoiled)


@settings(max_examples=examples(20))
@given(cuttings(), CORES)
@double()
def test_training_sequences_equal_a_plain_step_loop(
    case: tuple[Flags, int, int], kind: Kind
) -> None:
    """Cut at L, whether it divides T or not, each sequence from its stored state or from zeros."""
    f, max_seq_len, _ = case
    core = make_core(*kind)
    steps, rows = f.shape
    with torch.no_grad():
        x, state = torch.randn(steps, rows, 3), random_states(core, rows)
        y, _, before = step_loop(core, x, state, f.start, f.exists)
        cuts = cut_sequences(f.start, f.exists, f.active, max_seq_len)
        if len(cuts) == 0:
            return
        index, active_index = cuts.index(torch.arange(len(cuts)))
        stored = [torch.stack(s)[::max_seq_len] for s in zip(*before, strict=True)]
        begin = [
            s[cuts.chunk, :, cuts.row].transpose(0, 1).masked_fill(cuts.fresh[:, None], 0)
            for s in stored
        ]
        output, _ = core(x.flatten(0, 1)[index], begin)
    place, output = index.flatten(), output.flatten(0, 1)
    if active_index is not None:
        place, output = place[active_index], output[active_index]
    torch.testing.assert_close(output, y.flatten(0, 1)[place], rtol=1e-9, atol=1e-11)
    assert sorted(place.tolist()) == f.active.flatten().nonzero().squeeze(1).tolist()


@settings(max_examples=examples(20))
@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), CORES)
@double()
def test_run_equals_a_step_loop_for_sequences_of_any_length(lengths: list[int], kind: Kind) -> None:
    core = make_core(*kind)
    length = torch.tensor(lengths)
    x = torch.randn(7, len(lengths), 3)
    state = random_states(core, len(lengths))
    inside = torch.arange(7)[:, None] < length
    never = torch.zeros_like(inside)
    safe = torch.where(inside[..., None], x, 0).requires_grad_()
    garbage = torch.where(inside[..., None], x, torch.nan).requires_grad_()
    _, final, _ = step_loop(core, safe, state, never, inside)
    after = core.run(garbage, length, state)
    if any(lengths):
        same_with_gradients(core, state, list(after), final)
        (theirs,), (grad,) = (
            torch.autograd.grad(sum(s.square().sum() for s in x), wanted, retain_graph=True)
            for x, wanted in ((final, safe), (after, garbage))
        )
        torch.testing.assert_close(grad, theirs, rtol=1e-9, atol=1e-11)
    else:
        assert all(torch.equal(a, s) for a, s in zip(after, state, strict=True))
