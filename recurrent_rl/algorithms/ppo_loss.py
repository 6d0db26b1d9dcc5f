"""PPO's loss of a minibatch, and its gradients by hand where they are known.

Then autograd sees the trunks, and behind them one node: heads, densities and losses, forwards and
backwards. Other heads and densities, and all on a GPU, it sees operation by operation.

Letters: M active steps of a minibatch, H width of the features.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recurrent_rl.algorithms.configs import Coefficients, PPOConfig
from recurrent_rl.algorithms.unroll import unroll_trunks
from recurrent_rl.buffers.rollout import Batch, SequenceRolloutBuffer
from recurrent_rl.functional import perceptron
from recurrent_rl.functional.losses import approximate_kl, policy_loss, value_loss
from recurrent_rl.functional.surrogate import surrogate
from recurrent_rl.networks import scores
from recurrent_rl.networks.plain_layers import PlainLayers, plain_layers
from recurrent_rl.networks.policy import ActorCritic
from recurrent_rl.recurrent.sequences import Sequences

# What is noted of each loss.
LOSS_RECORD = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")


def ppo_loss(
    policy: ActorCritic,
    parts: Sequence[Batch],
    config: PPOConfig,
    device: torch.device,
    now: Coefficients | None = None,
    *,
    with_entropy: bool = True,
    steps: int | None = None,
    by_hand: "ByHand | None" = None,
) -> tuple[Tensor, Tensor]:
    """PPO's loss of one minibatch, averaged over its active steps.

    Source: Schulman et al. 2017, eq. 9.

    Args:
        policy: evaluated with gradients.
        parts: the minibatch, in sequences of like length, on any device.
        config: weights and ranges.
        device: the policy's.
        now: what schedules make of hyper-parameters; None: as they are in config.
        with_entropy: compute it even if it is no part of the loss.
        steps: active ones of the minibatch on all ranks; None: there are no others than these.
        by_hand: from ``known_by_hand``; None leaves all derivatives to autograd.

    Returns:
        loss: scalar; of several ranks, this one's share.
        record: of ``LOSS_RECORD``, [5], detached; NaN for an entropy not computed.

    """
    now = Coefficients(config.lr, config.clip_coef, config.ent_coef) if now is None else now
    unrolled = [unroll_trunks(policy, part, device) for part in parts]
    features = [_joined(of_trunk) for of_trunk in zip(*unrolled, strict=True)]
    masks = [part.mask for part in parts if part.mask is not None]
    action = _joined([part.action for part in parts]).to(device)
    work = _Work(
        policy,
        config,
        now,
        len(action) if steps is None else steps,
        with_entropy,
        action,
        _joined(masks).to(device) if masks else None,
        _joined([part.targets for part in parts], dim=1).to(device),
    )
    if by_hand is None:
        return _by_autograd(work, features)
    return by_hand.loss(work, features)


def _joined(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts), dim)


class _Work(NamedTuple):
    """What a loss compares, with what, and how: the arguments of ``ppo_loss``, parts joined."""

    policy: ActorCritic
    config: PPOConfig
    now: Coefficients
    steps: int
    with_entropy: bool
    action: Tensor
    mask: Tensor | None
    targets: Tensor


def _by_autograd(work: _Work, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return loss and record as a function of what the heads read, [M, H] of each trunk."""
    policy, config, now = work.policy, work.config, work.now
    distribution = policy.distribution
    log_prob, old_value, advantage, returns = work.targets.unbind()
    dist_params = policy.action_head(features[0], work.mask)
    log_ratio = distribution.log_prob(dist_params, work.action) - log_prob
    ratio = log_ratio.exp()
    pi_loss = policy_loss(ratio, advantage, now.clip_coef)
    value = policy.value_of(features[-1])
    if (units := policy.value_head.units) is not None:
        value, returns, old_value = (x / units.deviation for x in (value, returns, old_value))
    v_loss = value_loss(value, returns, old_value, config.clip_vf_coef)
    loss = torch.add(pi_loss, v_loss, alpha=config.vf_coef)
    entropy = torch.full_like(pi_loss, torch.nan)
    if now.ent_coef > 0:
        entropy = distribution.entropy(dist_params)
        loss = torch.sub(loss, entropy, alpha=now.ent_coef)
    elif work.with_entropy:
        with torch.no_grad():
            entropy = distribution.entropy(dist_params)
    with torch.no_grad():
        kl = approximate_kl(ratio, log_ratio)
        clipped = ((ratio - 1).abs() > now.clip_coef).to(ratio.dtype)
        record = torch.stack((pi_loss, v_loss, entropy, kl, clipped)).sum(1) / work.steps
    return loss.sum() / work.steps, record


