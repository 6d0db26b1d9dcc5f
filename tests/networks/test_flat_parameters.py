"""Tests of `recurrent_rl.networks.flat_parameters`: one vector of all, and Adam's state of it."""

from typing import Any

import pytest
import torch
from support.helpers import make_policy, random_state
from torch import nn

from recurrent_rl.networks.flat_parameters import (
    ALIGNMENT,
    align_parameters,
    flatten_parameters,
    padded_vector,
    parts_of_padded,
    split_adam_state,
    without_padding,
)
from recurrent_rl.networks.layers import mlp


def is_aligned(x: torch.Tensor) -> bool:
    return x.data_ptr() % ALIGNMENT == 0


def gaps(vector: torch.Tensor, module: nn.Module) -> torch.Tensor:
    """What is in a vector beside the parameters."""
    taken = padded_vector([torch.ones_like(p) for p in module.parameters()])
    return vector.detach()[taken == 0]


def test_parameters_become_views_of_one_vector() -> None:
    policy = make_policy(num_layers=2)
    x, state = torch.randn(4, 3), random_state(policy, 4, torch.Generator())
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    params = policy.act(x, None, state, None).dist_params
    flat = flatten_parameters(policy.trained_parameters())
    assert flat.numel() == sum(-(-p.numel() // 16) * 16 for p in before.values())
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
    assert torch.equal(flat, padded_vector(list(other.parameters())))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_begin_where_memory_of_their_own_would(dtype: torch.dtype) -> None:
    """Or matrix products would round differently on some CPUs."""
    module = mlp(3, (5, 8), "Tanh", 2).to(dtype)
    vector = flatten_parameters(list(module.parameters()))
    assert vector.dtype == dtype
    assert all(is_aligned(p) and p.is_contiguous() for p in module.parameters())
    assert all(p.grad is not None and is_aligned(p.grad) for p in module.parameters())
    assert len(gaps(vector, module)) > 0


def test_what_fills_the_vector_stays_zero_and_counts_in_no_norm() -> None:
    module = mlp(3, (5,), "Tanh", 2)
    vector = flatten_parameters(list(module.parameters()))
    optimiser = torch.optim.Adam([vector], lr=0.1, weight_decay=0.1, fused=True)
    for _ in range(3):
        optimiser.zero_grad(set_to_none=False)
        module(torch.randn(6, 3)).square().sum().backward()
        expected = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
        norm = nn.utils.clip_grad_norm_([vector], 0.5)
        assert float(norm) == pytest.approx(float(expected.norm()))
        optimiser.step()
    assert vector.grad is not None
    state = optimiser.state[vector]
    for each in (vector, vector.grad, state["exp_avg"], state["exp_avg_sq"]):
        assert (gaps(each, module) == 0).all()
        assert (each != 0).any()


def test_parts_of_a_vector_are_those_it_was_made_from() -> None:
    tensors = [torch.randn(n) for n in (1, 15, 16, 17, 0)] + [
        torch.randn(3, 5, 2),
        torch.tensor(2.0),
    ]
    vector = padded_vector(tensors)
    assert vector.numel() == 16 + 16 + 16 + 32 + 0 + 32 + 16
    parts = parts_of_padded(vector, [x.shape for x in tensors])
    for part, tensor in zip(parts, tensors, strict=True):
        assert torch.equal(part, tensor)
        assert part.untyped_storage().data_ptr() == vector.untyped_storage().data_ptr()


def test_parameters_at_odd_places_move_to_memory_of_their_own() -> None:
    module = mlp(3, (5,), "Tanh", 2)
    before = [p.detach().clone() for p in module.parameters()]
    first = module[0].weight
    vector = nn.utils.parameters_to_vector(module.parameters()).detach().clone()
    nn.utils.vector_to_parameters(vector, module.parameters())
    assert not all(map(is_aligned, module.parameters()))
    with torch.inference_mode():
        align_parameters(module.parameters())
    assert all(map(is_aligned, module.parameters()))
    assert not any(p.is_inference() for p in module.parameters())
    for p, q in zip(module.parameters(), before, strict=True):
        assert torch.equal(p, q)
    assert module[0].weight is first
    places = [p.data_ptr() for p in module.parameters()]
    align_parameters(module.parameters())
    assert [p.data_ptr() for p in module.parameters()] == places


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
    shapes = [p.shape for p in parameters]
    for key in ("exp_avg", "exp_avg_sq"):
        assert [m[key].shape for m in split] == shapes
        joined = padded_vector([m[key] for m in split])
        theirs = [x[key] for x in saved["state"].values()]
        assert torch.equal(joined, theirs[0] if shared else padded_vector(theirs))
    if shared:  # on its own: what is done to the one does nothing to the other
        split[0]["exp_avg"].zero_()
        assert optimiser.state[vector[0]]["exp_avg"][:12].all()
        # Files have no padding.
        dense = without_padding(saved["state"][0], shapes)
        assert dense["exp_avg"].shape == (sum(p.numel() for p in parameters),)
        again = split_adam_state({"state": {0: dense}}, parameters)
        for ours, theirs in zip(
            again, split_adam_state(optimiser.state_dict(), parameters), strict=True
        ):
            assert ours.keys() == theirs.keys() == {"step", "exp_avg", "exp_avg_sq"}
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)
