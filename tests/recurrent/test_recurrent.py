"""Tests of `recurrent_rl.recurrent`: hidden states, cores, and sequences with resets."""

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.helpers import Flags, cut_by_hand, cuttings, double, flags, make_flags, some_of
from torch import Tensor

from recurrent_rl.recurrent.core import RecurrentCore
from recurrent_rl.recurrent.sequences import Sequences, cut_sequences, state_times
from recurrent_rl.recurrent.state import HiddenState

Cell = Literal["lstm", "gru"]
CELLS: list[Cell] = ["lstm", "gru"]
Kind = tuple[Cell, int, int]
CORES = st.tuples(st.sampled_from(CELLS), st.integers(1, 3), st.integers(0, 2))
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


def make_core(
    cell: Cell, layers: int, residual: int = 0, *, seed: int = 0, inputs: int = 3
) -> RecurrentCore:
    torch.manual_seed(seed)
    core = RecurrentCore(inputs, 4, layers, cell, residual)
    with torch.no_grad():
        for p in core.parameters():
            p.mul_(2)  # the default weights barely remember
    return core


def random_states(core: RecurrentCore, rows: int) -> list[Tensor]:
    return [torch.randn_like(s).tanh().requires_grad_() for s in core.initial_state(rows)]


def step_loop(
    core: RecurrentCore, x: Tensor, state: list[Tensor], start: Tensor, exists: Tensor
) -> tuple[Tensor, list[Tensor], list[list[Tensor]]]:
    """What ``unroll`` promises to equal; also the states before each step, after any reset."""
    outputs, before = [], []
    for t in range(len(x)):
        state = [s.masked_fill(start[t][:, None], 0) for s in state]
        before.append(state)
        y, after = core.step(x[t], state)
        keep = exists[t][:, None]
        state = [torch.where(keep, a, s) for a, s in zip(after, state, strict=True)]
        outputs.append(torch.where(keep, y, 0))
    return torch.stack(outputs), state, before


# --- hidden state -----------------------------------------------------------------------------


def numbered_state() -> HiddenState:
    """Two tensors [2, 4, 3] in which row n holds n + 1 and -(n + 1)."""
    h = torch.arange(1.0, 5.0)[None, :, None].expand(2, 4, 3).clone()
    return HiddenState([h, -h], 4)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (2, [3]),
        (-1, [4]),
        (np.int64(1), [2]),
        (slice(1, 3), [2, 3]),
        (slice(None, None, 2), [1, 3]),
        ([3, 0], [4, 1]),
        ([], []),
        (np.array([1, 1]), [2, 2]),
        (torch.tensor([2, 3]), [3, 4]),
        (torch.tensor([True, False, False, True]), [1, 4]),
        (np.array([False, True, False, False]), [2]),
        ([True, True, False, False], [1, 2]),
    ],
)
def test_hidden_state_selects_rows(rows: object, expected: list[int]) -> None:
    chosen = numbered_state()[rows]  # type: ignore[index]
    assert chosen.rows == len(expected)
    for tensor, sign in zip(chosen.tensors, (1, -1), strict=True):
        assert tensor.shape == (2, len(expected), 3)
        assert tensor[0, :, 0].tolist() == [sign * n for n in expected]


def test_hidden_state_resets_and_mixes_rows_without_touching_itself() -> None:
    state, which = numbered_state(), torch.tensor([True, False, True, False])
    assert state.reset(which).tensors[1][1, :, 2].tolist() == [0, -2, 0, -4]
    mixed = state.where(which, state.reset(torch.ones(4, dtype=torch.bool)))
    assert mixed.tensors[0][0, :, 0].tolist() == [1, 0, 3, 0]
    assert mixed.rows == 4
    assert torch.equal(state.tensors[0], numbered_state().tensors[0])


def test_a_reset_forgets_even_nan() -> None:
    # NaN * 0 is NaN: a reset by multiplication would keep it for good.
    state = HiddenState([torch.full((1, 2, 3), torch.nan)], 2)
    assert (state.reset(torch.tensor([True, True])).tensors[0] == 0).all()


