"""The learner core: backpropagation through time over minibatches of whole sequences.

It knows neither environments nor groups: a policy, an optimiser and a filled buffer in, diagnostics
out. Feed-forward policies are the case of sequences of length one.
"""

import itertools
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from recurrent_rl.config import PPOConfig
from recurrent_rl.functional import approximate_kl, explained_variance, policy_loss, value_loss
from recurrent_rl.networks import ActorCritic
from recurrent_rl.rollout import Batch, SequenceRolloutBuffer, minibatches


@dataclass(frozen=True)
class Diagnostics:
    """What happened in one call of ``learn``; means over its minibatches unless said otherwise.

    Attributes:
        policy_loss: clipped surrogate loss.
        value_loss: half the squared error of the value.
        entropy: of the policy [nats].
        approx_kl: approximate KL divergence from the collecting policy [nats].
        clip_fraction: share of steps whose probability ratio left the clipping range, in [0, 1].
        grad_norm: global gradient norm before clipping.
        explained_variance: of the returns by the collected values, at most 1; of the rollout.
        padding: share of computed steps that no sequence has, in [0, 1).
        lr: step size used.
        updates: gradient steps taken.
        epochs: passes over the rollout begun; fewer than asked for when target_kl stopped them.

    """

    policy_loss: float
    value_loss: float
    entropy: float
    approx_kl: float
    clip_fraction: float
    grad_norm: float
    explained_variance: float
    padding: float
    lr: float
    updates: int
    epochs: int

    def to_dict(self) -> dict[str, float]:
        """Names and values, as a logger takes them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def learn(
    policy: ActorCritic,
    optimizer: torch.optim.Optimizer,
    buffer: SequenceRolloutBuffer,
    config: PPOConfig,
    lr: float,
    generator: torch.Generator,
) -> Diagnostics:
    """Train on a rollout whose returns are computed.

    Args:
        policy: changed in place.
        optimizer: over the policy's parameters.
        buffer: left as it is, except for the stored states if they are refreshed.
        config: hyper-parameters.
        lr: step size for this call.
        generator: shuffles; on the CPU.

    Returns:
        diagnostics; ``updates`` is 0 if no step of the rollout was active.

    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    device = next(policy.parameters()).device
    cuts = buffer.sequences()
    targets = buffer.targets(config.normalize_advantage)
    records: list[Tensor] = []
    padding = computed = epochs = 0
    stop = False
    for epoch in range(config.update_epochs):
        if stop:
            break
        epochs += 1
        if config.refresh_hidden_state and epoch:
            refresh_hidden_state(policy, buffer)
        for which in minibatches(cuts.active, cuts.length, config.batch_size, generator):
            batch = buffer.batch(cuts, which, targets)
            computed += batch.observation.shape[0] * batch.observation.shape[1]
            padding += batch.padding
            loss, record = ppo_loss(policy, batch, config, device)
            kl = record[RECORD.index("approx_kl")]
            if config.target_kl is not None and float(kl) > config.target_kl:
                stop = True
                break
            norm = gradient_step(loss, optimizer, config.max_grad_norm)
            records.append(torch.cat((record, norm[None])))
    active = buffer.active & buffer.exists
    mean = torch.stack(records).mean(0).tolist() if records else [0.0] * len(RECORD)
    return Diagnostics(
        **dict(zip(RECORD, mean, strict=True)),
        explained_variance=explained_variance(buffer.value[active], buffer.returns[active]),
        padding=padding / max(computed, 1),
        lr=lr,
        updates=len(records),
        epochs=epochs,
    )


def gradient_step(loss: Tensor, optimizer: torch.optim.Optimizer, max_norm: float) -> Tensor:
    """Take one clipped step; return the global gradient norm before clipping, detached.

    Raises:
        FloatingPointError: the norm is not finite; the weights are those before the step.

    """
    optimizer.zero_grad(set_to_none=False)  # gradients may be views of one vector
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, max_norm)
    if not torch.isfinite(norm):
        raise FloatingPointError(
            f"learn: expected a finite gradient, got norm {norm.item()} (loss {loss.item()}); the "
            f"weights are those before this step. Lower lr or reward_scale, or set "
            f"normalize_reward=True"
        )
    optimizer.step()
    return norm.detach()


# What is noted of each minibatch: the loss's five, then the gradient's norm.
RECORD = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "grad_norm")


