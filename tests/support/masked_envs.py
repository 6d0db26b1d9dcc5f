"""Environments that say which actions are allowed, in every way that there is."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from pettingzoo import ParallelEnv

CHOICES = {
    "discrete": Discrete(4, start=2),
    "multi": MultiDiscrete([2, 4, 3], start=[1, -1, 0]),
    "matrix": MultiDiscrete([[2, 3], [4, 2]], start=[[0, 1], [5, -3]]),
    "box": Box(-1, 1, (2,)),
    "bits": MultiBinary(3),
}
SOURCES = ("info", "observation", "beside", "method")


def sizes_of(action: str) -> tuple[int, ...]:
    """Choices of each component."""
    space = CHOICES[action]
    if isinstance(space, Discrete):
        return (int(space.n),)
    return tuple(int(n) for n in getattr(space, "nvec", np.zeros(0)).flat)


def allowed_parts(action: str, index: int, episode: int, time: int) -> list[np.ndarray]:
    """An int8 mask for each component; never all of it is forbidden."""
    place = index + 2 * episode + time
    return [
        ((place + i + np.arange(n)) % 3 != 0).astype(np.int8)
        for i, n in enumerate(sizes_of(action))
    ]


def moments(script: str, steps: int, next_step: bool = False) -> list[tuple[int, int, bool]]:
    """Episode and time of the first ``steps`` observations, and whether they are final ones.

    Final ones are among them in a vector of autoreset mode NEXT_STEP only.
    """
    lengths = [int(n) for n, _ in re.findall(r"(\d+)([tl])", script)]
    found: list[tuple[int, int, bool]] = []
    episode = 0
    while len(found) < steps:
        length = lengths[episode % len(lengths)]
        found += [(episode, time, time == length) for time in range(length + next_step)]
        episode += 1
    return found[:steps]


class Masked(gym.Env[Any, Any]):
    """Plays episodes as in "3t 5l", and fails if an action is taken that is forbidden.

    In a final state nothing is allowed, for there is nothing to do.
    """

    def __init__(
        self,
        script: str = "3t 5l",
        index: int = 0,
        *,
        source: str | None = "info",
        action: str = "discrete",
        as_tuple: bool = False,
        decoys: Sequence[str] = (),
        stuck: tuple[int, int] | None = None,
        wrong_size: bool = False,
    ) -> None:
        """Take a script, and how masks are given.

        Args:
            script: of episodes.
            index: the environment's number among several.
            source: one of ``SOURCES``, or None for no masks.
            action: kind of action.
            as_tuple: masks are tuples of one for each component.
            decoys: further sources, which forbid everything.
            stuck: number of steps after which, once, a component has nothing to choose from, and
                which component that is.
            wrong_size: the mask has a value too many.
        """
        self.script = [(int(n), end) for n, end in re.findall(r"(\d+)([tl])", script)]
        self.index, self.source, self.action, self.as_tuple = index, source, action, as_tuple
        self.decoys, self.stuck, self.wrong_size = tuple(decoys), stuck, wrong_size
        self.action_space = CHOICES[action]
        numbers = Box(-np.inf, np.inf, (3,))
        self.observation_space: gym.Space[Any] = numbers
        size: Any = MultiBinary(max(sum(sizes_of(action)), 1) + wrong_size)
        if as_tuple:
            *others, last = sizes_of(action)
            size = Tuple([MultiBinary(n) for n in (*others, last + wrong_size)])
        if "observation" in (source, *self.decoys):
            self.observation_space = Dict(observation=numbers, action_mask=size)
        elif "beside" in (source, *self.decoys):
            self.observation_space = Dict(numbers=numbers, last=Discrete(2), action_mask=size)
        if "method" in (source, *self.decoys):
            self.action_masks = lambda: self._given("method")
        self.episode, self.time, self.clock, self.ended = -1, 0, 0, True
        self.taken: list[Any] = []

    def parts(self) -> list[np.ndarray]:
        """What is allowed, by component."""
        parts = allowed_parts(self.action, self.index, self.episode, self.time)
        if self.ended:
            return [0 * part for part in parts]
        if self.stuck is not None and self.stuck[0] == self.clock:
            parts[self.stuck[1]][:] = 0
        return parts

    def _given(self, source: str) -> Any:
        parts = self.parts() or [np.ones(1, np.int8)]
        if source != self.source:
            parts = [0 * part for part in parts]
        if self.wrong_size:
            parts[-1] = np.append(parts[-1], parts[-1][-1:])
        return tuple(parts) if self.as_tuple else np.concatenate(parts)

    def _observation(self) -> Any:
        values = np.sin(self.index + 1.3 * self.episode + 0.5 * self.time + 2 * np.arange(3))
        numbers = values.astype(np.float32)
        if not isinstance(self.observation_space, Dict):
            return numbers
        if "last" in self.observation_space.spaces:
            seen = {"numbers": numbers, "last": int(self.ended)}
            return {**seen, "action_mask": self._given("beside")}
        return {"observation": numbers, "action_mask": self._given("observation")}

    def _info(self) -> dict[str, Any]:
        has = "info" in (self.source, *self.decoys)
        return {"action_mask": self._given("info")} if has else {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode = self.episode + 1 if seed is None else 0
        self.time, self.ended = 0, False
        return self._observation(), self._info()

    def step(self, action: Any) -> Any:
        assert not self.ended, "stepped behind the end of an episode"
        assert self.action_space.contains(action), action
        if self.source is not None and sizes_of(self.action):
            chosen = np.ravel(action - self.action_space.start)
            for part, choice in zip(self.parts(), chosen, strict=True):
                assert part[choice], f"{action} is forbidden by {self.parts()}"
        self.taken.append(action)
        self.time, self.clock = self.time + 1, self.clock + 1
        length, end = self.script[self.episode % len(self.script)]
        self.ended = self.time == length
        reward = float(np.cos(self.time) + 0.3 * np.sum(action))
        flags = self.ended and end == "t", self.ended and end == "l"
        return self._observation(), reward, *flags, self._info()


class MaskedTeam(ParallelEnv[str, Any, Any]):
    """Agents ``a_0`` and ``a_1``, each of which plays a ``Masked`` of its own at the same time."""

    metadata: ClassVar[dict[str, Any]] = {"name": "masked_team_v0", "render_modes": []}
    render_mode = None

    def __init__(self, script: str = "3t 5l", index: int = 0, **options: Any) -> None:
        """Args: as of ``Masked``; agent i has the index 10 * index + i. Only ``a_1`` gets stuck."""
        first = {k: v for k, v in options.items() if k != "stuck"}
        self.games = {
            f"a_{i}": Masked(script, 10 * index + i, **(options if i else first)) for i in range(2)
        }
        self.possible_agents, self.agents = list(self.games), []
        if hasattr(self.games["a_0"], "action_masks"):
            self.action_masks = lambda: {a: game.action_masks() for a, game in self.games.items()}

    def observation_space(self, agent: str) -> gym.Space[Any]:
        return self.games[agent].observation_space

    def action_space(self, agent: str) -> gym.Space[Any]:
        return self.games[agent].action_space

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents = list(self.possible_agents)
        results = {agent: game.reset(seed=seed) for agent, game in self.games.items()}
        return tuple({agent: result[i] for agent, result in results.items()} for i in range(2))

    def step(self, actions: dict[str, Any]) -> Any:
        results = {agent: self.games[agent].step(action) for agent, action in actions.items()}
        if self.games["a_0"].ended:
            self.agents = []
        return tuple({agent: result[i] for agent, result in results.items()} for i in range(5))
