"""Linear layers that oneDNN multiplies for compute what PyTorch's do."""

import pytest
import torch
from torch import nn

from recurrent_rl.networks import linear
from recurrent_rl.networks.linear import Linear

THERE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
there = pytest.mark.skipif(not THERE, reason="PyTorch without oneDNN")


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor where it pays, whichever this one is: results are to be right on all."""
    monkeypatch.setattr(linear, "FASTER", True)


def twins(inputs: int, outputs: int, *, bias: bool = True) -> tuple[Linear, nn.Linear]:
    torch.manual_seed(0)
    ours, plain = Linear(inputs, outputs, bias=bias), nn.Linear(inputs, outputs, bias=bias)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


@there
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(64, 128), (3, 70, 128), (1, 64, 128)])
def test_values_and_gradients_are_those_of_torch(shape: tuple[int, ...], bias: bool) -> None:
    ours, plain = twins(128, 200, bias=bias)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(*shape[:-1], 200, generator=torch.Generator().manual_seed(2))
    found = []
    for layer in (ours, plain):
        given = x.clone().requires_grad_()
        y = layer(given)
        (weight * y.tanh()).sum().backward()
        found.append([y.detach(), given.grad, *(p.grad for p in layer.parameters())])
    assert ours._pays(x)
    for a, b in zip(*found, strict=True):
        assert a is not None
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@there
def test_only_the_gradients_that_are_asked_for_are_computed() -> None:
    ours, _ = twins(128, 128)
    ours.weight.requires_grad_(False)
    x = torch.randn(64, 128, requires_grad=True)
    ours(x).sum().backward()
    assert ours.weight.grad is None
    assert x.grad is not None
    assert ours.bias.grad is not None


@there
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs", "dtype"),
    [
        (63, 128, 128, torch.float32),
        (64, 127, 128, torch.float32),
        (64, 128, 127, torch.float32),
        (64, 128, 128, torch.float64),
    ],
)
def test_where_it_does_not_pay_bits_are_those_of_torch(
    rows: int, inputs: int, outputs: int, dtype: torch.dtype
) -> None:
    ours, plain = (layer.to(dtype) for layer in twins(inputs, outputs))
    x = torch.randn(rows, inputs, dtype=dtype)
    assert not ours._pays(x)
    assert torch.equal(ours(x), plain(x))


def test_it_can_be_exported() -> None:
    ours, plain = twins(128, 128)
    x = torch.randn(80, 128)
    exported = torch.export.export(ours, (x,))
    assert torch.equal(exported.module()(x), plain(x))
