"""Whatever is given to a public constructor makes sense, or is refused by its name."""

import math
import re
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from support.envs import Recall
from support.multi_envs import RecallTeam

from recurrent_rl import (
    DDPG,
    DQN,
    IPPO,
    MADDPG,
    MATD3,
    PPO,
    SAC,
    TD3,
    HyperparameterConfig,
    MaskVelocityWrapper,
    MultiAgentReplayBuffer,
    Mutations,
    PPOConfig,
    RLParameter,
    SequenceReplayBuffer,
    TournamentSelection,
    create_population,
    load_tuned,
    make_multi_agent_vect_envs,
    make_vect_envs,
)

NONSENSE: list[Any] = [
    None,
    math.nan,
    math.inf,
    -1,
    14,
    10**400,
    1.5,
    True,
    "banana",
    b"x",
    [None],
    {"a": 1},
    set(),
    object(),
    int,
    np.int64(-3),
    np.float64("nan"),
    np.array([1, 2]),
    np.array(3.0),
    torch.tensor(2.0),
    torch.zeros(3),
    1j,
]
SEEN, DONE = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2)
SMALL = {"encoder_config": {"hidden_state_size": 4}, "head_config": {"hidden_size": [4]}}
ONE = {"observation_space": SEEN, "action_space": DONE, "net_config": SMALL}
TEAM = {
    "observation_spaces": {"a_0": SEEN, "b_0": SEEN},
    "action_spaces": {"a_0": DONE, "b_0": DONE},
    "agent_ids": ["a_0", "b_0"],
    "net_config": SMALL,
}
NETWORKS = ["actor_network", "critic_network", "device", "seed"]
SHARES = ("no_mutation", "architecture", "new_layer_prob", "parameters", "activation", "rl_hp")
OTHERS = ("mutation_sd", "activation_selection", "mutate_elite", "min_width", "max_width")
OTHERS += ("max_residual_layers", "rand_seed", "device")
# What is called, arguments that make sense, and which of the arguments are tried.
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any], list[str]]] = {
    "PPO": (PPO, ONE, [*ONE, *NETWORKS, *PPOConfig().to_dict()]),
    "IPPO": (IPPO, TEAM, [*TEAM, *NETWORKS, "groups", "agent_id_input", "team_reward", "lr"]),
    "create_population": (
        create_population,
        {"algo": "PPO", **ONE, "population_size": 1},
        ["algo", *ONE, *NETWORKS, "INIT_HP", "hp_config", "population_size", "num_envs", "spread"],
    ),
    "TournamentSelection": (
        TournamentSelection,
        {"tournament_size": 1, "elitism": True, "population_size": 1},
        ["tournament_size", "elitism", "population_size", "eval_loop", "rand_seed"],
    ),
    "Mutations": (
        Mutations,
        dict.fromkeys(SHARES, 0.5),
        [*SHARES, *OTHERS],
    ),
    "RLParameter": (
        RLParameter,
        {"min": 0.1, "max": 0.5},
        ["min", "max", "shrink_factor", "grow_factor", "dtype"],
    ),
    "HyperparameterConfig": (HyperparameterConfig, {}, ["lr", "gamma", "learn_step"]),
    "MaskVelocityWrapper": (
        MaskVelocityWrapper,
        {"env": gym.make("CartPole-v1")},
        ["env", "indices"],
    ),
    "make_vect_envs": (
        make_vect_envs,
        {"make_env": Recall, "num_envs": 1, "should_async_vector": False},
        ["num_envs", "make_env"],
    ),
    "make_multi_agent_vect_envs": (
        make_multi_agent_vect_envs,
        {"env": RecallTeam, "num_envs": 1, "should_async_vector": False},
        ["num_envs", "env"],
    ),
    "load_tuned": (load_tuned, {}, ["env_id"]),
    "SequenceReplayBuffer": (SequenceReplayBuffer, {"memory_size": 10}, ["memory_size"]),
    "MultiAgentReplayBuffer": (
        MultiAgentReplayBuffer,
        {"memory_size": 10, "agent_ids": ["a_0", "b_0"]},
        ["memory_size", "field_names", "agent_ids", "device", "groups", "seed"],
    ),
}
BOX = {**ONE, "action_space": gym.spaces.Box(-1, 1, (2,))}
seen = set(PPOConfig.names())
for kind, sensible in (
    (DQN, ONE),
    (SAC, BOX),
    (DDPG, BOX),
    (TD3, ONE),
    (MADDPG, TEAM),
    (MATD3, TEAM),
):
    names = [*sensible, *NETWORKS]
    if sensible is TEAM:  # without memory, as action_pairs needs it
        sensible = {**TEAM, "recurrent": False}
        names += ["groups", "agent_id_input", "team_reward", "action_pairs"]
    names += [name for name in kind.config_type.names() if name not in seen]
    seen |= set(names)
    CALLS[kind.__name__] = kind, sensible, names
SIGNED = ("mean_noise", "target_entropy")
NAMES = {"net_config": "net_config|NetConfig", "observation_spaces": "observation_space"}


@pytest.mark.parametrize(
    ("call", "name"), [(call, name) for call, (_, _, names) in CALLS.items() for name in names]
)
def test_nonsense_is_refused_by_name(call: str, name: str) -> None:
    function, sensible, _ = CALLS[call]
    message = rf"\b({NAMES.get(name, name)})"
    if name == "env":
        message += "|make_env"
    for value in NONSENSE:
        said = None
        try:
            function(**{**sensible, name: value})
        except (TypeError, ValueError) as error:
            said = str(error)
        # Any other kind of error fails this test; so does one that leaves open what was wrong.
        if said is not None:
            assert re.search(message, said), (value, said)
        elif name in SIGNED:
            assert value is None or math.isfinite(value), value
        elif name != "indices":  # which may be an array
            assert value is None or isinstance(value, bool | int | float), value
            assert value in (None, 14, 1.5, True), value


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("TournamentSelection", "elitism"),
        ("Mutations", "mutate_elite"),
        ("IPPO", "agent_id_input"),
        ("PPO", "recurrent"),
        ("DQN", "double"),
        ("DDPG", "o_u_noise"),
        ("MADDPG", "action_pairs"),
        ("create_population", "spread"),
    ],
)
def test_only_a_bool_is_a_bool(call: str, name: str) -> None:
    function, sensible, _ = CALLS[call]
    for value in (14, 0, 1, "banana", "", "True", None, math.nan, [], np.array([True])):
        with pytest.raises(TypeError, match=name):
            function(**{**sensible, name: value})
    for flag in (np.True_, np.False_):
        assert function(**{**sensible, name: flag}) is not None
