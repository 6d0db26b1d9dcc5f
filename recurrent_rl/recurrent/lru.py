"""LRU: a linear recurrence of complex units that turn and fade.

Letters: N rows, S sequences, L longest sequence, K layers, H units, D features.
"""

import math
from collections.abc import Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurrent_rl.recurrent.cell import Cell, Match
from recurrent_rl.recurrent.growth import matrix_origins, need_of_inputs, spread_origins
from recurrent_rl.recurrent.lru_layer import lru_layer

# Bounds of what units keep of their state at first, and of the angle that they turn it by [rad].
LEAST_KEPT, MOST_KEPT, MOST_TURNED = 0.4, 0.999, math.pi / 10

# Of a layer, in the order in which they are kept.
NAMES = (
    "fading_log",
    "turning_log",
    "gamma_log",
    "weight_ih",
    "weight_out",
    "weight_skip",
    "bias_out",
)


class LRU(Cell):
    """Linear recurrent units; its state is the real and the imaginary part of s.

        s_t = lambda * s_{t-1} + gamma * B x_t
        y_t = silu(C [Re s_t, Im s_t] + D x_t + b)
        lambda = exp(-exp(nu) + i exp(theta))

    with products by units, and gamma = sqrt(1 - |lambda|^2) at first. Behind its linear map to
    H real numbers the paper has a gated MLP. Here that is one cheap nonlinearity, without which
    stacked layers would be a single linear one; MLPs follow in the heads.

    Sources: Orvieto et al. 2023, "Resurrecting Recurrent Neural Networks for Long Sequences":
    stable exponential parametrisation (sec. 3.3), initial values on a ring (lemma 3.2), small
    initial angles and normalisation for long memories (sec. 3.4), gamma as a parameter
    (appendix A); Elfwing et al. 2018, "Sigmoid-Weighted Linear Units for Neural Network Function
    Approximation in Reinforcement Learning".

    Each layer k has, with names that end in ``_l{k}``:
        fading_log, turning_log, gamma_log: nu, theta and log gamma, [H].
        weight_ih: B, [2 H, D], of each unit the real and then the imaginary part.
        weight_out: C, [H, 2 H]; columns by unit, as B's rows.
        weight_skip: D, [H, D].
        bias_out: b, [H].

    """

    states = 2

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1) -> None:
        """Args: D, H, K."""
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        for k in range(num_layers):
            units, inputs = hidden_size, hidden_size if k else input_size
            kept = torch.rand(units) * (MOST_KEPT**2 - LEAST_KEPT**2) + LEAST_KEPT**2  # squared
            fading = -0.5 * kept.log()
            turning = MOST_TURNED * (1 - torch.rand(units))  # never 0
            values = (
                fading.log(),
                turning.log(),
                _gamma_log(fading),
                torch.randn(2 * units, inputs) * (2 * inputs) ** -0.5,
                torch.randn(units, 2 * units) * (2 * units) ** -0.5,
                torch.randn(units, inputs) * inputs**-0.5,
                torch.zeros(units),
            )
            for name, value in zip(NAMES, values, strict=True):
                self.register_parameter(f"{name}_l{k}", nn.Parameter(value))

    def layer(self, k: int) -> list[nn.Parameter]:
        """Return a layer's parameters, in the order of ``NAMES``."""
        return [getattr(self, f"{name}_l{k}") for name in NAMES]

    def step(
        self, x: Tensor, state: Sequence[Tensor], first: int = 0
    ) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        layers: list[tuple[Tensor, ...]] = []
        for k in range(self.num_layers):
            nu, theta, gamma, weight, out, skip, bias = self.layer(k)
            # In real numbers, which exported files have.
            kept, angle = nu.exp().neg().exp(), theta.exp()
            cos, sin = kept * angle.cos(), kept * angle.sin()
            read = F.linear(x, weight).unflatten(-1, (-1, 2)) * gamma.exp()[:, None]
            before, (re, im) = [s[first + k] for s in state], read.unbind(-1)
            re = re.addcmul(cos, before[0]).addcmul(sin, before[1], value=-1)
            im = im.addcmul(cos, before[1]).addcmul(sin, before[0])
            units = torch.stack((re, im), -1).flatten(1)  # [N, H, 2] -> [N, 2 H]
            x = F.silu(torch.addmm(F.linear(x, skip, bias), units, out.t()))
            layers.append((re, im))
        return x, layers

    def forward(self, x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        after = []
        for k in range(self.num_layers):
            x, last = lru_layer(x, (state[0][k], state[1][k]), self.layer(k))
            x = F.silu(x)
            after.append(last)
        re, im = torch.stack(after).unbind(-1)
        return x, (re, im)

    @torch.no_grad()
    def orthogonal_init(self) -> None:
        """Draw orthogonal B (its real and imaginary parts), C and D; biases become zero.

        What units keep of their state, and how far they turn it, stays as it was drawn.
        """
        for k in range(self.num_layers):
            *_, weight, out, skip, bias = self.layer(k)
            for part in (weight[::2], weight[1::2]):
                nn.init.orthogonal_(part, 0.5**0.5)
            nn.init.orthogonal_(out)
            nn.init.orthogonal_(skip)
            bias.zero_()

    @torch.no_grad()
    def set_forget_bias(self, value: float) -> None:
        """Let every unit keep sigmoid(value) of its state a step, and normalise for that."""
        for k in range(self.num_layers):
            nu, _, gamma, *_ = self.layer(k)
            fading = F.softplus(torch.full_like(nu, -value))  # -log(sigmoid(value))
            nu.copy_(fading.log())
            gamma.copy_(_gamma_log(fading))

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Give zeros: nothing is read of states and inputs. Gradients reach what reads at once."""
        for k in range(self.num_layers):
            *_, out, skip, bias = self.layer(k)
            for parameter in (out, skip, bias):
                parameter.zero_()

    # --- growth: a unit is a state and an output -----------------------------------------------

    def written(self, layer: int) -> list[Tensor]:
        _, _, gamma, weight, out, skip, _ = (p.detach() for p in self.layer(layer))
        into_state = gamma.exp() * weight.view(self.hidden_size, -1).norm(dim=1)
        return [into_state, out.norm(dim=1), skip.norm(dim=1)]

    def contribution(self, layer: int) -> Tensor:
        *_, out, skip, bias = (p.detach() for p in self.layer(layer))
        norm: Tensor = torch.cat((out, skip, bias[:, None]), 1).norm(dim=1)
        return norm

    def need_of_state(self, layer: int, need: Tensor) -> Tensor:
        return torch.hypot(need, self._read_of_states(layer, need))

    def need_of_inputs(self, layer: int, need: Tensor) -> Tensor:
        *_, weight, _, skip, _ = self.layer(layer)
        states = self._read_of_states(layer, need).repeat_interleave(2)
        return torch.hypot(need_of_inputs(weight, states), need_of_inputs(skip, need))

    def _read_of_states(self, layer: int, need: Tensor) -> Tensor:
        """Return how much outputs that are needed read of each unit's state, [H]."""
        *_, out, _, _ = self.layer(layer)
        norm: Tensor = need_of_inputs(out, need).view(-1, 2).norm(dim=1)
        return norm

    def match(self, layer: int, new: Cell, units: Tensor, inputs: Tensor) -> Iterator[Match]:
        states = spread_origins(units, 2)
        matrices = {
            "weight_ih": (states, inputs),
            "weight_out": (units, states),
            "weight_skip": (units, inputs),
        }
        pairs = zip(NAMES, self.layer(layer), cast(LRU, new).layer(layer), strict=True)
        for name, old, fresh in pairs:
            if name in matrices:
                yield fresh, old, matrix_origins(*matrices[name], old.shape[1])
            else:
                yield fresh, old, units


def _gamma_log(fading: Tensor) -> Tensor:
    """Return log sqrt(1 - |lambda|^2), |lambda| = exp(-fading): states are as large as inputs."""
    return 0.5 * torch.log(-torch.expm1(-2 * fading))
