"""Multilayer perceptrons with derivatives by hand.

Autograd notes each operation and runs a node for it on the way back. For a head of two layers and
some hundred steps that takes as long as the arithmetic; this is the arithmetic alone.

Letters: M rows, D features, H outputs of a layer, P outputs of the last.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Layers = Sequence[tuple[Tensor, Tensor]]  # weight [H, D] and bias [H] of each

# Activations whose derivative follows from what they give: in place, and the gradient of what they
# read from that of what they have given, and it.
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "Tanh": (torch.tanh_, torch.ops.aten.tanh_backward),
    "ReLU": (torch.relu_, lambda grad, y: torch.ops.aten.threshold_backward(grad, y, 0)),
}


def forward(x: Tensor, layers: Layers, activation: str) -> list[Tensor]:
    """``y_0 = x``, ``y_k = act(W_k y_{k-1} + b_k)``, the last without ``act``.

    Args:
        x: [M, D].
        layers: at least one.
        activation: of ``ACTIVATIONS``.

    Returns:
        y_0 to y_K; the last is [M, P].

    """
    act, _ = ACTIVATIONS[activation]
    values = [x]
    for weight, bias in layers:
        if len(values) > 1:
            act(values[-1])
        values.append(torch.addmm(bias, values[-1], weight.t()))
    return values


def backward(
    values: Sequence[Tensor],
    layers: Layers,
    activation: str,
    grad: Tensor,
    beside: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of a loss by what ``forward`` read.

    ``dL/dW_k = g_k^T y_{k-1}``, ``dL/db_k = sum g_k`` and ``g_{k-1} = (g_k W_k) act'(y_{k-1})``,
    where ``g_k`` is the loss's gradient by what goes into the k-th activation.

    Args:
        values: what it gave.
        layers: as there.
        activation: as there.
        grad: of the loss by the last of ``values``, [M, P].
        beside: gradient by x of what else reads it, [M, D], to which this one is added in place.

    Returns:
        by x, [M, D]; and by each weight and bias in turn.

    """
    _, derivative = ACTIVATIONS[activation]
    parameters: list[Tensor] = []
    for k in reversed(range(len(layers))):
        weight, y = layers[k][0], values[k]
        parameters[:0] = (grad.t() @ y, grad.sum(0))
        if k:
            grad = derivative(grad @ weight, y)
    if beside is not None:
        return beside.addmm_(grad, weight), parameters
    return grad @ weight, parameters
