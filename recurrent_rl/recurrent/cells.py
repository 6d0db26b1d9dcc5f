"""Recurrent cells: one class for each kind, which knows its gates, its start and its growth.

Nothing outside this module asks which cell it is. A new kind is a subclass of ``Cell`` and an entry
in ``CELLS``.

Letters: N rows, S sequences, L longest sequence, K layers, H units, D features, G gates. Time comes
first.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from recurrent_rl.recurrent.growth import gate_origins, matrix_origins, need_of_inputs

# A new parameter, the old one that it takes over from, and the origins.
Match = tuple[Tensor, Tensor, Tensor]


class Cell(nn.Module, ABC):
    """K layers of one kind of recurrence, each on top of the last.

    Attributes:
        states: tensors that its memory consists of.
        input_size: D.
        hidden_size: H.
        num_layers: K.

    """

    states: ClassVar[int]
    input_size: int
    hidden_size: int
    num_layers: int

    @abstractmethod
    def step(
        self, x: Tensor, state: Sequence[Tensor], first: int = 0
    ) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """Take one step.

        Args:
            x: [N, D].
            state: [K', N, H] each, in which this cell's layers begin at ``first``.
            first: index.

        Returns:
            output: [N, H].
            state: after the step, [N, H] each, by layer.

        """

    @abstractmethod
    def forward(self, x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run over whole sequences without resets.

        Args:
            x: [L, S, D].
            state: before the first step, [K, S, H] each.

        Returns:
            output: [L, S, H].
            state: after the last step.

        """

    @abstractmethod
    def orthogonal_init(self) -> None:
        """Draw orthogonal weights, gate by gate; biases become zero."""

    @abstractmethod
    def set_forget_bias(self, value: float) -> None:
        """Set the bias of what keeps the memory, so that it fades by sigmoid(value) a step."""

    @abstractmethod
    def start_as_identity(self) -> None:
        """Give zeros, so that a layer that adds its output to its input adds nothing."""

    # --- growth, see ``recurrent.growth`` -----------------------------------------------------

    @abstractmethod
    def written(self, layer: int) -> list[Tensor]:
        """Return how much is written into each unit of a layer, [H], by each of its weights."""

    @abstractmethod
    def contribution(self, layer: int) -> Tensor:
        """Return how much each unit of a layer may differ from zero, [H]."""

    @abstractmethod
    def need_of_state(self, layer: int, need: Tensor) -> Tensor:
        """Return the need of a layer's state, [H], from that of its units: one step back."""

    @abstractmethod
    def need_of_inputs(self, layer: int, need: Tensor) -> Tensor:
        """Return the need of a layer's inputs, [D], from that of its units, [H]."""

    @abstractmethod
    def match(self, layer: int, new: "Cell", units: Tensor, inputs: Tensor) -> Iterator[Match]:
        """Yield what each parameter of a new layer takes over from one of this cell's.

        Args:
            layer: index, in this cell and in the new one.
            new: of the same kind.
            units: origins of its units, [H].
            inputs: origins of its inputs, [D].

        """


class _GatedCell(Cell):
    """What LSTM and GRU share: PyTorch's stacked gates, of which two have a part to play.

    Attributes:
        gates: G.
        candidate: which gate proposes what is to be remembered.
        keeping: which gate says how much of the memory is kept.

    """

    gates: ClassVar[int]
    candidate: ClassVar[int] = 2  # PyTorch's order, of both kinds
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
        """Set the bias of what keeps the memory: forget gates (LSTM) or update gates (GRU).

        Sources: Jozefowicz et al. 2015, "An Empirical Exploration of Recurrent Network
        Architectures"; Tallec and Ollivier 2018, "Can Recurrent Neural Networks Warp Time?", which
        recommends the logarithm of the time to remember.
        """
        for _, _, *biases in self.all_weights:
            # The two biases add up.
            for bias, part in zip(biases, (value, 0.0), strict=True):
                bias.chunk(self.gates)[self.keeping].fill_(part)

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
        return [self._by_gate(w).norm(dim=(0, 2)) for w in self.all_weights[layer][:2]]

    def contribution(self, layer: int) -> Tensor:
        norm: Tensor = self._by_gate(self.all_weights[layer][0])[self.candidate].norm(dim=1)
        return norm

    def need_of_state(self, layer: int, need: Tensor) -> Tensor:
        # What other needed units read of a unit.
        read = need_of_inputs(self.all_weights[layer][1], need.repeat(self.gates))
        return torch.hypot(need, read)

    def need_of_inputs(self, layer: int, need: Tensor) -> Tensor:
        return need_of_inputs(self.all_weights[layer][0], need.repeat(self.gates))

    def match(self, layer: int, new: Cell, units: Tensor, inputs: Tensor) -> Iterator[Match]:
        old_weights, new_weights = self.all_weights[layer], cast(_GatedCell, new).all_weights[layer]
        rows = gate_origins(units, self.gates, self.hidden_size)
        for old, fresh, columns in zip(
            old_weights[:2], new_weights[:2], (inputs, units), strict=True
        ):
            yield fresh, old, matrix_origins(rows, columns, old.shape[1])
        for old, fresh in zip(old_weights[2:], new_weights[2:], strict=True):
            yield fresh, old, rows


class LSTM(_GatedCell, nn.LSTM):
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
        for k, weights in enumerate(self.all_weights, first):
            layers.append(torch.lstm_cell(x, [s[k] for s in state], *weights))
            x = layers[-1][0]
        return x, layers

    def forward(  # type: ignore[override]  # one form of state for all cells
        self, x: Tensor, state: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        result = nn.LSTM.forward(self, x, (state[0], state[1]))
        return cast(tuple[Tensor, tuple[Tensor, ...]], result)


class GRU(_GatedCell, nn.GRU):
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
        output, h = nn.GRU.forward(self, x, state[0])
        return output, (h,)


CELLS: dict[str, type[_GatedCell]] = {"lstm": LSTM, "gru": GRU}
