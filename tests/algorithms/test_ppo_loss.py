"""Tests of `recurrent_rl.algorithms.ppo_loss`: derivatives by hand against autograd's.

That both equal a plain loop's is tested in ``test_ppo_update.py``.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.helpers import double, gradients, jitter, make_policy
from support.updates import CONFIG, CPU, rollout, whole
from torch import nn
from torch.nn.utils import parametrizations

from recurrent_rl.algorithms.ppo_loss import known_by_hand, ppo_loss
from recurrent_rl.networks.distributions import Bernoulli, MultiCategorical
from recurrent_rl.networks.layers import mlp
from recurrent_rl.networks.policy import ActorCritic

BY_HAND: dict[str, dict[str, Any]] = {
    "choices": {},
    "masked": {"masked": True},
    "no entropy": {"ent_coef": 0.0},
    "box": {"action": "box"},
    "squashed": {"action": "box", "squash_output": True, "ent_coef": 0.0},
    "least deviation": {"action": "box", "log_std": -9.0},
    "an encoder each": {"share_encoders": False, "clip_vf_coef": 0.1},
    "value norm": {"value_norm": True, "clip_vf_coef": 0.05},
    "no hidden layer": {"head": ()},
    "three layers of ReLU": {"head": (5, 4), "activation": "ReLU", "action": "box"},
    "frozen": {"frozen": "value_head"},
}


@pytest.mark.parametrize("case", BY_HAND)
@double()
def test_derivatives_by_hand_are_those_of_autograd(case: str) -> None:
    """With the same loss and the same record, of a rollout with resets, absences and idle steps."""
    options = {"head": (6,), "activation": "Tanh", **BY_HAND[case]}
    names = ("masked", "head", "activation", "log_std", "frozen", "ent_coef", "clip_vf_coef")
    given = {name: options.pop(name) for name in names if name in options}
    policy = make_policy(**options)
    for head, outputs in (
        (policy.action_head, policy.distribution.outputs),
        (policy.value_head, 1),
    ):
        head.layers = mlp(5, given["head"], given["activation"], outputs)
    buffer = rollout(policy, steps=12, masked=given.get("masked", False))
    jitter(policy)
    if "log_std" in given:
        policy.get_parameter("action_head.distribution.log_std").data.fill_(given["log_std"])
    if "frozen" in given:
        policy.get_submodule(given["frozen"]).requires_grad_(False)
    named = {n: p for n, p in policy.named_parameters() if p.requires_grad}
    changes = {name: given[name] for name in ("ent_coef", "clip_vf_coef") if name in given}
    config = CONFIG.replace(**changes)
    by_hand = known_by_hand(policy, CPU, config.ent_coef)
    assert by_hand is not None
    results = []
    for derivatives in (by_hand, None):
        loss, record = ppo_loss(policy, [whole(buffer)], config, CPU, by_hand=derivatives, steps=77)
        results.append((loss, record, torch.autograd.grad(3 * loss, list(named.values()))))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)


def hooked(policy: ActorCritic) -> None:
    """Somebody looks at what a layer gives."""
    policy.value_head.layers[0].register_forward_hook(lambda *_: None)


def parametrised(policy: ActorCritic) -> None:
    """A layer's weight is a function of others."""
    parametrizations.weight_norm(policy.value_head.layers[0])


def replaced(policy: ActorCritic) -> None:
    """A head is another module."""

    class Head(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(-1)

    policy.value_head.layers = nn.Sequential(Head())


def curved(policy: ActorCritic) -> None:
    """A derivative does not follow from what the activation gives."""
    policy.action_head.layers[1] = nn.GELU()


def bounded(policy: ActorCritic) -> None:
    """Values go through an activation."""
    policy.value_head.layers.append(nn.Tanh())


def bare(policy: ActorCritic) -> None:
    """Features are values."""
    policy.value_head.layers = nn.Sequential()


@pytest.mark.parametrize("change", [hooked, parametrised, replaced, curved, bounded, bare])
def test_what_is_not_known_is_left_to_autograd(change: Callable[[ActorCritic], None]) -> None:
    policy = make_policy()
    assert known_by_hand(policy, CPU, 0.0) is not None
    change(policy)
    assert known_by_hand(policy, CPU, 0.0) is None


@pytest.mark.parametrize(
    "options",
    [
        {"action": "box", "squash_output": True, "ent_coef": 0.1},
        {"action": "box", "state_dependent_std": True},
        {"action": "box", "use_sde": True},
    ],
)
def test_densities_that_are_not_known_are_left_to_autograd(options: dict[str, Any]) -> None:
    policy = make_policy(**options)
    assert known_by_hand(policy, CPU, options.get("ent_coef", 0.0)) is None
    for distribution in (MultiCategorical([2, 3]), Bernoulli(3)):
        policy.action_head.distribution = distribution
        assert known_by_hand(policy, CPU, 0.0) is None


def test_what_autocast_computes_in_other_numbers_is_left_to_autograd() -> None:
    policy = make_policy(action="box")
    with torch.autocast("cpu", torch.bfloat16):
        by_hand = known_by_hand(policy, CPU, 0.0)
        loss, _ = ppo_loss(policy, [whole(rollout(policy, steps=6))], CONFIG, CPU, by_hand=by_hand)
    assert all(bool(g.isfinite().all()) for g in gradients(policy, loss).values())


def test_a_loss_that_is_not_finite_is_found() -> None:
    """Without a warning of NumPy's on the way."""
    policy = make_policy(action="box")
    buffer = rollout(policy, steps=6)
    policy.get_parameter("value_head.layers.0.weight").data.fill_(math.inf)
    by_hand = known_by_hand(policy, CPU, 0.0)
    loss, _ = ppo_loss(policy, [whole(buffer)], CONFIG, CPU, by_hand=by_hand)
    assert not math.isfinite(loss.item())
    assert not all(bool(g.isfinite().all()) for g in gradients(policy, loss).values())
