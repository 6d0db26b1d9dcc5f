"""What an agent sees and remembers while ``evaluate`` plays, kept step by step.

Letters: T steps of an episode, E episodes, U units of a memory, D numbers of an observation, Q
hidden quantities, F width of the extra inputs, K layers, N rows, H units of a layer.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.acting.player import Turn, as_tensor
from recurrent_rl.acting.spectator import Spectator
from recurrent_rl.envs.rows import Observed
from recurrent_rl.networks.acting_policy import Policy
from recurrent_rl.plots.hidden import HiddenQuantities
from recurrent_rl.spaces.array import Array

SEED = 7_141_421  # of random weights; hardly an agent's own


class Step(NamedTuple):
    """What an agent lived through at one step.

    Attributes:
        step: of the environment.
        start: its memory was empty before.
        observation: in stored form, [*shape].
        extra: extra inputs, [F], or None.
        memory: the actor's, after it, [U].
        hidden: what it could not see, [Q].

    """

    step: int
    start: bool
    observation: Array
    extra: Array | None
    memory: Array
    hidden: Array


class Recorder(Spectator):
    """Keeps what one agent sees and remembers, and what is hidden from it."""

    def __init__(self, policy: Policy, group: int, row: int, quantities: HiddenQuantities) -> None:
        """Keep what row number ``row`` of a group lives through, which acts by ``policy``."""
        self.group, self.row, self.quantities = group, row, quantities
        self.place = policy.actor_trunk.place
        self.episodes: list[list[Step]] = []
        self.step = 0

    def begin(self) -> None:
        self.episodes.append([])
        self.step = 0

    def act(self, group: int, seen: Observed, turn: Turn) -> None:
        row = self.row
        if group != self.group or not (seen.exists is None or seen.exists[row]):
            return
        after = turn.acted.state.tensors[self.place]  # [K, N, H] each
        memory = torch.cat([x[:, row].flatten() for x in after]).numpy(force=True)
        observation = np.array(seen.observation[row])
        extra = None if turn.extra is None else turn.extra[row].numpy(force=True)
        start = seen.start is not None and bool(seen.start[row])
        now = Step(self.step, start, observation, extra, memory, self.quantities.read())
        self.episodes[-1].append(now)

    def stepped(self) -> None:
        self.step += 1


@torch.no_grad()
def features_of(policy: Policy, observation: Array) -> list[Array]:
    """Return stored observations [T, *shape] as the network reads them, images apart."""
    x = policy.codec(as_tensor(policy, observation))
    return [part.numpy(force=True) for part in (x.vector, *x.images)]


def numbers_of(policy: Policy, observation: Array) -> Array:
    """Return the numbers of stored observations [T, *shape] as they came, [T, D]."""
    layout = policy.codec.layout
    parts = zip(layout.leaves, layout.parts(observation), strict=True)
    numbers = [x.reshape(len(x), -1) for leaf, x in parts if not leaf.kind.is_image]
    return np.concatenate([np.zeros((len(observation), 0)), *numbers], axis=1)


@torch.no_grad()
def untrained_memory(group: AgentGroup, episodes: Sequence[Sequence[Step]]) -> list[Array]:
    """Return what a policy like a group's, with random weights, remembers, [T, U] by episode.

    It sees what the trained one has seen, its actions included, standardised likewise. A network of
    the user's own is as it was given.

    Args:
        group: whose policy it is like.
        episodes: what was seen, step by step.

    """
    policy = group.build_policy(group.net_config, torch.Generator().manual_seed(SEED))
    trunk, trained = policy.actor_trunk, group.policy.actor_trunk
    trunk.preprocessor.load_state_dict(trained.preprocessor.state_dict())
    state = policy.initial_state(len(episodes))
    memory: list[list[Array]] = [[] for _ in episodes]
    for t in range(max(map(len, episodes))):
        # Who has ended sees its last step again, and nobody looks at what comes of it.
        steps = [each[min(t, len(each) - 1)] for each in episodes]
        observation = as_tensor(policy, np.stack([step.observation for step in steps]))
        shown = [step.extra for step in steps if step.extra is not None]
        extra = torch.as_tensor(np.stack(shown)).to(policy.device) if shown else None
        state = state.reset([step.start for step in steps])
        state = policy.act(observation, extra, state, None).state
        after = [x.transpose(0, 1).flatten(1) for x in state.tensors[trunk.place]]  # [E, K * H]
        for kept, own, row in zip(memory, episodes, torch.cat(after, 1), strict=True):
            if t < len(own):
                kept.append(row.numpy(force=True))
    return [np.stack(kept) for kept in memory]
