"""Tests of `recurrent_rl.networks.layers`: MLPs, residual blocks, and orthogonal weights."""

import math

import pytest
import torch
from support.weights import assert_orthogonal
from torch import nn

from recurrent_rl.networks.layers import ResidualBlock, mlp, orthogonal_init
from recurrent_rl.recurrent.gated import GRU, LSTM


def test_mlp_has_an_activation_behind_each_hidden_layer_only() -> None:
    kinds = [type(layer).__name__ for layer in mlp(3, (8, 4), "ReLU", 2)]
    assert kinds == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert [type(layer).__name__ for layer in mlp(3, (8,), "ELU", None)] == ["Linear", "ELU"]
    assert mlp(3, (8, 4), "Tanh", 2)(torch.zeros(5, 3)).shape == (5, 2)
    assert mlp(3, (8, 4), "Tanh", None)(torch.zeros(5, 3)).shape == (5, 4)
    x = torch.randn(5, 3)
    assert torch.equal(mlp(3, (), "Tanh", None)(x), x)


@pytest.mark.parametrize("inputs", [3, 8, 20])
@pytest.mark.parametrize(("kind", "gates"), [(LSTM, 4), (GRU, 3)])
def test_recurrent_weights_are_orthogonal_gate_by_gate(
    kind: type[LSTM | GRU], gates: int, inputs: int
) -> None:
    # Over the stacked gates at once, no gate alone would be orthogonal.
    layer = kind(inputs, 8, 2)
    orthogonal_init(layer, math.sqrt(2))
    for name, parameter in layer.named_parameters():
        if name.startswith("bias"):
            assert (parameter == 0).all()
            continue
        assert len(parameter) == gates * 8
        for gate in parameter.detach().split(8):
            assert_orthogonal(gate, 1.0)
    first, second = layer.weight_hh_l0.detach().split(8)[:2]
    assert not torch.allclose(first, second)


def test_linear_weights_are_orthogonal_with_the_given_gain() -> None:
    module = mlp(5, (9,), "Tanh", 3)
    orthogonal_init(module, 0.5)
    for layer in (module[0], module[2]):
        assert isinstance(layer, nn.Linear)
        assert_orthogonal(layer.weight.detach(), 0.5)
        assert (layer.bias == 0).all()


# --- residual blocks ---------------------------------------------------------------------------


def test_residual_blocks_stand_behind_the_hidden_layers() -> None:
    kinds = [type(layer).__name__ for layer in mlp(3, (8,), "ReLU", 2, 2)]
    assert kinds == ["Linear", "ReLU", "ResidualBlock", "ResidualBlock", "Linear"]
    assert [type(x).__name__ for x in mlp(3, (), "ReLU", None, 1)] == ["ResidualBlock"]
    assert mlp(3, (), "Tanh", None, 1)(torch.zeros(5, 3)).shape == (5, 3)


@pytest.mark.parametrize("activation", ["Tanh", "ReLU"])
def test_residual_block_by_its_equation(activation: str) -> None:
    block, x = ResidualBlock(4, activation), torch.randn(5, 2, 4)
    act = {"Tanh": torch.tanh, "ReLU": torch.relu}[activation]
    w1, b1, w2, b2 = block.parameters()
    torch.testing.assert_close(block(x), x + act(x @ w1.T + b1) @ w2.T + b2)
    block.start_as_identity()
    assert torch.equal(block(x), x)
    assert (block.inner.weight != 0).all()
    (block(x) * torch.randn_like(x)).sum().backward()
    assert block.outer.weight.grad is not None
    assert (block.outer.weight.grad != 0).any(1).all()


@pytest.mark.parametrize("where", ["one layer", "every module"])
def test_hooks_into_layers_are_called(where: str) -> None:
    """Layers that nobody hooks into are run without a module's call."""
    layers, x = mlp(3, (4,), "Tanh", 2), torch.ones(5, 3)
    expected = layers[2](layers[1](layers[0](x)))
    assert torch.equal(layers(x), expected)
    called: list[nn.Module] = []

    def hook(module: nn.Module, *_: object) -> None:
        called.append(module)

    if where == "one layer":
        handle = layers[1].register_forward_hook(hook)
    else:
        handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        assert torch.equal(layers(x), expected)
    finally:
        handle.remove()
    assert layers[1] in called
