"""PPO's update: backpropagation through time over minibatches of whole sequences.

It knows neither environments nor groups: a policy, an optimiser and a filled buffer in, diagnostics
out. Feed-forward policies are the case of sequences of length one.
"""

import math
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from recurrent_rl.algorithms.compiled_ppo import compiled_gradient
from recurrent_rl.algorithms.configs import Coefficients, PPOConfig
from recurrent_rl.algorithms.gradient import gradient_step
from recurrent_rl.algorithms.ppo_loss import LOSS_RECORD, Update, known_by_hand, ppo_loss
from recurrent_rl.algorithms.unroll import refresh_hidden_state
from recurrent_rl.buffers.minibatches import minibatch_count, minibatches, rectangles
from recurrent_rl.buffers.rollout import SequenceRolloutBuffer
from recurrent_rl.distributed import ALONE, World
from recurrent_rl.functional.statistics import explained_variance
from recurrent_rl.networks.policy import ActorCritic


@dataclass(frozen=True)
class Diagnostics:
    """What happened in one call of ``learn``; means over its minibatches unless said otherwise.

    Attributes:
        policy_loss: clipped surrogate loss.
        value_loss: half the squared error of the value; with value_norm in its units.
        entropy: of the policy [nats]; of the first epoch only where it is no part of the loss
            (ent_coef = 0), as that of squashed actions takes a while to compute.
        approx_kl: approximate KL divergence from the collecting policy [nats].
        clip_fraction: share of steps whose probability ratio left the clipping range, in [0, 1].
        grad_norm: global gradient norm before clipping.
        explained_variance: of the returns by the collected values, at most 1; of the rollout.
        padding: share of computed steps that no sequence has, in [0, 1).
        lr: step size used.
        clip_coef: clipping range used.
        ent_coef: weight of the entropy bonus used.
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
    clip_coef: float
    ent_coef: float
    updates: int
    epochs: int

    @classmethod
    def of_nothing(cls, now: Coefficients) -> "Diagnostics":
        """What there is to say where nothing could be trained."""
        return cls(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, math.nan, 0.0, *now, updates=0, epochs=0)

    def to_dict(self) -> dict[str, float]:
        """Names and values, as a logger takes them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@torch.enable_grad()  # whatever the caller has set
def ppo_update(
    policy: ActorCritic,
    optimizer: torch.optim.Optimizer,
    buffer: SequenceRolloutBuffer,
    config: PPOConfig,
    now: Coefficients,
    generator: torch.Generator,
    world: World = ALONE,
) -> Diagnostics:
    """Train on a rollout whose returns are computed.

    Ranks take as many steps as the one with the most minibatches. All active steps of all ranks
    count the same in a step's gradient, however many of them a rank has.

    Args:
        policy: changed in place.
        optimizer: over the policy's parameters.
        buffer: left as it is, except for the stored states if they are refreshed.
        config: hyper-parameters.
        now: what schedules make of hyper-parameters, for this call.
        generator: shuffles; on the CPU.
        world: whose ranks train on rollouts of their own.

    Returns:
        diagnostics, of all ranks together; ``updates`` is 0 if no step of the rollout was active.

    """
    for group in optimizer.param_groups:
        group["lr"] = now.lr
    device = policy.device
    cuts = buffer.sequences()
    targets = buffer.targets(config.normalize_advantage, world)
    count = max(world.numbers(minibatch_count(cuts.active, config.batch_size)))[0]
    heads = known_by_hand(policy, device, now.ent_coef)
    update = Update(policy, heads, buffer, cuts, targets, config, now)
    of: Gradient = compiled_gradient(update) or _ByAutograd(update)
    records: list[Tensor] = []
    epochs = 0
    stop = False
    for epoch in range(config.update_epochs):
        if stop:
            break
        epochs += 1
        if config.refresh_hidden_state and epoch:
            refresh_hidden_state(policy, buffer)
        dealt = list(minibatches(cuts.active, config.batch_size, generator, count))
        sizes = world.sum(torch.tensor([int(cuts.active[which].sum()) for which in dealt]))
        for which, steps in zip(dealt, sizes.tolist(), strict=True):
            if not steps:
                continue
            loss, record = None, torch.zeros(len(RECORD) - 1, device=device)
            if len(which):
                loss, record = of.loss(which, steps, with_entropy=epoch == 0)
            if config.target_kl is not None:
                kl = world.sum(record[RECORD.index("approx_kl")].clone())
                if float(kl) > config.target_kl:
                    stop = True
                    break
            norm = gradient_step(
                loss,
                optimizer,
                max_norm=config.max_grad_norm,
                world=world,
                compiled=config.compiled,
                written=of.writes,
            )
            records.append(torch.cat((record, norm[None] / world.size)))
    active = buffer.active & buffer.exists
    mean = [0.0] * len(RECORD)
    if records:  # not a number where there is no entropy
        mean = world.sum(torch.stack(records)).nanmean(0).tolist()
    padding, computed = world.sum(torch.tensor([of.padding, of.computed])).tolist()
    return Diagnostics(
        **dict(zip(RECORD, mean, strict=True)),
        explained_variance=explained_variance(
            buffer.value[active], buffer.returns[active], world.gather
        ),
        padding=padding / max(computed, 1),
        **now._asdict(),
        updates=len(records),
        epochs=epochs,
    )


# What is noted of each minibatch.
RECORD = (*LOSS_RECORD, "grad_norm")


class Gradient(Protocol):
    """How the gradients of a rollout's minibatches are found.

    Attributes:
        writes: ``loss`` writes gradients, too; else autograd has to be asked for them.
        computed: steps that were run through the policy so far.
        padding: those of them that no sequence has.

    """

    writes: ClassVar[bool]
    computed: int
    padding: int

    def loss(self, which: Tensor, steps: int, *, with_entropy: bool) -> tuple[Tensor, Tensor]:
        """Return a minibatch's loss and record, see ``ppo_loss``.

        Args:
            which: its sequences, [S].
            steps: active ones of the minibatch on all ranks.
            with_entropy: compute it even if it is no part of the loss.

        """


class _ByAutograd:
    """By PyTorch, whatever the policy is made of; sequences are padded to like lengths."""

    writes: ClassVar[bool] = False

    def __init__(self, update: Update) -> None:
        """Arg: what is learned from."""
        self._update = update
        self.computed = self.padding = 0

    def loss(self, which: Tensor, steps: int, *, with_entropy: bool) -> tuple[Tensor, Tensor]:
        update = self._update
        parts = [
            update.buffer.batch(update.cuts, part, update.targets)
            for part in rectangles(which, update.cuts.length)
        ]
        self.computed += sum(part.observation.shape[:2].numel() for part in parts)
        self.padding += sum(part.padding for part in parts)
        return ppo_loss(
            update.policy,
            parts,
            update.config,
            update.policy.device,
            update.now,
            with_entropy=with_entropy,
            steps=steps,
            by_hand=update.heads,
        )
