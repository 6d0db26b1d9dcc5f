"""Change a policy's architecture and keep what it does.

A new policy takes its weights from an old one, weight by weight (see ``origins``). Whatever learns
with it comes along: optimisers' moments, critics' heads, and target networks.
"""

from collections.abc import Mapping
from functools import singledispatch

import torch
from torch import Tensor

from recurrent_rl.algorithms.actor_critic_update import ActorCriticLearner
from recurrent_rl.algorithms.dqn_update import DQNLearner
from recurrent_rl.algorithms.learner import Learner
from recurrent_rl.algorithms.off_policy import OffPolicyTrainer
from recurrent_rl.algorithms.on_policy import OnPolicyTrainer
from recurrent_rl.algorithms.sac_update import SACLearner
from recurrent_rl.algorithms.trainer import Trainer
from recurrent_rl.evolution.origins import (
    Heads,
    Origins,
    Transfer,
    copy_custom,
    needed_inputs,
)
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.networks.off_policy import CentralCritic, OffPolicyActor
from recurrent_rl.networks.policy import ActorCritic
from recurrent_rl.recurrent.growth import same_origins


def morph(trainer: Trainer, net_config: NetConfig, generator: torch.Generator) -> Transfer:
    """Give a group's policy another architecture; weights and optimisers' states come along.

    Growing changes no output: not over whole sequences, and not with hidden states carried over;
    unless a LayerNorm reads what has grown. That goes for critics and for target networks, too.

    Args:
        trainer: of the group, ``PPO.trainer`` for example; changed in place. The next collection
            starts afresh.
        net_config: may differ from the present one in widths (and channels), activations and
            residual layers.
        generator: draws the new weights.

    Returns:
        what came from where.

    Raises:
        TypeError: a trainer whose policy cannot be morphed.

    """
    return _morph(trainer, net_config, generator)


@singledispatch
def _morph(trainer: Trainer, net_config: NetConfig, generator: torch.Generator) -> Transfer:
    raise TypeError(f"morph: expected a trainer of this package, got {type(trainer).__name__}")


# --- on-policy ----------------------------------------------------------------------------------


@_morph.register
def _(trainer: OnPolicyTrainer, net_config: NetConfig, generator: torch.Generator) -> Transfer:
    old = trainer.policy
    policy = trainer.group.build_policy(net_config, generator)
    assert isinstance(policy, ActorCritic)
    transfer = between_actor_critics(old, policy)
    transfer.copy_weights()
    if (units := policy.value_head.units) is not None:
        assert old.value_head.units is not None
        units.load_state_dict(old.value_head.units.state_dict())
    transfer.freeze(policy)
    moments = transfer.moments(
        old.trained_parameters(), trainer.moments(), policy.trained_parameters()
    )
    trainer.replace_policy(net_config, policy, moments)
    return transfer


def between_actor_critics(old: ActorCritic, new: ActorCritic) -> Transfer:
    """Return what PPO's policy takes over from another."""
    found = Origins()
    needs = [needed_inputs(list(x.layers)) for x in (old.action_head, old.value_head)]
    # One encoder is read by both heads; of two, the first by the actor.
    by_encoder = [needs] if len(old.encoders) == 1 else [[need] for need in needs]
    features = found.encoders(old, new, by_encoder)
    a, b = old.action_head, new.action_head
    found.action_head((a.layers, a.distribution), (b.layers, b.distribution), features[0])
    found.layers_of(old.value_head.layers, new.value_head.layers, features[-1])
    return Transfer(old, new, found.origin, found.layers)


# --- off-policy ---------------------------------------------------------------------------------