def ppo_loss(
    policy: ActorCritic, batch: Batch, config: PPOConfig, device: torch.device
) -> tuple[Tensor, Tensor]:
    """PPO's loss of one minibatch, averaged over its active steps.

    Source: Schulman et al. 2017, eq. 9.

    Args:
        policy: evaluated with gradients.
        batch: on any device.
        config: weights and ranges.
        device: the policy's.

    Returns:
        loss: scalar.
        record: the first five of ``RECORD``, [5], detached.

    """
    params, value = evaluate(policy, batch, device)
    action, log_prob, advantage, returns, old_value = (
        x.to(device)
        for x in (batch.action, batch.log_prob, batch.advantage, batch.returns, batch.value)
    )
    log_ratio = policy.head.log_prob(params, action) - log_prob
    ratio = log_ratio.exp()
    pi_loss = policy_loss(ratio, advantage, config.clip_coef)
    v_loss = value_loss(value, returns, old_value, config.clip_vf_coef)
    loss = torch.add(pi_loss, v_loss, alpha=config.vf_coef)
    with torch.set_grad_enabled(config.ent_coef > 0):
        entropy = policy.head.entropy(params)
    if config.ent_coef > 0:
        loss = torch.sub(loss, entropy, alpha=config.ent_coef)
    with torch.no_grad():
        kl = approximate_kl(ratio, log_ratio)
        clipped = ((ratio - 1).abs() > config.clip_coef).to(ratio.dtype)
        record = torch.stack((pi_loss, v_loss, entropy, kl, clipped)).mean(1)
    return loss.mean(), record


def evaluate(policy: ActorCritic, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Run a minibatch through the policy, burn-in first: head parameters [M, ...], values [M]."""

    def put(x: Any) -> Any:
        return None if x is None else x.to(device)

    state = [put(s) for s in batch.state]
    if batch.prefix is not None:
        observation, extra, length = batch.prefix
        state = policy.advance(put(observation), put(extra), put(length), state)
    return policy.evaluate(
        put(batch.observation), put(batch.extra), state, put(batch.chosen), put(batch.mask)
    )


@torch.no_grad()
def refresh_hidden_state(policy: ActorCritic, buffer: SequenceRolloutBuffer) -> None:
    """Recompute a buffer's stored states, but the first, with the policy's current weights.

    A remedy for states gone stale over epochs (Kapturowski et al. 2019, "Recurrent Experience
    Replay in Distributed Reinforcement Learning", sec. 3). Runs chunk by chunk, so its memory does
    not grow with T.
    """
    if not buffer.hidden:  # a feed-forward policy
        return
    device = next(policy.parameters()).device
    times = buffer.state_at
    state = [h[0].transpose(0, 1).to(device) for h in buffer.hidden]  # [N, K, H] -> [K, N, H]
    for chunk, (begin, end) in enumerate(itertools.pairwise(times), start=1):
        part = slice(begin, end)
        start, exists = buffer.start[part], buffer.exists[part]
        time = torch.arange(end - begin)[:, None]
        since = torch.where(start, time, -1).amax(0)  # [N] last start, -1: none in this chunk
        # The steps of each row from its last start on, moved to the front: [L, N].
        taken = exists & (time >= since)
        front = (~taken).long().argsort(dim=0, stable=True)
        row = torch.arange(buffer.rows)
        observation = buffer.obs[part][front, row].to(device)
        extra = buffer.extra[part][front, row].to(device) if buffer.extra is not None else None
        fresh = (since >= 0).to(device)
        state = policy.advance(
            observation,
            extra,
            taken.sum(0).to(device),
            [s.masked_fill(fresh[:, None], 0) for s in state],
        )
        fresh = buffer.start[end].to(device)
        state = [s.masked_fill(fresh[:, None], 0) for s in state]
        for stored, s in zip(buffer.hidden, state, strict=True):
            stored[chunk] = s.transpose(0, 1)


@torch.no_grad()
def replay(policy: ActorCritic, buffer: SequenceRolloutBuffer) -> tuple[Tensor, Tensor]:
    """Log-probabilities and values of a rollout as the learner computes them.

    Before the first update they equal the collected ones (the "ratio one" invariant).

    Args:
        policy: evaluated without gradients.
        buffer: a collected rollout.

    Returns:
        log_prob, value: [T, N]; NaN where the step is not active.

    """
    cuts = buffer.sequences()
    log_prob, value = (torch.full((buffer.steps * buffer.rows,), torch.nan) for _ in range(2))
    device = next(policy.parameters()).device
    if len(cuts):
        batch = buffer.batch(cuts, torch.arange(len(cuts)), buffer.targets(False))
        params, values = evaluate(policy, batch, device)
        log_prob[batch.step] = policy.head.log_prob(params, batch.action.to(device)).cpu()
        value[batch.step] = values.cpu()
    shape = (buffer.steps, buffer.rows)
    return log_prob.view(shape), value.view(shape)
