"""Recurrent layers on top of each other: one step, or whole sequences.

Letters: N rows, S sequences, L longest sequence, K layers, H units, D features. Time comes first.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recurrent_rl.recurrent.cell import Cell, Match
from recurrent_rl.recurrent.cells import CELLS, CellKind
from recurrent_rl.recurrent.growth import FRESH, largest, most_useful
from recurrent_rl.recurrent.sequences import run_by_length

# Of each recurrent layer the old one (None: it is new) and its units' origins, [H].
LayerOrigins = list[tuple[int | None, Tensor]]


class RecurrentCore(nn.Module):
    """K layers of one kind of cell: one step, or a whole sequence, with explicit state.

    The topmost may be residual: each of those adds to what it reads (Wu et al. 2016, "Google's
    Neural Machine Translation System", sec. 3.1).

    Attributes:
        rnn: the layers that stand on each other.
        added: the residual ones on top, of one layer each.
        shapes: (K, H) of each state tensor, see the cells; K counts both kinds of layers.

    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        layers: int = 1,
        cell: CellKind = "lstm",
        residual: int = 0,
        *,
        compiled: bool = False,
    ) -> None:
        """Build untrained layers.

        Args:
            inputs: D.
            hidden: H.
            layers: plain ones.
            cell: of ``CELLS``.
            residual: layers.
            compiled: see ``Cell``.

        """
        super().__init__()
        kind: Any = CELLS[cell]
        self.rnn: Cell = kind(inputs, hidden, layers)
        self._residual: tuple[Cell, ...] = tuple(kind(hidden, hidden) for _ in range(residual))
        self.added = nn.ModuleList(self._residual)
        self.shapes = [(layers + residual, hidden)] * self.rnn.states
        for each in self.cells:
            each.compiled = compiled

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The plain layers' cell, and those of the residual layers, from the bottom."""
        return (self.rnn, *self._residual)

    def orthogonal_init(self) -> None:
        """Draw orthogonal weights, gate by gate; biases become zero."""
        for cell in self.cells:
            cell.orthogonal_init()

    def start_as_identity(self) -> None:
        """Make the residual layers add nothing."""
        for cell in self._residual:
            cell.start_as_identity()

    def set_forget_bias(self, value: float) -> None:
        """Set the bias of what keeps the memory, so that it fades by sigmoid(value) a step."""
        for cell in self.cells:
            cell.set_forget_bias(value)

    def initial_state(self, rows: int) -> tuple[Tensor, ...]:
        """Zeros, [K, N, H] each."""
        like = next(self.rnn.parameters())
        return tuple(like.new_zeros(k, rows, h) for k, h in self.shapes)

    def step(self, x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step for acting; four times faster than a whole-sequence kernel of length one.

        Args:
            x: [N, D].
            state: [K, N, H] each.

        Returns:
            output: [N, H].
            state: after the step.

        """
        x, layers = self.rnn.step(x, state)
        for cell in self._residual:
            y, after = cell.step(x, state, len(layers))
            layers += after
            x = x + y
        if len(layers) == 1:
            return x, tuple(s.unsqueeze(0) for s in layers[0])
        return x, tuple(torch.stack(s) for s in zip(*layers, strict=True))

    def forward(self, x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Whole sequences without resets, in one kernel call (one more for each residual layer).

        Args:
            x: [L, S, D].
            state: before the first step, [K, S, H] each.

        Returns:
            output: [L, S, H].
            state: after the last step.

        """
        if not self._residual:
            return self.rnn.forward(x, state)
        plain = self.rnn.num_layers
        x, after = self.rnn.forward(x, [s[:plain] for s in state])
        states = [after]
        for k, cell in enumerate(self._residual, plain):
            y, after = cell.forward(x, [s[k : k + 1] for s in state])
            states.append(after)
            x = x + y
        return x, tuple(torch.cat(s) for s in zip(*states, strict=True))

    def run(self, x: Tensor, length: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the state after sequences of different lengths.

        Args:
            x: [L, S, D]; whatever stands behind a sequence's end is not read.
            length: [S], each in [0, L]; 0 leaves the state as it is.
            state: [K, S, H] each.

        """
        return run_by_length(
            lambda steps, which, before: self(x[:steps, which], before)[1], length, state
        )

    # --- growth, see ``recurrent.growth`` -----------------------------------------------------

    def needs(self, outputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the need of the inputs, [D], and of the units of each plain layer, [H] each.

        Args:
            outputs: need of what the core gives, [H].

        """
        need = outputs
        for cell in reversed(self._residual):
            # A unit without a candidate adds nothing, whatever its other gates read.
            need = torch.hypot(need, cell.need_of_inputs(0, need * cell.contribution(0)))
        found: list[Tensor] = []
        for k in reversed(range(self.rnn.num_layers)):
            need = self.rnn.need_of_state(k, need)
            found.insert(0, need)
            need = self.rnn.need_of_inputs(k, need)
        return need, found

    def match(
        self, new: "RecurrentCore", inputs: Tensor, needed: Sequence[Tensor], also: Sequence[Tensor]
    ) -> tuple[list[Match], LayerOrigins]:
        """Find what each parameter and each unit of a new core takes over from this one.

        Args:
            new: of as many plain layers, of the same kind.
            inputs: origins of its inputs, [D].
            needed: how much the units of each plain layer are, [H] each.
            also: norms of what else writes to the outputs, [H] each.

        Returns:
            matches: by parameter.
            layers: by recurrent layer; the units of the last plain layer are those of the outputs.

        """
        matches: list[Match] = []
        layers: LayerOrigins = []
        plain, units = self.rnn.num_layers, inputs
        for k in range(plain):
            written = self.rnn.written(k)
            if k == plain - 1:  # residual layers share the units of the layer that they stand on
                written += [norm for cell in self._residual for norm in cell.written(0)] + [*also]
            useful = torch.stack(written).norm(dim=0) * needed[k]
            inputs, units = units, most_useful(useful, new.rnn.hidden_size)
            matches += self.rnn.match(k, new.rnn, units, inputs)
            layers.append((k, units))
        kept = largest([float(c.contribution(0).norm()) for c in self._residual], len(new.added))
        for j, cell in enumerate(new._residual):
            if j < len(kept):
                matches += self._residual[kept[j]].match(0, cell, units, units)
                layers.append((plain + kept[j], units))
            else:
                layers.append((None, torch.full((cell.hidden_size,), FRESH)))
        return matches, layers