# --- by hand ----------------------------------------------------------------------------------


def known_by_hand(policy: ActorCritic, device: torch.device, ent_coef: float) -> "ByHand | None":
    """Return the derivatives behind the trunks if all of them are known by hand.

    To be asked again when heads may have been changed, or hooks put into them.

    Args:
        policy: whose heads.
        device: the policy's.
        ent_coef: weight of the entropy in the loss.

    """
    if device.type != "cpu" or not scores.known(policy.distribution, entropy=ent_coef > 0):
        return None
    if torch.is_autocast_enabled("cpu"):  # in whose numbers NumPy knows no arithmetic
        return None
    actor, critic = plain_layers(policy.action_head), plain_layers(policy.value_head)
    return None if actor is None or critic is None else ByHand(actor, critic)


class ByHand(NamedTuple):
    """The layers of the heads, whose derivatives and those of densities and losses are known."""

    actor: PlainLayers
    critic: PlainLayers

    def loss(self, work: _Work, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Do what ``_by_autograd`` does, as one node of autograd."""
        own = scores.own_input(work.policy.distribution)
        result: tuple[Tensor, Tensor] = _HeadsLoss.apply(  # type: ignore[no-untyped-call]
            work, self, len(features), own, *features, *self.actor.flat, *self.critic.flat
        )
        return result


class Update(NamedTuple):
    """What one update learns from, and how.

    Attributes:
        policy: whose parameters' gradients an optimiser reads.
        heads: from ``known_by_hand``.
        buffer: the rollout.
        cuts: its sequences.
        targets: from ``buffer.targets``.
        config: weights and ranges.
        now: what schedules make of hyper-parameters.

    """

    policy: ActorCritic
    heads: ByHand | None
    buffer: SequenceRolloutBuffer
    cuts: Sequences
    targets: Tensor
    config: PPOConfig
    now: Coefficients


class _HeadsLoss(torch.autograd.Function):
    """Loss and record as a function of features and of all parameters behind them."""

    @staticmethod
    def forward(
        ctx: Any, work: _Work, heads: ByHand, trunks: int, own: Tensor | None, *inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        policy, config, now = work.policy, work.config, work.now
        of_actor = perceptron.forward(inputs[0], *heads.actor)
        of_critic = perceptron.forward(inputs[trunks - 1], *heads.critic)
        with np.errstate(all="ignore"):  # what is not finite is found in the loss
            density = scores.score(policy.distribution, of_actor[-1], own, work.mask, work.action)
            value = policy.value_head.from_outputs(of_critic[-1]).numpy()
            log_prob, old_value, advantage, returns = work.targets.numpy()
            if (units := policy.value_head.units) is not None:
                value, returns, old_value = (
                    x / units.deviation for x in (value, returns, old_value)
                )
            ratio = (density.log_prob, log_prob, advantage, now.clip_coef)
            found = surrogate(*ratio, value, returns, old_value, config.clip_vf_coef)
        entropy = density.entropy() if now.ent_coef > 0 or work.with_entropy else math.nan
        loss = found.policy_loss + config.vf_coef * found.value_loss
        if now.ent_coef > 0:
            loss -= now.ent_coef * entropy
        noted = (found.policy_loss, found.value_loss, entropy, found.approx_kl, found.clipped, loss)
        result = inputs[0].new_tensor(noted).div_(work.steps)
        ctx.save_for_backward(*inputs)  # so that autograd notices if one is changed
        ctx.kept = work, heads, trunks, of_actor, of_critic, density, found
        ctx.set_materialize_grads(False)
        record = result[:-1]
        ctx.mark_non_differentiable(record)
        return result[-1], record

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
        work, heads, trunks, of_actor, of_critic, density, found = ctx.kept
        assert ctx.saved_tensors
        share = float(grad) / work.steps
        of_outputs, own = density.gradients(found.of_log_prob * share, -work.now.ent_coef * share)
        # In units of returns too: layers give values over their deviation.
        of_value = torch.from_numpy(found.of_value * (share * work.config.vf_coef))
        of_features, of_layers = perceptron.backward(
            of_actor, heads.actor.layers, heads.actor.activation, of_outputs
        )
        of_last, of_critic_layers = perceptron.backward(
            of_critic,
            heads.critic.layers,
            heads.critic.activation,
            of_value.unsqueeze(1),
            of_features if trunks == 1 else None,
        )
        by_trunk = [of_last] if trunks == 1 else [of_features, of_last]
        return None, None, None, own, *by_trunk, *of_layers, *of_critic_layers
