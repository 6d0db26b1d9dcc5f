"""What is allowed in the last state of a life that was cut by a limit counts in its value."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from pettingzoo import ParallelEnv

from recurrent_rl import DQN, MADDPG, SyncMultiAgentVectorEnv, collect_rollouts_recurrent

SEEN = Box(-1.0, 10.0, (1,))


def allowed(time: int) -> np.ndarray[Any, Any]:
    """All but one of three, another one at each time."""
    return (np.arange(3) != time % 3).astype(np.int8)


class Limited(gym.Env[Any, Any]):
    """Lives of four steps, cut by a limit; shows the time. Fails if what is forbidden is done."""

    def __init__(self, source: str, silent: bool = False) -> None:
        """Args: where masks are, and whether nothing is allowed in the end."""
        self.source, self.silent = source, silent
        self.action_space = Discrete(3)
        self.observation_space: gym.Space[Any] = SEEN
        if source == "observation":
            self.observation_space = Dict({"observation": SEEN, "action_mask": MultiBinary(3)})

    def _seen(self) -> tuple[Any, dict[str, Any]]:
        shown = np.array([self.time], np.float32)
        mask = np.zeros(3, np.int8) if self.silent and self.time == 4 else allowed(self.time)
        if self.source == "observation":
            return {"observation": shown, "action_mask": mask}, {}
        return shown, {"action_mask": mask}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self._seen()

    def step(self, action: Any) -> Any:
        assert allowed(self.time)[action]
        self.time += 1
        observation, info = self._seen()
        return observation, 1.0, False, self.time == 4, info


def check(part: Any, silent: bool) -> None:
    """Final places have the mask of the time that they show; all, if nothing is allowed."""
    for row in range(part.final.shape[1]):
        ends = [t for t in range(40) if part.exists[t, row] and part.obs[t, row] == 4]
        assert len(ends) >= 3
        for t in ends:
            expected = [1, 1, 1] if silent else allowed(4).tolist()
            assert part.action_mask[t, row].int().tolist() == expected


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("source", ["info", "observation"])
@pytest.mark.parametrize("mode", AutoresetMode)
def test_in_gymnasiums_environments(mode: AutoresetMode, source: str, silent: bool) -> None:
    env = SyncVectorEnv([lambda: Limited(source, silent)] * 2, autoreset_mode=mode)
    agent = DQN(env.single_observation_space, env.single_action_space, recurrent=False, seed=0)
    for _ in range(5):
        collect_rollouts_recurrent(agent, env, 5)
    check(agent.memory.parts[""], silent)


class LimitedTeam(ParallelEnv[str, Any, Any]):
    """The same for two agents."""

    metadata: ClassVar[dict[str, Any]] = {"name": "limited_v0", "render_modes": []}
    render_mode = None

    def __init__(self, source: str, silent: bool) -> None:
        self.possible_agents = ["a_0", "a_1"]
        self.envs = {agent: Limited(source, silent) for agent in self.possible_agents}
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> gym.Space[Any]:
        return self.envs[agent].observation_space

    def action_space(self, agent: str) -> gym.Space[Any]:
        return self.envs[agent].action_space

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents = self.possible_agents[:]
        each = {agent: env.reset() for agent, env in self.envs.items()}
        return {a: x[0] for a, x in each.items()}, {a: x[1] for a, x in each.items()}

    def step(self, actions: dict[str, Any]) -> Any:
        each = {agent: self.envs[agent].step(action) for agent, action in actions.items()}
        if any(x[3] for x in each.values()):
            self.agents = []
        return tuple({a: x[i] for a, x in each.items()} for i in range(5))


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("source", ["info", "observation"])
def test_in_teams(source: str, silent: bool) -> None:
    env = SyncMultiAgentVectorEnv([lambda: LimitedTeam(source, silent)] * 2)
    agent = MADDPG(env.observation_spaces, env.action_spaces, env.agents, recurrent=False, seed=0)
    for _ in range(5):
        collect_rollouts_recurrent(agent, env, 5)
    check(agent.memory.parts["a"], silent)
