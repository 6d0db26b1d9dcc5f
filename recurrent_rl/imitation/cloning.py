"""Behaviour cloning: a policy learns to do what was demonstrated, by maximum likelihood.

Sources: Pomerleau 1988, "ALVINN: An Autonomous Land Vehicle in a Neural Network"; Bain and Sammut
1995, "A Framework for Behavioural Cloning".
"""

from collections.abc import Mapping
from typing import overload

from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.imitation.demonstrations import Demonstrations
from recurrent_rl.imitation.epochs import Cloning, CloningOptions, OnEpoch
from recurrent_rl.imitation.fitting import check_fits, demonstrations_by_group
from recurrent_rl.imitation.report import CloningResult


@overload
def clone_behaviour(
    agent: Agent,
    demonstrations: Demonstrations,
    epochs: int = ...,
    *,
    batch_size: int = ...,
    lr: float = ...,
    held_out: float = ...,
    patience: int | None = ...,
    ent_coef: float = ...,
    weight_decay: float = ...,
    max_grad_norm: float = ...,
    max_seq_len: int | None = ...,
    on_epoch: OnEpoch | None = ...,
) -> CloningResult: ...


@overload
def clone_behaviour(
    agent: Agent,
    demonstrations: Mapping[str, Demonstrations],
    epochs: int = ...,
    *,
    batch_size: int = ...,
    lr: float = ...,
    held_out: float = ...,
    patience: int | None = ...,
    ent_coef: float = ...,
    weight_decay: float = ...,
    max_grad_norm: float = ...,
    max_seq_len: int | None = ...,
    on_epoch: OnEpoch | None = ...,
) -> dict[str, CloningResult]: ...


def clone_behaviour(
    agent: Agent,
    demonstrations: Demonstrations | Mapping[str, Demonstrations],
    epochs: int = 20,
    *,
    batch_size: int = 256,
    lr: float = 1e-3,
    held_out: float = 0.1,
    patience: int | None = None,
    ent_coef: float = 0.0,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    max_seq_len: int | None = None,
    on_epoch: OnEpoch | None = None,
) -> CloningResult | dict[str, CloningResult]:
    """Train an agent's policy to do what was demonstrated, by maximum likelihood.

    Episodes are cut into the sequences that learning makes of rollouts, run through the same
    whole-sequence kernels, and judged by the same distributions. Where a long episode goes on, its
    sequence begins with the memory of what came before, recomputed at the start of each epoch.

    What acts is trained: the actor's encoder, its head, the deviation of Box actions; frozen
    parameters stay as they are. Observation statistics (``normalize_obs``) take the training
    episodes in before the first epoch. The critic is not trained, but where it shares the encoder
    it has another one afterwards; slowly moving copies take over the new weights at once. The
    agent's own optimisers, clock (``env_steps``) and hyper-parameters stay as they are; the next
    collection starts afresh.

    Args:
        agent: any but DQN, whose network gives values rather than a policy.
        demonstrations: of the agent's spaces; of several groups a dictionary by their names, and
            groups that are not in it stay as they are.
        epochs: passes over the demonstrations.
        batch_size: imitated steps in a minibatch, about: sequences stay whole.
        lr: step size of an Adam of its own.
        held_out: share of the episodes that is not trained on but compared with, in [0, 0.9];
            drawn by the agent's own random stream.
        patience: end when the held-out loss has not improved for so many epochs, and go back to the
            weights of the best epoch; None: make all epochs and keep the last weights.
        ent_coef: entropy bonus per step, which keeps a policy from being certain of everything.
        weight_decay: decoupled from the gradient (Loshchilov and Hutter 2019).
        max_grad_norm: gradients are scaled down to this norm.
        max_seq_len: steps that gradients flow back; None: as in the agent's own learning.
        on_epoch: called after each epoch; may stop.

    Returns:
        losses and accuracies; of a dictionary one by group.

    Raises:
        TypeError: an agent or demonstrations of the wrong kind.
        ValueError: other spaces, options out of range, too few episodes to hold some out, missing
            rewards or names of agents that the policy sees.
        RuntimeError: a rollout was collected and not learned from; or all that acts is frozen.
        FloatingPointError: a gradient was not finite; the weights are those before it.

    """
    options = CloningOptions(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        held_out=held_out,
        patience=patience,
        ent_coef=ent_coef,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        max_seq_len=max_seq_len,
    )
    by_group = demonstrations_by_group(agent, demonstrations)
    clonings = {}
    for name, shown in by_group.items():
        group = agent.trainers[name].group
        check_fits(group, shown, name)
        clonings[name] = Cloning(agent, name, shown, options)
    results = {name: cloning.run(on_epoch) for name, cloning in clonings.items()}
    return results[next(iter(results))] if isinstance(demonstrations, Demonstrations) else results
