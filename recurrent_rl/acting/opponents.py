"""Opponents from the past: a pool of snapshots that play the other sides of a game.

Each episode of each environment is a match. One side learns in it, and a snapshot plays all others,
as a part of the environment: to the learner these rows are forced, so that they are never trained
on. Or the present policies play all sides, and all of them learn.

Letters: E environments, N rows of a group, n of them that act.
"""

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.randomness import derived_seed, peek, seeded
from recurrent_rl.recurrent.state import HiddenState
from recurrent_rl.spaces.array import Array
from recurrent_rl.validation import COUNT, SEED, UNIT, checked

Choice = Literal["latest", "uniform", "hard"]
ELO_STEP = 16.0  # how far a rating moves in a game that nobody expected to end so
REMEMBERED = 0.98  # of the record of earlier games against a snapshot, with each new one
PRESENT = -1  # in a match where no snapshot plays


@dataclass
class Snapshot:
    """One of the pool: policies as they were, and how the learner has done against them.

    Attributes:
        number: counts from 0, for good.
        env_steps: of the learner, when it was taken.
        groups: the policies, which nobody trains.
        elo: rating; it begins with the learner's.
        games: played so far.
        weight: of those that still count.
        score: the learner's in these, 1 for a win and 0.5 for a draw, summed.

    """

    number: int
    env_steps: int
    groups: list[AgentGroup]
    elo: float
    games: int = 0
    weight: float = 0.0
    score: float = 0.0

    @property
    def win_rate(self) -> float:
        """The learner's against it, a half before any game, in [0, 1]."""
        return (self.score + 1) / (self.weight + 2)


@dataclass
class Matches:
    """Who plays in each of E environments, and how it goes.

    Attributes:
        number: of the snapshot that plays, or PRESENT, [E].
        turn: counts the matches that snapshots have played in, [E].
        order: in which sides take turns at learning, drawn anew for each round, [E, sides].
        total: returns of this episode so far, by group, [E, A].
        reward: what was earned since each row was last shown something, by group, [N].
        playing: the snapshots that play, by number.
        states: what they remember, of all N rows, by number and group.

    """

    number: Array
    turn: Array
    order: Array
    total: list[Array]
    reward: list[Tensor]
    playing: dict[int, Snapshot] = field(default_factory=dict)
    states: dict[int, list[HiddenState]] = field(default_factory=dict)

    @property
    def side(self) -> Array:
        """Which side learns against a snapshot, [E]."""
        at: Array = self.turn % self.order.shape[1]
        return np.take_along_axis(self.order, at[:, None], 1)[:, 0]

    @classmethod
    def of_nobody(cls, envs: int, sides: int, sizes: Sequence[int]) -> "Matches":
        """Return E matches of the present policies, of some sides that learn and groups' sizes."""
        return cls(
            np.full(envs, PRESENT),
            np.full(envs, -1),
            np.zeros((envs, sides), dtype=np.int64),
            [np.zeros((envs, size)) for size in sizes],
            [torch.zeros(envs * size, dtype=torch.float64) for size in sizes],
        )

    def to_data(self) -> dict[str, Any]:
        """Tensors and plain values, for a checkpoint."""
        return {
            "number": torch.from_numpy(self.number),
            "turn": torch.from_numpy(self.turn),
            "order": torch.from_numpy(self.order),
            "total": [torch.from_numpy(x) for x in self.total],
            "reward": self.reward,
            "states": [
                [number, [[list(state.tensors), state.rows] for state in states]]
                for number, states in self.states.items()
            ],
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any], playing: dict[int, Snapshot]) -> "Matches":
        """Rebuild what ``to_data`` described, sharing no memory with it."""
        total = [x.cpu().numpy().copy() for x in data["total"]]
        reward = [x.to("cpu", copy=True) for x in data["reward"]]
        states = {
            number: [
                HiddenState(tensors, rows).to(group.device).clone()
                for (tensors, rows), group in zip(each, playing[number].groups, strict=True)
            ]
            for number, each in data["states"]
        }
        number, turn, order = (
            data[name].cpu().numpy().copy() for name in ("number", "turn", "order")
        )
        return cls(number, turn, order, total, reward, playing, states)


