"""Stored sequences run through a policy again.

Letters: T steps, N rows, S sequences, L longest sequence, K layers, H units, M active steps.
"""

import itertools
from typing import Any

import torch
from torch import Tensor

from recurrent_rl.buffers.rollout import Batch, SequenceRolloutBuffer
from recurrent_rl.buffers.steps import Steps
from recurrent_rl.networks.policy import ActorCritic


def unroll_trunks(policy: ActorCritic, batch: Batch, device: torch.device) -> list[Tensor]:
    """Run a minibatch through the policy's trunks, burn-in first.

    Returns:
        what the heads read, [M, H] of each trunk.

    """

    def put(x: Any) -> Any:
        return None if x is None else x.to(device)

    state = [put(s) for s in batch.state]
    if batch.burn_in is not None:
        observation, extra, length, view = map(put, batch.burn_in)
        state = policy.advance(observation, extra, length, state, view)
    return policy.unroll_trunks(
        put(batch.observation),
        put(batch.extra),
        state,
        put(batch.active_index),
        put(batch.view),
    )


@torch.no_grad()
def refresh_hidden_state(policy: ActorCritic, buffer: Steps) -> None:
    """Recompute a buffer's stored states, but the first, with the policy's current weights.

    A remedy for states gone stale over epochs (Kapturowski et al. 2019, "Recurrent Experience
    Replay in Distributed Reinforcement Learning", sec. 3). Runs chunk by chunk, so its memory does
    not grow with T.
    """
    if not buffer.hidden:  # a feed-forward policy
        return
    device = policy.device
    lead = buffer.lead  # what earlier steps have left open keeps the state that it was left with
    times = buffer.state_at[lead:]
    state = [h[lead].transpose(0, 1).to(device) for h in buffer.hidden]  # [N, K, H] -> [K, N, H]
    for chunk, (begin, end) in enumerate(itertools.pairwise(times), start=lead + 1):
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
        view = buffer.views_of((begin + front) * buffer.rows + row)
        fresh = (since >= 0).to(device)
        state = policy.advance(
            observation,
            extra,
            taken.sum(0).to(device),
            [s.masked_fill(fresh[:, None], 0) for s in state],
            None if view is None else view.to(device),
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
        log_prob, value: [lead + T, N]; NaN where the step is not active.

    """
    cuts = buffer.sequences()
    log_prob, value = (torch.full((buffer.active.numel(),), torch.nan) for _ in range(2))
    device = policy.device
    if len(cuts):
        batch = buffer.batch(cuts, torch.arange(len(cuts)), buffer.targets(False))
        features = unroll_trunks(policy, batch, device)
        mask = None if batch.mask is None else batch.mask.to(device)
        dist_params = policy.action_head(features[0], mask)
        values = policy.value_of(features[-1])
        distribution = policy.action_head.distribution
        log_prob[batch.step] = distribution.log_prob(dist_params, batch.action.to(device)).cpu()
        value[batch.step] = values.cpu()
    shape = buffer.active.shape
    return log_prob.view(shape), value.view(shape)
