"""Tests of `recurrent_rl.networks.critic_actions`: actions as critics see them."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from support.helpers import double
from torch import Tensor

from recurrent_rl.networks.choose_distribution import make_distribution
from recurrent_rl.networks.configs import PolicyConfig
from recurrent_rl.networks.critic_actions import CriticActions
from recurrent_rl.spaces.actions import action_codec

SPACES: dict[str, gym.Space[Any]] = {
    "choice": gym.spaces.Discrete(4, start=-1),
    "choices": gym.spaces.MultiDiscrete([2, 4, 3]),
    "bits": gym.spaces.MultiBinary((2, 2)),
}
CHOICES = pytest.mark.parametrize("kind", SPACES)


def drawn(kind: str, rows: int = 6, masked: bool = False) -> tuple[Any, Any, Tensor, Tensor]:
    """How critics see a space, its distribution, outputs of a network and noise."""
    codec = action_codec(SPACES[kind])
    distribution = make_distribution(codec, PolicyConfig(), 0)
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(rows, distribution.outputs, generator=generator)
    mask = None
    if masked and codec.mask_size:
        mask = torch.ones(rows, codec.mask_size, dtype=torch.bool)
        mask[:, 1] = False
    params = distribution.dist_params(outputs, mask)
    return CriticActions(codec), distribution, params, distribution.noise((rows,), generator)


@CHOICES
@pytest.mark.parametrize("masked", [False, True])
def test_what_is_proposed_is_what_would_be_taken(kind: str, masked: bool) -> None:
    """The sample of the same noise, or the mode, in the form of stored actions."""
    actions, distribution, params, noise = drawn(kind, 200, masked)
    proposed = actions.proposed(params, noise)
    assert torch.equal(proposed, actions.taken(distribution.sample(params, noise)))
    assert proposed.shape == (200, actions.features)
    assert torch.equal(actions.proposed(params), actions.taken(distribution.mode(params)))
    if masked and kind != "bits":
        assert (proposed[:, 1] == 0).all()


@CHOICES
@pytest.mark.parametrize("temperature", [1.0, 0.4])
@double()
def test_its_gradient_is_that_of_the_softened_choice(kind: str, temperature: float) -> None:
    """Against finite differences of a softened choice that is written out here."""
    actions, _, params, noise = drawn(kind)
    actions.temperature = temperature
    weights = torch.randn(len(params), actions.features)

    def soft(x: Tensor) -> float:
        shifted = ((x + noise) / temperature).numpy()
        if kind == "bits":
            given = 1 / (1 + np.exp(-shifted))
        else:
            if kind == "choice":
                shifted = shifted[:, None]
            rows = []
            for row in shifted:
                counts = [4] if kind == "choice" else [2, 4, 3]
                parts = [part[:n] for part, n in zip(row, counts, strict=True)]
                powers = [np.exp(part - part.max()) for part in parts]
                rows.append(np.concatenate([power / power.sum() for power in powers]))
            given = np.stack(rows)
        return float((weights.numpy() * given).sum())

    x = params.clone().requires_grad_()
    (grad,) = torch.autograd.grad((weights * actions.proposed(x, noise)).sum(), x)
    real = params > -1e30  # what stands behind the choices of a component has no gradient
    for place in real.nonzero().tolist():
        step = torch.zeros_like(params)
        step[tuple(place)] = 1e-5
        slope = (soft(params + step) - soft(params - step)) / 2e-5
        assert grad[tuple(place)].item() == pytest.approx(slope, rel=1e-6, abs=1e-8)
    assert (grad[~real] == 0).all()


def test_box_actions_are_shown_within_their_bounds() -> None:
    space = gym.spaces.Box(np.float32([-2, 0]), np.float32([1, 5]))
    actions = CriticActions(action_codec(space))
    stored = torch.tensor([[0.3, -9.0]])
    assert torch.equal(actions.taken(stored), stored.tanh())
    assert torch.equal(actions.proposed(stored), stored.tanh())


def test_box_actions_without_bounds_are_shown_as_they_are() -> None:
    wide = gym.spaces.Box(np.float32([-np.inf, -4e6]), np.float32([np.inf, 4e6]))
    actions = CriticActions(action_codec(wide, squash_output=False))
    stored = torch.tensor([[0.3, 8e6]])
    assert actions.taken(stored).tolist() == [[pytest.approx(0.3), 2.0]]  # in half ranges
    x = stored.clone().requires_grad_()
    (grad,) = torch.autograd.grad(actions.proposed(x).sum(), x)
    assert grad.tolist() == [[1.0, pytest.approx(1 / 4e6)]]


def test_whole_numbers_have_a_gradient() -> None:
    """Which those that the environment gets would not."""
    actions = CriticActions(action_codec(gym.spaces.Box(0, 9, (2,), np.int64)))
    x = torch.tensor([[0.2, -0.4]], requires_grad=True)
    (grad,) = torch.autograd.grad(actions.proposed(x).sum(), x)
    torch.testing.assert_close(grad, 1 - x.detach().tanh() ** 2)
