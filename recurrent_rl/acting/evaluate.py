"""Running episodes without learning.

Letters: E environments, A agents in a group, N = E * A rows.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from recurrent_rl.acting.agent import ActingAgent
from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.acting.player import Turn, sight
from recurrent_rl.acting.rounds import Side, play_round, rounds, score_of
from recurrent_rl.acting.spectator import Spectator
from recurrent_rl.envs.final_infos import Entry, Numbers, by_name
from recurrent_rl.envs.rows import Observed, Outcome
from recurrent_rl.randomness import derived_seed
from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.masks import check_mask
from recurrent_rl.spaces.sampling import random_action
from recurrent_rl.validation import shown


@torch.no_grad()
def play_episodes(
    agent: ActingAgent,
    env: Any,
    episodes: int,
    *,
    max_steps: int | None,
    deterministic: bool,
    seed: int | None,
    strangers: Sequence[Array] | None = None,
    infos: dict[str, Array] | None = None,
    watch: Spectator | None = None,
) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """Return the undiscounted returns of at least ``episodes`` episodes, [episodes, A] by group.

    See ``PPO.evaluate``; ``strangers`` says by group who acts uniformly at random, bool [A].
    """
    if watch is not None and not isinstance(watch, Spectator):
        raise TypeError(
            f"watch: expected an object of a subclass of Spectator, or None, got {shown(watch)}"
        )
    if infos is not None and not isinstance(infos, dict):
        raise TypeError(
            f"infos: expected a dictionary to fill with the episodes' last infos, or None, got "
            f"{shown(infos)}; write infos = {{}} before, and look into it afterwards"
        )
    for name, count in (("episodes", episodes), ("max_steps", max_steps)):
        if count is not None and count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}")
    rows = agent.rows_of(env)
    returns: list[list[Array]] = []
    entries: list[Entry] = []
    with rounds(rows, episodes, seed) as resets:
        for i, observed in enumerate(resets):
            parts = [
                _Part(group, len(seen.observation), deterministic)
                for group, seen in zip(agent.groups, observed, strict=True)
            ]
            for k, (part, others) in enumerate(zip(parts, strangers or (), strict=False)):
                part.mix_in(others, None if seed is None else derived_seed(seed, i, k))
            if watch is not None:
                watch.begin()
            play_round(rows, parts, observed, max_steps, watch)
            returns.append([part.total.reshape(rows.num_envs, -1) for part in parts])
            entries += [entry for part in parts for entry in part.entries(i * rows.num_envs)]
    if infos is not None:
        infos.clear()
        by_names = by_name(entries, len(returns) * rows.num_envs)
        infos.update({name: np.array(numbers) for name, numbers in by_names.items()})
    return [np.concatenate(each) for each in zip(*returns, strict=True)]


class _Part(Side):
    """One group's rows in one episode."""

    def __init__(self, group: AgentGroup, rows: int, deterministic: bool) -> None:
        self.group, self.deterministic = group, deterministic
        self.player, self.total = group.player(rows), np.zeros(rows)
        self.final_info: dict[int, Numbers] = {}
        self._random_rows = np.zeros(0, dtype=int)

    def mix_in(self, strangers: Array, seed: int | None) -> None:
        """Let some of the agents, bool [A], act uniformly at random."""
        self._random_rows = np.flatnonzero(np.tile(strangers, len(self.total) // self.group.size))
        self._random = np.random.default_rng(seed)
        self._space = copy.deepcopy(self.group.action_space)  # sampling draws from it

    def act(self, seen: Observed, playing: Array, name: Callable[[int], str]) -> tuple[Array, Turn]:
        policy, rows = self.player.policy, len(playing)
        policy.codec.layout.check_stored(seen.observation, rows, name)
        mask, noise = None, None
        if seen.action_mask is not None:
            # In a final state nothing may be allowed; who is not asked there may do anything.
            asked = playing if seen.active is None else playing & seen.active
            space = self.group.action_space
            allowed = check_mask(seen.action_mask, space, rows, asked=asked, name=name)
            mask = torch.from_numpy(allowed).to(self.player.device)
        if not self.deterministic:
            drawn = policy.distribution.noise((rows,), self.group.generator)
            noise = drawn.to(self.player.device)
        turn = self.player.act(seen, sight(policy, seen), noise, mask)
        actions: Array = policy.actions.to_env(turn.acted.action)
        if len(self._random_rows):
            actions = np.array(actions)
        for row in self._random_rows:
            own = None if mask is None else mask[row].cpu().numpy()
            actions[row] = random_action(self._space, own, self._random)
        return actions, turn

    def take(self, outcome: Outcome, seen: Observed, playing: Array) -> None:
        self.total += np.where(playing, score_of(outcome), 0)
        if outcome.final_info:
            own = outcome.final_info.items()
            self.final_info |= {row: numbers for row, numbers in own if playing[row]}
        self.player.hear(outcome.reward, seen.exists)

    def entries(self, before: int) -> list[Entry]:
        """Return what the episode ended with in each environment; ``before``: episodes before."""
        agents = self.group.agents or ("",)
        return [
            (before + row // len(agents), agents[row % len(agents)], numbers)
            for row, numbers in self.final_info.items()
        ]
