"""Running episodes without learning.

Letters: E environments, A agents in a group, N = E * A rows.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from recurrent_rl.collect import disturb
from recurrent_rl.group import AgentGroup
from recurrent_rl.randomness import derived_seed
from recurrent_rl.spaces import Array, allows_something, choices
from recurrent_rl.vector import Observed, RowSource


class Acting(Protocol):
    """What evaluation needs of an agent."""

    @property
    def groups(self) -> Sequence[AgentGroup]:
        """The groups of agents that share a policy."""

    def rows_of(self, env: Any) -> RowSource:
        """See an environment, or a vector of them, as rows."""


def evaluate(
    agent: Acting,
    env: Any,
    episodes: int,
    *,
    max_steps: int | None,
    deterministic: bool,
    seed: int | None,
) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """Return the undiscounted returns of at least ``episodes`` episodes, [episodes, A] by group.

    See ``PPO.evaluate``.
    """
    for name, count in (("episodes", episodes), ("max_steps", max_steps)):
        if count is not None and count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}")
    rows = agent.rows_of(env)
    disturb(rows.env)
    returns: list[list[Array]] = []
    for i in range(-(-episodes // rows.num_envs)):
        observed = rows.reset(_seed_of_round(seed, i))
        players = [
            _Player(group, seen, deterministic)
            for group, seen in zip(agent.groups, observed, strict=True)
        ]
        _play(rows, players, max_steps)
        returns.append([p.total.reshape(rows.num_envs, -1) for p in players])
    return [np.concatenate(parts) for parts in zip(*returns, strict=True)]


class _Player:
    """One group's rows in one episode."""

    def __init__(self, group: AgentGroup, observed: Observed, deterministic: bool) -> None:
        rows = len(observed.observation)
        self.group, self.observed, self.deterministic = group, observed, deterministic
        self.state = group.policy.initial_state(rows)
        self.reward, self.total = np.zeros(rows), np.zeros(rows)

    def act(self, playing: Array) -> Array:
        """Choose the rows' actions; ``playing`` says whose episode goes on, bool [N]."""
        seen, group = self.observed, self.group
        if seen.start is not None:
            self.state = self.state.reset(group.on_device(seen.start))
            self.reward = np.where(seen.start, 0, self.reward)
        mask = seen.action_mask
        if mask is not None:
            # In a final state nothing may be allowed; who is not asked there may do anything.
            unasked = ~playing if seen.active is None else ~(playing & seen.active)
            possible = allows_something(mask, choices(group.action_space))
            mask = mask | (unasked & ~possible)[:, None]
        forced = None
        if seen.forced is not None and seen.forced_action is not None:
            forced = (seen.forced, seen.forced_action)
        out = group.choose(
            seen.observation,
            self.state,
            mask,
            deterministic=self.deterministic,
            reward=self.reward if group.config.previous_reward else None,
            forced=forced,
        )
        state = out.hidden_state
        if seen.exists is not None:
            state = state.where(group.on_device(seen.exists), self.state)
        self.state = state
        return out.action


def _play(rows: RowSource, players: Sequence[_Player], max_steps: int | None) -> None:
    """Play one episode in every environment; the returns are the players'."""
    playing = np.ones(rows.num_envs, dtype=bool)
    steps = 0
    while playing.any() and (max_steps is None or steps < max_steps):
        actions = [p.act(playing.repeat(p.group.size)) for p in players]
        stepped = rows.step(actions, [p.observed for p in players])
        for p, (outcome, observed) in zip(players, stepped, strict=True):
            reward = np.asarray(outcome.reward, dtype=np.float64)
            score = reward if outcome.score is None else outcome.score
            p.total += np.where(playing.repeat(p.group.size), score, 0)
            saw = p.observed.exists
            p.reward = reward if saw is None else np.where(saw, reward, p.reward + reward)
            p.observed = observed
        ended = outcome.terminated | outcome.truncated if outcome.ended is None else outcome.ended
        playing &= ~ended[:: players[-1].group.size]
        steps += 1


def _seed_of_round(seed: int | None, number: int) -> int | None:
    """Each round has its own: how often environments reset in the last depends on the policy."""
    if seed is None or number == 0:
        return seed
    return derived_seed(seed, number, bits=31)
