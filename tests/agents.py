"""Small agents whose behaviour clearly depends on all that they see, and ways to compare them."""

from typing import Any

import torch
from torch import Tensor

from recurrent_rl import PPO


def make_agent(env: Any, *, seed: int = 0, **options: Any) -> PPO:
    """An agent for a vector environment's spaces; options of networks and of learning mixed.

    The usual initial weights (biases of zero, a nearly uniform policy) would hide mistakes, so
    all are random.
    """
    names = ("cell", "hidden_size", "hidden_state_size", "num_layers", "max_seq_len")
    encoder = {"hidden_state_size": 5, "max_seq_len": 4}
    encoder |= {name: options.pop(name) for name in names if name in options}
    agent = PPO(
        env.single_observation_space,
        env.single_action_space,
        {"encoder_config": encoder, "head_config": {"hidden_size": [6]}},
        seed=seed,
        **{"learn_step": 10, "batch_size": 8, "update_epochs": 2, "lr": 1e-2, **options},
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return agent


def fix_noise(agent: PPO) -> PPO:
    """Make sampling deterministic, by the same noise in every step and row."""
    size = agent.policy.head.outputs
    noise = torch.linspace(-1, 1, size)
    agent.policy.head.noise = lambda shape, generator: noise.expand(*shape, size)  # type: ignore
    return agent


def weights(agent: PPO) -> dict[str, Tensor]:
    """A copy of all that training moves: parameters, normalisation, and the optimiser's moments."""
    state = {name: x.clone() for name, x in agent.policy.state_dict().items()}
    for i, moments in agent.optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{i}.{name}": x.clone() for name, x in moments.items()}
    if agent.reward_norm is not None:
        state |= {f"reward.{k}": x.clone() for k, x in agent.reward_norm.state_dict().items()}
    return state


def assert_same_weights(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different


def rollout(agent: PPO) -> dict[str, Tensor]:
    """A copy of every field of the agent's buffer, and of the stored states."""
    assert agent.buffer is not None
    fields = {k: x.clone() for k, x in vars(agent.buffer).items() if isinstance(x, Tensor)}
    return fields | {f"hidden{i}": x.clone() for i, x in enumerate(agent.buffer.hidden)}


def assert_same_rollout(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Bit for bit; NaN equals NaN."""
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(
            ours[name], theirs[name], rtol=0, atol=0, equal_nan=True, msg=lambda m, n=name: n + m
        )
