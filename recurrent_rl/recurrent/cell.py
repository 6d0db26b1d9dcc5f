"""What a recurrent cell is: its step, its whole-sequence pass, its start and its growth.

Letters: N rows, S sequences, L longest sequence, K layers, H units, D features. Time comes first.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import Tensor, nn

# A new parameter, the old one that it takes over from, and the origins.
Match = tuple[Tensor, Tensor, Tensor]


class Cell(nn.Module, ABC):
    """K layers of one kind of recurrence, each on top of the last.

    Attributes:
        states: tensors that its memory consists of.
        input_size: D.
        hidden_size: H.
        num_layers: K.
        compiled: run whole sequences by compiled kernels where this kind of cell has any.

    """

    states: ClassVar[int]
    compiled: bool = False
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
