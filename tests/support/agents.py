"""Small agents whose behaviour clearly depends on all that they see, and ways to compare them."""

from typing import Any

import torch
from torch import Tensor

from recurrent_rl import IPPO, MAPPO, PPO
from recurrent_rl.algorithms.on_policy import OnPolicyTrainer
from recurrent_rl.algorithms.unroll import replay

Team = IPPO | MAPPO


def network(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options of networks out of others."""
    names = ("cell", "hidden_size", "hidden_state_size", "num_layers", "max_seq_len")
    encoder: dict[str, Any] = {"hidden_state_size": 5, "max_seq_len": 4}
    if options.get("recurrent", True):
        encoder["hidden_size"] = []  # what is remembered is then all there is between
    encoder |= {name: options.pop(name) for name in names if name in options}
    return {"encoder_config": encoder, "head_config": {"hidden_size": [6]}}


def randomise(policy: Any, seed: int) -> None:
    """Replace all weights: the usual initial ones (biases of zero) would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))


LEARNING: dict[str, Any] = {
    "learn_step": 10,
    "batch_size": 8,
    "update_epochs": 2,
    "lr": 1e-2,
    # Rewards and actions as the environment has them, unless a test is about something else.
    "normalize_reward": False,
    "squash_output": False,
}


def make_agent(env: Any, *, seed: int = 0, **options: Any) -> PPO:
    """An agent for a vector environment's spaces; options of networks and of learning mixed."""
    agent = PPO(
        env.single_observation_space,
        env.single_action_space,
        network(options),
        seed=seed,
        **{**LEARNING, **options},
    )
    randomise(agent.policy, seed)
    return agent


def make_team(env: Any, *, seed: int = 0, kind: type[Team] = IPPO, **options: Any) -> Team:
    """The same for a vector of PettingZoo environments; ``net_config`` goes before the rest."""
    shapes = options.pop("net_config", None) or network(options)
    agent: Team = kind(
        env.observation_spaces,
        env.action_spaces,
        env.possible_agents,
        shapes,
        seed=seed,
        **{**LEARNING, **options},
    )
    for i, group in enumerate(agent.groups):
        randomise(group.policy, seed + i)
    return agent


def fix_noise(agent: PPO) -> PPO:
    """Make sampling deterministic, by the same noise in every step and row."""
    distribution = agent.policy.action_head.distribution
    noise = torch.linspace(-1, 1, distribution.outputs)
    distribution.noise = lambda shape, generator: noise.expand(*shape, -1)  # type: ignore
    return agent


def trainer_of(agent: Any) -> OnPolicyTrainer:
    """The trainer of a PPO agent, or the given trainer itself."""
    return agent if isinstance(agent, OnPolicyTrainer) else agent.trainer


def prepare(agent: Any) -> None:
    """Compute what ``learn`` begins with: the reward statistics, advantages and returns."""
    trainers = agent.trainers.values() if isinstance(agent, IPPO | MAPPO) else (trainer_of(agent),)
    for trainer in trainers:
        trainer._prepare()


def weights(agent: Any) -> dict[str, Tensor]:
    """A copy of all that training moves: parameters, normalisation, and the optimiser's moments."""
    trainer = trainer_of(agent)
    state = {name: x.clone() for name, x in trainer.policy.state_dict().items()}
    for i, moments in trainer.optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{i}.{name}": x.clone() for name, x in moments.items()}
    if trainer.reward_norm is not None:
        state |= {f"reward.{k}": x.clone() for k, x in trainer.reward_norm.state_dict().items()}
    return state


def team_weights(agent: Team) -> dict[str, Tensor]:
    """The same of all groups."""
    return {
        f"{name}.{key}": x
        for name, trainer in agent.trainers.items()
        for key, x in weights(trainer).items()
    }


def assert_same_weights(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different


def rollout(agent: Any) -> dict[str, Tensor]:
    """A copy of every field of a PPO agent's or trainer's buffer, and of the stored states.

    Rows are the second axis of each.
    """
    prepare(agent)
    buffer = trainer_of(agent).buffer
    assert buffer is not None
    fields = {k: x.clone() for k, x in vars(buffer).items() if isinstance(x, Tensor)}
    fields["last_value"] = buffer.last_value[None].clone()
    return fields | {f"hidden{i}": x.clone() for i, x in enumerate(buffer.hidden)}


def assert_same_rollout(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Bit for bit; NaN equals NaN."""
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(
            ours[name], theirs[name], rtol=0, atol=0, equal_nan=True, msg=lambda m, n=name: n + m
        )


def assert_ratio_one(agent: Any, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """The learner sees what collection saw, trains on each active step once, and on nothing else.

    Of a PPO agent or a trainer, after collection and before learning: log-probabilities and values
    by replay of the sequences are those that were stored, so all probability ratios are 1.
    """
    trainer = trainer_of(agent)
    buffer = trainer.buffer
    assert buffer is not None
    active = buffer.active
    log_prob, value = replay(trainer.policy, buffer)
    for ours, theirs in ((log_prob, buffer.log_prob), (value, buffer.value)):
        assert torch.equal(ours.isnan(), ~active)
        torch.testing.assert_close(ours[active], theirs[active], rtol=rtol, atol=atol)
    cuts = buffer.sequences()
    if len(cuts):
        batch = buffer.batch(cuts, torch.arange(len(cuts)), buffer.targets(False))
        assert batch.step.sort().values.tolist() == active.flatten().nonzero()[:, 0].tolist()
