"""The agent classes, each with an environment of its kind: the table behind ``test_contract``.

Whoever adds an algorithm adds rows to ``CASES``, and has checked what every agent promises.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from support.agents import make_agent, make_team
from support.envs import scripted
from support.multi_envs import scripted_makers
from support.spaces_of import samples

from recurrent_rl import IPPO, PPO, SyncMultiAgentVectorEnv, collect_rollouts_recurrent
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.multi_agent import MultiAgent

NEXT, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED


@dataclass(frozen=True)
class Case:
    """An agent class with options, and environments of its kind.

    Attributes:
        kind: the class.
        build: makes a small agent with random weights for a vector: env, seed and options.
        make_env: makes a vector, each time the same, of its own options.
        env: those options.
        options: of networks and of learning.
        elsewhere: options of a vector with other spaces.
        poisoned: options of a vector that soon shows a number which is not finite.

    """

    kind: type[Agent]
    build: Callable[..., Any]
    make_env: Callable[..., Any]
    env: Mapping[str, Any]
    options: Mapping[str, Any]
    elsewhere: Mapping[str, Any]
    poisoned: Mapping[str, Any]

    def vector(self, **changes: Any) -> Any:
        """Environments, two of them."""
        return self.make_env(**{**self.env, **changes})

    def agent(self, seed: int = 0, **changes: Any) -> Any:
        """An untrained agent."""
        return self.build(self.vector(), seed=seed, **{**self.options, **changes})

    def trained(self, rollouts: int = 2, **changes: Any) -> Any:
        """An agent after some rollouts, and some history."""
        agent = train(self.agent(**changes), self.vector(), rollouts)
        agent.fitness, agent.scores, agent.steps = [1.5, -2.0], [3.0], [0, 40]
        return agent


EVERYTHING: dict[str, Any] = {
    "previous_action": True,
    "previous_reward": True,
    "normalize_obs": True,
    "normalize_reward": True,
    "lr_schedule": "linear",
    "total_steps": 300,
    "num_layers": 2,
    "share_encoders": False,
}

LIVES = [
    {"bob_0": [(0, 5, "t")], "fred_0": [(1, 3, "l")], "bob_1": [(0, 1, "l"), (3, 5, "b")]},
    {"bob_0": [(0, 3, "l")], "fred_0": [(0, 3, "t")], "bob_1": [(0, 3, "l")]},
]
MIXED: dict[str, Any] = {
    "observation": {"bob": "box", "fred": "discrete"},
    "action": {"bob": "discrete", "fred": "box"},
}


def team_env(**options: Any) -> SyncMultiAgentVectorEnv:
    return SyncMultiAgentVectorEnv(scripted_makers([[lives] for lives in LIVES], **options))


def _ppo(options: Mapping[str, Any], **env: Any) -> Case:
    return Case(
        PPO,
        make_agent,
        scripted,
        {"scripts": ["3t 5l", "7b"], **env},
        options,
        elsewhere={"observation": "narrow"},
        poisoned={"poisons": {1: {3: np.nan}}},
    )


def _ippo(options: Mapping[str, Any], **env: Any) -> Case:
    return Case(
        IPPO,
        make_team,
        team_env,
        env,
        options,
        elsewhere={"observation": "wide"},
        poisoned={"only": {1: {"poison": {("bob_0", 2): np.nan}}}},
    )


CASES = {
    "ppo": _ppo(EVERYTHING),
    "ppo-gru": _ppo({"cell": "gru"}, mode=NEXT, masked=True),
    "ppo-sde": _ppo({"use_sde": True, "sde_sample_freq": 4}, mode=DISABLED, action="box"),
    "ppo-feed-forward": _ppo({"recurrent": False}),
    "ippo": _ippo(
        {**EVERYTHING, "agent_id_input": True, "team_reward": "mean"},
        **MIXED,
        defined={("bob_0", 2): 1},
    ),
    "ippo-gru": _ippo(
        {"cell": "gru", "groups": {"x": ["bob_1", "fred_0"], "y": ["bob_0"]}}, masks="info"
    ),
    "ippo-feed-forward": _ippo({"recurrent": False}, **MIXED),
}


def train(agent: Any, env: Any, rollouts: int, reset: bool | None = None) -> Any:
    """Collect and learn; returns the agent."""
    for _ in range(rollouts):
        collect_rollouts_recurrent(agent, env, reset=reset)
        agent.learn()
        reset = None
    return agent


def observations(agent: Any, rows: int, seed: int = 0) -> Any:
    """What ``get_action`` takes: random observations, [rows, *shape], by agent if they are many."""
    if isinstance(agent, MultiAgent):
        spaces = agent.observation_spaces.items()
        return {name: samples(space, (rows,), seed + i) for i, (name, space) in enumerate(spaces)}
    return samples(agent.observation_space, (rows,), seed)


def rewards(agent: Any, reward: float) -> dict[str, Any]:
    """The last reward as ``get_action`` takes it; nothing for agents that do not see it."""
    if not agent.config.previous_reward:
        return {}
    if isinstance(agent, MultiAgent):
        return {"reward": dict.fromkeys(agent.agent_ids, reward)}
    return {"reward": reward}


def behaviour(agent: Any, *, deterministic: bool, rows: int = 2, steps: int = 3) -> list[Any]:
    """What an agent does and thinks for some steps, in plain values and tensors."""
    state, found = agent.get_initial_hidden_state(rows), []
    for t in range(steps):
        seen = observations(agent, rows, seed=10 * t)
        out = agent.get_action(seen, state, deterministic=deterministic, **rewards(agent, 0.3 * t))
        state = out.hidden_state
        found.append([_plain(part) for part in out])
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else list(value.tensors)


def random_states(agent: Any) -> list[Any]:
    """Where each group's stream of random numbers is."""
    return [group.generator.get_state() for group in agent.groups]
