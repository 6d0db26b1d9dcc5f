"""Demonstrations as one policy reads them: its inputs, and sequences that contain no reset.

Letters: M steps of all episodes together, E episodes, S sequences, L longest sequence, K layers, H
units, F width of the extra inputs, D steps of a minibatch that are imitated.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.buffers.minibatches import minibatches, rectangles
from recurrent_rl.imitation.demonstrations import Episode
from recurrent_rl.networks.acting_policy import Policy
from recurrent_rl.recurrent.sequences import Sequences, cut_sequences

STATE_BLOCK = 2048  # steps that states are recomputed over at once; bounds the memory of images


@dataclass(frozen=True)
class Lesson:
    """Some sequences, and what was done in them; on the policy's device.

    Attributes:
        observation: [L, S, *shape], padded behind a sequence's end by its own last step.
        extra: [L, S, F] or None.
        state: of the actor's trunk before each sequence's first step, [K, S, H] each.
        imitated: flat positions (l * S + s) of the steps that are imitated, [D]; None if all are.
        action: of these, stored form, [D, *shape].
        mask: of these, bool [D, n] or None.
        weight: of these, [D].

    """

    observation: Tensor
    extra: Tensor | None
    state: list[Tensor]
    imitated: Tensor | None
    action: Tensor
    mask: Tensor | None
    weight: Tensor

    def dist_params(self, policy: Policy) -> Tensor:
        """Run the actor over the sequences; return its distribution at the imitated steps, [D, *].

        The critic's trunk, if it has one of its own, is left out.
        """
        trunk = policy.actor_trunk
        features = trunk(trunk.inputs(self.observation), self.extra, self.state)[0].flatten(0, 1)
        if self.imitated is not None:
            features = features[self.imitated]
        return policy.dist_params(features, self.mask)


class Lessons:
    """Episodes in one group's form, cut into sequences as learning cuts rollouts.

    Episodes stand one behind the other in a row of time, each from a multiple of L on, so that they
    are cut at their starts and at multiples of L of their own time. The states that later parts of
    long episodes begin with are recomputed by ``refresh``, as no policy has acted here whose states
    could have been stored.

    Attributes:
        cuts: the sequences; their indices are into the M steps.
        imitated_steps: how many steps have a weight.

    """

    cuts: Sequences

    def __init__(self, episodes: Sequence[Episode], group: AgentGroup, max_seq_len: int) -> None:
        """Args: E >= 1 episodes of the group's spaces, whose policy they are for, and L."""
        policy = group.policy
        self._device = policy.device
        self._length = min(max_seq_len, max(len(episode) for episode in episodes))
        actions = np.concatenate([episode.action for episode in episodes])
        self.observation = torch.cat([episode.observation for episode in episodes])
        self._action = policy.actions.from_env(actions)
        self._mask = _joined_masks(episodes, policy.actions.mask_size)
        self._weight = torch.from_numpy(np.concatenate([episode.weight for episode in episodes]))
        self._extra = self._extra_inputs(episodes, group)
        self._steps = torch.tensor([len(episode) for episode in episodes])
        self._cut()
        shapes = policy.actor_trunk.shapes
        self._states = [torch.zeros(int(self._chunks.sum()), k, h) for k, h in shapes]

    @property
    def imitated_steps(self) -> int:
        """How many steps have a weight."""
        return int((self._weight > 0).sum())

    def scale_weights(self) -> None:
        """Give the weights a mean of 1 over the imitated steps, so that only their ratios count."""
        self._weight /= self._weight[self._weight > 0].mean()

    def _cut(self) -> None:
        """Lay the episodes out in time, and cut them."""
        length = self._length
        self._chunks = -(-self._steps // length)
        ends = self._chunks.cumsum(0)
        self._first_chunk = ends - self._chunks
        total = int(ends[-1]) * length
        start, exists, active = (torch.zeros(total, dtype=torch.bool) for _ in range(3))
        begin = self._steps.cumsum(0) - self._steps
        self._begin = begin
        shift = self._first_chunk * length - begin
        place = torch.arange(int(self._steps.sum())) + shift.repeat_interleave(self._steps)
        start[self._first_chunk * length] = True
        exists[place] = True
        active[place] = self._weight > 0
        cuts = cut_sequences(start[:, None], exists[:, None], active[:, None], length)
        # Only places that exist are kept here, one behind the other.
        self.cuts = replace(cuts, order=torch.arange(len(place)))

    def _extra_inputs(self, episodes: Sequence[Episode], group: AgentGroup) -> Tensor | None:
        """Return what the actor sees beside observations, [M, F]: last action and reward, identity.

        As in the player: zeros at the start of a life.
        """
        policy = group.policy
        first = torch.zeros(len(self._action), dtype=torch.bool)
        first[np.cumsum([0, *(len(episode) for episode in episodes[:-1])])] = True
        extra = policy.actor_extra
        action = reward = identity = None
        if extra.action:
            encoded = policy.actions.encode(self._action.to(self._device)).cpu()
            action = encoded.roll(1, 0).masked_fill(first[:, None], 0)
        if extra.reward:
            earned = [e.reward for e in episodes if e.reward is not None]
            reward = torch.from_numpy(np.concatenate(earned)) * group.reward_scale
            reward = reward.roll(1, 0).masked_fill(first, 0)
        if extra.identities:
            number = [group.agents.index(e.agent or "") for e in episodes for _ in range(len(e))]
            identity = F.one_hot(torch.tensor(number), extra.identities).float()
        return extra.together(action, reward, identity)

    # --- states -----------------------------------------------------------------------------

    @torch.no_grad()
    def refresh(self, policy: Policy) -> None:
        """Recompute the states that sequences begin with, by the policy's present weights.

        Those of episodes' first parts are zeros and stay so.
        """
        if not self._states:
            return
        trunk, length = policy.actor_trunk, self._length
        time = torch.arange(length)[:, None]
        for chunk in range(int(self._chunks.max()) - 1):
            # Whoever goes on has all L steps of this part.
            going = (self._chunks > chunk + 1).nonzero().squeeze(1)
            for which in going.split(max(1, STATE_BLOCK // length)):
                index = self._begin[which] + chunk * length + time  # [L, S]
                at = self._first_chunk[which] + chunk
                before = [x[at].transpose(0, 1).to(self._device) for x in self._states]
                observation = self.observation[index].to(self._device)
                extra = None if self._extra is None else self._extra[index].to(self._device)
                _, after = trunk(trunk.inputs(observation), extra, before)
                for stored, x in zip(self._states, after, strict=True):
                    stored[at + 1] = x.transpose(0, 1).cpu()  # [K, S, H] -> [S, K, H]

    # --- minibatches ------------------------------------------------------------------------

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[list[Lesson]]:
        """Deal all sequences out, each once, in minibatches of about so many imitated steps."""
        for which in minibatches(self.cuts.active, batch_size, generator):
            yield [self._lesson(part) for part in rectangles(which, self.cuts.length)]

    def in_order(self, batch_size: int) -> Iterator[list[Lesson]]:
        """Do the same without chance: the longest sequences first."""
        order = self.cuts.length.argsort(descending=True, stable=True)
        per_batch = max(1, round(batch_size * len(self.cuts) / int(self.cuts.active.sum())))
        for which in order.split(per_batch):
            yield [self._lesson(part) for part in rectangles(which, self.cuts.length)]

    def _lesson(self, which: Tensor) -> Lesson:
        cuts, device = self.cuts, self._device
        index, imitated = cuts.index(which)
        step = index.flatten()
        if imitated is not None:
            step = step[imitated]
        fresh = cuts.fresh[which]
        # [S, K, H] -> [K, S, H]
        state = [x[cuts.chunk[which]].transpose(0, 1) for x in self._states]
        return Lesson(
            observation=self.observation[index].to(device),
            extra=None if self._extra is None else self._extra[index].to(device),
            state=[x.masked_fill(fresh[:, None], 0).to(device) for x in state],
            imitated=None if imitated is None else imitated.to(device),
            action=self._action[step].to(device),
            mask=None if self._mask is None else self._mask[step].to(device),
            weight=self._weight[step].to(device),
        )


def _joined_masks(episodes: Sequence[Episode], size: int) -> Tensor | None:
    """Return what was allowed at all steps, bool [M, n]; who has no mask may do anything."""
    if all(episode.mask is None for episode in episodes):
        return None
    masks = [np.ones((len(e), size), bool) if e.mask is None else e.mask for e in episodes]
    return torch.from_numpy(np.concatenate(masks))
