"""Values that come from NumPy or from enumerations: what is taken can be saved and loaded."""

import enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from support.contract import behaviour
from support.evolving import assert_same, snapshot

from recurrent_rl import (
    DQN,
    IPPO,
    MATD3,
    PPO,
    SAC,
    HyperparameterConfig,
    RLParameter,
    create_population,
)
from recurrent_rl.algorithms.individual import Birth

SEEN, DONE = Box(-1, 1, (3,)), Discrete(3)


class Text(enum.StrEnum):
    GRU = "gru"
    RELU = "ReLU"
    LINEAR = "linear"
    SUM = "sum"
    A = "a_0"
    B = "a_1"
    GROUP = "all"
    EPISODES = "episodes"
    ZERO = "zero"


class Number(enum.IntEnum):
    FOUR = 4


def encoder(**options: Any) -> dict[str, Any]:
    return {"net_config": {"encoder_config": options}}


OF_ANY_AGENT: dict[str, dict[str, Any]] = {
    "cell": encoder(cell=np.random.default_rng(0).choice(["gru"])),
    "cell enum": encoder(cell=Text.GRU),
    "activation": encoder(activation=np.str_("ReLU")),
    "activation enum": encoder(activation=Text.RELU),
    "key": encoder(**{np.str_("num_layers"): np.int32(2)}),
    "sizes": encoder(hidden_size=np.array([4, 5]), hidden_state_size=Number.FOUR),
    "lr_schedule": {"lr_schedule": np.str_("linear"), "total_steps": np.int64(100)},
    "lr_schedule enum": {"lr_schedule": Text.LINEAR, "total_steps": 100},
    "numbers": {"lr": np.float32(1e-3), "gamma": np.float64(0.9), "learn_step": np.int64(8)},
    "bools": {"share_encoders": np.bool_(False), "normalize_obs": np.bool_(True)},
    "seed": {"seed": np.random.default_rng(0).integers(100)},
    "seed uint64": {"seed": np.uint64(3)},
}
OF_TEAMS: dict[str, dict[str, Any]] = {
    "ids": {"agent_ids": np.array(["a_0", "a_1"])},
    "ids enum": {"agent_ids": [Text.A, Text.B]},
    "groups": {"groups": {np.str_("all"): np.array(["a_0", "a_1"])}},
    "groups enum": {"groups": {Text.GROUP: (Text.A, Text.B)}},
    "agent_id_input": {"agent_id_input": np.bool_(True)},
    "team_reward": {"team_reward": np.str_("mean")},
    "team_reward enum": {"team_reward": Text.SUM},
}


OF_REPLAYS: dict[str, dict[str, Any]] = {
    "memory": {"memory_size": np.int64(50), "batch_size": np.uint8(5), "n_step": Number.FOUR},
    "sampling": {"sampling": np.str_("priority"), "priority_mix": np.float32(0.5)},
    "sampling enum": {"sampling": Text.EPISODES, "stored_state": Text.ZERO},
    "step sizes": {
        "lr_encoder": np.float32(1e-3),
        "tau": np.float16(0.5),
        "gamma": np.float64(0.9),
    },
    "None": {"max_grad_norm": np.float32(0.5), "learning_starts": np.int64(0)},
}
OF_EACH: dict[Any, dict[str, dict[str, Any]]] = {
    DQN: {
        "dqn": {"huber": np.float32(1), "dueling": np.True_, "epsilon_steps": np.int16(5)},
        "keys": {np.str_("double"): np.False_},
    },
    SAC: {"sac": {"ent_coef": np.float16(0.5), "target_entropy": np.int64(-1)}},
    MATD3: {
        "matd3": {"policy_freq": np.int8(3), "o_u_noise": np.True_, "mean_noise": np.float32(-1)},
        "pairs": {"action_pairs": np.True_, "recurrent": np.False_},
    },
}


