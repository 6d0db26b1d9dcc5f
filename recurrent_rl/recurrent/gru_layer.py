"""One GRU layer over whole sequences on a CPU, where PyTorch has a fused kernel for the LSTM only.

PyTorch runs ``torch.nn.GRU`` there step by step, in a dozen operations each way that automatic
differentiation keeps track of. Here a step is five operations forward and three backward, into
memory that is there already; whatever does not wait for the step before is done for all steps at
once: the products of inputs, the factors of all derivatives, and the weights' gradients.

Letters: L steps, S sequences, M = L * S, H units, D features.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def gru_layer(
    x: Tensor,
    first: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
) -> Tensor:
    """Return what ``torch.nn.GRU`` returns of one layer, up to rounding, with a gradient.

    Args:
        x: [L, S, D], on the CPU.
        first: the state before the first step, [S, H].
        weight_ih: of gates r, z and n, [3 H, D].
        weight_hh: likewise, [3 H, H].
        bias_ih: [3 H].
        bias_hh: [3 H].

    Returns:
        h: [L, S, H].

    """
    h: Tensor = _Layer.apply(x, first, weight_ih, weight_hh, bias_ih, bias_hh)  # type: ignore[no-untyped-call]
    return h


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        first: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
    ) -> Tensor:
        steps, rows, units = len(x), *first.shape
        inputs, opened = x.reshape(-1, x.shape[-1]), 2 * units  # columns of r and z
        bias = torch.cat((bias_ih[:opened] + bias_hh[:opened], bias_ih[opened:]))
        gates = torch.addmm(bias, inputs, weight_ih.t()).view(steps, rows, 3 * units)
        candidates = gates[:, :, opened:].clone(memory_format=torch.contiguous_format)
        # Here what is read of the state is added: to r, to z, and to what r multiplies.
        gates[:, :, opened:] = bias_hh[opened:]
        states = gates.new_empty(steps + 1, rows, units)
        states[0] = first
        _forward(gates, candidates, states, weight_hh)
        ctx.save_for_backward(inputs, states, gates, candidates, weight_ih, weight_hh)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs, states, gates, n, weight_ih, weight_hh = ctx.saved_tensors
        of_x, of_first, *of_weights = ctx.needs_input_grad
        steps, rows, units = n.shape
        r, z, product = gates.split(units, -1)
        # A state's flow times these is what flows to r and z, in front of sigmoids, and product.
        factors = n.new_empty(steps, rows, 3, units)
        of_r, of_z, of_product = factors.unbind(2)
        let_in = 1 - z
        of_n = torch.addcmul(let_in, let_in * n, n, value=-1)  # in front of tanh
        torch.mul(of_n, r, out=of_product)
        torch.mul(of_product, (1 - r).mul_(product), out=of_r)
        torch.mul(states[:-1] - n, let_in.mul_(z), out=of_z)
        flow = n.new_empty(steps + 1, rows, units)
        flow[0].zero_()
        flow[1:] = grad
        to_gates = torch.empty_like(factors)
        _backward(factors, z, flow, to_gates, weight_hh)

        joined = to_gates.view(-1, 3 * units)
        of_hh = of_bias_hh = of_ih = of_bias_ih = None
        if any(of_weights):
            of_hh = torch.mm(joined.t(), states[:-1].view(-1, units))
            of_bias_hh = joined.sum(0)
        # What the inputs' part of n gets is not what r multiplies.
        torch.mul(flow[1:], of_n, out=to_gates[:, :, 2])
        if any(of_weights):
            of_ih, of_bias_ih = torch.mm(joined.t(), inputs), joined.sum(0)
        return (
            torch.mm(joined, weight_ih).view(steps, rows, -1) if of_x else None,
            flow[0] if of_first else None,
            of_ih,
            of_hh,
            of_bias_ih,
            of_bias_hh,
        )


def _forward(gates: Tensor, candidates: Tensor, states: Tensor, weight: Tensor) -> None:
    """Go from state to state, and leave r, z, product and n where they began."""
    units = weight.shape[1]
    columns = weight.t().contiguous()  # a product of few rows takes half the time by these
    before, *after = states.unbind()
    for gate, opened, r, z, product, n, h in zip(
        gates.unbind(),
        gates[:, :, : 2 * units].unbind(),
        *(part.unbind() for part in gates.split(units, -1)),
        candidates.unbind(),
        after,
        strict=True,
    ):
        gate.addmm_(before, columns)
        opened.sigmoid_()
        n.addcmul_(r, product).tanh_()
        before = torch.lerp(n, before, z, out=h)


def _backward(factors: Tensor, z: Tensor, flow: Tensor, to_gates: Tensor, weight: Tensor) -> None:
    """Go back from state to state, whose flow begins as what is read of each."""
    joined = to_gates.flatten(2)
    flows, beside_gates = flow.unbind(), flow.unsqueeze(2).unbind()
    steps = zip(
        flows[:-1],
        flows[1:],
        beside_gates[1:],
        factors.unbind(),
        to_gates.unbind(),
        joined.unbind(),
        z.unbind(),
        strict=True,
    )
    for before, after, each, factor, parts, whole, kept in reversed(list(steps)):
        torch.mul(each, factor, out=parts)
        before.addcmul_(after, kept).addmm_(whole, weight)
