"""Cells with gates: LSTM and GRU, with PyTorch's weights, and what all gated cells share.

Letters: N rows, S sequences, L longest sequence, K layers, H units, D features, G gates. Time comes
first.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from recurrent_rl.compiled.kernels import Kernels, kernels
from recurrent_rl.recurrent.cell import Cell, Match
from recurrent_rl.recurrent.growth import gate_origins, matrix_origins, need_of_inputs
from recurrent_rl.recurrent.gru_layer import gru_layer
from recurrent_rl.recurrent.lstm_layer import lstm_layer


class GatedCell(Cell):
    """Stacked gates, in the order of PyTorch's weights, of which two have a part to play.

    Attributes:
        gates: G.
        matrices: of a layer: those that read its inputs, and the units themselves if they do.
        candidate: which gate proposes what is to be remembered.
        keeping: which gate says how much of the memory is kept.

    """

    gates: ClassVar[int]
    matrices: ClassVar[int] = 2
    candidate: ClassVar[int] = 2  # PyTorch's order, of LSTM and GRU
    keeping: ClassVar[int] = 1
    all_weights: list[list[nn.Parameter]]

    @torch.no_grad()
    def orthogonal_init(self) -> None:
        """Draw orthogonal weights, gate by gate; biases become zero.

        Source: Saxe et al. 2014, "Exact solutions to the nonlinear dynamics of learning in deep
        linear neural networks".
        """
        for name, parameter in self.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
                continue
            for gate in parameter.data.split(self.hidden_size):
                nn.init.orthogonal_(gate, 1.0)

    @torch.no_grad()
    def set_forget_bias(self, value: float) -> None:
        """Set the bias of what keeps the memory: forget gates (LSTM) or update gates (the others).

        Sources: Jozefowicz et al. 2015, "An Empirical Exploration of Recurrent Network
        Architectures"; Tallec and Ollivier 2018, "Can Recurrent Neural Networks Warp Time?", which
        recommends the logarithm of the time to remember.
        """
        for weights in self.all_weights:
            # The biases add up.
            for i, bias in enumerate(weights[self.matrices :]):
                bias.chunk(self.gates)[self.keeping].fill_(0.0 if i else value)

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Give zeros: without its candidate a cell never leaves zero.

        All other weights may be what they like, and gradients reach the candidate at once.
        """
        for parameter in self.parameters():
            parameter.chunk(self.gates)[self.candidate].zero_()

    def _by_gate(self, weight: Tensor) -> Tensor:
        """[G * H, D] -> [G, H, D]."""
        return weight.detach().view(self.gates, -1, weight.shape[1])

    def written(self, layer: int) -> list[Tensor]:
        return [self._by_gate(w).norm(dim=(0, 2)) for w in self.all_weights[layer][: self.matrices]]

    def contribution(self, layer: int) -> Tensor:
        norm: Tensor = self._by_gate(self.all_weights[layer][0])[self.candidate].norm(dim=1)
        return norm

    def need_of_state(self, layer: int, need: Tensor) -> Tensor:
        if self.matrices == 1:  # no unit reads another
            return need
        # What other needed units read of a unit.
        read = need_of_inputs(self.all_weights[layer][1], need.repeat(self.gates))
        return torch.hypot(need, read)

    def need_of_inputs(self, layer: int, need: Tensor) -> Tensor:
        return need_of_inputs(self.all_weights[layer][0], need.repeat(self.gates))

    def match(self, layer: int, new: Cell, units: Tensor, inputs: Tensor) -> Iterator[Match]:
        old_weights, new_weights = self.all_weights[layer], cast(GatedCell, new).all_weights[layer]
        rows = gate_origins(units, self.gates, self.hidden_size)
        for i, (old, fresh) in enumerate(zip(old_weights, new_weights, strict=True)):
            if i < self.matrices:
                yield fresh, old, matrix_origins(rows, units if i else inputs, old.shape[1])
            else:
                yield fresh, old, rows


class LSTM(GatedCell, nn.LSTM):
    """Long short-term memory; its state is h and c.

    Source: Hochreiter and Schmidhuber 1997, "Long Short-Term Memory" (with forget gates, as in Gers
    et al. 2000). Weights are those of ``torch.nn.LSTM``.
    """

    states = 2
    gates = 4

    def step(
        self, x: Tensor, state: Sequence[Tensor], first: int = 0
    ) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        layers: list[tuple[Tensor, ...]] = []
        # As `all_weights`, without looking each of them up by its name.
        every = cast(list[Tensor], self._flat_weights)
        for k in range(self.num_layers):
            weights = every[4 * k : 4 * k + 4]
            layers.append(torch.lstm_cell(x, [s[first + k] for s in state], *weights))
            x = layers[-1][0]
        return x, layers

    def forward(  # type: ignore[override]  # one form of state for all cells
        self, x: Tensor, state: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        weights = cast(list[Tensor], self._flat_weights)
        if self.compiled and (found := _kernels_for(x, state)) is not None:
            h, c = [], []
            for k in range(self.num_layers):
                before = (state[0][k], state[1][k])
                x, last = lstm_layer(found, x, before, weights[4 * k : 4 * k + 4])
                h.append(x[-1])
                c.append(last)
            return x, (torch.stack(h), torch.stack(c))
        # What nn.LSTM.forward comes down to, without its checks of shapes.
        options = (True, self.num_layers, 0.0, self.training, False, False)
        output, *after = torch.lstm(x, (state[0], state[1]), weights, *options)
        return output, tuple(after)


class GRU(GatedCell, nn.GRU):
    """Gated recurrent units; its state is h.

    Source: Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder". Weights
    are those of ``torch.nn.GRU``.
    """

    states = 1
    gates = 3

    def step(
        self, x: Tensor, state: Sequence[Tensor], first: int = 0
    ) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        layers: list[tuple[Tensor, ...]] = []
        for k, weights in enumerate(self.all_weights, first):
            x = torch.gru_cell(x, state[0][k], *weights)
            layers.append((x,))
        return x, layers

    def forward(  # type: ignore[override]  # one form of state for all cells
        self, x: Tensor, state: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        if not _steps_pay(x):
            output, h = nn.GRU.forward(self, x, state[0])
            return output, (h,)
        after = []
        for k, weights in enumerate(self.all_weights):
            x = gru_layer(x, state[0][k], *weights)
            after.append(x[-1])
        return x, (torch.stack(after),)


def _kernels_for(x: Tensor, state: Sequence[Tensor]) -> Kernels | None:
    """Return the kernels where they can run in place of PyTorch's operations, while learning."""
    known = x.dtype == torch.float32 and all(part.dtype == x.dtype for part in state)
    return kernels() if known and torch.is_grad_enabled() and _steps_pay(x) else None


def _steps_pay(x: Tensor) -> bool:
    """Whether this package's way is faster than PyTorch's: on a CPU, unless that is compiled.

    Nor is it for who writes down what PyTorch does.
    """
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    plain = not (tracing or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"))
    return x.device.type == "cpu" and plain
