"""Tests of `recurrent_rl.recurrent.cells`: equations, initial weights, and gates."""

import pytest
import torch
from support.helpers import double
from support.recurrence import CELLS, Cell, make_core, random_states


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
def test_gru_step_by_its_equations() -> None:
    """Cho et al. 2014 as PyTorch has it: the reset gate acts on what the state contributes."""
    core = make_core("gru", 1)
    x = torch.randn(2, 3)
    (h,) = (s[0] for s in random_states(core, 2))
    w_ih, w_hh, b_ih, b_hh = core.rnn.all_weights[0]
    (r_x, z_x, n_x), (r_h, z_h, n_h) = (
        (v @ w.T + b).chunk(3, 1) for v, w, b in ((x, w_ih, b_ih), (h, w_hh, b_hh))
    )
    update = (z_x + z_h).sigmoid()
    candidate = (n_x + (r_x + r_h).sigmoid() * n_h).tanh()
    y, (after,) = core.step(x, [h[None]])
    torch.testing.assert_close(y, (1 - update) * candidate + update * h)
    assert torch.equal(after[0], y)


@pytest.mark.parametrize("cell", CELLS)
def test_forget_bias_of_residual_layers(cell: Cell) -> None:
    core = make_core(cell, 1, 1)
    core.set_forget_bias(1.5)
    *_, b_ih, b_hh = core.cells[1].all_weights[0]
    total = (b_ih + b_hh).chunk(4 if cell == "lstm" else 3)
    assert (total[1] == 1.5).all()
    assert (total[0] != 1.5).all()


@pytest.mark.parametrize("cell", CELLS)
def test_orthogonal_weights_gate_by_gate(cell: Cell) -> None:
    core = make_core(cell, 2, 1)
    core.orthogonal_init()
    for name, p in core.named_parameters():
        if "bias" in name:
            assert (p == 0).all()
            continue
        for gate in p.split(4):  # [H, D]: as many orthonormal rows or columns as there can be
            size = min(gate.shape)
            product = gate @ gate.T if len(gate) == size else gate.T @ gate
            torch.testing.assert_close(product, torch.eye(size), rtol=0, atol=1e-5)
