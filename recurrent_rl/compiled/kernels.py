"""The kernels as functions of tensors: float32, on the CPU, contiguous.

Letters: L steps, S sequences, M = L * S, H units, P outputs of an actor.
"""

import ctypes
import functools
import math
import threading

import torch
from torch import Tensor

from recurrent_rl.compiled.library import load
from recurrent_rl.compiled.structures import Coefficients, Policy, Record, Rollout, address

_INT, _SIZE, _BYTES = ctypes.c_int, ctypes.c_ssize_t, ctypes.c_size_t
_FLOAT, _DOUBLE = ctypes.c_float, ctypes.c_double
_ARRAY = ctypes.c_void_p
_NOTHING = torch.empty(0, dtype=torch.uint8, device="cpu")


class Kernels:
    """What the C files have, see there."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Arg: built from them."""
        self._lstm_forward = library.lstm_layer_forward
        self._lstm_forward.argtypes = [_INT] * 2 + [_ARRAY] * 10
        self._lstm_backward = library.lstm_layer_backward
        self._lstm_backward.argtypes = [_INT] * 2 + [_ARRAY] * 9
        self._adam = library.adam
        self._adam.argtypes = [_SIZE] + [_ARRAY] * 4 + [_FLOAT] + [_DOUBLE] * 2 + [_FLOAT] * 3
        for function in (self._lstm_forward, self._lstm_backward, self._adam):
            function.restype = None
        self._square_sum = library.square_sum
        self._square_sum.argtypes = [_SIZE, _ARRAY]
        self._square_sum.restype = _FLOAT
        self._ppo_gradient = library.ppo_gradient
        pointers = [ctypes.POINTER(kind) for kind in (Policy, Rollout, Coefficients)]
        record = ctypes.POINTER(Record)
        self._ppo_gradient.argtypes = [*pointers, _ARRAY, _INT, _ARRAY, record, _ARRAY, _BYTES]
        self._local = threading.local()  # a room for each thread

    def lstm_forward(
        self, gates: Tensor, first: tuple[Tensor, Tensor], weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Go from state to state.

        Args:
            gates: what inputs and biases give, [L, S, 4 H]; becomes the gates i, f, n and o.
            first: h and c before the first step, [S, H] each.
            weight: what gates read of h, [H, 4 H].

        Returns:
            h and c before each step, h and c after it, and tanh of that c; [L, S, H] each.

        """
        steps, rows, units = len(gates), *first[0].shape
        states = gates.new_empty(5, steps, rows, units).unbind()
        arrays = (gates, *first, weight, *states)
        self._lstm_forward(steps, units, _begin(steps, rows), *map(address, arrays))
        before_h, before_c, h, c, squash = states
        return before_h, before_c, h, c, squash

    def lstm_backward(
        self,
        gates: Tensor,
        before_c: Tensor,
        squash: Tensor,
        weight: Tensor,
        of_h: Tensor,
        of_c: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Go back from state to state.

        Args:
            gates: from ``lstm_forward``, as are before_c and squash.
            before_c: see there.
            squash: see there.
            weight: [4 H, H].
            of_h: gradients by each h from outside, [L, S, H]; become those by all ways.
            of_c: gradient by the last c, [S, H]; becomes that by the first.

        Returns:
            gradients by what stood in front of activations, [L, S, 4 H], and by the first h.

        """
        steps, rows, units = squash.shape
        of_gates, of_first = torch.empty_like(gates), torch.empty_like(of_c)
        arrays = (gates, before_c, squash, weight, of_h, of_c, of_gates, of_first)
        self._lstm_backward(steps, units, _begin(steps, rows), *map(address, arrays))
        return of_gates, of_first

    def norm(self, x: Tensor) -> float:
        """Return the Euclidean norm of all numbers."""
        return math.sqrt(self._square_sum(x.numel(), address(x)))

    def adam(
        self,
        parameter: Tensor,
        gradient: Tensor,
        moments: tuple[Tensor, Tensor],
        scale: float,
        betas: tuple[float, float],
        lr: float,
        eps: float,
        count: float,
    ) -> None:
        """Scale a gradient and take a step by it, in place.

        Args:
            parameter: of any shape.
            gradient: likewise, as are the moments.
            moments: of first and second order.
            scale: of the gradient.
            betas: the moments' decay.
            lr: step size.
            eps: Adam's epsilon.
            count: steps taken with this one.

        """
        arrays = map(address, (parameter, gradient, *moments))
        step, root = lr / (1 - betas[0] ** count), math.sqrt(1 - betas[1] ** count)
        self._adam(parameter.numel(), *arrays, scale, *map(float, betas), step, root, eps)

    def ppo_gradient(
        self,
        policy: Policy,
        rollout: Rollout,
        now: Coefficients,
        which: Tensor,
        outputs: Tensor,
    ) -> Record:
        """Write the gradient of PPO's loss of some sequences.

        Args:
            policy: whose gradients are written.
            rollout: whose sequences they are.
            now: weights and ranges.
            which: sequences, int64 [S].
            outputs: the actor's become this, in front; at least as many rows of P as there are
                active steps.

        """
        record = Record()
        sequences = address(which, torch.int64)
        given = (policy, rollout, now, sequences, len(which), address(outputs), record)
        room: Tensor = getattr(self._local, "room", _NOTHING)
        while self._ppo_gradient(*given, room.data_ptr(), room.numel()):
            # What torch allocates begins at a cache line.
            room = _NOTHING.new_empty(max(1 << 20, 2 * room.numel()))
            self._local.room = room
        return record


def _begin(steps: int, rows: int) -> "ctypes.Array[ctypes.c_int]":
    """Return the slots that the steps of sequences of one length begin at, and the end."""
    return (_INT * (steps + 1))(*(t * rows for t in range(steps + 1)))


@functools.cache
def kernels() -> Kernels | None:
    """Return them; None, after a warning, where they cannot be built."""
    library = load()
    return None if library is None else Kernels(library)
