"""The agent classes, each with an environment of its kind: the table behind ``test_contract``.

Whoever adds an algorithm adds rows to ``CASES``, and has checked what every agent promises.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from support.agents import make_agent, make_team, team_weights
from support.compiled import HAS_COMPILER
from support.envs import scripted
from support.multi_envs import ScriptedParallel, scripted_makers
from support.off_policy import make
from support.spaces_of import samples
from torch import Tensor

from recurrent_rl import (
    DDPG,
    DQN,
    IPPO,
    MADDPG,
    MAPPO,
    MATD3,
    PPO,
    SAC,
    TD3,
    SyncMultiAgentVectorEnv,
    collect_rollouts_recurrent,
)
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.multi_agent import MultiAgent
from recurrent_rl.algorithms.off_policy_agent import OffPolicyAgent

NEXT, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED


@dataclass(frozen=True, eq=False)
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
        differing: options of learning that act in other numbers only.

    """

    kind: type[Agent]
    build: Callable[..., Any]
    make_env: Callable[..., Any]
    env: Mapping[str, Any]
    options: Mapping[str, Any]
    elsewhere: Mapping[str, Any]
    poisoned: Mapping[str, Any]
    differing: Mapping[str, Any]

    @property
    def replays(self) -> bool:
        """Whether it learns from a replay."""
        return issubclass(self.kind, OffPolicyAgent)

    @property
    def step_size(self) -> str:
        """The name of one of its step sizes."""
        return next(n for n in self.kind.config_type.names() if n in ("lr", "lr_actor"))

    @property
    def whole(self) -> dict[str, Any]:
        """Options of ``save_checkpoint`` that keep all there is."""
        return {"save_replay": True} if self.replays else {}

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
    "compiled": HAS_COMPILER,
    "update_epochs": 2,  # of the others, one is enough
}

EXTRAS: dict[str, Any] = {
    "previous_action": True,
    "previous_reward": True,
    "normalize_obs": True,
    "num_layers": 2,
    "compiled": HAS_COMPILER,
}

LIVES = [
    {"bob_0": [(0, 5, "t")], "fred_0": [(1, 3, "l")], "bob_1": [(0, 1, "l"), (3, 5, "b")]},
    {"bob_0": [(0, 3, "l")], "fred_0": [(0, 3, "t")], "bob_1": [(0, 3, "l")]},
]
MIXED: dict[str, Any] = {
    "observation": {"bob": "box", "fred": "discrete"},
    "action": {"bob": "discrete", "fred": "box"},
}


STATE = ScriptedParallel.state_space


def team_env(**options: Any) -> SyncMultiAgentVectorEnv:
    return SyncMultiAgentVectorEnv(scripted_makers([[lives] for lives in LIVES], **options))


def _one(kind: type[OffPolicyAgent], options: Mapping[str, Any], **env: Any) -> Case:
    return Case(
        kind,
        functools.partial(make, kind),
        scripted,
        {"scripts": ["3t 5l", "7b"], **env},
        options,
        elsewhere={"observation": "narrow"},
        poisoned={"poisons": {1: {3: np.nan}}},
        differing={"gamma": 0.5, "tau": 0.5, "max_seq_len": 3},
    )


def _several(kind: type[OffPolicyAgent], options: Mapping[str, Any], **env: Any) -> Case:
    return Case(
        kind,
        functools.partial(make, kind),
        team_env,
        env,
        options,
        elsewhere={"observation": "wide"},
        poisoned={"only": {1: {"poison": {("bob_0", 2): np.nan}}}},
        differing={"gamma": 0.5, "tau": 0.5, "max_seq_len": 3},
    )


def _ppo(options: Mapping[str, Any], **env: Any) -> Case:
    return Case(
        PPO,
        make_agent,
        scripted,
        {"scripts": ["3t 5l", "7b"], **env},
        {"update_epochs": 1, **options},
        elsewhere={"observation": "narrow"},
        poisoned={"poisons": {1: {3: np.nan}}},
        differing={"lr": 0.5, "gamma": 0.5, "normalize_reward": True, "max_seq_len": 3},
    )


