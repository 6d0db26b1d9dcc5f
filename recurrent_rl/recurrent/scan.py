"""Linear recurrences over whole sequences, in as few operations as the logarithm of their length.

    h[t] = a[t] h[t-1] + b[t]

Two steps of a linear recurrence are one step of another one, whose decay is the product of both. So
half of the states come from a recurrence of half the length, and from those the other half, all at
once. That is three passes over the numbers instead of one, but log2(L) operations instead of L,
which decides where sequences are few or a GPU computes. Only products of decays occur, never
quotients: with decays of at most 1 nothing overflows, and what vanishes has been forgotten.

Source: Blelloch 1990, "Prefix Sums and Their Applications", sec. 1.4; as odd-even (cyclic)
reduction.

Letters: L steps, ``...`` any axes behind it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# Measured: so few steps are not worth pairing; so many numbers are as much work as a call.
FEW, MANY = 8, 2048


def forward_states(decay: Tensor, inputs: Tensor, first: Tensor) -> Tensor:
    """Return the states before and after each step, [L + 1, ...].

    Args:
        decay: a, [L, ...], or [1, ...] if it is the same at each step; real or complex.
        inputs: b, [L, ...].
        first: the state before the first step, [...].

    """
    states = inputs.new_empty(len(inputs) + 1, *inputs.shape[1:])
    states[0] = first
    _forward(decay, inputs, states)
    return states


def backward_flow(decay: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient of each state, [L, ...], later steps included.

    d[t] = g[t] + a[t+1] d[t+1]

    Args:
        decay: a, or its conjugate, [L, ...] or [1, ...].
        grad: g, by what is read of the states, [L, ...].

    """
    flow = torch.empty_like(grad, memory_format=torch.contiguous_format)
    flow[-1] = grad[-1]
    if len(grad) > 1:
        _backward(decay if len(decay) == 1 else decay[1:], grad[:-1], flow)
    return flow


def _forward(a: Tensor, b: Tensor, h: Tensor) -> None:
    """Fill ``h[t+1] = a[t] h[t] + b[t]``, [L + 1, ...], of which the first is there."""
    if _one_by_one(b):
        before, *after = h.unbind()
        for decay, inputs, state in zip(_each(a, len(b)), b.unbind(), after, strict=True):
            before = torch.addcmul(inputs, decay, before, out=state)
        return
    same, pairs = len(a) == 1, len(b) // 2
    a_early, a_late = (a, a) if same else (a[::2], a[1::2])
    early, late = b[::2], b[1::2]
    a_first = a_early if same else a_early[:pairs]
    b_pair = torch.addcmul(late, a_late, early[:pairs])
    _forward(a_late * a_first, b_pair, h[: 2 * pairs + 1 : 2])
    torch.addcmul(early, a_early, h[:-1:2], out=h[1::2])


def _backward(a: Tensor, b: Tensor, h: Tensor) -> None:
    """Fill ``h[t] = a[t] h[t+1] + b[t]``, [L + 1, ...], of which the last is there."""
    if _one_by_one(b):
        *before, after = h.unbind()
        steps = list(zip(_each(a, len(b)), b.unbind(), before, strict=True))
        for decay, inputs, state in reversed(steps):
            after = torch.addcmul(inputs, decay, after, out=state)
        return
    same, odd = len(a) == 1, len(b) % 2  # pairs are counted from the end
    a_early, a_late = (a, a) if same else (a[odd::2], a[odd + 1 :: 2])
    b_pair = torch.addcmul(b[odd::2], a_early, b[odd + 1 :: 2])
    _backward(a_early * a_late, b_pair, h[odd::2])
    rest = 1 - odd
    torch.addcmul(b[rest::2], a if same else a[rest::2], h[rest + 1 :: 2], out=h[rest:-1:2])


def _one_by_one(b: Tensor) -> bool:
    """Whether one operation for each step takes less time."""
    wide = b.device.type == "cpu" and b[0].numel() >= MANY
    return len(b) <= FEW or wide


def _each(decay: Tensor, steps: int) -> Sequence[Tensor]:
    each = decay.unbind()
    return each * steps if len(each) == 1 else each
