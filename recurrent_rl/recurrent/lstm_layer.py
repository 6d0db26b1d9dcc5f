"""One LSTM layer over whole sequences by compiled kernels.

PyTorch's layer takes a fixed time for each step, both ways, which for few rows is most of it. Here
only what waits for the step before is done step by step, in one call; the products of inputs and
the weights' gradients are made for all steps at once.

Letters: L steps, S sequences, H units, D features.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recurrent_rl.compiled.kernels import Kernels


def lstm_layer(
    kernels: Kernels,
    x: Tensor,
    state: tuple[Tensor, Tensor],
    weights: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """Return what ``torch.nn.LSTM`` returns of one layer, up to rounding, with a gradient.

    Args:
        kernels: compiled.
        x: float32 on the CPU, [L, S, D].
        state: h and c before the first step, [S, H] each.
        weights: as PyTorch has them: [4 H, D], [4 H, H], and two biases [4 H].

    Returns:
        h: after each step, [L, S, H].
        c: after the last one, [S, H].

    """
    result: tuple[Tensor, Tensor] = _Layer.apply(kernels, x, *state, *weights)  # type: ignore[no-untyped-call]
    return result


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernels: Kernels,
        x: Tensor,
        first_h: Tensor,
        first_c: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
    ) -> tuple[Tensor, Tensor]:
        inputs = x.flatten(0, 1)
        gates = torch.addmm(bias_ih + bias_hh, inputs, weight_ih.t())
        gates = gates.view(*x.shape[:2], len(weight_ih))  # not -1: there may be no rows
        first = (first_h.contiguous(), first_c.contiguous())
        before_h, before_c, h, c, squash = kernels.lstm_forward(
            gates, first, weight_hh.t().contiguous()
        )
        ctx.save_for_backward(inputs, gates, before_h, before_c, squash, weight_ih, weight_hh)
        ctx.kernels = kernels
        ctx.set_materialize_grads(False)
        return h, c[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_h: Tensor | None, of_c: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, gates, before_h, before_c, squash, weight_ih, weight_hh = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        # Copies, as the kernel changes them.
        flow = torch.zeros_like(squash)
        carried = torch.zeros_like(squash[0])
        if of_h is not None:
            flow.copy_(of_h)
        if of_c is not None:
            carried.copy_(of_c)
        of_gates, of_first = ctx.kernels.lstm_backward(
            gates, before_c, squash, weight_hh.contiguous(), flow, carried
        )
        joined = of_gates.flatten(0, 1)
        of_ih = of_hh = of_bias = None
        if any(needed[3:]):
            of_ih, of_bias = torch.mm(joined.t(), inputs), joined.sum(0)
            of_hh = torch.mm(joined.t(), before_h.flatten(0, 1))
        of_x = None
        if needed[0]:
            of_x = torch.mm(joined, weight_ih).view(*gates.shape[:2], inputs.shape[1])
        return None, of_x, of_first, carried, of_ih, of_hh, of_bias, of_bias
