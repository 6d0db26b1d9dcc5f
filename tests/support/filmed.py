"""Small environments that draw themselves, and hide what they have shown before."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from pettingzoo import ParallelEnv


def frame(step: int) -> np.ndarray:
    """A picture that tells steps apart, [16, 16, 3]."""
    return np.full((16, 16, 3), 20 * step, np.uint8)


class Remembering(gym.Env[Any, Any]):
    """Shows a random number; what counts, and is hidden, is the one before (0 at first).

    Episodes last ``length`` steps. ``kind`` "dict" shows an image and a choice beside it.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self, length: int = 12, *, kind: str = "box", render_mode: str | None = None
    ) -> None:
        self.length, self.kind, self.render_mode = length, kind, render_mode
        number = Box(-1, 1, (2,))
        self.observation_space: gym.Space[Any] = number
        if kind == "dict":
            picture = Box(0, 255, (10, 10, 3), np.uint8)
            self.observation_space = Dict({"n": number, "picture": picture, "k": Discrete(3)})
        self.action_space = Discrete(2)
        self.before, self.now, self.time = np.zeros(2, "f4"), np.zeros(2, "f4"), 0

    def _see(self) -> Any:
        self.before, self.now = self.now, self.np_random.uniform(-1, 1, 2).astype("f4")
        if self.kind != "dict":
            return self.now
        picture = np.full((10, 10, 3), 20 * self.time, np.uint8)
        return {"n": self.now, "picture": picture, "k": self.time % 3}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.now, self.time = np.zeros(2, "f4"), 0
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self._see(), float(action), False, self.time == self.length, {}

    def render(self) -> Any:
        return frame(self.time) if self.render_mode == "rgb_array" else None


class RememberingPair(ParallelEnv[str, Any, Any]):
    """Two of these, ``a_0`` and ``b_0``; b_0 comes one step late and leaves two early."""

    metadata: ClassVar[dict[str, Any]] = {"name": "pair_v0", "render_fps": 10}

    def __init__(self, length: int = 12, render_mode: str | None = None) -> None:
        self.length, self.render_mode = length, render_mode
        self.possible_agents = ["a_0", "b_0"]
        self.parts = {agent: Remembering(10 * length) for agent in self.possible_agents}
        self.time = 0

    def observation_space(self, agent: str) -> gym.Space[Any]:
        return self.parts[agent].observation_space

    def action_space(self, agent: str) -> gym.Space[Any]:
        return self.parts[agent].action_space

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.time, self.agents = 0, ["a_0"]
        seen = {a: env.reset(seed=seed)[0] for a, env in self.parts.items()}
        return {"a_0": seen["a_0"]}, {"a_0": {}}

    def step(self, actions: Any) -> Any:
        self.time += 1
        acted, there = list(self.agents), list(self.agents)
        if self.time == 1:
            there = ["a_0", "b_0"]
        seen = {agent: self.parts[agent].step(0)[0] for agent in there}
        over = self.time == self.length
        ended = {a: over or (a == "b_0" and self.time == self.length - 2) for a in there}
        self.agents = [agent for agent in there if not ended[agent]]
        none = dict.fromkeys(there, False)
        return seen, dict.fromkeys(acted, 1.0), ended, none, {agent: {} for agent in there}

    def render(self) -> Any:
        return frame(self.time) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        pass