def ppo(seen: Any = SEEN, **options: Any) -> PPO:
    return PPO(seen, DONE, **options)


def ippo(seen: Any = SEEN, **options: Any) -> IPPO:
    ids = options.pop("agent_ids", ["a_0", "a_1"])
    return IPPO(dict.fromkeys(ids, seen), dict.fromkeys(ids, DONE), ids, **options)


def assert_plain(value: Any, where: str = "") -> None:
    kinds = (bool, int, float, str, type(None), dict, list, tuple)
    parts: Any = ()
    if isinstance(value, dict):
        parts = [*value.items(), *((key, key) for key in value)]
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    elif not isinstance(value, torch.Tensor):
        assert type(value) in kinds, (where, type(value))
    for key, part in parts:
        assert_plain(part, f"{where}.{key}")


@pytest.mark.parametrize(
    ("build", "options"),
    [
        *((ppo, options) for options in OF_ANY_AGENT.values()),
        *((ippo, options) for options in (OF_ANY_AGENT | OF_TEAMS).values()),
    ],
    ids=[*OF_ANY_AGENT, *(f"team {name}" for name in OF_ANY_AGENT | OF_TEAMS)],
)
def test_saved_and_loaded(build: Any, options: dict[str, Any], tmp_path: Path) -> None:
    agent = build(**options)
    assert_plain({k: v for k, v in snapshot(agent).items() if k != "groups"})
    for trainer in agent.trainers.values():
        assert_plain([trainer.config.to_dict(), trainer.net_config.to_dict()])
        assert_plain([trainer.group.seed, list(trainer.agents), trainer.group.identify])
    agent.save_checkpoint(tmp_path / "agent.pt")
    torch.load(tmp_path / "agent.pt", weights_only=True)
    other = type(agent).load(tmp_path / "agent.pt")
    assert_same(snapshot(agent), snapshot(other))
    agent.load_checkpoint(tmp_path / "agent.pt")
    assert_same(snapshot(other), snapshot(agent))


FROM_REPLAYS: list[tuple[Any, str, dict[str, Any]]] = [
    (kind, name, options)
    for kind, own in OF_EACH.items()
    for name, options in {
        **OF_REPLAYS,
        **own,
        **{name: OF_ANY_AGENT[name] for name in ("cell", "key", "sizes", "seed uint64")},
        **(OF_TEAMS if kind is MATD3 else {}),
    }.items()
]


@pytest.mark.parametrize(
    ("kind", "options"),
    [(kind, options) for kind, _, options in FROM_REPLAYS],
    ids=[f"{kind.__name__} {name}" for kind, name, _ in FROM_REPLAYS],
)
def test_saved_and_loaded_with_a_replay(kind: Any, options: dict[str, Any], tmp_path: Path) -> None:
    options = dict(options)
    spaces: tuple[Any, ...] = (SEEN, DONE)
    if kind is MATD3:
        ids = options.pop("agent_ids", ["a_0", "a_1"])
        spaces = dict.fromkeys(ids, SEEN), dict.fromkeys(ids, DONE), ids
    agent = kind(*spaces, **options)
    assert_plain({k: v for k, v in snapshot(agent).items() if k != "groups"})
    for trainer in agent.trainers.values():
        assert_plain([trainer.config.to_dict(), trainer.net_config.to_dict(), trainer.group.seed])
    agent.save_checkpoint(tmp_path / "agent.pt", save_replay=True)
    torch.load(tmp_path / "agent.pt", weights_only=True)
    other = kind.load(tmp_path / "agent.pt")
    assert_same(snapshot(agent), snapshot(other))
    assert other.memory.memory_size == agent.memory.memory_size == int(agent.config.memory_size)


