"""Passes over demonstrations: how one group's policy is made to imitate them.

Letters: D steps of a minibatch that are imitated.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.gradient import gradient_step
from recurrent_rl.algorithms.off_policy_agent import OffPolicyAgent
from recurrent_rl.algorithms.on_policy import OnPolicyTrainer
from recurrent_rl.imitation.demonstrations import Demonstrations, Episode
from recurrent_rl.imitation.lessons import Lesson, Lessons
from recurrent_rl.imitation.losses import distance, imitation_loss
from recurrent_rl.imitation.report import CloningEpoch, CloningResult, StoppedBy
from recurrent_rl.networks.acting_policy import Policy
from recurrent_rl.networks.exploring import NoisyBox
from recurrent_rl.validation import COUNT, NON_NEGATIVE, POSITIVE, Config, Range

OnEpoch = Callable[[CloningEpoch], object]


@dataclass(frozen=True)
class CloningOptions(Config):
    """How to clone; see ``clone_behaviour``."""

    epochs: Annotated[int, COUNT]
    batch_size: Annotated[int, COUNT]
    lr: Annotated[float, POSITIVE]
    held_out: Annotated[float, Range(0, 0.9)]
    patience: Annotated[int | None, COUNT]
    ent_coef: Annotated[float, NON_NEGATIVE]
    weight_decay: Annotated[float, NON_NEGATIVE]
    max_grad_norm: Annotated[float, POSITIVE]
    max_seq_len: Annotated[int | None, COUNT]


class Cloning:
    """One group's policy, and what it imitates."""

    def __init__(
        self, agent: Agent, name: str, demonstrations: Demonstrations, options: CloningOptions
    ) -> None:
        """Check that it can be done, and prepare; nothing of the policy is changed yet.

        Args:
            agent: whose group ``name`` it is.
            name: of the group.
            demonstrations: that fit it, see ``check_fits``.
            options: how to clone.

        Raises:
            ValueError: options that make no sense here, or too few episodes.
            RuntimeError: a rollout waits to be learned from; or all that acts is frozen.

        """
        if torch.is_inference_mode_enabled():
            raise RuntimeError(
                "clone_behaviour: expected a call outside of torch.inference_mode, which gradients "
                "cannot be computed in"
            )
        trainer = agent.trainers[name]
        if isinstance(trainer, OnPolicyTrainer) and trainer.collected:
            raise RuntimeError(
                "clone_behaviour: expected no rollout that waits to be learned from, as the policy "
                "that collected it must not change under it; call agent.learn() first"
            )
        self.agent, self.name, self.options = agent, name, options
        self.group: AgentGroup = trainer.group
        self.policy: Policy = trainer.policy
        self.policy.check_parts()
        if options.ent_coef and isinstance(self.policy.distribution, NoisyBox):
            raise ValueError(
                f"ent_coef: expected 0, as this actor chooses one action and has no entropy, got "
                f"{options.ent_coef:g}"
            )
        if options.patience is not None and not options.held_out:
            raise ValueError("patience: expected None without held-out episodes; give held_out=")
        self.parameters = _acting_parameters(self.policy)
        config: Any = trainer.config
        length = options.max_seq_len or config.max_seq_len
        length = length if config.recurrent else 1
        held, trained = self._split(demonstrations)
        self.lessons = Lessons(trained, self.group, length)
        self.lessons.scale_weights()
        self.held_out = Lessons(held, self.group, length) if held else None

    def _split(self, demonstrations: Demonstrations) -> tuple[list[Episode], list[Episode]]:
        """Return the episodes that are held out, and the others; both have steps to imitate."""
        episodes = [e for e in demonstrations.episodes if (e.weight > 0).any()]
        if not episodes:
            raise ValueError(
                f"demonstrations: expected at least one step of a weight above 0, got "
                f"{demonstrations}"
            )
        share = self.options.held_out
        if not share:
            return [], episodes
        if len(episodes) == 1:
            raise ValueError(
                f"held_out: expected 0 with one episode, of which none can be held out, got "
                f"{share:g}; give held_out=0, or more episodes"
            )
        count = min(max(round(share * len(episodes)), 1), len(episodes) - 1)
        order = torch.randperm(len(episodes), generator=self.group.generator).tolist()
        return [episodes[i] for i in order[:count]], [episodes[i] for i in sorted(order[count:])]

    def run(self, on_epoch: OnEpoch | None) -> CloningResult:
        """Make the epochs; whatever ends them, what follows the policy follows it then."""
        seen = self.lessons.observation[:, None]
        self.policy.update_statistics(seen, torch.ones(seen.shape[:2], dtype=torch.bool))
        try:
            epochs, best, stopped_by = self._passes(on_epoch)
        finally:
            self._tell_agent()
        steps = 0 if self.held_out is None else self.held_out.imitated_steps
        return CloningResult(epochs, epochs[best], stopped_by, self.lessons.imitated_steps, steps)

    def _passes(self, on_epoch: OnEpoch | None) -> tuple[list[CloningEpoch], int, StoppedBy]:
        """Return the epochs, the place of the best, and what ended them."""
        options, patience = self.options, self.options.patience
        optimizer = torch.optim.AdamW(
            self.parameters, lr=options.lr, weight_decay=options.weight_decay, fused=True
        )
        epochs: list[CloningEpoch] = []
        best, kept = 0, list[Tensor]()
        stopped_by: StoppedBy = "epochs"
        for number in range(options.epochs):
            epochs.append(self._epoch(number + 1, optimizer))
            if number == 0 or _measure(epochs[-1]) < _measure(epochs[best]):
                best = number
                kept = [p.detach().clone() for p in self.parameters if patience is not None]
            if on_epoch is not None:
                on_epoch(epochs[-1])
            if epochs[-1].stops:
                stopped_by = "on_epoch"
                break
            if patience is not None and number - best >= patience:
                stopped_by = "patience"
                break
        with torch.no_grad():
            for p, value in zip(self.parameters, kept, strict=False):  # none without patience
                p.copy_(value)
        return epochs, best, stopped_by

    def _tell_agent(self) -> None:
        """Let what follows the policy follow it now."""
        self.agent.collection.forget()
        if isinstance(self.agent, OffPolicyAgent):
            for _, target in self.agent.learner.targets():
                target.join()
                target.move(1.0)

    @torch.enable_grad()  # whatever the caller has set
    def _epoch(self, number: int, optimizer: torch.optim.Optimizer) -> CloningEpoch:
        options, policy = self.options, self.policy
        self.lessons.refresh(policy)
        total, count, norms = 0.0, 0.0, list[Tensor]()
        for parts in self.lessons.shuffled(options.batch_size, self.group.generator):
            dist_params, action, weight = _run(policy, parts)
            each = imitation_loss(policy, dist_params, action)
            loss = (weight * each).mean()
            total += float((weight * each.detach()).sum())
            count += float(weight.sum())
            if options.ent_coef:
                entropy = policy.distribution.entropy(dist_params)
                loss = loss - options.ent_coef * entropy.mean()
            try:
                norms.append(gradient_step(loss, optimizer, max_norm=options.max_grad_norm))
            except FloatingPointError as error:
                error.add_note(f"while cloning, in epoch {number}; here lr is {options.lr:g}")
                raise
        held_out_loss, accuracy, error_ = self._compare()
        norm = float(torch.stack(norms).mean())
        return CloningEpoch(
            number, self.name, total / count, held_out_loss, accuracy, error_, norm, len(norms)
        )

    @torch.no_grad()
    def _compare(self) -> tuple[float, float, float]:
        """Return loss, accuracy and error on held-out episodes."""
        if self.held_out is None:
            return math.nan, math.nan, math.nan
        self.held_out.refresh(self.policy)
        loss = same = square = weights = 0.0
        for parts in self.held_out.in_order(self.options.batch_size):
            dist_params, action, weight = _run(self.policy, parts)
            loss += float((weight * imitation_loss(self.policy, dist_params, action)).sum())
            apart = distance(self.policy, dist_params, action)
            same += math.nan if apart.accuracy is None else float((weight * apart.accuracy).sum())
            square += math.nan if apart.square is None else float((weight * apart.square).sum())
            weights += float(weight.sum())
        return loss / weights, same / weights, math.sqrt(square / weights)


def _measure(epoch: CloningEpoch) -> float:
    """Return what makes one epoch better than another: the less the better."""
    return epoch.loss if math.isnan(epoch.held_out_loss) else epoch.held_out_loss


def _run(policy: Policy, parts: Sequence[Lesson]) -> tuple[Tensor, Tensor, Tensor]:
    """Return distribution's parameters, actions and weights of a minibatch, [D, *] each."""
    params = torch.cat([part.dist_params(policy) for part in parts])
    return params, torch.cat([p.action for p in parts]), torch.cat([p.weight for p in parts])


def _acting_parameters(policy: Policy) -> list[nn.Parameter]:
    """Return what chooses actions and is not frozen, each once."""
    (_, _, _, head), *_ = policy.heads()
    every = dict.fromkeys([*policy.actor_trunk.parameters(), *head.parameters()])
    found = [p for p in every if p.requires_grad]
    if not found:
        raise RuntimeError(
            "clone_behaviour: expected parameters that require gradients in what acts, got none, "
            "as all are frozen; unfreeze some by agent.policy.requires_grad_(True)"
        )
    return found