class OpponentPool:
    """Past selves to play against; give it to a team by ``agent.opponents = OpponentPool(...)``.

    Collection then draws a match for each episode of each environment, and ``learn`` adds a
    snapshot of the policies when one is due. The pool is saved with its agent, and goes on exactly.

    Source of the choice by hardness: Vinyals et al. 2019, "Grandmaster level in StarCraft II using
    multi-agent reinforcement learning", prioritised fictitious self-play; of the ratings: Elo 1978,
    "The Rating of Chessplayers, Past and Present".

    >>> import pettingzoo
    >>> from recurrent_rl import IPPO, OpponentPool, collect_rollouts_recurrent
    >>> from recurrent_rl import make_multi_agent_vect_envs
    >>> env = make_multi_agent_vect_envs(
    ...     lambda: pettingzoo.make("aec", "classic/connect_four-v3"), 4, should_async_vector=False
    ... )
    >>> agent = IPPO(env.observation_spaces, env.action_spaces, env.agents, learn_step=64, seed=0)
    >>> agent.opponents = OpponentPool(every=500, seed=0)
    >>> for _ in range(4):
    ...     stats = collect_rollouts_recurrent(agent, env)
    ...     diagnostics = agent.learn()
    >>> [snapshot.env_steps for snapshot in agent.opponents.snapshots]
    [0, 512, 1024]

    Attributes:
        size: snapshots that are kept; then the oldest goes, but for the very first.
        every: environment steps between two.
        choose: "latest", "uniform" among all, or "hard": in proportion to ``(1 - win rate)^2``.
        past: share of episodes that are played against snapshots, in [0, 1].
        sides: lists of agents that win or lose together; None: each agent is a side.
        learners: agents whose sides take turns at learning against snapshots; None: all sides do.
        snapshots: the pool.
        elo: the learner's rating.
        taken: snapshots so far.
        due: environment steps after which the next one is taken.
        matches: that are being played; None before the first.
        player: gives the agent that plays against it, while that lives; None: nobody has so far.

    """

    def __init__(
        self,
        size: int = 20,
        *,
        every: int = 50_000,
        choose: Choice = "hard",
        past: float = 0.5,
        sides: Sequence[Sequence[str]] | None = None,
        learners: Sequence[str] | None = None,
        seed: int | None = None,
    ) -> None:
        """Begin without snapshots; the first is taken when collection begins.

        Args:
            size: see the class; so are the others.
            every: likewise.
            choose: likewise.
            past: likewise.
            sides: likewise.
            learners: likewise.
            seed: of draws, and of the snapshots' actions; None takes fresh entropy.

        Raises:
            TypeError: a value of the wrong kind.
            ValueError: one out of range, or an agent on two sides.

        """
        self.size = checked("size", size, Annotated[int, COUNT])
        self.every = checked("every", every, Annotated[int, COUNT])
        self.choose: Choice = checked("choose", choose, Choice)
        self.past = checked("past", past, Annotated[float, UNIT])
        self.seed = checked("seed", seed, Annotated[int | None, SEED])
        self.sides = None if sides is None else [list(side) for side in sides]
        self.learners = None if learners is None else list(learners)
        members = list(itertools.chain(*(self.sides or ())))
        if self.sides is not None and (
            len(self.sides) < 2 or len(set(members)) < len(members) or not all(self.sides)
        ):
            raise ValueError(
                f"sides: expected at least two lists of agents, each agent in one, got {self.sides}"
            )
        self.snapshots: list[Snapshot] = []
        self.elo, self.taken, self.due = 1000.0, 0, 0
        self.generator = seeded(seed)
        self.matches: Matches | None = None
        self.player: Callable[[], Any] | None = None

    def __repr__(self) -> str:
        """The learner's rating, and a line for each snapshot."""
        head = f"OpponentPool: {len(self.snapshots)} snapshots, the learner's Elo {self.elo:.0f}"
        lines = [
            f"  {row['number']:>4}  after {row['env_steps']:>11,} steps  Elo {row['elo']:>5.0f}  "
            f"{row['games']:>6} games, {row['win_rate']:>4.0%} won"
            for row in self.table()
        ]
        return "\n".join([head, *lines])

    def table(self) -> list[dict[str, Any]]:
        """Return number, env_steps, elo, games and the learner's win_rate of each snapshot."""
        return [
            {
                "number": one.number,
                "env_steps": one.env_steps,
                "elo": one.elo,
                "games": one.games,
                "win_rate": one.win_rate,
            }
            for one in self.snapshots
        ]

    def metrics(self) -> dict[str, float]:
        """Return the learner's rating, and its win rate against the pool, the mean and the least.

        For logs; win rates are NaN before any game.
        """
        rates = [one.win_rate for one in self.snapshots if one.games] or [float("nan")]
        return {
            "elo": self.elo,
            "win_rate": float(np.mean(rates)),
            "win_rate_least": min(rates),
            "snapshots": float(len(self.snapshots)),
        }

    def check(self, agent_ids: Sequence[str]) -> None:
        """Raise ValueError if sides or learners are not those of some agents."""
        if self.sides is not None:
            odd = set(itertools.chain(*self.sides)) ^ set(agent_ids)
            if odd:
                raise ValueError(
                    f"sides: expected each of {list(agent_ids)} on one side, got {self.sides}; "
                    f"unknown or missing: {sorted(odd)}"
                )
        unknown = set(self.learners or ()) - set(agent_ids)
        if unknown or self.learners == []:
            raise ValueError(
                f"learners: expected some of {list(agent_ids)}, got {self.learners}; unknown: "
                f"{sorted(unknown)}"
            )
        if len(self.sides or agent_ids) < 2:
            raise ValueError(f"opponents: expected at least two sides, got agents {agent_ids}")

    def reseed(self, number: int) -> None:
        """Go on with a random stream of one's own, which follows from the present one's state."""
        self.generator.manual_seed(derived_seed(peek(self.generator, 2**62), number))

    # --- snapshots --------------------------------------------------------------------------

    def grow(self, groups: Sequence[AgentGroup], env_steps: int) -> bool:
        """Take a snapshot if one is due; whether it was."""
        if env_steps < self.due:
            return False
        self.add(groups, env_steps)
        self.due = env_steps + self.every
        return True

    def add(self, groups: Sequence[AgentGroup], env_steps: int) -> Snapshot:
        """Take a snapshot of some policies; beyond ``size`` the oldest but the first goes."""
        frozen = [_frozen(group) for group in groups]
        snapshot = Snapshot(self.taken, env_steps, frozen, self.elo)
        self.snapshots.append(snapshot)
        self.taken += 1
        if len(self.snapshots) > self.size:
            # The very first stays: it shows how far the learner has come.
            del self.snapshots[min(1, self.size - 1)]
        return snapshot

    def draw(self) -> int:
        """Return the number of the snapshot that is to play next, or PRESENT."""
        if not self.snapshots or float(self._uniform()) >= self.past:
            return PRESENT
        weights = np.ones(len(self.snapshots))
        if self.choose == "latest":
            weights[:-1] = 0
        elif self.choose == "hard":
            weights = np.array([(1 - one.win_rate) ** 2 for one in self.snapshots]) + 1e-6
        bounds = np.cumsum(weights / weights.sum())
        place = int(np.searchsorted(bounds, float(self._uniform()), side="right"))
        return self.snapshots[min(place, len(self.snapshots) - 1)].number

    def order(self, sides: int) -> Array:
        """Return an order in which sides take turns, [sides]."""
        drawn: Array = torch.randperm(sides, generator=self.generator).numpy()
        return drawn

    def _uniform(self) -> Tensor:
        return torch.rand((), generator=self.generator, dtype=torch.float64)

    def note(self, number: int, score: float) -> None:
        """Take in how a game against a snapshot has ended: 1 the learner won, 0.5 draw, 0 lost."""
        for one in self.snapshots:
            if one.number == number:
                one.games += 1
                one.weight = REMEMBERED * one.weight + 1
                one.score = REMEMBERED * one.score + score
                expected = 1 / (1 + 10 ** ((one.elo - self.elo) / 400))
                self.elo += ELO_STEP * (score - expected)
                one.elo -= ELO_STEP * (score - expected)

    # --- saving -----------------------------------------------------------------------------

    def to_data(self) -> dict[str, Any]:
        """Tensors and plain values, for a checkpoint."""
        playing = {} if self.matches is None else self.matches.playing
        every = {one.number: one for one in (*playing.values(), *self.snapshots)}
        return {
            **{name: getattr(self, name) for name in _OPTIONS},
            **{name: getattr(self, name) for name in _PROGRESS},
            "generator": self.generator.get_state(),
            "snapshots": [
                {
                    **{name: getattr(one, name) for name in _RECORD},
                    "groups": [
                        {
                            **group.to_data(),
                            "config": group.config.to_dict(),
                            "reward_scale": group.reward_scale,
                        }
                        for group in one.groups
                    ],
                }
                for one in every.values()
            ],
            "kept": [one.number for one in self.snapshots],
            "matches": None if self.matches is None else self.matches.to_data(),
        }

    @classmethod
    def from_data(
        cls, data: Mapping[str, Any], build: Callable[[int, Mapping[str, Any]], AgentGroup]
    ) -> "OpponentPool":
        """Rebuild what ``to_data`` described.

        Args:
            data: from ``to_data``.
            build: makes a group of its number and of data.

        """
        options = {name: data[name] for name in _OPTIONS}
        pool = cls(options.pop("size"), **options)
        for name in _PROGRESS:
            setattr(pool, name, data[name])
        pool.generator.set_state(data["generator"].cpu())
        every = {}
        for each in data["snapshots"]:
            groups = [build(i, saved) for i, saved in enumerate(each["groups"])]
            for group, saved in zip(groups, each["groups"], strict=True):
                group.reward_scale = saved["reward_scale"]
            every[each["number"]] = Snapshot(
                groups=groups, **{name: each[name] for name in _RECORD}
            )
        pool.snapshots = [every[number] for number in data["kept"]]
        if (matches := data["matches"]) is not None:
            numbers = {int(n) for n in matches["number"]} - {PRESENT}
            pool.matches = Matches.from_data(matches, {n: every[n] for n in numbers})
        return pool


_OPTIONS = ("size", "every", "choose", "past", "sides", "learners", "seed")
_PROGRESS = ("elo", "taken", "due")
_RECORD = ("number", "env_steps", "elo", "games", "weight", "score")


def _frozen(group: AgentGroup) -> AgentGroup:
    """Return an independent copy of a group, which nobody trains."""
    data = copy.deepcopy(group.to_data())
    twin = AgentGroup.from_data(data, group.config, group.device, group.custom_networks, group.kind)
    twin.reward_scale = group.reward_scale
    return twin