@pytest.mark.parametrize("build", [ppo, ippo])
@pytest.mark.parametrize("keys", [(np.str_("x"), np.str_("y")), (0, 1), (Text.A, Text.B)], ids=str)
def test_keys_of_dict_spaces(build: Any, keys: Any, tmp_path: Path) -> None:
    agent = build(Dict({keys[0]: SEEN, keys[1]: Discrete(2)}))
    agent.save_checkpoint(tmp_path / "agent.pt")
    other = type(agent).load(tmp_path / "agent.pt")
    agent.load_checkpoint(tmp_path / "agent.pt")
    for name in agent._fixed:
        assert getattr(agent, name) == getattr(other, name)


def test_histories(tmp_path: Path) -> None:
    agent = ppo()
    agent.fitness.append(np.float64(1.5))
    agent.steps.append(np.int64(3))  # type: ignore[arg-type]
    agent.scores += [np.mean([1.0]), torch.tensor(2.0), np.array([3.0, 4.0])]  # type: ignore
    agent.save_checkpoint(tmp_path / "agent.pt")
    other = PPO.load(tmp_path / "agent.pt")
    assert (other.fitness, other.steps) == ([1.5], [0, 3])
    assert other.scores == [1.0, 2.0, [3.0, 4.0]]


def test_population(tmp_path: Path) -> None:
    config = HyperparameterConfig(lr=RLParameter(min=np.float32(1e-4), max=np.float64(1e-2)))
    init_hp = {"LR": np.float32(1e-3), "LR_SCHEDULE": np.str_("linear"), "TOTAL_STEPS": 100}
    for agent in create_population(
        "PPO", SEEN, DONE, INIT_HP=init_hp, hp_config=config, population_size=2, seed=np.int64(3)
    ):
        agent.lineage.append(Birth(np.int64(5), mutation=np.str_("lr")))  # type: ignore[arg-type]
        agent.save_checkpoint(tmp_path / "agent.pt")
        other = PPO.load(tmp_path / "agent.pt")
        assert other.hp_config == config
        assert (other.index, other.mut) == (5, "lr")


@pytest.mark.parametrize("name", ["encoder_config", "head_config"])
def test_groups_that_net_config_would_take_for_its_own(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^groups: expected names that net_config .*'{name}'"):
        ippo(groups={name: ["a_0", "a_1"]})
    with pytest.raises(ValueError, match=rf"^groups: expected names that net_config .*'{name}'"):
        ippo(agent_ids=[name, "a_1"])


@pytest.mark.parametrize("build", [ppo, ippo])
@pytest.mark.parametrize("seed", ["1", 1.5, True, -1, 2**63])
def test_seeds_that_are_none(build: Any, seed: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^seed: expected "):
        build(seed=seed)


def test_test_takes_a_numpy_seed() -> None:
    import gymnasium as gym

    env = gym.make("CartPole-v1", max_episode_steps=5)
    agent = PPO(env.observation_space, env.action_space)  # type: ignore[arg-type]
    assert agent.test(env, seed=np.int64(3)) == agent.test(env, seed=3)


@pytest.mark.parametrize("build", [ppo, ippo])
@pytest.mark.parametrize(
    "change",
    [
        {"normalize_obs": True},
        {"previous_action": True},
        {"previous_reward": True},
        {"share_encoders": False},
        {"recurrent": False},
        {"ortho_init": False},
        {"max_seq_len": 8, "burn_in": 2},
        {"normalize_reward": False},
    ],
    ids=str,
)
def test_built_in_options_cannot_change_and_load_the_same(
    build: Any, change: dict[str, Any], tmp_path: Path
) -> None:
    agent = build()
    before = snapshot(agent)
    with pytest.raises(ValueError, match=r"built into the agent; build another agent with"):
        agent.reconfigure(**change)
    assert_same(before, snapshot(agent))
    agent = build(seed=1, **change)
    agent.save_checkpoint(tmp_path / "agent.pt")
    other = type(agent).load(tmp_path / "agent.pt")
    for deterministic in (True, False):
        ours, theirs = (behaviour(each, deterministic=deterministic) for each in (agent, other))
        assert_same(ours, theirs)
