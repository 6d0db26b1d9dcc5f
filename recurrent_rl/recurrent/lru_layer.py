"""One LRU layer over whole sequences, with its gradient written out.

Automatic differentiation would go over the numbers twice as often, and over small parameters in
dozens of operations.

Letters: L steps, S sequences, M = L * S, H units, D features.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recurrent_rl.recurrent.scan import backward_flow, forward_states


def lru_layer(
    x: Tensor, first: tuple[Tensor, Tensor], parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return what a layer gives in front of its activation, and its last state.

    Args:
        x: [L, S, D].
        first: real and imaginary part of the state before the first step, [S, H] each.
        parameters: in the order of ``lru.NAMES``.

    Returns:
        output: [L, S, H].
        last: [S, H, 2].

    """
    result: tuple[Tensor, Tensor] = _Layer.apply(x, *first, *parameters)  # type: ignore[no-untyped-call]
    return result


Grads = tuple[Tensor | None, ...]


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        re: Tensor,
        im: Tensor,
        nu: Tensor,
        theta: Tensor,
        gamma_log: Tensor,
        weight: Tensor,
        out: Tensor,
        skip: Tensor,
        bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        steps, rows = x.shape[:2]
        inputs = x.reshape(-1, x.shape[-1])
        fading, turning = nu.exp(), theta.exp()
        decay = torch.polar(fading.neg().exp(), turning)
        gamma = gamma_log.exp().repeat_interleave(2)[:, None]
        scaled = gamma * weight
        read = torch.mm(inputs, scaled.t())  # [M, 2 H]
        states = forward_states(
            decay[None, None],
            torch.view_as_complex(read.view(steps, rows, -1, 2)),
            torch.complex(re, im),
        )
        output = torch.addmm(bias, inputs, skip.t()).addmm_(_real(states[1:]), out.t())
        ctx.save_for_backward(
            inputs, states, fading, turning, decay, gamma, weight, scaled, out, skip
        )
        ctx.set_materialize_grads(False)
        return output.view(steps, rows, -1), torch.view_as_real(states[-1]).clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, of_last: Tensor | None) -> Grads:
        inputs, states, fading, turning, decay, gamma, weight, scaled, out, skip = ctx.saved_tensors
        rows, units = states.shape[1:]
        grad = inputs.new_zeros(len(inputs), units) if grad is None else grad.reshape(-1, units)
        of_states = torch.view_as_complex(torch.mm(grad, out).view(-1, rows, units, 2))
        if of_last is not None:
            of_states[-1] += torch.view_as_complex(of_last.contiguous())
        back = decay.conj().resolve_conj()
        flow = backward_flow(back[None, None], of_states)
        of_read = _real(flow)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = torch.mm(grad, skip).addmm_(of_read, scaled).view(len(flow), rows, -1)
        of_first = back * flow[0]
        # Of log lambda = -exp(nu) + i exp(theta).
        of_log = (flow * states[:-1].conj()).sum((0, 1)) * back
        of_scaled = torch.mm(of_read.t(), inputs).mul_(gamma)
        return (
            of_x,
            of_first.real,
            of_first.imag,
            of_log.real * -fading,
            of_log.imag * turning,
            (of_scaled * weight).view(len(fading), -1).sum(1),
            of_scaled,
            torch.mm(grad.t(), _real(states[1:])),
            torch.mm(grad.t(), inputs),
            grad.sum(0),
        )


def _real(states: Tensor) -> Tensor:
    """Complex [L, S, H] -> [M, 2 H], without a copy."""
    return torch.view_as_real(states).view(-1, 2 * states.shape[-1])