def test_a_cloned_hidden_state_shares_neither_memory_nor_gradients() -> None:
    h = torch.ones(1, 2, 3, requires_grad=True)
    state = HiddenState([h * 2], 2)
    copy = state.clone()
    assert not copy.tensors[0].requires_grad
    copy.tensors[0].zero_()
    assert (state.tensors[0] == 2).all()
    assert state.to("cpu").rows == 2


def test_hidden_state_of_a_policy_without_memory_still_counts_rows() -> None:
    state = HiddenState([], 5)
    assert state[2].rows == 1
    assert state[torch.tensor([True, False, True, False, False])].rows == 2
    assert state.reset(torch.ones(5, dtype=torch.bool)).rows == 5
    assert repr(state) == "HiddenState(rows=5, shapes=[])"
    assert repr(numbered_state()) == "HiddenState(rows=4, shapes=[[2, 4, 3], [2, 4, 3]])"


# --- cores ------------------------------------------------------------------------------------


@double()
def test_lstm_step_by_its_equations() -> None:
    """Hochreiter and Schmidhuber 1997 with forget gates, written out for one layer."""
    core = make_core("lstm", 1)
    x = torch.randn(2, 3)
    h, c = (s[0] for s in random_states(core, 2))
    w_ih, w_hh, b_ih, b_hh = core.rnn.all_weights[0]
    i, f, g, o = (x @ w_ih.T + b_ih + h @ w_hh.T + b_hh).chunk(4, 1)
    c_after = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h_after = o.sigmoid() * c_after.tanh()
    y, (h_ours, c_ours) = core.step(x, [h[None], c[None]])
    torch.testing.assert_close(y, h_after)
    torch.testing.assert_close(h_ours[0], h_after)
    torch.testing.assert_close(c_ours[0], c_after)


@double()
@pytest.mark.parametrize("residual", [0, 1, 2])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_stepping_equals_the_whole_sequence_kernel(cell: Cell, layers: int, residual: int) -> None:
    core = make_core(cell, layers, residual)
    every = layers + residual
    assert core.shapes == [(every, 4)] * (2 if cell == "lstm" else 1)
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

    def part(layers: slice) -> object:
        parts = tuple(s[layers].contiguous() for s in state)
        return parts if cell == "lstm" else parts[0]

    y, _ = core.rnn(x, part(slice(0, 2)))
    for k, rnn in enumerate(core.added, start=2):
        y = y + rnn(y, part(slice(k, k + 1)))[0]
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
        assert (s[2:] == 0).all()
    state = core.initial_state(5)
    stepped = []
    for t in range(50):
        output, state = core.step(x[t], state)
        stepped.append(output)
    torch.testing.assert_close(torch.stack(stepped), y)
    assert all((s[2:] == 0).all() for s in state)
    for p, theirs in zip(core.rnn.parameters(), plain.rnn.parameters(), strict=True):
        assert torch.equal(p, theirs)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_reach_the_candidates_of_fresh_residual_layers(cell: Cell) -> None:
    core = make_core(cell, 1, 2)
    core.start_as_identity()
    gates = 4 if cell == "lstm" else 3
    for rnn in core.added:
        for name, p in rnn.named_parameters():
            assert (p.chunk(gates)[2] == 0).all()
            assert all((gate != 0).all() for i, gate in enumerate(p.chunk(gates)) if i != 2), name
    output, _ = core(torch.randn(6, 5, 3), core.initial_state(5))
    (output * torch.randn_like(output)).sum().backward()
    for rnn in core.added:
        for name in ("weight_ih_l0", "bias_ih_l0", "bias_hh_l0"):
            grad = rnn.get_parameter(name).grad
            assert grad is not None
            assert (grad.chunk(gates)[2] != 0).all(), name


@pytest.mark.parametrize("cell", CELLS)
def test_forget_bias_of_residual_layers(cell: Cell) -> None:
    core = make_core(cell, 1, 1)
    core.set_forget_bias(1.5)
    *_, b_ih, b_hh = core.stacks[1].all_weights[0]
    total = (b_ih + b_hh).chunk(4 if cell == "lstm" else 3)
    assert (total[1] == 1.5).all()
    assert (total[0] != 1.5).all()


