"""Environments of any observation and action space, which end at random and check what they get."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from pettingzoo import ParallelEnv
from support.spaces_of import samples

from recurrent_rl.spaces.masks import allows_something, choices


def any_mask(space: gym.Space[Any], random: np.random.Generator) -> np.ndarray:
    """A random action mask that allows something in each component."""
    sizes = choices(space)
    while True:
        mask = random.random(sum(sizes)) < 0.6
        if allows_something(mask, sizes):
            return mask


def check(space: gym.Space[Any], action: Any, mask: np.ndarray | None) -> None:
    """Check that an action is in its space, in the space's own form, and allowed."""
    assert space.contains(action), f"{action!r} is not in {space}"
    if mask is not None:
        start = np.ravel(space.start)  # type: ignore[attr-defined]
        begins = np.cumsum((0, *choices(space)[:-1]))
        assert mask[begins + np.ravel(action) - start].all(), f"{action!r} against {mask}"


class AnyEnv(gym.Env[Any, Any]):
    """Shows random observations; episodes end or are cut with probabilities of 0.1 each."""

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        seed: int,
        masked: bool = False,
    ) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.random, self.masked = np.random.default_rng(seed), masked
        self.mask: np.ndarray | None = None
        self.over = True

    def _seen(self) -> tuple[Any, dict[str, Any]]:
        observation = samples(self.observation_space, (), int(self.random.integers(2**31)))
        if not self.masked:
            return observation, {}
        self.mask = any_mask(self.action_space, self.random)
        return observation, {"action_mask": self.mask}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.over = False
        return self._seen()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert not self.over
        check(self.action_space, action, self.mask)
        terminated, truncated = (self.random.random(2) < 0.1).tolist()
        self.over = terminated or truncated
        observation, info = self._seen()
        return observation, float(self.random.normal()), terminated, truncated, info


def any_vector(
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    *,
    masked: bool = False,
    mode: AutoresetMode = AutoresetMode.SAME_STEP,
    seed: int = 0,
) -> SyncVectorEnv:
    """Three of them."""

    def maker(i: int) -> Any:
        return lambda: AnyEnv(observation_space, action_space, 10 * seed + i, masked)

    return SyncVectorEnv([maker(i) for i in range(3)], autoreset_mode=mode)


class AnyTeam(ParallelEnv[str, Any, Any]):
    """Two agents with the same spaces, each of which may see nothing, die, or be forced to act."""

    metadata = {"name": "any_team"}  # noqa: RUF012 - PettingZoo's way

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        seed: int = 0,
        masked: bool = False,
    ) -> None:
        self.possible_agents = ["it_0", "it_1"]
        self.spaces = observation_space, action_space
        self.random, self.masked = np.random.default_rng(seed), masked
        self.masks: dict[str, np.ndarray] = {}

    def observation_space(self, agent: str) -> gym.Space[Any]:
        return self.spaces[0]

    def action_space(self, agent: str) -> gym.Space[Any]:
        return self.spaces[1]

    def _seen(self) -> tuple[dict[str, Any], dict[str, Any]]:
        observations, infos = {}, {}
        for agent in self.agents:
            infos[agent] = {}
            if self.random.random() < 0.85:
                seed = int(self.random.integers(2**31))
                observations[agent] = samples(self.spaces[0], (), seed)
            if self.masked:
                self.masks[agent] = infos[agent]["action_mask"] = any_mask(
                    self.spaces[1], self.random
                )
            elif self.random.random() < 0.1:
                self.spaces[1].seed(int(self.random.integers(2**31)))
                infos[agent]["env_defined_actions"] = self.spaces[1].sample()
        return observations, infos

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents = list(self.possible_agents)
        return self._seen()

    def step(self, actions: dict[str, Any]) -> Any:
        for action in actions.values():
            check(self.spaces[1], action, None)
        cut = bool(self.random.random() < 0.1)
        terminated = {a: bool(self.random.random() < 0.1) for a in self.agents}
        truncated = dict.fromkeys(self.agents, cut)
        rewards = {a: float(self.random.normal()) for a in self.agents}
        observations, infos = self._seen()
        self.agents = [a for a in self.agents if not (cut or terminated[a])]
        return observations, rewards, terminated, truncated, infos
