"""Tests of `recurrent_rl.evolution.population`: from dictionaries, and from checkpoints."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from support.evolving import assert_same, individual, snapshot

from recurrent_rl import (
    IPPO,
    PPO,
    Birth,
    CheckpointError,
    HyperparameterConfig,
    NetConfig,
    PPOConfig,
    RLParameter,
    checkpoint,
    create_population,
    load_population,
)
from recurrent_rl.evolution.run_keys import RUN_KEYS

VECTOR, CHOICE = Box(-1, 1, (3,)), Discrete(2)
SMALL: dict[str, Any] = {
    "encoder_config": {"hidden_state_size": 4},
    "head_config": {"hidden_size": [3]},
}
RANGES = HyperparameterConfig(
    lr=RLParameter(1e-4, 1e-2),
    learn_step=RLParameter(10, 200, dtype=int),
    ent_coef=RLParameter(0, 0.1),
)


def create(size: int = 3, init_hp: Any = None, **options: Any) -> list[Any]:
    """PPO agents for small spaces."""
    given = {"net_config": SMALL, "INIT_HP": init_hp, "population_size": size, "seed": 0}
    return create_population("PPO", VECTOR, CHOICE, **{**given, **options})


def create_teams(init_hp: Any, observation: Any = None, action: Any = None) -> list[Any]:
    return create_population(
        "IPPO",
        [VECTOR] * 3 if observation is None else observation,
        [CHOICE] * 3 if action is None else action,
        SMALL,
        init_hp,
        population_size=2,
        seed=0,
    )


# --- dictionaries -------------------------------------------------------------------------------


def test_every_hyperparameter_in_upper_case() -> None:
    wanted: dict[str, Any] = {
        name: {bool: not value, int: 3, float: 0.5}.get(type(value), value)
        for name, value in PPOConfig().to_dict().items()
    }
    wanted |= {"lr_schedule": "linear", "total_steps": 1000, "target_kl": 0.1, "burn_in": 2}
    wanted["state_dependent_std"] = False  # excluded by use_sde
    init_hp = {name.upper(): value for name, value in wanted.items()}
    (agent,) = create_population("PPO", VECTOR, Box(-1, 1, (2,)), SMALL, init_hp, population_size=1)
    assert agent.config.to_dict() == wanted


def test_networks_as_the_algorithm_takes_them() -> None:
    for agent in create(2):
        assert agent.net_config == NetConfig.from_dict(SMALL)
    assert create(1, net_config=None)[0].net_config == NetConfig()
    assert create(1, net_config=NetConfig.from_dict(SMALL))[0].net_config == agent.net_config


def test_sequence_length_in_either_place() -> None:
    encoder = {**SMALL["encoder_config"], "max_seq_len": 5}
    (of_encoder,) = create(1, net_config={**SMALL, "encoder_config": encoder})
    (of_learning,) = create(1, {"MAX_SEQ_LEN": 5})
    for agent in (of_encoder, of_learning):
        assert agent.config == PPOConfig(max_seq_len=5)
        assert agent.net_config == NetConfig.from_dict(SMALL)


RUN = {
    "ALGO": "PPO",
    "CHANNELS_LAST": True,
    "ELITISM": True,
    "ENV_NAME": "CartPole-v1",
    "EVAL_LOOP": 1,
    "EVAL_STEPS": None,
    "EVO_STEPS": 10_000,
    "LEARNING_DELAY": 0,
    "MAX_STEPS": 100_000,
    "NUM_ENVS": 16,
    "POP_SIZE": 1,
    "TARGET_SCORE": 500,
    "TOURN_SIZE": 2,
    "WANDB": False,
}


def test_what_describes_the_run_is_left_to_it() -> None:
    assert RUN.keys() == RUN_KEYS.keys()
    with pytest.warns(UserWarning, match=r"INIT_HP\['CHANNELS_LAST'\] has no effect"):
        (agent,) = create(1, {**RUN, "LR": 0.5})
    assert agent.config == PPOConfig(lr=0.5)


@pytest.mark.parametrize("key", sorted(RUN_KEYS))
def test_what_describes_the_run_is_checked(key: str) -> None:
    for value in ("banana" if key not in ("ALGO", "ENV_NAME") else 14, -5, math.nan, b"", object()):
        if key == "TARGET_SCORE" and value == -5:
            continue
        with pytest.raises(
            (TypeError, ValueError), match=rf"^INIT_HP\['{key}'\]: expected .*, got "
        ):
            create(1, {key: value})


@pytest.mark.parametrize(
    ("key", "where"),
    [
        ("HIDDEN_STATE_SIZE", "net_config="),
        ("RL_HP_MUT", r"Mutations\(rl_hp="),
        ("SEED", r"create_population\(seed="),
    ],
)
def test_what_belongs_elsewhere_says_where(key: str, where: str) -> None:
    with pytest.raises(ValueError, match=rf"^INIT_HP\['{key}'\]: expected it in {where}"):
        create(1, {key: 64})


def test_sizes_must_be_those_of_the_call() -> None:
    assert len(create(2, {"POP_SIZE": 2, "NUM_ENVS": 8}, num_envs=8)) == 2
    with pytest.raises(ValueError, match=r"^population_size: expected 6, as INIT_HP\['POP_SIZE'\]"):
        create(2, {"POP_SIZE": 6})
    with pytest.raises(ValueError, match=r"^num_envs: expected 8, as INIT_HP\['NUM_ENVS'\]"):
        create(1, {"NUM_ENVS": 8}, num_envs=4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INIT_HP", [("LR", 1)]),
        ("INIT_HP", "LR"),
        ("hp_config", {"lr": 1}),
        ("hp_config", "lr"),
        ("seed", "one"),
        ("seed", math.nan),
        ("spread", "banana"),
        ("device", 7),
        ("population_size", 2.0),
    ],
)
def test_arguments_of_the_wrong_type(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{name}: expected .*, got "):
        create_population("PPO", VECTOR, CHOICE, **{name: value})


def test_what_is_always_so() -> None:
    assert create(1, {"USE_ROLLOUT_BUFFER": True})[0].config == PPOConfig()
    with pytest.raises(ValueError, match=r"INIT_HP\['USE_ROLLOUT_BUFFER'\]: expected True"):
        create(1, {"USE_ROLLOUT_BUFFER": False})


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("LEARN_STEPS", "LEARN_STEP"),
        ("BATCHSIZE", "BATCH_SIZE"),
        ("USE_ROLLOUT_BUFFER ", "USE_ROLLOUT_BUFFER"),
        ("LR ", "LR"),
        ("MAX_STEP", "MAX_STEPS"),
        ("GAMA", "GAMMA"),
    ],
)
def test_unknown_keys(key: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"INIT_HP has no option '{key}'; did you mean '{near}'"):
        create(1, {key: True})


@pytest.mark.parametrize("key", ["lr", "AGENT_IDS", "GROUPS", "TEAM_REWARD", "AGENT_ID_INPUT"])
def test_keys_that_mean_nothing_to_one_agent(key: str) -> None:
    with pytest.raises(ValueError, match=f"INIT_HP has no option '{key}'"):
        create(1, {key: None})


def test_horizon_of_a_schedule() -> None:
    schedule = {"LR_SCHEDULE": "linear", "MAX_STEPS": 5000}
    assert create(1, schedule)[0].config.total_steps == 5000
    assert create(1, {**schedule, "TOTAL_STEPS": 70})[0].config.total_steps == 70
    assert create(1, {"MAX_STEPS": 5000})[0].config.total_steps is None
    with pytest.raises(ValueError, match="total_steps"):
        create(1, {"LR_SCHEDULE": "linear"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, r"population_size: expected a number in \[1, 10000\], got 0"),
        ({"num_envs": 0}, r"num_envs: expected a number in \[1, 1e\+15\], got 0"),
        ({"init_hp": {"GAMMA": 2}}, r"PPOConfig\.gamma"),
        ({"init_hp": {"ALGO": "IPPO"}}, r"INIT_HP\['ALGO'\]: expected 'PPO' as in algo"),
        ({"net_config": {"encoder": {}}}, "NetConfig has no option 'encoder'"),
    ],
)
def test_wrong_values(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create(**options)


def test_ranges_of_what_the_algorithm_does_not_have() -> None:
    config = HyperparameterConfig(lr=RLParameter(1e-4, 1e-2))
    config.parameters["tau"] = RLParameter(0.001, 0.1)
    with pytest.raises(ValueError, match=r"^hp_config of PPO has no option 'tau'.* batch_size"):
        create(2, hp_config=config)


@pytest.mark.parametrize("algo", ["ppo", "A2C"])
def test_unknown_algorithm(algo: str) -> None:
    known = "DDPG, DQN, IPPO, MADDPG, MAPPO, MATD3, PPO, SAC, TD3"
    with pytest.raises(ValueError, match=f"has no option '{algo}'.*Known options: {known}"):
        create_population(algo, VECTOR, CHOICE)


DOCUMENTED: dict[str, Any] = {
    "BATCH_SIZE": 32,
    "O_U_NOISE": True,
    "EXPL_NOISE": 0.2,
    "MEAN_NOISE": 0.0,
    "THETA": 0.15,
    "DT": 0.01,
    "LR_ACTOR": 0.001,
    "LR_CRITIC": 0.002,
    "GAMMA": 0.95,
    "MEMORY_SIZE": 1000,
    "LEARN_STEP": 100,
    "TAU": 0.01,
    "POLICY_FREQ": 2,
    "POP_SIZE": 2,
}
PAIR: dict[str, Any] = {
    "observation_space": [VECTOR, Box(-1, 1, (5,))],
    "action_space": [Box(-1, 1, (2,)), CHOICE],
}
ONE: dict[str, Any] = {"observation_space": VECTOR, "action_space": Box(-1, 1, (2,))}


@pytest.mark.parametrize(
    ("algo", "spaces"),
    [
        ("MADDPG", PAIR),
        ("MATD3", PAIR),
        ("DDPG", ONE),
        ("TD3", ONE),
        ("SAC", ONE),
        ("DQN", {**ONE, "action_space": CHOICE}),
    ],
)
def test_dictionaries_of_off_policy_algorithms(algo: str, spaces: Any) -> None:
    init_hp = dict(DOCUMENTED)
    if spaces is PAIR:
        init_hp["AGENT_IDS"] = ["speaker_0", "listener_0"]
    if algo in ("DQN", "SAC"):
        noise = ("O_U_NOISE", "EXPL_NOISE", "MEAN_NOISE", "THETA", "DT")
        init_hp = {key: value for key, value in init_hp.items() if key not in noise}
    rates = ["lr_actor", "lr_critic"]
    if algo == "DQN":
        rates = ["lr"]
        init_hp = {"LR": 0.001} | {
            key: value for key, value in init_hp.items() if not key.startswith(("LR_", "POLICY_"))
        }
    config = HyperparameterConfig(
        batch_size=RLParameter(8, 512, dtype=int),
        learn_step=RLParameter(20, 200, dtype=int, grow_factor=1.5, shrink_factor=0.75),
        **{name: RLParameter(1e-4, 1e-2) for name in rates},
    )
    # A seed, as one draw in 180 is what the other agent has.
    options = {"INIT_HP": init_hp, "hp_config": config, "population_size": 2, "seed": 0}
    first, second = create_population(algo, **spaces, net_config=SMALL, **options)
    for key in init_hp.keys() - {"AGENT_IDS", "POP_SIZE"}:
        assert getattr(first.config, key.lower()) == init_hp[key]
    assert type(first).__name__ == algo
    for name in config.parameters:  # of all groups alike
        values = {getattr(trainer.config, name) for trainer in second.trainers.values()}
        assert len(values) == 1
        assert values != {getattr(first.config, name)}


# --- members ------------------------------------------------------------------------------------


def test_members_are_numbered_and_differ() -> None:
    agents = create(4, hp_config=RANGES, num_envs=8)
    assert all(type(agent) is PPO for agent in agents)
    assert [agent.lineage for agent in agents] == [[Birth(i)] for i in range(4)]
    assert all(agent.hp_config == RANGES for agent in agents)
    assert len({agent.seed for agent in agents}) == 4
    weights = {tuple(a.policy.action_head.layers[0].weight.flatten().tolist()) for a in agents}
    streams = {tuple(agent.group.generator.get_state().tolist()) for agent in agents}
    assert len(weights) == len(streams) == 4


def test_reproducible_from_their_seed() -> None:
    runs = [[snapshot(a) for a in create(3, hp_config=RANGES, seed=s)] for s in (1, 1, 2)]
    assert_same(runs[0], runs[1])
    assert not {a["seed"] for a in runs[0]} & {a["seed"] for a in runs[2]}
    assert [a["groups"][""]["config"] for a in runs[0]][1:] != [
        a["groups"][""]["config"] for a in runs[2]
    ][1:]


def test_members_do_not_depend_on_how_many_there_are() -> None:
    assert_same(snapshot(create(1)[0]), snapshot(create(3)[0]))


def test_without_a_seed_all_is_new() -> None:
    first, second = (create(1, seed=None)[0] for _ in range(2))
    assert not torch.equal(
        first.policy.action_head.layers[0].weight, second.policy.action_head.layers[0].weight
    )


def test_global_random_state_is_left_alone() -> None:
    np.random.seed(1)  # noqa: NPY002 - of which this is the test
    torch.manual_seed(1)
    expected = torch.rand(2).tolist(), np.random.rand(2).tolist()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    create(2, hp_config=RANGES)
    assert (torch.rand(2).tolist(), np.random.rand(2).tolist()) == expected  # noqa: NPY002


# --- spread -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_hyperparameters_are_spread_over_their_ranges(seed: int) -> None:
    init = {"LR": 0.5, "LEARN_STEP": 32}
    agents = create(6, init, hp_config=RANGES, seed=seed)
    assert agents[0].config == PPOConfig(lr=0.5, learn_step=32)
    # One in each fifth of each range: of the logarithm, where there is one.
    learn_step = [np.log(a.config.learn_step / 10) / np.log(20) for a in agents[1:]]
    lr = [np.log10(a.config.lr / 1e-4) / 2 for a in agents[1:]]
    ent_coef = [a.config.ent_coef / 0.1 for a in agents[1:]]
    for shares in (lr, ent_coef):
        assert sorted(int(5 * share) for share in shares) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(sorted(learn_step), np.arange(5) / 5 + 0.1, atol=0.13)
    assert np.argsort(lr).tolist() != np.argsort(ent_coef).tolist()
    fixed = {"lr": 0.5, "learn_step": 32, "ent_coef": 0.0}
    assert all(agent.config.replace(**fixed) == agents[0].config for agent in agents)


def test_all_start_alike_if_told() -> None:
    agents = create(4, {"LR": 0.5}, hp_config=RANGES, spread=False)
    assert all(agent.config == PPOConfig(lr=0.5) for agent in agents)
    assert all(agent.hp_config == RANGES for agent in agents)


def test_nothing_to_spread() -> None:
    assert [agent.config for agent in create(2)] == [PPOConfig()] * 2
    assert create(1, hp_config=RANGES)[0].config == PPOConfig()


# --- teams --------------------------------------------------------------------------------------


def test_teams_from_lists_of_spaces() -> None:
    agents = create_teams(
        {
            "AGENT_IDS": ["bob_0", "fred_0", "bob_1"],
            "AGENT_ID_INPUT": True,
            "TEAM_REWARD": "mean",
            "LR": 0.5,
            "POP_SIZE": 2,
        }
    )
    assert all(type(agent) is IPPO for agent in agents)
    for agent in agents:
        assert agent.grouped_agents == {"bob": ["bob_0", "bob_1"], "fred": ["fred_0"]}
        assert (agent.agent_id_input, agent.team_reward) == (True, "mean")
        assert all(t.config == PPOConfig(lr=0.5) for t in agent.trainers.values())
        assert all(group.net_config == NetConfig.from_dict(SMALL) for group in agent.groups)
    assert [agent.index for agent in agents] == [0, 1]


def test_teams_from_dictionaries_with_groups_of_their_own() -> None:
    names = ["a_0", "a_1"]
    spaces = dict.fromkeys(names, VECTOR), dict.fromkeys(names, CHOICE)
    groups = {"x": ["a_1"], "y": ["a_0"]}
    assert create_teams({"GROUPS": groups}, *spaces)[1].grouped_agents == groups


def test_teams_are_spread_alike_in_all_groups() -> None:
    agents = create_population(
        "IPPO",
        [VECTOR] * 2,
        [CHOICE] * 2,
        SMALL,
        {"AGENT_IDS": ["bob_0", "fred_0"]},
        RANGES,
        population_size=3,
        seed=0,
    )
    configs = [[trainer.config for trainer in agent.trainers.values()] for agent in agents]
    assert all(bob == fred for bob, fred in configs)
    assert configs[0][0] == PPOConfig()
    assert len({config.lr for config, _ in configs}) == 3


def test_team_whose_agents_are_not_named() -> None:
    with pytest.raises(ValueError, match="agent_ids: expected the names"):
        create_teams({})


# --- hyper-parameters of an agent ---------------------------------------------------------------


def test_reconfigured_agents_keep_what_they_know() -> None:
    agent = individual()
    before, before_lr = snapshot(agent), agent.config.lr
    agent.reconfigure(lr=0.5, learn_step=4)
    assert (agent.config.lr, agent.learn_step) == (0.5, 4)
    after = snapshot(agent)
    (ours,), (theirs,) = after["groups"].values(), before["groups"].values()
    assert ours.pop("config") != theirs.pop("config")
    rates = [group["optimizer"]["param_groups"][0].pop("lr") for group in (ours, theirs)]
    assert rates == [0.5, before_lr]
    assert_same(after, before)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"lr": -1}, ValueError, r"PPOConfig\.lr"),
        ({"lrr": 1}, ValueError, "did you mean 'lr'"),
        ({"learn_step": 1.5}, TypeError, r"PPOConfig\.learn_step: expected int"),
        ({"burn_in": 4}, ValueError, "less than max_seq_len = 4, got 4"),
        ({"burn_in": 3}, ValueError, "got 'burn_in', which is built into the agent"),
    ],
)
def test_refused_changes_change_nothing(changes: Any, kind: type[Exception], message: str) -> None:
    agent = individual()
    before = agent.config
    with pytest.raises(kind, match=message):
        agent.reconfigure(**changes)
    assert agent.config is before


# --- checkpoints --------------------------------------------------------------------------------


def save(path: Path, agents: list[Any]) -> Path:
    checkpoint.save({"population": [agent.to_checkpoint() for agent in agents]}, path)
    return path


def test_loaded_population_is_the_one_that_was_saved(tmp_path: Path) -> None:
    agents = [*create(2, hp_config=RANGES), *create_teams({"AGENT_IDS": ["a_0", "b_0", "a_1"]})]
    agents[1].elite, agents[1].fitness = True, [3.0]
    loaded = load_population(save(tmp_path / "population.pt", agents))
    assert [type(agent) for agent in loaded] == [PPO, PPO, IPPO, IPPO]
    assert loaded[0].hp_config == RANGES
    for ours, theirs in zip(loaded, agents, strict=True):
        assert_same(snapshot(ours), snapshot(theirs))


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_population(tmp_path / "population.pt")


def test_saved_agent_is_no_population(tmp_path: Path) -> None:
    path = tmp_path / "agent.pt"
    individual().save_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"got a saved 'PPO'; load it with PPO\.load"):
        load_population(path)
    save(path, create(1))
    with pytest.raises(CheckpointError, match="expected a saved PPO"):
        PPO.load(path)


def test_truncated_and_foreign_files(tmp_path: Path) -> None:
    path = save(tmp_path / "population.pt", create(1))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated or foreign"):
        load_population(path)
    path.write_text("step,return\n")
    with pytest.raises(CheckpointError, match="truncated or foreign"):
        load_population(path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[1]["groups"][""].pop("config"),
        lambda data: data[0].update(algorithm="A2C"),
        lambda data: data[0]["groups"][""]["policy"].popitem(),
        lambda data: data.append(None),
    ],
)
def test_parts_that_do_not_fit(spoil: Any, tmp_path: Path) -> None:
    data = [snapshot(agent) for agent in create(2)]
    spoil(data)
    path = tmp_path / "population.pt"
    checkpoint.save({"population": data}, path)
    with pytest.raises(CheckpointError, match="the parts do not fit together"):
        load_population(path)