def same_with_gradients(
    core: RecurrentCore,
    inputs: list[Tensor],
    ours: tuple[Tensor, list[Tensor]],
    reference: tuple[Tensor, list[Tensor]],
) -> None:
    """Outputs, final states, and gradients of a random functional of both."""
    results = []
    for output, final in (ours, reference):
        torch.manual_seed(5)
        score = (output * torch.randn_like(output)).sum()
        for s in final:
            score = score + (s * torch.randn_like(s)).sum()
        wanted = [*core.parameters(), *inputs]
        grads = torch.autograd.grad(score, wanted, allow_unused=True, retain_graph=True)
        grads = [
            torch.zeros_like(p) if g is None else g for p, g in zip(wanted, grads, strict=True)
        ]
        results.append([output, *final, *grads])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@settings(max_examples=60)
@given(flags(), CORES, st.integers(0, 100))
@double()
def test_unroll_equals_a_plain_step_loop(f: Flags, kind: Kind, seed: int) -> None:
    """Outputs, final state and all gradients, for any resets and any absences."""
    core = make_core(*kind, seed=seed)
    steps, rows = f.shape
    x = torch.randn(steps, rows, 3, requires_grad=True)
    state = random_states(core, rows)
    y, final, _ = step_loop(core, x, state, f.start, f.exists)
    ours, after = core.unroll(x, state, f.start, f.exists)
    same_with_gradients(core, [x, *state], (ours, list(after)), (y, final))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("cell", CELLS)
