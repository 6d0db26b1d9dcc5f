"""Environments in which snapshots of a pool play some of the rows.

Letters: E environments, A agents in a group, N rows of a group, n of them that act.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.acting.opponents import PRESENT, Matches, OpponentPool
from recurrent_rl.acting.player import as_tensor, heard
from recurrent_rl.envs.rows import Observed, Outcome, RowSource
from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.masks import check_mask


class RowsAgainstPool(RowSource):
    """Environments in which snapshots play some of the rows.

    Attributes:
        pool: where they come from.

    """

    def __init__(
        self, rows: RowSource, pool: OpponentPool, groups: Sequence[AgentGroup], env_steps: int
    ) -> None:
        """Let a pool play with in some environments.

        Args:
            rows: the environments.
            pool: goes on with the matches that it is in the midst of, if they are as many.
            groups: of the learner.
            env_steps: the learner's.

        """
        self._rows, self.pool, self._groups = rows, pool, list(groups)
        self.env, self.num_envs, self.final_is_next = rows.env, rows.num_envs, rows.final_is_next
        agents = [agent for group in groups for agent in group.agents]
        pool.check(agents)
        sides = pool.sides or [[agent] for agent in agents]
        learning = [
            side
            for side in sides
            if pool.learners is None or not set(side).isdisjoint(pool.learners)
        ]
        # Of each side that learns, by group, who is on it, and who on each of the others.
        self._mine = [[_members(group, side) for group in groups] for side in learning]
        self._theirs = [
            [[_members(group, other) for group in groups] for other in sides if other is not side]
            for side in learning
        ]
        if not pool.snapshots:
            pool.grow(groups, env_steps)
        self._sizes = [group.size for group in groups]
        matches = pool.matches
        if matches is None or matches.number.shape != (self.num_envs,):
            # What is in the midst of an episode goes on as it began: among the present ones.
            pool.matches = Matches.of_nobody(self.num_envs, len(self._mine), self._sizes)

    @property
    def _matches(self) -> Matches:
        assert self.pool.matches is not None
        return self.pool.matches

    def name(self, group: int, row: int) -> str:
        """Say which agent and environment a row is."""
        return self._rows.name(group, row)

    def waiting(self) -> AbstractContextManager[Any]:
        """See ``RowSource``."""
        return self._rows.waiting()

    def reset(self, seed: int | None = None) -> list[Observed]:
        """Start all episodes afresh, with new matches."""
        observed = self._rows.reset(seed)
        self.pool.matches = Matches.of_nobody(self.num_envs, len(self._mine), self._sizes)
        for e in range(self.num_envs):
            self._begin(e)
        return self._with_moves(observed)

    def step(
        self, actions: Sequence[Array], before: Sequence[Observed]
    ) -> list[tuple[Outcome, Observed]]:
        """Take a step; snapshots have chosen their moves when they saw what was before."""
        exact = []
        for action, seen in zip(actions, before, strict=True):
            if seen.forced is not None and seen.forced_action is not None:
                action = np.array(action)
                action[seen.forced] = seen.forced_action[seen.forced]  # without rounding
            exact.append(action)
        stepped = self._rows.step(exact, before)
        outcomes, observed = [list(each) for each in zip(*stepped, strict=True)]
        matches = self._matches
        for i, (outcome, seen) in enumerate(zip(outcomes, before, strict=True)):
            earned = outcome.reward if outcome.score is None else outcome.score
            matches.total[i] += earned.reshape(self.num_envs, -1)
            new = torch.as_tensor(outcome.reward, dtype=torch.float64)
            matches.reward[i] = heard(matches.reward[i], new, seen.exists)
        for e in np.flatnonzero(outcomes[0].over[:: self._sizes[0]]):
            self._finish(int(e))
            self._begin(int(e))
        return list(zip(outcomes, self._with_moves(observed), strict=True))

    # --- matches ----------------------------------------------------------------------------

    def _begin(self, e: int) -> None:
        """Draw who plays the next episode of environment e."""
        matches = self._matches
        for total in matches.total:
            total[e] = 0
        number = matches.number[e] = self.pool.draw()
        if number == PRESENT:
            return
        matches.turn[e] += 1
        # Each as often as the others, and none always in the same of an environment's episodes.
        if matches.turn[e] % len(self._mine) == 0:
            matches.order[e] = self.pool.order(len(self._mine))
        if number not in matches.playing:
            (snapshot,) = (one for one in self.pool.snapshots if one.number == number)
            matches.playing[number] = snapshot
            matches.states[number] = [
                own.policy.initial_state(self.num_envs * size)
                for own, size in zip(snapshot.groups, self._sizes, strict=True)
            ]

    def _finish(self, e: int) -> None:
        """Take in how the episode of environment e has ended."""
        matches = self._matches
        number = int(matches.number[e])
        if number == PRESENT:
            return
        side = matches.side[e]
        mine = self._worth(e, self._mine[side])
        best = max(self._worth(e, other) for other in self._theirs[side])
        near = 1e-6 * max(abs(mine), abs(best))
        score = 0.5 if abs(mine - best) <= near else float(mine > best)
        self.pool.note(number, score)
        matches.number[e] = PRESENT
        if not (matches.number == number).any():
            del matches.playing[number], matches.states[number]

    def _worth(self, e: int, members: Sequence[Array]) -> float:
        """Return the mean return of a side's agents in environment e."""
        parts = [total[e][own] for total, own in zip(self._matches.total, members, strict=True)]
        return float(np.concatenate(parts).mean())

    # --- moves ------------------------------------------------------------------------------

    def _with_moves(self, observed: Sequence[Observed]) -> list[Observed]:
        """Return what groups see, with the moves of snapshots as forced actions."""
        matches = self._matches
        if not matches.playing:
            return list(observed)
        return [self._of_group(i, seen) for i, seen in enumerate(observed)]

    def _of_group(self, i: int, seen: Observed) -> Observed:
        matches = self._matches
        by_side = np.stack([~mine[i] for mine in self._mine])  # [sides, A]
        others = by_side[matches.side]  # [E, A]
        player = np.where(others, matches.number[:, None], PRESENT).reshape(-1)
        if seen.exists is not None:
            player = np.where(seen.exists, player, PRESENT)
        rows = len(player)
        forced = np.zeros(rows, dtype=bool) if seen.forced is None else seen.forced.copy()
        codec = self._groups[i].policy.actions
        action = np.zeros((rows, *codec.env_shape), codec.env_dtype) + codec.blank
        if seen.forced_action is not None:
            action[forced] = seen.forced_action[forced]
        for number, snapshot in matches.playing.items():
            own = np.flatnonzero(player == number)
            if len(own):
                action[own] = self._moves(i, number, snapshot.groups[i], seen, own)
                forced[own] = True
        if not forced.any():
            return seen
        exists = np.ones(rows, dtype=bool) if seen.exists is None else seen.exists
        return seen._replace(forced=forced, forced_action=action, active=exists & ~forced)

    @torch.no_grad()
    def _moves(self, i: int, number: int, group: AgentGroup, seen: Observed, own: Array) -> Array:
        """Return a snapshot's moves in some rows of a group, [n, *shape], and remember the step."""
        matches, policy = self._matches, group.policy
        state = matches.states[number][i]
        reward = (matches.reward[i][torch.from_numpy(own)] * group.reward_scale).float()
        player = group.player(len(own), state[own], reward.to(group.device), own % self._sizes[i])
        shown = seen._replace(view=None)  # nobody judges
        fields = (None if x is None else x[own] for x in shown)
        part = Observed(*fields)  # type: ignore[arg-type]
        mask = None
        if part.action_mask is not None:
            allowed = check_mask(part.action_mask, group.action_space, len(own), asked=None)
            mask = torch.from_numpy(allowed).to(group.device)
        noise = policy.distribution.noise((len(own),), self.pool.generator).to(group.device)
        turn = player.act(part, as_tensor(policy, part.observation), noise, mask)
        at = torch.from_numpy(own).to(group.device)
        for whole, new in zip(state.tensors, player.state.tensors, strict=True):
            whole[:, at] = new
        moves: Array = policy.actions.to_env(turn.acted.action)
        return moves


def _members(group: AgentGroup, side: Sequence[str]) -> Array:
    return np.array([agent in side for agent in group.agents])