def _ippo(options: Mapping[str, Any], kind: type[IPPO] | type[MAPPO] = IPPO, **env: Any) -> Case:
    return Case(
        kind,
        functools.partial(make_team, kind=kind),
        team_env,
        env,
        {"update_epochs": 1, **options},
        elsewhere={"observation": "wide"},
        poisoned={"only": {1: {"poison": {("bob_0", 2): np.nan}}}},
        differing={"lr": 0.5, "gamma": 0.5, "normalize_reward": True, "max_seq_len": 3},
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
    "mappo": _ippo(
        {**EVERYTHING, "agent_id_input": "critic", "team_reward": "mean", "value_norm": True},
        MAPPO,
        **MIXED,
        defined={("bob_0", 2): 1},
        absent=[("bob_1", 4)],
    ),
    "mappo-state": _ippo(
        {"cell": "lru", "state_space": STATE, "normalize_obs": True, "burn_in": 2}, MAPPO
    ),
    "mappo-feed-forward": _ippo({"recurrent": False, "agent_id_input": True}, MAPPO),
    "dqn": _one(
        DQN,
        {**EXTRAS, "dueling": True, "burn_in": 2, "sampling": "priority", "lr_encoder": 1e-3},
        masked=True,
    ),
    "dqn-feed-forward": _one(
        DQN, {"recurrent": False, "epsilon_per_env": True, "epsilon_start": 0.4}, mode=NEXT
    ),
    "ddpg": _one(DDPG, {**EXTRAS, "o_u_noise": True, "n_step": 2}, action="box", mode=NEXT),
    "td3": _one(
        TD3,
        {"cell": "mingru", "share_encoders": True, "squash_output": True},
        action="box",
        mode=DISABLED,
    ),
    "sac": _one(SAC, {**EXTRAS, "overlap": 2}, action="box"),
    "sac-choices": _one(SAC, {"recurrent": False, "lr_alpha": 1e-3}, masked=True),
    "maddpg": _several(
        MADDPG,
        {**EXTRAS, "recurrent": False, "agent_id_input": True, "team_reward": "mean"},
        **MIXED,
        defined={("bob_0", 2): 1},
    ),
    "matd3": _several(
        MATD3,
        {"cell": "lru", "groups": {"x": ["bob_1", "fred_0"], "y": ["bob_0"]}},
        masks="info",
    ),
}
ON_POLICY = {name: case for name, case in CASES.items() if not case.replays}


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


def everything(agent: Any) -> dict[str, Tensor]:
    """A copy of all that training moves, by group: weights, statistics, optimisers, targets."""
    if not isinstance(agent, OffPolicyAgent):
        return team_weights(agent)
    data = agent.to_checkpoint()
    groups = {f"group {name}": group["policy"] for name, group in data["groups"].items()}
    return dict(_tensors({**groups, "learner": data["learner"]}))


def _tensors(data: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(data, Tensor):
        yield name.removeprefix("."), data.detach().clone()
    elif isinstance(data, Mapping | list):
        for key, value in data.items() if isinstance(data, Mapping) else enumerate(data):
            yield from _tensors(value, f"{name}.{key}")


def first_of_collection(agent: Any) -> list[tuple[Tensor, Tensor]]:
    """``start`` and ``exists`` of each group's rows at the first step of the last collection."""
    if not isinstance(agent, OffPolicyAgent):
        buffers = [trainer.buffer for trainer in agent.trainers.values()]
        return [(buffer.start[0], buffer.exists[0]) for buffer in buffers]
    memory, found = agent.memory, []
    for part in memory.parts.values():
        place = torch.from_numpy((memory._begun % memory.places).repeat(part.size))
        where = (place, torch.arange(part.rows))
        found.append((part.start[where], part.exists[where]))
    return found


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
    if isinstance(value, np.ndarray):
        # A central critic that sees nothing has no value; and not a number equals nothing.
        return ["none"] * len(value) if np.isnan(value).all() else value.tolist()
    return list(value.tensors)


def random_states(agent: Any) -> list[Any]:
    """Where each group's stream of random numbers is."""
    return [group.generator.get_state() for group in agent.groups]
