"""Tests of `recurrent_rl.recurrent.cells`: equations, initial weights, and gates."""

from typing import Any

import pytest
import torch
from support.helpers import double
from support.recurrence import CELLS, Cell, make_core, random_states

from recurrent_rl.recurrent.lru import LEAST_KEPT, LRU, MOST_KEPT, MOST_TURNED


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


@double()
def test_mingru_step_by_its_equations() -> None:
    """Feng et al. 2024, sec. 3.1, with the gate the other way round."""
    core = make_core("mingru", 1)
    x, (h,) = torch.randn(2, 3), (s[0] for s in random_states(core, 2))
    (w_h, w_z), (b_h, b_z) = (p.chunk(2) for p in core.rnn.all_weights[0])
    z = 1 - (x @ w_z.T + b_z).sigmoid()
    y, (after,) = core.step(x, [h[None]])
    torch.testing.assert_close(y, (1 - z) * h + z * (x @ w_h.T + b_h))
    assert torch.equal(after[0], y)


@double()
def test_lru_step_by_its_equations() -> None:
    """Orvieto et al. 2023, eq. 5 to 7, in complex numbers."""
    core = make_core("lru", 1)
    rnn: Any = core.rnn
    x, (re, im) = torch.randn(2, 3), (s[0] for s in random_states(core, 2))
    nu, theta, gamma_log, b, c, d, bias = rnn.layer(0)
    b = torch.complex(b[0::2], b[1::2])
    decay = torch.exp(torch.complex(-nu.exp(), theta.exp()))
    state = decay * torch.complex(re, im) + gamma_log.exp() * (x.to(b.dtype) @ b.T)
    output = state.real @ c[:, 0::2].T + state.imag @ c[:, 1::2].T + x @ d.T + bias
    y, (re, im) = core.step(x, [re[None], im[None]])
    torch.testing.assert_close(torch.complex(re[0], im[0]), state)
    torch.testing.assert_close(y, output * output.sigmoid())


@pytest.mark.parametrize("cell", ["lstm", "gru", "mingru"])
def test_forget_bias_of_residual_layers(cell: Cell) -> None:
    core = make_core(cell, 1, 1)
    core.set_forget_bias(1.5)
    biases = [p for p in core.cells[1].all_weights[0] if p.ndim == 1]
    total = torch.stack(biases).sum(0).chunk({"lstm": 4, "gru": 3, "mingru": 2}[cell])
    assert (total[1] == 1.5).all()
    assert (total[0] != 1.5).all()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("value", [-3.0, 0.5, 10.0])
@double()
def test_a_memory_fades_by_the_forget_bias(cell: Cell, value: float) -> None:
    """Of what a state was, so much is left after three steps in which nothing is written."""
    core = make_core(cell, 1)
    core.set_forget_bias(value)
    for name, p in core.named_parameters():
        if "weight" in name:
            p.data.zero_()
    state = [s.detach() for s in random_states(core, 5)]
    before = torch.stack(state)[-1 if cell == "lstm" else slice(None)]
    for _ in range(3):
        core.rnn.start_as_identity()  # no candidates
        _, state = core.step(torch.zeros(5, 3), state)
    after = torch.stack(list(state))[-1 if cell == "lstm" else slice(None)]
    if cell == "lru":  # whose states turn
        before, after = before.norm(dim=0), after.norm(dim=0)
    torch.testing.assert_close(after, before * torch.tensor(value).sigmoid() ** 3)


@pytest.mark.parametrize("cell", CELLS)
def test_orthogonal_weights_gate_by_gate(cell: Cell) -> None:
    core = make_core(cell, 2, 1)
    core.orthogonal_init()
    for name, p in core.named_parameters():
        if "weight" not in name:
            assert "_log" in name or (p == 0).all()
            continue
        gates = p.split(4)
        if cell == "lru" and "weight_ih" in name:
            gates = [part * 2**0.5 for part in (p[::2], p[1::2])]
        for gate in gates:  # [H, D]: as many orthonormal rows or columns as there can be
            size = min(gate.shape)
            product = gate @ gate.T if len(gate) == size else gate.T @ gate
            torch.testing.assert_close(product, torch.eye(size), rtol=0, atol=1e-5)


@pytest.mark.parametrize("orthogonal", [True, False])
def test_units_of_an_lru_differ_in_what_they_keep(orthogonal: bool) -> None:
    """Uniform on a ring, as lemma 3.2 has it, and normalised."""
    torch.manual_seed(0)
    cell = LRU(3, 600, 2)
    if orthogonal:
        cell.orthogonal_init()
    for k in range(2):
        nu, theta, gamma_log = (p.detach().double() for p in cell.layer(k)[:3])
        kept, low, high = torch.exp(-nu.exp()) ** 2, LEAST_KEPT**2, MOST_KEPT**2
        assert 0 < theta.exp().min() < 0.01 < 0.29 < theta.exp().max() <= MOST_TURNED + 1e-6
        torch.testing.assert_close(gamma_log.exp() ** 2, 1 - kept, rtol=1e-3, atol=0)
        assert low - 1e-6 <= kept.min() < low + 0.02
        assert high - 0.02 < kept.max() <= high + 1e-6
        assert kept.mean().item() == pytest.approx((low + high) / 2, abs=0.05)


def test_an_lru_changes_at_once_when_it_starts_as_the_identity() -> None:
    core = make_core("lru", 1, 1)
    core.start_as_identity()
    output, _ = core(torch.randn(6, 5, 3), core.initial_state(5))
    (output * torch.randn_like(output)).sum().backward()
    for p in core.cells[1].layer(0)[4:]:
        assert (p == 0).all()
        assert (p.grad != 0).all()
