"""minGRU: a GRU whose gates do not read its state, so that it trains by a scan.

Letters: N rows, S sequences, L longest sequence, K layers, H units, D features.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recurrent_rl.recurrent.gated import GatedCell
from recurrent_rl.recurrent.scan import backward_flow, forward_states


class MinGRU(GatedCell):
    """Minimal gated recurrent units; its state is h.

        z_t = sigmoid(W_z x_t + b_z)
        h_t = z_t h_{t-1} + (1 - z_t) (W_h x_t + b_h)

    Source: Feng et al. 2024, "Were RNNs All We Needed?", sec. 3.1, whose z is 1 - z here: as in
    ``torch.nn.GRU`` the gate says what is kept. Of the two forms there, this is the plain one. The
    other, in the space of logarithms, is for scans that divide by products of decays, which this
    package's does not (see ``scan``), and needs candidates that are greater than zero, while
    a layer that is to add nothing at first needs zeros.

    Attributes:
        all_weights: of each layer the weights [2 H, D], of the gate after those of the candidate,
            and the biases, [2 H].

    """

    states = 1
    gates = 2
    matrices = 1
    candidate = 0
    keeping = 1

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1) -> None:
        """Args: D, H, K. Weights are uniform in +- 1 / sqrt(H), as those of ``torch.nn.GRU``."""
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        for k in range(num_layers):
            rows, bound = self.gates * hidden_size, hidden_size**-0.5
            for name, shape in (
                ("weight_ih", (rows, hidden_size if k else input_size)),
                ("bias_ih", (rows,)),
            ):
                values = torch.empty(shape).uniform_(-bound, bound)
                self.register_parameter(f"{name}_l{k}", nn.Parameter(values))

    @property
    def all_weights(self) -> list[list[nn.Parameter]]:  # type: ignore[override]
        return [
            [getattr(self, f"{name}_l{k}") for name in ("weight_ih", "bias_ih")]
            for k in range(self.num_layers)
        ]

    def step(
        self, x: Tensor, state: Sequence[Tensor], first: int = 0
    ) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        layers: list[tuple[Tensor, ...]] = []
        for k, weights in enumerate(self.all_weights, first):
            candidate, gate = F.linear(x, *weights).chunk(2, -1)
            x = torch.lerp(candidate, state[0][k], gate.sigmoid())
            layers.append((x,))
        return x, layers

    def forward(self, x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        after = []
        for k, weights in enumerate(self.all_weights):
            x = _Scan.apply(F.linear(x, *weights), state[0][k])  # type: ignore[no-untyped-call]
            after.append(x[-1])
        return x, (torch.stack(after),)


class _Scan(torch.autograd.Function):
    """Candidates and gates [L, S, 2 H], and the first state [S, H], to all states [L, S, H].

    Written out, it goes over the numbers half as often as automatic differentiation would.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, first: Tensor) -> Tensor:
        candidate, gate = gates.chunk(2, -1)
        keep = gate.sigmoid()
        states = forward_states(keep, torch.addcmul(candidate, keep, candidate, value=-1), first)
        ctx.save_for_backward(candidate, keep, states)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        candidate, keep, states = ctx.saved_tensors
        flow = backward_flow(keep, grad)
        of_gates = flow.new_empty(*flow.shape[:-1], 2 * flow.shape[-1])
        of_candidate, of_gate = of_gates.chunk(2, -1)
        torch.addcmul(flow, keep, flow, value=-1, out=of_candidate)
        torch.mul((states[:-1] - candidate).mul_(keep), of_candidate, out=of_gate)
        return of_gates, keep[0] * flow[0] if ctx.needs_input_grad[1] else None
