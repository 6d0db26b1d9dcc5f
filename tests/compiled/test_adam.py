"""Tests of `recurrent_rl.algorithms.compiled_adam`: the steps that torch.optim.Adam takes."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.compiled import needs_compiler
from support.helpers import SEEDS
from support.pairs import examples
from torch import nn

from recurrent_rl.algorithms.compiled_adam import compiled_adam
from recurrent_rl.algorithms.gradient import gradient_step

pytestmark = needs_compiler


def adams(sizes: list[int], seed: int = 0, lr: float = 0.01) -> list[torch.optim.Adam]:
    generator = torch.Generator().manual_seed(seed)
    vectors = [nn.Parameter(torch.randn(n, generator=generator)) for n in sizes]
    return [torch.optim.Adam([v], lr=lr, eps=1e-5, fused=True) for v in vectors]


def vector(adam: torch.optim.Adam) -> nn.Parameter:
    found: nn.Parameter = adam.param_groups[0]["params"][0]
    return found


@settings(max_examples=examples(30))
@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=3),
    st.sampled_from([0.1, 100.0, math.inf]),
    SEEDS,
)
def test_steps_are_those_of_torch(sizes: list[int], max_norm: float, seed: int) -> None:
    """With several optimisers whose gradients are clipped together, and a step size that falls."""
    results = []
    for compiled in (False, True):
        optimizers, norms = adams(sizes, seed), []
        for k in range(4):
            loss = sum(((vector(adam) - k) ** 2).sum() for adam in optimizers)
            assert isinstance(loss, torch.Tensor)
            norms.append(gradient_step(loss, *optimizers, max_norm=max_norm, compiled=compiled))
            for adam in optimizers:
                adam.param_groups[0]["lr"] /= 2
        state = [adam.state[vector(adam)] for adam in optimizers]
        gradients = [vector(adam).grad for adam in optimizers]
        results.append([norms, [vector(a).detach() for a in optimizers], state, gradients])
    assert compiled_adam(optimizers, gradients) is not None
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)


def decays(adam: torch.optim.Adam) -> None:
    adam.param_groups[0]["weight_decay"] = 0.1


def is_averaged(adam: torch.optim.Adam) -> None:
    adam.param_groups[0]["amsgrad"] = True


def is_watched(adam: torch.optim.Adam) -> None:
    adam.register_step_post_hook(lambda *_: None)


def has_another_group(adam: torch.optim.Adam) -> None:
    adam.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})


def has_not_begun(adam: torch.optim.Adam) -> None:
    adam.state.clear()


@pytest.mark.parametrize(
    "change", [decays, is_averaged, is_watched, has_another_group, has_not_begun]
)
def test_what_the_kernel_does_not_know_is_left_to_torch(
    change: Callable[[torch.optim.Adam], None],
) -> None:
    (adam,) = adams([3])
    gradient_step(vector(adam).sum(), adam, max_norm=1.0)
    gradient = vector(adam).grad
    assert gradient is not None
    assert compiled_adam([adam], [gradient]) is not None
    change(adam)
    assert compiled_adam([adam], [gradient]) is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(value: float) -> None:
    (adam,) = adams([40])
    gradient_step(vector(adam).sum(), adam, max_norm=1.0, compiled=True)
    before = vector(adam).detach().clone()
    factors = torch.ones(40)
    factors[39] = value
    with pytest.raises(FloatingPointError, match="expected a finite gradient"):
        gradient_step((vector(adam) * factors).sum(), adam, max_norm=1.0, compiled=True)
    assert torch.equal(vector(adam), before)
    assert adam.state[vector(adam)]["step"] == 1
