"""Recurrent cores with random weights, and two ways to run them over rollouts with resets.

``step_loop`` is the plain reference. ``unroll`` does the same by what the package is made of:
sequences cut where episodes start, run by whole-sequence kernels.
"""

from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

from recurrent_rl.recurrent.cells import CELLS as KINDS
from recurrent_rl.recurrent.cells import CellKind
from recurrent_rl.recurrent.core import RecurrentCore
from recurrent_rl.recurrent.sequences import cut_sequences

Cell = CellKind
CELLS: list[Cell] = list(KINDS)
Kind = tuple[Cell, int, int]
CORES = st.tuples(st.sampled_from(CELLS), st.integers(1, 3), st.integers(0, 2))


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


def unroll(
    core: RecurrentCore,
    x: Tensor,
    state: Sequence[Tensor],
    start: Tensor,
    exists: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run over T steps of N rows, resetting where episodes start, freezing where they pause.

    Args:
        core: what to run.
        x: [T, N, D].
        state: before the first step, [K, N, H] each.
        start: bool [T, N].
        exists: bool [T, N]; None means all.

    Returns:
        output: [T, N, H]; zeros where not exists.
        state: after the last step, [K, N, H] each.

    """
    steps, rows = start.shape
    exists = torch.ones_like(start) if exists is None else exists
    cuts = cut_sequences(start.cpu(), exists.cpu(), exists.cpu(), steps)
    final = [s.masked_fill(start.any(0)[:, None], 0) for s in state]
    output = x.new_zeros(steps * rows, core.shapes[0][1])
    if len(cuts) == 0:
        return output.view(steps, rows, -1), tuple(final)
    index, active_index = cuts.index(torch.arange(len(cuts)))
    index, fresh, row = (i.to(x.device) for i in (index, cuts.fresh, cuts.row))
    inputs = x.flatten(0, 1)[index]
    begin = [s[:, row].masked_fill(fresh[:, None], 0) for s in state]
    y, _ = core(inputs, begin)
    after = core.run(inputs, cuts.length.to(x.device), begin)
    place, y = index.flatten(), y.flatten(0, 1)
    if active_index is not None:
        place, y = place[active_index.to(x.device)], y[active_index.to(x.device)]
    output = output.index_copy(0, place, y)
    # Cuts come row by row and in time: the last of a row holds its state at the end, unless the row
    # restarted after it without taking another step.
    last_start = torch.where(start, torch.arange(steps, device=x.device)[:, None], -1).amax(0)
    last = {int(n): s for s, n in enumerate(cuts.row)}
    for n, s in last.items():
        if index[-1, s] // rows >= last_start[n]:
            final = [
                f.index_copy(1, row[[s]], a[:, [s]]) for f, a in zip(final, after, strict=True)
            ]
    return output.view(steps, rows, -1), tuple(final)