@_morph.register
def _(trainer: OffPolicyTrainer, net_config: NetConfig, generator: torch.Generator) -> Transfer:
    learner = trainer.learner
    policy = trainer.group.build_policy(net_config, generator)
    new = learner.successor(trainer.name, policy, net_config.head_config, generator)
    transfer = between_learners(learner, new, trainer.name)
    transfer.copy_weights()
    transfer.freeze(policy)
    if isinstance(new, ActorCriticLearner):
        transfer.freeze(new.critic.heads)
    for (_, before), (_, after) in zip(learner.targets(), new.targets(), strict=True):
        copy_custom(before.module, after.module)
        transfer.copy_twins(before.pairs, after.pairs)
    for (_, was), (_, network) in zip(learner.networks(), new.networks(), strict=True):
        for part, optimizer in was.optimizers.items():
            moments = transfer.moments(
                was.parts[part].trained_parameters(),
                optimizer.moments(was.parts[part]),
                network.parts[part].trained_parameters(),
            )
            network.optimizers[part].replace(network.parts[part], moments)
    new.updates = learner.updates
    trainer.replace_policy(net_config, policy, new)
    return transfer


@singledispatch
def between_learners(old: Learner, new: Learner, group: str) -> Transfer:
    """Return what a learner takes over from another, which has another network of one group's."""
    raise TypeError(f"morph: expected a learner of this package, got {type(old).__name__}")


@between_learners.register
def _(old: DQNLearner, new: DQNLearner, group: str) -> Transfer:
    found, a, b = Origins(), old.policy, new.policy
    heads: Heads = [(a.q_head.layers, b.q_head.layers)]
    if a.q_head.state_value is not None and b.q_head.state_value is not None:
        heads.append((a.q_head.state_value, b.q_head.state_value))
    (features,) = found.encoders(a, b, [[needed_inputs(list(head)) for head, _ in heads]])
    for x, y in heads:
        found.layers_of(x, y, features)
    return Transfer(a, b, found.origin, found.layers)


@between_learners.register
def _(old: ActorCriticLearner, new: ActorCriticLearner, group: str) -> Transfer:
    found, a, b = Origins(), old.policies[group], new.policies[group]
    by_actor = [needed_inputs(list(a.action_head.layers))]
    by_critic = _needs(old.critic, old.policies, group)
    needs = [by_actor + by_critic] if a.shares_trunk else [by_actor, by_critic]
    features = found.encoders(a, b, needs)
    found.action_head(
        (a.action_head.layers, a.distribution), (b.action_head.layers, b.distribution), features[0]
    )
    for name, policy in new.policies.items():
        if name != group:
            found.as_it_is(old.policies[name], policy)
        inputs = _joint_origins(old.critic, old.policies, name, {group: features[-1]})
        pairs = zip(old.critic.heads_of(name), new.critic.heads_of(name), strict=True)
        for x, y in pairs:
            found.layers_of(x, y, inputs)
    if isinstance(old, SACLearner) and isinstance(new, SACLearner):
        found.origin[new.log_alpha] = (old.log_alpha, torch.zeros((), dtype=torch.int64))
    return Transfer(a, b, found.origin, found.layers)


def _needs(
    critic: CentralCritic, policies: Mapping[str, OffPolicyActor], group: str
) -> list[Tensor]:
    """Return how much a group's features are needed, by each critic's head for each agent."""
    needs, width = [], policies[group].critic_trunk.outputs
    for name in policies:
        begin = 0
        needed = [needed_inputs(list(head)) for head in critic.heads_of(name)]
        for block in critic.blocks(name):
            if block == group:
                needs += [each[begin : begin + width] for each in needed]
            begin += critic.block(policies[block])
    return needs


def _joint_origins(
    critic: CentralCritic,
    policies: Mapping[str, OffPolicyActor],
    name: str,
    features: Mapping[str, Tensor],
) -> Tensor:
    """Return the origins of all that a group's heads read.

    Args:
        critic: the old one.
        policies: the old ones.
        name: of the group.
        features: origins of those of some groups' critic trunks; others' stay.

    """
    joined, begin = [], 0
    for block in critic.blocks(name):
        policy = policies[block]
        width, outputs = critic.block(policy), policy.critic_trunk.outputs
        origin = torch.cat(
            (features.get(block, same_origins(outputs)), torch.arange(outputs, width))
        )
        joined.append(torch.where(origin < 0, origin, begin + origin))
        begin += width
    return torch.cat(joined)
