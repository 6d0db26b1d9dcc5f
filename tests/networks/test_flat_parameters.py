"""Tests of `recurrent_rl.networks.flat_parameters`: one vector of all, and Adam's state of it."""

from typing import Any

import pytest
import torch
from support.helpers import make_policy, random_state
from torch import nn

from recurrent_rl.networks.flat_parameters import flatten_parameters, split_adam_state
from recurrent_rl.networks.layers import mlp


def test_parameters_become_views_of_one_vector() -> None:
    policy = make_policy(num_layers=2)
    x, state = torch.randn(4, 3), random_state(policy, 4, torch.Generator())
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    params = policy.act(x, None, state, None).dist_params
    flat = flatten_parameters(policy.trained_parameters())
    assert flat.numel() == sum(p.numel() for p in before.values())
    assert torch.equal(policy.act(x, None, state, None).dist_params, params)
    for name, p in policy.named_parameters():
        assert torch.equal(p, before[name])
        assert p.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()
        assert isinstance(p, nn.Parameter)
        assert p.requires_grad
    with torch.no_grad():
        flat.add_(1)
    for name, p in policy.named_parameters():
        assert torch.equal(p, before[name] + 1)


def test_gradients_that_exist_already_are_kept() -> None:
    module = mlp(3, (4,), "Tanh", 2)
    module(torch.randn(5, 3)).sum().backward()
    module[0].bias.grad = None
    before = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    flat = flatten_parameters(list(module.parameters()))
    assert flat.grad is not None
    for p, grad in zip(module.parameters(), before, strict=True):
        assert p.grad is not None
        assert torch.equal(p.grad, torch.zeros_like(p) if grad is None else grad)
        assert p.grad.untyped_storage().data_ptr() == flat.grad.untyped_storage().data_ptr()


@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.Adam])
def test_an_optimiser_on_the_vector_does_what_one_on_the_parameters_does(optimiser: Any) -> None:
    modules = [mlp(3, (4,), "Tanh", 2) for _ in range(2)]
    modules[1].load_state_dict(modules[0].state_dict())
    flat = flatten_parameters(list(modules[0].parameters()))
    optimisers = [optimiser([flat], lr=0.1), optimiser(modules[1].parameters(), lr=0.1)]
    for _ in range(3):
        x = torch.randn(6, 3)
        for module, optim in zip(modules, optimisers, strict=True):
            optim.zero_grad(set_to_none=False)
            module(x).square().sum().backward()
            optim.step()
    for ours, theirs in zip(*(m.parameters() for m in modules), strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_weights_loaded_into_shared_parameters_stay_shared() -> None:
    module, other = mlp(3, (4,), "Tanh", 2), mlp(3, (4,), "Tanh", 2)
    flat = flatten_parameters(list(module.parameters()))
    module.load_state_dict(other.state_dict())
    assert torch.equal(flat, torch.cat([p.flatten() for p in other.parameters()]))


def test_parameters_without_moments_have_none() -> None:
    parameters = list(mlp(3, (4,), "Tanh", 2).parameters())
    optimiser = torch.optim.Adam(parameters)
    parameters[1].grad = torch.ones_like(parameters[1])
    optimiser.step()
    split = split_adam_state(optimiser.state_dict(), parameters)
    assert [bool(moments) for moments in split] == [False, True, False, False]
    assert torch.equal(split[1]["exp_avg"], optimiser.state[parameters[1]]["exp_avg"])


@pytest.mark.parametrize("shared", [True, False])
def test_adams_state_by_parameter(shared: bool) -> None:
    module = mlp(3, (4,), "Tanh", 2, 1)
    parameters = list(module.parameters())
    vector = [flatten_parameters(parameters)] if shared else parameters
    optimiser = torch.optim.Adam(vector)
    assert split_adam_state(optimiser.state_dict(), parameters) == []  # before the first step
    for _ in range(3):
        optimiser.zero_grad(set_to_none=False)
        module(torch.ones(6, 3)).square().sum().backward()
        optimiser.step()
    saved = optimiser.state_dict()
    split = split_adam_state(saved, parameters)
    assert [float(moments["step"]) for moments in split] == [3.0] * len(parameters)
    for key in ("exp_avg", "exp_avg_sq"):
        assert [m[key].shape for m in split] == [p.shape for p in parameters]
        joined = torch.cat([m[key].flatten() for m in split])
        assert torch.equal(joined, torch.cat([x[key].flatten() for x in saved["state"].values()]))
    if shared:  # on its own: what is done to the one does nothing to the other
        split[0]["exp_avg"].zero_()
        assert optimiser.state[vector[0]]["exp_avg"][:12].all()
