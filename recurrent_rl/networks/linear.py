"""Linear layers, as fast as the processor allows.

Letters: ``...`` any leading axes, M rows, D features, H outputs.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Below, multiplying is not what takes the time.
LEAST_WIDTH, LEAST_ROWS = 128, 64


class Linear(nn.Linear):
    """``torch.nn.Linear``, where it pays by oneDNN.

    PyTorch multiplies matrices of float32 by MKL, which leaves half of the speed of AMD's
    processors with AVX-512 unused; the convolutions' library, oneDNN, does not. Results are the
    same up to rounding.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., H]."""
        if not FASTER or not self._pays(x):
            return F.linear(x, self.weight, self.bias)
        rows = x.reshape(-1, self.in_features)
        y: Tensor = _Product.apply(rows, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], self.out_features)

    @property
    def is_wide(self) -> bool:
        """Whether oneDNN would multiply enough rows."""
        return FASTER and min(self.in_features, self.out_features) >= LEAST_WIDTH

    def _pays(self, x: Tensor) -> bool:
        return (
            self.is_wide
            and not torch.compiler.is_compiling()  # which is not to ask how many rows there are
            and x.numel() >= LEAST_ROWS * self.in_features
            and x.device.type == "cpu"
            and x.dtype is self.weight.dtype is torch.float32
        )


def _is_amd() -> bool:
    """Whether the processor is AMD's; MKL is as fast as oneDNN on Intel's. Linux says so."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:  # another system, which has no such file
        return False


def _faster() -> bool:
    """Whether oneDNN multiplies faster than what PyTorch would use."""
    return (
        _is_amd()
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


FASTER = _faster()


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x weight^T + bias``."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


class _Product(torch.autograd.Function):
    """[M, D], [H, D], [H] -> [M, H], of which oneDNN's operator has no gradient by itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.t()) if of_x else None,
            _product(grad.t(), x.t()) if of_weight else None,
            grad.sum(0) if of_bias else None,
        )
