"""Policies of every kind with the rollouts that they filled, and one update of theirs."""

from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from support.helpers import SEEDS, Flags, collect, cuttings, gradients, make_flags, make_policy
from torch import Tensor

from recurrent_rl.algorithms.configs import PPOConfig
from recurrent_rl.algorithms.ppo_update import Diagnostics, ppo_update
from recurrent_rl.buffers.rollout import Batch, SequenceRolloutBuffer
from recurrent_rl.networks.flat_parameters import flatten_parameters
from recurrent_rl.networks.policy import ActorCritic

CPU = torch.device("cpu")
CONFIG = PPOConfig(ent_coef=0.03, vf_coef=0.7)

# Policies that differ in how memory is kept and fed; each is a value of `variant` below.
VARIANTS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "gru-2-layers-mlp": {"cell": "gru", "num_layers": 2, "hidden_size": (4,)},
    "separate-box": {"share_encoders": False, "action": "box", "num_layers": 2},
    "previous-inputs": {"previous_action": True, "previous_reward": True},
    "index-box-separate-gru": {
        "observation": "index",
        "action": "box",
        "share_encoders": False,
        "cell": "gru",
        "previous_action": True,
    },
    "mingru-2-layers": {"cell": "mingru", "num_layers": 2, "previous_action": True},
    "lru-separate": {"cell": "lru", "share_encoders": False, "action": "box"},
    "feed-forward": {"recurrent": False, "previous_reward": True},
    "central": {
        "central": True,
        "share_encoders": False,
        "previous_action": True,
        "value_norm": True,
    },
    "central-gru": {"central": True, "share_encoders": False, "cell": "gru", "num_layers": 2},
    "central-feed-forward": {"central": True, "share_encoders": False, "recurrent": False},
}
EVERY_VARIANT = pytest.mark.parametrize("variant", VARIANTS)
CASES = st.tuples(cuttings(max_steps=9, max_rows=3), st.sampled_from(list(VARIANTS)), SEEDS)
Case = tuple[tuple[Flags, int, int], str, int]


def collected(case: Case, *, masked: bool = False) -> tuple[ActorCritic, SequenceRolloutBuffer]:
    """A policy and the rollout it filled."""
    (f, max_seq_len, burn_in), variant, seed = case
    policy = make_policy(seed=seed % 1000, **VARIANTS[variant])
    if not policy.memory:
        max_seq_len, burn_in = 1, 0
    masked = masked and policy.actions.mask_size > 0
    buffer, _ = collect(
        policy, f, max_seq_len=max_seq_len, burn_in=burn_in, masked=masked, seed=seed
    )
    return policy, buffer


def rollout(
    policy: ActorCritic, steps: int = 24, rows: int = 4, max_seq_len: int = 8, **kwargs: Any
) -> SequenceRolloutBuffer:
    """A rollout with resets, absences and idle steps."""
    options = {k: kwargs.pop(k) for k in ("burn_in", "masked") if k in kwargs}
    f = make_flags(steps, rows, **{"absent": 0.1, "idle": 0.1, **kwargs})
    longest = max_seq_len if policy.memory else 1
    return collect(policy, f, max_seq_len=longest, **options)[0]


def whole(buffer: SequenceRolloutBuffer, config: PPOConfig = CONFIG) -> Batch:
    """All sequences as one minibatch."""
    cuts = buffer.sequences()
    return buffer.batch(cuts, torch.arange(len(cuts)), buffer.targets(config.normalize_advantage))


def adam(policy: ActorCritic) -> torch.optim.Optimizer:
    """Whose step size is nonsense: an update sets its own."""
    return torch.optim.Adam([flatten_parameters(policy.trained_parameters())], lr=123.0)


def learned(
    policy: ActorCritic,
    buffer: SequenceRolloutBuffer,
    config: PPOConfig = CONFIG,
    lr: float = 1e-2,
    seed: int = 0,
) -> Diagnostics:
    """One call of ``ppo_update`` with a fresh optimiser."""
    return ppo_update(
        policy,
        adam(policy),
        buffer,
        config,
        config.coefficients(0)._replace(lr=lr),
        torch.Generator().manual_seed(seed),
    )


def weights(policy: ActorCritic) -> Tensor:
    """All of them, in the order of the optimiser's vector."""
    return torch.cat([p.detach().flatten() for p in policy.trained_parameters()])


def flat_gradient(policy: ActorCritic, loss: Tensor) -> Tensor:
    """In the order of ``weights``."""
    named = {id(p): name for name, p in policy.named_parameters()}
    found = gradients(policy, loss)
    return torch.cat([found[named[id(p)]].flatten() for p in policy.trained_parameters()])