def test_unroll_on_long_rollouts_and_other_devices(cell: Cell, device: str) -> None:
    f = make_flags(50, 6, reset=0.1, absent=0.1)
    core = make_core(cell, 2, 1)
    x, state = torch.randn(50, 6, 3), [s.detach() for s in random_states(core, 6)]
    y, final, _ = step_loop(core, x, state, f.start, f.exists)
    core.to(device)
    ours, after = core.unroll(
        x.to(device), [s.to(device) for s in state], f.start.to(device), f.exists.to(device)
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
    ours, after = core.unroll(x, state, f.start)
    torch.testing.assert_close(ours, y)
    torch.testing.assert_close(after[0], final[0])


@double()
def test_unroll_of_rows_that_never_exist_leaves_the_state_or_resets_it() -> None:
    core = make_core("lstm", 2, 1)
    x, state = torch.full((4, 2, 3), torch.nan), random_states(core, 2)
    start, absent = torch.zeros(4, 2, dtype=torch.bool), torch.zeros(4, 2, dtype=torch.bool)
    start[2, 1] = True
    output, final = core.unroll(x, state, start, absent)
    assert (output == 0).all()
    for before, after in zip(state, final, strict=True):
        assert torch.equal(after[:, 0], before[:, 0])
        assert (after[:, 1] == 0).all()


@settings(max_examples=30)
@given(flags(), CORES)
@double()
def test_garbage_in_absent_steps_changes_no_bit_of_an_unroll(f: Flags, kind: Kind) -> None:
    core = make_core(*kind)
    steps, rows = f.shape
    x, state = torch.randn(steps, rows, 3), random_states(core, rows)
    results = []
    for absent in (0.0, torch.nan):
        inputs = torch.where(f.exists[..., None], x, absent).requires_grad_()
        output, final = core.unroll(inputs, state, f.start, f.exists)
        score = output.square().sum() + sum(s.square().sum() for s in final)
        wanted = [inputs, *core.parameters()]
        grads = torch.autograd.grad(score, wanted, allow_unused=True)
        results.append([output, *final, *(g for g in grads if g is not None)])
    for clean, spoiled in zip(*results, strict=True):
        assert torch.equal(clean, spoiled)


@settings(max_examples=30)
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
        index, chosen = cuts.index(torch.arange(len(cuts)))
        stored = [torch.stack(s)[::max_seq_len] for s in zip(*before, strict=True)]
        begin = [
            s[cuts.chunk, :, cuts.row].transpose(0, 1).masked_fill(cuts.fresh[:, None], 0)
            for s in stored
        ]
        output, _ = core(x.flatten(0, 1)[index], begin)
    place, output = index.flatten(), output.flatten(0, 1)
    if chosen is not None:
        place, output = place[chosen], output[chosen]
    torch.testing.assert_close(output, y.flatten(0, 1)[place], rtol=1e-9, atol=1e-11)
    assert sorted(place.tolist()) == f.active.flatten().nonzero().squeeze(1).tolist()


@settings(max_examples=40)
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
    y, final, _ = step_loop(core, safe, state, never, inside)
    ours, after = core.run(garbage, length, state)
    if any(lengths):
        same_with_gradients(core, state, (ours, list(after)), (y, final))
        (theirs,) = torch.autograd.grad(y.square().sum(), safe, retain_graph=True)
        (grad,) = torch.autograd.grad(ours.square().sum(), garbage, retain_graph=True)
        torch.testing.assert_close(grad, theirs, rtol=1e-9, atol=1e-11)
    else:
        assert (ours == 0).all()
        assert all(torch.equal(a, s) for a, s in zip(after, state, strict=True))


# --- sequences --------------------------------------------------------------------------------


def steps_of(cuts: Sequences, s: int) -> list[int]:
    """The flat steps (t * N + n) that sequence s runs through."""
    first = int(cuts.first[s])
    steps: list[int] = cuts.order[first : first + int(cuts.length[s])].tolist()
    return steps


@given(cuttings())
def test_sequences_by_the_rules(case: tuple[Flags, int, int]) -> None:
    """The rules of design.md, semantics 3, one by one, without a reference implementation."""
    f, max_seq_len, _ = case
    rows = f.shape[1]
    cuts = cut_sequences(f.start, f.exists, f.active, max_seq_len)
    seen: list[int] = []
    for s in range(len(cuts)):
        place = steps_of(cuts, s)
        time, row = [i // rows for i in place], [i % rows for i in place]
        assert set(row) == {int(cuts.row[s])}, "a sequence mixes rows"
        assert time == sorted(set(time)), "a sequence interleaves time"
        assert 1 <= len(time) <= max_seq_len
        assert len({t // max_seq_len for t in time}) == 1, "a sequence crosses a multiple of L"
        assert time[0] // max_seq_len == int(cuts.chunk[s])
        n = row[0]
        assert not f.start[time[0] + 1 : time[-1] + 1, n].any(), "a sequence spans two episodes"
        assert all(f.exists[t, n] for t in time)
        trained = [i for i, t in zip(place, time, strict=True) if f.active[t, n]]
        assert len(trained) == int(cuts.active[s]) >= 1
        assert place[-1] == trained[-1], "a sequence runs on behind its last active step"
        seen += trained
    everything = f.active.flatten().nonzero().squeeze(1).tolist()
    assert sorted(seen) == everything, "an active step is lost, or trained on twice"


@given(cuttings())
def test_sequences_equal_those_cut_by_hand(case: tuple[Flags, int, int]) -> None:
    """Steps, state to begin from, and burn-in, for any L and any burn-in below it."""
    f, max_seq_len, burn_in = case
    rows = f.shape[1]
    cuts = cut_sequences(f.start, f.exists, f.active, max_seq_len, burn_in)
    pieces = cut_by_hand(f, max_seq_len, burn_in)
    assert len(cuts) == len(pieces)
    for s, piece in enumerate(pieces):
        assert steps_of(cuts, s) == [t * rows + piece.row for t in piece.steps]
        assert int(cuts.active[s]) == len(piece.active)
        assert int(cuts.row[s]) == piece.row
        assert int(cuts.chunk[s]) == piece.begin // max_seq_len
        assert bool(cuts.fresh[s]) == piece.fresh
        first, length = int(cuts.first[s]), int(cuts.burn_in[s])
        prefix = cuts.order[first - length : first].tolist()
        assert prefix == [t * rows + piece.row for t in piece.prefix]
        if not piece.fresh:
            assert bool(cuts.burn_in_fresh[s]) == piece.burn_in_fresh
    if cuts.active_mask is None:
        assert torch.equal(f.active, f.exists)


@given(cuttings(), st.data())
def test_index_pads_with_a_sequences_own_last_step(
    case: tuple[Flags, int, int], data: st.DataObject
) -> None:
    f, max_seq_len, _ = case
    rows = f.shape[1]
    cuts = cut_sequences(f.start, f.exists, f.active, max_seq_len)
    if len(cuts) == 0:
        return
    which = data.draw(some_of(len(cuts)))
    index, chosen = cuts.index(torch.tensor(which))
    longest = max(int(cuts.length[s]) for s in which)
    assert index.shape == (longest, len(which))
    expected = []
    for column, s in enumerate(which):
        own = steps_of(cuts, s)
        assert index[:, column].tolist() == own + [own[-1]] * (longest - len(own))
        expected += [
            position * len(which) + column
            for position, i in enumerate(own)
            if f.active[i // rows, i % rows]
        ]
    if chosen is None:
        assert sorted(expected) == list(range(index.numel()))
    else:
        assert chosen.tolist() == sorted(expected)


def test_sequences_of_a_small_rollout_by_hand() -> None:
    # T = 5, L = 3. Row 0: an episode starts at 2, so it is cut at 0, 2, 3. Row 1 never starts and
    # is absent at 1; its step 4 is seen but not acted on, which leaves step 3 alone.
    start = torch.tensor([[0, 0], [0, 0], [1, 0], [0, 0], [0, 0]]).bool()
    exists = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1], [1, 1]]).bool()
    active = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1], [1, 0]]).bool()
    cuts = cut_sequences(start, exists, active, 3)
    flat = [steps_of(cuts, s) for s in range(len(cuts))]
    assert flat == [[0, 2], [4], [6, 8], [1, 5], [7]]  # t * 2 + n
    assert cuts.fresh.tolist() == [False, True, False, False, False]
    assert cuts.chunk.tolist() == [0, 0, 1, 0, 1]
    assert cuts.row.tolist() == [0, 0, 0, 1, 1]


