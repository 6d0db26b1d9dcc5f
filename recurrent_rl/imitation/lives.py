"""Lives of agents that are going on, which become episodes of demonstrations when they end.

Letters: T steps of a life, N rows (environment, agent).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from recurrent_rl.envs.rows import Observed, Outcome
from recurrent_rl.imitation.demonstrations import Demonstrations
from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.layout import ObservationLayout


@dataclass
class _Life:
    """What one row has seen and done so far, a list of T each."""

    observation: list[Array] = field(default_factory=list)
    action: list[Array] = field(default_factory=list)
    mask: list[Array | None] = field(default_factory=list)
    chosen: list[bool] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)

    def masks(self) -> Array | None:
        """Return what was allowed, bool [T, n]; who did not choose may do anything."""
        like = next((mask for mask in self.mask if mask is not None), None)
        if like is None:
            return None
        everything = np.ones_like(like)
        pairs = zip(self.mask, self.chosen, strict=True)
        return np.stack([m if m is not None and own else everything for m, own in pairs])


class Lives:
    """A group's rows while they play.

    Attributes:
        demonstrations: the lives that have ended.

    """

    def __init__(self, demonstrations: Demonstrations, agents: Sequence[str | None]) -> None:
        """Args: where lives go, and the names of the group's agents, [A]."""
        self.demonstrations, self._agents = demonstrations, agents
        self._layout = ObservationLayout(demonstrations.observation_space)
        self._going: dict[int, _Life] = {}

    def act(self, seen: Observed, action: Array, playing: Array) -> None:
        """Take in what rows see and do; before the step, in which arrays may be used again.

        Args:
            seen: by N rows.
            action: what they do, [N, ...].
            playing: rows whose episode goes on, bool [N].

        """
        for row in np.flatnonzero(playing).tolist():
            if seen.start is not None and seen.start[row]:
                self._end(row)
            if seen.exists is not None and not seen.exists[row]:
                continue
            life = self._going.setdefault(row, _Life())
            life.observation.append(seen.observation[row].copy())
            life.action.append(action[row].copy())
            mask = None if seen.action_mask is None else seen.action_mask[row].copy()
            life.mask.append(mask)
            life.chosen.append(seen.active is None or bool(seen.active[row]))
            life.reward.append(0.0)

    def earn(self, outcome: Outcome, playing: Array) -> None:
        """Take in what the step led to; rewards of steps at which nothing is seen add up."""
        for row in np.flatnonzero(playing).tolist():
            if row in self._going:
                self._going[row].reward[-1] += float(outcome.reward[row])
            if outcome.terminated[row] or outcome.truncated[row]:
                self._end(row)

    def end_all(self) -> None:
        """End all lives."""
        for row in sorted(self._going):
            self._end(row)

    def _end(self, row: int) -> None:
        life = self._going.pop(row, None)
        if life is None:
            return
        self.demonstrations.add(
            self._layout.unpack(np.stack(life.observation)),
            np.stack(life.action),
            action_masks=life.masks(),
            weights=np.array(life.chosen),
            rewards=np.array(life.reward),
            agent=self._agents[row % len(self._agents)],
        )
