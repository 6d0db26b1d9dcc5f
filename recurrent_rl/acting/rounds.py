"""Episodes played to their ends: the one loop of testing, and of recording demonstrations.

A round is one episode in each environment; who is done early waits for the others.

Letters: E environments, N rows of a group.
"""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np

from recurrent_rl.acting.player import Turn
from recurrent_rl.acting.spectator import Spectator
from recurrent_rl.envs.rows import Observed, Outcome, RowSource
from recurrent_rl.envs.usage import mark, note_seeded
from recurrent_rl.randomness import derived_seed
from recurrent_rl.spaces.array import Array


class Side(ABC):
    """Who plays one group's rows in a round."""

    @abstractmethod
    def act(
        self, seen: Observed, playing: Array, name: Callable[[int], str]
    ) -> tuple[Array, Turn | None]:
        """Choose the rows' actions, [N, ...], and say how, if there is something to say.

        Args:
            seen: by the rows.
            playing: whose episode goes on, bool [N].
            name: gives what messages call a row.

        """

    @abstractmethod
    def take(self, outcome: Outcome, seen: Observed, playing: Array) -> None:
        """Take in what a step from ``seen`` led to."""


@contextmanager
def rounds(rows: RowSource, episodes: int, seed: int | None) -> Iterator[Iterator[list[Observed]]]:
    """Let environments wait after their episodes, and reset all for each round.

    Gives what is seen first, by group, as many times as it takes to see so many episodes.
    """
    mark(rows.env, None)
    if seed is not None:
        note_seeded(rows.env, seeded=True)
    with rows.waiting():
        yield (rows.reset(_seed_of_round(seed, i)) for i in range(-(-episodes // rows.num_envs)))


def play_round(
    rows: RowSource,
    sides: Sequence[Side],
    seen: Sequence[Observed],
    max_steps: int | None,
    watch: Spectator | None = None,
) -> None:
    """Play one episode in every environment, from what is seen first.

    Args:
        rows: just reset.
        sides: who plays, by group.
        seen: after the reset, by group.
        max_steps: stop here; None plays to the end.
        watch: looks on.

    Raises:
        ValueError: a reward that is not finite.

    """
    sizes = [len(one.observation) // rows.num_envs for one in seen]
    playing = np.ones(rows.num_envs, dtype=bool)
    steps = 0
    while playing.any() and (max_steps is None or steps < max_steps):
        going = [playing.repeat(size) for size in sizes]
        actions = []
        for i, (side, one, own) in enumerate(zip(sides, seen, going, strict=True)):
            action, turn = side.act(one, own, partial(_name, rows, i, steps))
            actions.append(action)
            if watch is not None and turn is not None:
                watch.act(i, one, turn)
        try:
            stepped = rows.step(actions, seen)
        except Exception as error:
            error.add_note(f"at step {steps} of the episode")
            raise
        for i, (side, one, own, (outcome, _)) in enumerate(
            zip(sides, seen, going, stepped, strict=True)
        ):
            _check_rewards(outcome, own, partial(_name, rows, i, steps))
            side.take(outcome, one, own)
        seen = [observed for _, observed in stepped]
        playing &= ~stepped[-1][0].over[:: sizes[-1]]
        steps += 1
        if watch is not None:
            watch.stepped()


def score_of(outcome: Outcome) -> Array:
    """Return what a step counts for in a test, [N]."""
    return outcome.reward if outcome.score is None else outcome.score


def _check_rewards(outcome: Outcome, playing: Array, name: Callable[[int], str]) -> None:
    score = score_of(outcome)
    wrong = playing & ~np.isfinite(score)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"reward: expected finite numbers, got {score[row]} from {name(row)}")


def _name(rows: RowSource, group: int, step: int, row: int) -> str:
    return f"{rows.name(group, row)} at step {step} of the episode"


def _seed_of_round(seed: int | None, number: int) -> int | None:
    """Each round has its own: how often environments reset in the last depends on the policy."""
    if seed is None:
        return None
    if number == 0:
        return operator.index(seed)  # environments want Python's own
    return derived_seed(seed, number, bits=31)