def test_no_step_is_lost_from_episodes_of_31_steps_cut_at_16() -> None:
    # A known failure elsewhere: dropping the tail of each episode loses 15 of 31 steps here.
    start = (torch.arange(310) % 31 == 0)[:, None]
    always = torch.ones(310, 1, dtype=torch.bool)
    cuts = cut_sequences(start, always, always, 16)
    assert int(cuts.length.sum()) == 310


@pytest.mark.parametrize("max_seq_len", [1, 3, 100])
def test_a_rollout_without_active_steps_has_no_sequences(max_seq_len: int) -> None:
    f = make_flags(7, 3)
    never = torch.zeros(7, 3, dtype=torch.bool)
    assert len(cut_sequences(f.start, f.exists, never, max_seq_len)) == 0
    assert len(cut_sequences(f.start, never, never, max_seq_len)) == 0


def test_sequences_of_length_one_are_the_steps_themselves() -> None:
    f = make_flags(7, 3, absent=0.2, idle=0.2)
    cuts = cut_sequences(f.start, f.exists, f.active, 1)
    assert (cuts.length == 1).all()
    assert cuts.chunk.tolist() == [steps_of(cuts, s)[0] // 3 for s in range(len(cuts))]


def test_sequences_longer_than_the_rollout_are_cut_at_starts_only() -> None:
    f = make_flags(7, 3, reset=0.0)
    cuts = cut_sequences(f.start, f.exists, f.active, 100)
    assert cuts.length.tolist() == [7, 7, 7]
    assert cuts.chunk.tolist() == [0, 0, 0]


@given(st.integers(1, 50), st.integers(1, 60), st.data())
def test_state_times_are_the_multiples_of_l_less_the_burn_in(
    steps: int, max_seq_len: int, data: st.DataObject
) -> None:
    burn_in = data.draw(st.integers(0, max_seq_len - 1))
    times = state_times(steps, max_seq_len, burn_in)
    assert len(times) == -(-steps // max_seq_len)  # ceil(T / L)
    assert times[0] == 0
    for chunk, t in enumerate(times[1:], start=1):
        assert t == chunk * max_seq_len - burn_in
    assert times == sorted(set(times))
    assert all(0 <= t < steps for t in times)


def test_state_times_by_hand() -> None:
    assert state_times(10, 4) == [0, 4, 8]
    assert state_times(10, 4, burn_in=3) == [0, 1, 5]
    assert state_times(8, 4) == [0, 4]
    assert state_times(3, 100) == [0]
