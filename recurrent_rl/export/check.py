"""Whether a file does what the policy does: tried out before it is written.

Letters: N rows.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.export.step import ExportError, PolicyStep
from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.leaves import Leaf

TRIED = (16, 1)  # rows: what was noted down for several must do for one
TOLERANCE = 1e-4  # other kernels round otherwise; what is wrong differs by far more
LARGE = 10.0  # numbers without bounds are tried out up to here


def example(step: PolicyStep, rows: int) -> tuple[Tensor, ...]:
    """Return inputs of N rows such as may be met; the same at each call."""
    random = np.random.default_rng(rows)
    leaves, actions = iter(step.policy.codec.layout.leaves), step.policy.actions
    arrays: list[Array] = []
    for spec in step.inputs:
        size = spec.sized(rows)
        if spec.role == "observation":
            given = _sampled(next(leaves), rows, random)
        elif spec.role == "action_mask":
            given = random.random(size) < 0.5
            given[:, np.cumsum((0, *actions.choices[:-1]))] = True  # each component has a choice
        elif spec.role == "agent":
            assert step.identities is not None
            given = np.arange(rows) % len(step.identities)
        else:
            given = random.uniform(-1, 1, size)
        arrays.append(given.astype(spec.dtype))
    return tuple(map(torch.from_numpy, arrays))


def _sampled(leaf: Leaf, rows: int, random: np.random.Generator) -> Array:
    space = copy.deepcopy(leaf.space)  # whose own generator is somebody else's
    space.seed(int(random.integers(2**31)))
    drawn = np.stack([np.asarray(space.sample()) for _ in range(rows)])
    if leaf.dtype.kind != "f":
        return drawn
    return drawn.clip(-LARGE, LARGE).clip(space.low, space.high)  # type: ignore[attr-defined]


@torch.no_grad()
def check_same(step: PolicyStep, run: Callable[[Sequence[Array]], Sequence[Array]]) -> None:
    """Raise ExportError where ``run``, arrays to arrays, gives something else than the policy."""
    for rows in TRIED:
        inputs = example(step, rows)
        expected = [x.numpy() for x in step(*inputs)]
        given = run([x.numpy() for x in inputs])
        for spec, one, other in zip(step.outputs, expected, given, strict=True):
            if not _close(one, np.asarray(other)):
                raise ExportError(
                    f"{spec.name}: expected the file to give what the policy gives of {rows} rows, "
                    f"{one.tolist()}, got {np.asarray(other).tolist()}; does a network of your own "
                    f"draw random numbers, or do something else for one row than for several?"
                )


def _close(one: Array, other: Array) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind == "f":
        # Of float16, the last digit.
        rounding = max(TOLERANCE, float(4 * np.finfo(one.dtype).eps))
        return np.allclose(one, other, rounding, rounding, equal_nan=True)
    # A whole number may be rounded the other way, once among many; one of a wide range a bit.
    near = TOLERANCE * np.abs(one.astype(np.float64)).max(initial=0)
    wrong = np.abs(one.astype(np.float64) - other) > near
    return bool(wrong.sum() <= one.size // 16)
